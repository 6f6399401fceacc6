/*
 * Those who look on at a console.
 *
 * Invariants:
 *  1. What a client has typed and the stream did not take stays in the client's `typed`, and the client is not read from.
 *  2. A client that does not read costs CLIENT_RING bytes, never a wait; what does not fit is counted and reported to it
 *     in one line when there is room again.
 */
#include "vm/stream_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define CLIENT_RING (64 * KiB)
#define NOTE_MAX 80

struct stream_client {
    struct stream_clients *all;
    struct loop_fd link;
    bool readonly;
    bool gone; /* it has hung up, and is not in the loop any more; what it typed is still given */
    u8 typed[256];
    size_t typed_len;
    u8 *ring; /* CLIENT_RING bytes */
    size_t head, used;
    u64 missed;
    struct stream_client *next;
};

static void close_client(struct stream_client *c)
{
    struct stream_clients *all = c->all;
    struct stream_client **at = &all->first;

    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    all->count--;
    loop_remove(all->loop, &c->link);
    close(c->link.fd);
    free(c->ring);
    free(c);
}

static void watch(struct stream_client *c)
{
    u32 events = (c->used ? EPOLLOUT : 0) | (c->typed_len ? 0 : EPOLLIN);

    if (events != c->link.events)
        loop_modify(c->all->loop, &c->link, events);
}

static void append(struct stream_client *c, const void *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        c->ring[(c->head + c->used + i) % CLIENT_RING] = ((const u8 *)buf)[i];
    c->used += len;
}

/* Sends what waits; false: it has gone. */
static bool send_waiting(struct stream_client *c)
{
    while (c->used) {
        size_t len = MIN(c->used, CLIENT_RING - c->head);
        ssize_t n = write(c->link.fd, c->ring + c->head, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN;
        c->head = (c->head + (size_t)n) % CLIENT_RING;
        c->used -= (size_t)n;
        if (c->missed && !c->used) {
            char note[NOTE_MAX];
            int note_len =
                snprintf(note, sizeof(note), "\r\n[%llu bytes of output were left out]\r\n",
                         (unsigned long long)c->missed);

            c->missed = 0;
            append(c, note, (size_t)note_len);
        }
    }
    return true;
}

/* Gives the stream what was typed. */
static void give(struct stream_client *c)
{
    size_t n = c->readonly ? c->typed_len : c->all->typed(c->all->opaque, c->typed, c->typed_len);

    c->typed_len -= n;
    memmove(c->typed, c->typed + n, c->typed_len);
}

/* Reads what was typed; false: it has gone. */
static bool read_typed(struct stream_client *c)
{
    ssize_t n = read(c->link.fd, c->typed, sizeof(c->typed));

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    c->typed_len = (size_t)n;
    give(c);
    return true;
}

/* Gives on what a client has typed before it hung up; true: all of it. */
static bool drain(struct stream_client *c)
{
    if (c->typed_len)
        give(c);
    while (!c->typed_len && read_typed(c))
        ;
    return !c->typed_len;
}

static void client_ready(void *opaque, u32 events)
{
    struct stream_client *c = opaque;
    struct stream_clients *all = c->all;
    bool stays = send_waiting(c);

    if (stays && (events & EPOLLIN) && !c->typed_len)
        stays = read_typed(c);
    else if (events & (EPOLLHUP | EPOLLERR))
        stays = false;
    if (stays) {
        watch(c);
    } else if (c->typed_len) {
        loop_remove(all->loop, &c->link); /* it would be reported for ever */
        c->gone = true;
    } else {
        close_client(c);
        all->left(all->opaque);
    }
}

int stream_clients_add(struct stream_clients *all, int fd, bool readonly)
{
    struct stream_client *c = all->count < STREAM_CLIENTS ? calloc(1, sizeof(*c)) : NULL;

    if (!c || !(c->ring = malloc(CLIENT_RING))) {
        int rc = all->count < STREAM_CLIENTS ? -ENOMEM : -EBUSY;

        free(c);
        close(fd);
        return rc;
    }
    c->all = all;
    c->readonly = readonly;
    c->link = (struct loop_fd){.fd = fd, .events = EPOLLIN, .ready = client_ready, .opaque = c};
    c->next = all->first;
    all->first = c;
    all->count++;
    int rc = loop_add(all->loop, &c->link, NULL);
    if (rc)
        close_client(c);
    return rc;
}

void stream_clients_put(struct stream_clients *all, const u8 *buf, size_t len)
{
    for (struct stream_client *c = all->first; c; c = c->next) {
        size_t n = c->missed ? 0 : MIN(len, CLIENT_RING - NOTE_MAX - c->used);

        append(c, buf, n);
        c->missed += len - n;
        send_waiting(c); /* who has gone is noticed by the loop */
        if (!c->gone)
            watch(c);
    }
}

void stream_clients_resume(struct stream_clients *all)
{
    for (struct stream_client *c = all->first, *next; c; c = next) {
        next = c->next;
        if (c->gone && drain(c)) {
            close_client(c);
            all->left(all->opaque);
        } else if (!c->gone) {
            if (c->typed_len)
                give(c);
            watch(c);
        }
    }
}

void stream_clients_close(struct stream_clients *all)
{
    while (all->first) {
        send_waiting(all->first);
        close_client(all->first);
    }
}
