/*
 * sd_notify for a container. The program's socket lies in a directory of ours that is mounted into the
 * container, so that whoever starts the program (`run`, or `start` later) can bind it just before. Only
 * readiness is passed on, with the pid that systemd knows; the rest would name pids of another namespace.
 */
#include "container/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DIR_NAME "notify"
#define SOCKET_NAME "notify.sock"

int notify_prepare(struct init *in, struct spec_process *p, struct err *err)
{
    const char *host = getenv("NOTIFY_SOCKET");
    char path[64];

    if (!host || !host[0] || !in->privileged)
        return 0;
    if (mkdirat(in->state->dirfd, DIR_NAME, 0755) < 0 && errno != EEXIST)
        return err_sys(err, errno, "make the notify directory");
    snprintf(path, sizeof(path), "/proc/self/fd/%d/" DIR_NAME, in->state->dirfd);
    in->notify_dir = mount_clone_tree(path, false);
    if (in->notify_dir < 0)
        return err_sys(err, -in->notify_dir, "clone the notify directory");
    pool_strv_add(in->state->pool, &p->env, "NOTIFY_SOCKET=/run/" DIR_NAME "/" SOCKET_NAME);
    return 0;
}

int notify_open(const struct state *st)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    const char *host = getenv("NOTIFY_SOCKET");
    struct stat info;
    int fd;

    if (!host || !host[0] || fstatat(st->dirfd, DIR_NAME, &info, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/" DIR_NAME "/" SOCKET_NAME,
             st->dirfd);
    unlinkat(st->dirfd, DIR_NAME "/" SOCKET_NAME, 0);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 &&
        fchmodat(st->dirfd, DIR_NAME "/" SOCKET_NAME, 0777, 0) ==
            0) /* any user of the container's */
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static void tell_host(int pid)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    const char *host = getenv("NOTIFY_SOCKET");
    size_t len = strlen(host);
    auto_close int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char text[64];

    if (sock < 0 || len >= sizeof(addr.sun_path))
        return;
    memcpy(addr.sun_path, host, len);
    if (addr.sun_path[0] == '@') /* an abstract address (sd_notify(3)) */
        addr.sun_path[0] = '\0';
    snprintf(text, sizeof(text), "READY=1\nMAINPID=%d", pid);
    sendto(sock, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&addr,
           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
}

static bool says_ready(const char *text)
{
    while (text) {
        if (strncmp(text, "READY=1", 7) == 0 && (text[7] == '\n' || !text[7]))
            return true;
        text = strchr(text, '\n');
        text = text ? text + 1 : NULL;
    }
    return false;
}

void notify_wait(int fd, const struct state *st)
{
    auto_close int pidfd = state_pidfd(st), sock = fd;
    struct pollfd p[2] = {{sock, POLLIN, 0}, {pidfd, POLLIN, 0}};
    char text[4096];

    while (pidfd >= 0 && (poll(p, 2, -1) > 0 || errno == EINTR)) {
        ssize_t n = p[0].revents & POLLIN ? recv(sock, text, sizeof(text) - 1, MSG_DONTWAIT) : 0;

        text[MAX(n, 0)] = '\0';
        if (n > 0 && says_ready(text)) {
            tell_host(st->pid);
            return;
        }
        if (p[1].revents)
            return;
    }
}
