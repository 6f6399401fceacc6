/* A caller's end of a control socket. */
#include "host/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Long paths go through the folder's descriptor: /proc/self/fd/N/NAME is always short enough. Returns the descriptor to
 * keep open meanwhile, or -errno. */
static int make_address(const char *path, struct sockaddr_un *ret_address)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    auto_free char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");

    if (!folder)
        return -ENOMEM;
    int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "/proc/self/fd/%d/%s",
                     fd, name);
    if (n < (int)sizeof(ret_address->sun_path))
        return fd;
    close(fd);
    return -ENAMETOOLONG;
}

int client_connect(const char *path)
{
    struct sockaddr_un address;
    auto_close int folder = make_address(path, &address);

    if (folder < 0)
        return folder;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* Blocking: it waits while the listener's queue is full, which a main loop soon empties. */
    struct timeval limit = {.tv_sec = 5};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) ||
        fcntl(fd, F_SETFL, O_NONBLOCK)) {
        int rc = -errno;

        close(fd);
        return rc == -EAGAIN ? -ETIMEDOUT : rc;
    }
    return fd;
}

int client_listen(const char *path)
{
    struct sockaddr_un address;
    auto_close int folder = make_address(path, &address);

    if (folder < 0)
        return folder;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    unlink(path);
    /* The umask does not belong to this thread alone; the folder keeps others out until the mode is set. */
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || chmod(path, 0600) ||
        listen(fd, 64)) {
        int rc = -errno;

        close(fd);
        return rc;
    }
    return fd;
}

int client_open(const char *path, struct client *ret_client, struct err *err)
{
    int fd = client_connect(path);

    *ret_client = (struct client){.timeout_ms = CLIENT_WAIT_FOREVER};
    wire_init(&ret_client->wire, fd < 0 ? -1 : fd);
    if (fd < 0)
        return err_sys(err, -fd, "control socket '%s'", path);
    return 0;
}

void client_close(struct client *c)
{
    wire_fini(&c->wire);
}

static s64 now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits until something may have arrived or can be sent; -ETIMEDOUT. */
static int wait_ready(struct client *c, s64 deadline_ms)
{
    struct pollfd p = {.fd = c->wire.fd, .events = POLLIN};
    s64 left = c->timeout_ms < 0 ? -1 : MAX(deadline_ms - now_ms(), 0);

    if (c->wire.out_len)
        p.events |= POLLOUT;
    int n = poll(&p, 1, (int)MIN(left, (s64)INT32_MAX));
    if (n == 0)
        return -ETIMEDOUT;
    return n < 0 && errno != EINTR ? -errno : 0;
}

int client_send(struct client *c, const char *verb, json_t *fields, const int *fds, unsigned nfds,
                struct err *err)
{
    json_t *request = fields ? fields : json_object();
    int rc = request ? 0 : -ENOMEM;

    if (!rc) {
        json_object_set_new(request, "do", json_string(verb));
        json_object_set_new(request, "id", json_integer(++c->last_id));
        if (nfds)
            json_object_set_new(request, "fds", json_integer(nfds));
        rc = wire_write_fds(&c->wire, request, fds, nfds);
    }
    json_decref(request);
    return rc ? err_sys(err, -rc, "cannot ask the machine") : 0;
}

/* The next line, whatever it is. */
static int next_line(struct client *c, json_t **ret_line, struct err *err)
{
    s64 deadline = now_ms() + MAX(c->timeout_ms, 0);
    int rc;

    while (!(rc = wire_line(&c->wire, ret_line, err))) {
        if (c->wire.ended)
            return err_set(err, EPIPE, "the machine is gone");
        if ((rc = wait_ready(c, deadline)) == -ETIMEDOUT)
            return err_set(err, ETIMEDOUT, "the machine does not answer");
        if (rc || (rc = wire_flush(&c->wire)) < 0 || (rc = wire_read(&c->wire)))
            return rc == -ECONNRESET || rc == -EPIPE ? err_set(err, EPIPE, "the machine is gone")
                                                     : err_sys(err, -rc, "cannot hear the machine");
    }
    return rc < 0 ? err_wrap(err, "the machine's answer") : 0;
}

/* 0 or what the machine says is wrong. */
static int judge(const json_t *answer, struct err *err)
{
    const char *text = json_string_value(json_object_get(answer, "error"));
    const char *code = json_string_value(json_object_get(answer, "code"));

    if (json_is_true(json_object_get(answer, "ok")))
        return 0;
    return err_set(err, wire_code(code ? code : ""), "%s",
                   text ? text : "it failed without a reason");
}

int client_wait(struct client *c, const struct client_listener *listener, json_t **ret_answer,
                struct err *err)
{
    for (;;) {
        json_t *line;
        int rc = next_line(c, &line, err);

        if (rc)
            return rc;
        if (json_object_get(line, "event")) {
            if (listener)
                listener->event(listener->opaque, line);
        } else if (json_integer_value(json_object_get(line, "id")) == c->last_id ||
                   !json_object_get(line, "id")) {
            rc = judge(line, err);
            if (!rc && ret_answer)
                *ret_answer = json_incref(line);
            json_decref(line);
            return rc;
        } /* else: the answer to an older request that was given up */
        json_decref(line);
    }
}

int client_call(struct client *c, const char *verb, json_t *fields, json_t **ret_answer,
                struct err *err)
{
    int rc = client_send(c, verb, fields, NULL, 0, err);

    return rc ? rc : client_wait(c, NULL, ret_answer, err);
}
