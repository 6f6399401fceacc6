/* Addresses of migrations. Plain TCP to another host shows and trusts every byte of a guest to the network, so it is only done
 * when asked for in so many words. Main thread. */
#include "cmd/target.h"

#include "host/client.h"
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* HOST:PORT, [ADDRESS]:PORT; HOST may be empty. */
static int parse_host(const char *text, struct target *t, struct err *err)
{
    const char *colon = strrchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : strlen(text);

    if (text[0] == '[' && len && text[len - 1] == ']') {
        text++;
        len -= 2;
    } else if (memchr(text, ':', len)) {
        return err_set(err, EINVAL, "'%s': write an IPv6 address as [ADDRESS]:PORT", text);
    }
    if (len >= sizeof(t->host) || (colon && strlen(colon + 1) >= sizeof(t->port)))
        return err_set(err, EINVAL, "'%s' is too long for a host and a port", text);
    memcpy(t->host, text, len);
    if (colon)
        memcpy(t->port, colon + 1, strlen(colon + 1) + 1);
    return 0;
}

int target_parse(const char *text, struct target *ret_target, struct err *err)
{
    struct target t = {0};
    int rc = 0;

    if (!strncmp(text, "tcp://", 6)) {
        rc = parse_host(text + 6, &t, err);
        if (!rc && !t.port[0])
            rc = err_set(err, EINVAL, "'%s' has no port: tcp://HOST:PORT", text);
    } else if (!strncmp(text, "ssh://", 6)) {
        t.kind = TARGET_SSH;
        rc = parse_host(text + 6, &t, err);
        if (!rc && (!t.host[0] || t.host[0] == '-'))
            rc = err_set(err, EINVAL, "'%s' has no host: ssh://[USER@]HOST[:PORT]", text);
    } else if (!strncmp(text, "unix:", 5) && text[5]) {
        t.kind = TARGET_UNIX;
        t.path = text + 5;
    } else {
        rc = err_set(err, EINVAL,
                     "'%s' is no place: use tcp://HOST:PORT, unix:PATH or ssh://[USER@]HOST", text);
    }
    if (!rc)
        *ret_target = t;
    return rc;
}

static bool is_loopback(const struct sockaddr *a)
{
    const struct sockaddr_in *v4 = (const void *)a;
    const struct sockaddr_in6 *v6 = (const void *)a;

    if (a->sa_family == AF_INET)
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static int refuse_plain(const struct target *t, struct err *err)
{
    return err_set(err, EPERM,
                   "plain TCP beyond this host (%s) shows the guest's memory to everybody on the "
                   "way and lets them change it: use --psk or --cert, or ssh://, or say --insecure",
                   t->host[0] ? t->host : "all addresses");
}

void target_tune(int fd)
{
    int on = 1, idle_s = 10, interval_s = 5, probes = 3, timeout_ms = 20000;

    /* None of these exists for Unix sockets, where none is needed. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

static int resolve(const struct target *t, int flags, struct addrinfo **ret_list, struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};
    int rc = getaddrinfo(t->host[0] ? t->host : NULL, t->port, &hints, ret_list);

    return rc ? err_set(err, EHOSTUNREACH, "'%s', port '%s': %s", t->host, t->port,
                        gai_strerror(rc))
              : 0;
}

static int connect_tcp(const struct target *t, bool guarded, int *ret_fd, struct err *err)
{
    struct addrinfo *list;
    int rc = resolve(t, 0, &list, err), fd = -1;

    if (rc)
        return rc;
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
        if (guarded && !is_loopback(a->ai_addr)) {
            rc = refuse_plain(t, err);
            break;
        }
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd >= 0)
            target_tune(fd); /* its time-out bounds connecting, too */
        if (fd >= 0 && !connect(fd, a->ai_addr, a->ai_addrlen))
            break;
        rc = err_sys(err, errno, "cannot connect to %s:%s", t->host, t->port);
        if (fd >= 0)
            close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    if (fd < 0)
        return rc;
    *ret_fd = fd;
    return 0;
}

/* ssh runs the receiver at the other end; its standard input and output are the line. */
static int connect_ssh(const struct target *t, int *ret_fd, struct err *err)
{
    const char *ssh = getenv("TRAPEZE_SSH"), *remote = getenv("TRAPEZE_SSH_COMMAND");
    /* A line that carries nothing any more ends as one over TCP does, see target_tune(). */
    const char *argv[] = {ssh ? ssh : "ssh",
                          "-T",
                          "-o",
                          "BatchMode=yes",
                          "-o",
                          "ServerAliveInterval=5",
                          "-o",
                          "ServerAliveCountMax=4",
                          "-p",
                          t->port,
                          "--",
                          t->host,
                          remote ? remote : "trapeze receive -",
                          NULL};
    int pair[2];

    if (!t->port[0]) { /* without -p */
        memmove(&argv[8], &argv[10], 4 * sizeof(argv[0]));
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        return err_sys(err, errno, "ssh: socketpair");
    pid_t child = fork();
    if (!child) {
        dup2(pair[1], STDIN_FILENO);
        dup2(pair[1], STDOUT_FILENO);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        dprintf(STDERR_FILENO, "trapeze migrate: cannot run %s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    close(pair[1]);
    if (child < 0) {
        close(pair[0]);
        return err_sys(err, errno, "ssh: fork");
    }
    *ret_fd = pair[0];
    return 0;
}

int target_connect(const struct target *t, bool plain, bool insecure, int *ret_fd, struct err *err)
{
    /* Several messages of pages: with less than one, each is a change of processes or two. TCP sizes its own. */
    int fd, buffer = (int)(2 * MiB);

    switch (t->kind) {
    case TARGET_TCP:
        return connect_tcp(t, plain && !insecure, ret_fd, err);
    case TARGET_SSH:
        return connect_ssh(t, ret_fd, err);
    case TARGET_UNIX:
        fd = client_connect(t->path);
        if (fd < 0)
            return err_sys(err, -fd, "cannot connect to '%s'", t->path);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
        *ret_fd = fd;
        return 0;
    }
    return -EINVAL;
}

static int listen_tcp(const struct target *t, bool guarded, int *ret_fd, struct err *err)
{
    struct addrinfo *list;
    int rc = resolve(t, t->host[0] ? 0 : AI_PASSIVE, &list, err), on = 1;

    if (rc)
        return rc;
    int fd = -1;
    if (guarded && !is_loopback(list->ai_addr))
        rc = refuse_plain(t, err);
    else
        fd = socket(list->ai_family, list->ai_socktype | SOCK_CLOEXEC, list->ai_protocol);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (!rc &&
        (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) || listen(fd, MIN(SOMAXCONN, 64))))
        rc = err_sys(err, errno, "cannot listen at %s:%s", t->host, t->port);
    freeaddrinfo(list);
    if (rc && fd >= 0)
        close(fd);
    if (!rc)
        *ret_fd = fd;
    return rc;
}

int target_listen(const struct target *t, bool plain, bool insecure, int *ret_fd, struct err *err)
{
    if (t->kind == TARGET_TCP)
        return listen_tcp(t, plain && !insecure, ret_fd, err);
    if (t->kind == TARGET_SSH)
        return err_set(err, EINVAL, "ssh:// needs nothing started here: the source's ssh does it");
    int fd = client_listen(t->path);
    if (fd < 0)
        return err_sys(err, -fd, "cannot listen at '%s'", t->path);
    *ret_fd = fd;
    return 0;
}
