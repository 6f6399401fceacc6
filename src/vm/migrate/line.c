/*
 * Messages over a descriptor. Invariants:
 *  1. A message is written as a whole by one thread, or the line is cut: nobody writes behind half of one.
 *  2. Descriptors that do not block are waited for with poll(), so it does not matter which kind it is.
 */
#include "vm/migrate/line.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

int migrate_line_init(struct migrate_line *l, int fd, enum migrate_side receives, struct err *err)
{
    *l = (struct migrate_line){.fd = fd, .receives = receives};
    pthread_mutex_init(&l->lock, NULL);
    l->body = malloc(MIGRATE_BODY_MAX);
    return l->body ? 0 : err_set(err, ENOMEM, "no memory for a connection");
}

void migrate_line_fini(struct migrate_line *l)
{
    if (!l)
        return;
    if (l->fd >= 0 && l->body)
        close(l->fd);
    free(l->body);
    l->body = NULL;
    l->fd = -1;
}

void migrate_line_cut(struct migrate_line *l)
{
    atomic_store(&l->cut, true);
    if (l->fd >= 0)
        shutdown(l->fd, SHUT_RDWR); /* wakes who waits in it */
}

static int lost(struct migrate_line *l, int code, struct err *err)
{
    if (atomic_load(&l->cut))
        return err_set(err, EPIPE, "the connection was closed");
    if (code == 0 || code == EPIPE || code == ECONNRESET)
        return err_set(err, EPIPE, "the other side has closed the connection");
    err_sys(err, code, "the connection broke");
    return -EPIPE;
}

static int wait_for(struct migrate_line *l, short events)
{
    struct pollfd p = {.fd = l->fd, .events = events};

    return poll(&p, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

/* Takes n bytes off the vectors; returns those that are left. */
static unsigned advance(struct iovec **iov, unsigned niov, size_t n)
{
    while (niov && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        (*iov)++;
        niov--;
    }
    if (niov) {
        (*iov)->iov_base = (u8 *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
    }
    return niov;
}

static int write_all(struct migrate_line *l, struct iovec *iov, unsigned niov)
{
    niov = advance(&iov, niov, 0);
    while (niov) {
        ssize_t n = writev(l->fd, iov, (int)niov);
        int rc = n < 0 ? errno : 0;

        if (rc == EAGAIN)
            rc = -wait_for(l, POLLOUT);
        if (rc && rc != EINTR)
            return rc;
        if (n > 0)
            niov = advance(&iov, niov, (size_t)n);
    }
    return 0;
}

int migrate_line_send(struct migrate_line *l, enum migrate_type type, u8 flags, struct iovec *iov,
                      unsigned niov, struct err *err)
{
    struct migrate_head head = {.type = type, .flags = flags};
    struct iovec all[2 + MIGRATE_BATCH];
    u8 bytes[MIGRATE_HEAD_BYTES];
    int rc = EPIPE;

    for (unsigned i = 0; i < niov; i++) {
        head.len += (u32)iov[i].iov_len;
        all[1 + i] = iov[i];
    }
    all[0] = (struct iovec){bytes, sizeof(bytes)};
    pthread_mutex_lock(&l->lock);
    if (l->before_send && !l->before_send(l->opaque, type))
        migrate_line_cut(l);
    if (!atomic_load(&l->cut)) {
        head.sequence = l->out_sequence++;
        migrate_head_put(&head, bytes);
        rc = write_all(l, all, niov + 1);
    }
    pthread_mutex_unlock(&l->lock);
    if (!rc)
        return 0;
    rc = lost(l, rc, err);
    /* Nothing more goes out; but the other side may have said why, and that is still to be read. */
    shutdown(l->fd, SHUT_WR);
    return rc;
}

int migrate_line_say(struct migrate_line *l, enum migrate_type type, u8 flags, const void *bytes,
                     u32 len, struct err *err)
{
    struct iovec iov = {(void *)(uintptr_t)bytes, len};

    return migrate_line_send(l, type, flags, &iov, len ? 1 : 0, err);
}

static int read_all(struct migrate_line *l, u8 *buf, size_t len, struct err *err)
{
    while (len) {
        ssize_t n = read(l->fd, buf, len);
        int rc = n < 0 ? errno : 0;

        if (rc == EAGAIN)
            rc = -wait_for(l, POLLIN);
        if (!n || (rc && rc != EINTR)) {
            rc = lost(l, rc, err);
            shutdown(l->fd, SHUT_RDWR); /* not cut by us: who sends hears what happened, too */
            return rc;
        }
        if (n > 0) {
            struct timespec now;

            clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
            atomic_store_explicit(&l->heard_s, now.tv_sec, memory_order_relaxed);
            buf += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

int migrate_line_receive(struct migrate_line *l, struct migrate_head *ret_head, struct err *err)
{
    struct migrate_head head;
    u8 bytes[MIGRATE_HEAD_BYTES];
    int rc = read_all(l, bytes, sizeof(bytes), err);

    if (!rc)
        rc = migrate_head_get(bytes, l->receives, l->in_sequence, &head, err);
    if (!rc)
        rc = read_all(l, l->body, head.len, err);
    if (rc)
        return rc;
    l->in_sequence++;
    *ret_head = head;
    return 0;
}

#define PIECE_WORDS ((MIGRATE_BODY_MAX - 8) / 8)

int migrate_line_send_bits(struct migrate_line *l, enum migrate_type type, const u64 *bits,
                           u64 words, struct err *err)
{
    int rc = 0;

    for (u64 at = 0; at < words && !rc;) {
        u64 n = MIN(words - at, PIECE_WORDS);
        u8 first[8];
        struct iovec iov[] = {{first, 8}, {(void *)(uintptr_t)(bits + at), 8 * n}};

        migrate_put(first, at, 8);
        at += n;
        rc = migrate_line_send(l, type, at == words ? MIGRATE_LAST : 0, iov, 2, err);
    }
    return rc;
}

int migrate_take_bits(const struct migrate_head *head, const u8 *body, u64 *bits, u64 words,
                      struct err *err)
{
    u64 first = migrate_get(body, 8), n = (head->len - 8) / 8;

    if (head->len % 8 || !range_fits(first, n, words))
        return err_set(err, EPROTO, "%s: these are not pages of the machine",
                       migrate_type_name(head->type));
    memcpy(bits + first, body + 8, 8 * n);
    return 0;
}
