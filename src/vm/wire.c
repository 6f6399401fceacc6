/*
 * One end of a control connection. Any one thread.
 *
 * Invariant: what is in `in` has been searched for a newline only by wire_line(); wire_read() never grows it beyond
 * WIRE_LINE, so a line that fills it without a newline is too long.
 */
#include "vm/wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ERRNO_MAX 134

void wire_init(struct wire *w, int fd)
{
    *w = (struct wire){.fd = fd};
}

void wire_fini(struct wire *w)
{
    for (unsigned i = 0; i < w->nfds; i++)
        close(w->fds[i]);
    if (w->fd >= 0)
        close(w->fd);
    free(w->in);
    free(w->out);
    *w = (struct wire){.fd = -1};
}

/* Keeps the descriptors of a message; those there is no room for are closed. */
static int keep_fds(struct wire *w, struct msghdr *msg)
{
    int rc = msg->msg_flags & MSG_CTRUNC ? -EPROTO : 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        unsigned n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (unsigned i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
            if (w->nfds < WIRE_FDS) {
                w->fds[w->nfds++] = fd;
            } else {
                close(fd);
                rc = -EPROTO;
            }
        }
    }
    return rc;
}

int wire_read(struct wire *w)
{
    if (!w->in && !(w->in = malloc(WIRE_LINE)))
        return -ENOMEM;
    while (w->in_len < WIRE_LINE && !w->ended) {
        struct iovec iov = {w->in + w->in_len, WIRE_LINE - w->in_len};
        union {
            char buf[CMSG_SPACE(WIRE_FDS * sizeof(int))];
            struct cmsghdr align;
        } control;
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.buf,
                             .msg_controllen = sizeof(control.buf)};
        ssize_t n = recvmsg(w->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : -errno;
        int rc = keep_fds(w, &msg);
        if (rc)
            return rc;
        w->ended = n == 0;
        w->in_len += (size_t)n;
    }
    return 0;
}

static void drop_input(struct wire *w, size_t len)
{
    w->in_len -= len;
    memmove(w->in, w->in + len, w->in_len);
}

int wire_line(struct wire *w, json_t **ret_object, struct err *err)
{
    const char *newline = w->in_len ? memchr(w->in, '\n', w->in_len) : NULL;
    json_error_t why;

    if (!newline) {
        if (w->in_len == WIRE_LINE)
            return err_set(err, EPROTO, "a line is longer than %llu bytes", WIRE_LINE);
        return 0;
    }
    size_t len = (size_t)(newline - w->in);
    json_t *object = json_loadb(w->in, len, JSON_REJECT_DUPLICATES, &why);
    drop_input(w, len + 1);
    if (!object)
        return err_set(err, EPROTO, "a line is not JSON: %s", why.text);
    if (!json_is_object(object)) {
        json_decref(object);
        return err_set(err, EPROTO, "a line is JSON, but not an object");
    }
    *ret_object = object;
    return 1;
}

int wire_take_fds(struct wire *w, json_int_t n, int *fds)
{
    if (n < 0 || n > w->nfds)
        return -EPROTO;
    memcpy(fds, w->fds, (size_t)n * sizeof(int));
    w->nfds -= (unsigned)n;
    memmove(w->fds, w->fds + n, w->nfds * sizeof(int));
    return 0;
}

size_t wire_take_bytes(struct wire *w, void *buf, size_t len)
{
    len = MIN(len, w->in_len);
    if (len) {
        memcpy(buf, w->in, len);
        drop_input(w, len);
    }
    return len;
}

/* Makes room for len bytes more. */
static int grow(struct wire *w, size_t len)
{
    size_t size = MAX(w->out_size, (size_t)4096);

    if (len > WIRE_WAITING - w->out_len)
        return -ENOBUFS;
    while (size < w->out_len + len)
        size *= 2;
    if (size == w->out_size)
        return 0;
    char *out = realloc(w->out, size);
    if (!out)
        return -ENOMEM;
    w->out = out;
    w->out_size = size;
    return 0;
}

/* Puts the line behind what waits. */
static int queue(struct wire *w, const json_t *object)
{
    size_t len = json_dumpb(object, NULL, 0, JSON_COMPACT) + 1;
    int rc;

    if (len == 1 || len > WIRE_LINE)
        return -EPROTO;
    if ((rc = grow(w, len)))
        return rc;
    json_dumpb(object, w->out + w->out_len, len - 1, JSON_COMPACT);
    w->out_len += len;
    w->out[w->out_len - 1] = '\n';
    return 0;
}

/* Sends a part of what waits, with descriptors if there are any; -errno or how much. */
static ssize_t send_some(struct wire *w, const int *fds, unsigned nfds)
{
    struct iovec iov = {w->out, w->out_len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    union {
        char buf[CMSG_SPACE(WIRE_FDS * sizeof(int))];
        struct cmsghdr align;
    } control = {0};

    if (nfds) {
        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
    }
    ssize_t n = sendmsg(w->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0)
        return -errno;
    w->out_len -= (size_t)n;
    memmove(w->out, w->out + n, w->out_len);
    return n;
}

int wire_flush(struct wire *w)
{
    while (w->out_len) {
        ssize_t n = send_some(w, NULL, 0);

        if (n == -EAGAIN)
            return 1;
        if (n < 0 && n != -EINTR)
            return (int)n;
    }
    return 0;
}

int wire_write(struct wire *w, const json_t *object)
{
    int rc = queue(w, object);

    if (!rc)
        rc = wire_flush(w);
    return MIN(rc, 0);
}

int wire_write_fds(struct wire *w, const json_t *object, const int *fds, unsigned nfds)
{
    if (w->out_len)
        return -EBUSY;
    if (nfds > WIRE_FDS)
        return -EPROTO;
    int rc = queue(w, object);
    if (rc)
        return rc;
    ssize_t n;
    do
        n = send_some(w, fds, nfds);
    while (n == -EINTR);
    return n < 0 ? (int)n : MIN(wire_flush(w), 0);
}

const char *wire_code_name(int code)
{
    const char *name = code > 0 ? strerrorname_np(code) : NULL;

    return name ? name : "EIO";
}

int wire_code(const char *name)
{
    for (int code = 1; code < ERRNO_MAX; code++) {
        const char *known = strerrorname_np(code);

        if (known && !strcmp(name, known))
            return code;
    }
    return EIO;
}
