/*
 * Those who look on at a console through the control socket, and may type: any number up to STREAM_CLIENTS, beside where
 * its output goes anyway. Part of a stream (vm/stream.c); all in the main loop's thread.
 */
#ifndef VM_STREAM_CLIENT_H
#define VM_STREAM_CLIENT_H

#include "loop/loop.h"

#define STREAM_CLIENTS 16

struct stream_client;

/* What the stream is to its clients. */
struct stream_clients {
    struct loop *loop;
    /* Somebody typed: takes as many bytes as it likes; after fewer, stream_clients_resume() follows. */
    size_t (*typed)(void *opaque, const u8 *buf, size_t len);
    void (*left)(void *opaque); /* one has gone */
    void *opaque;
    struct stream_client *first;
    unsigned count;
};

/* Adds the connection, which it takes over (on failure too): -EBUSY too many, or -errno. readonly: what it types is
 * ignored. */
int stream_clients_add(struct stream_clients *c, int fd, bool readonly);
/* Shows everybody these bytes; who is too slow misses some, and is told so. */
void stream_clients_put(struct stream_clients *c, const u8 *buf, size_t len);
void stream_clients_resume(struct stream_clients *c); /* there is room again */
void stream_clients_close(
    struct stream_clients *c); /* sends what can be sent at once; zeroed is fine */

#endif
