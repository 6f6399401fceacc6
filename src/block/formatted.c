/*
 * Disks with a format or with layers: which requests go straight to the file, and the rest.
 *
 * A read or write whose bytes lie side by side in a file, and of which the format knows so without asking the disk, is
 * moved like one of a raw disk. Everything else waits for the format, in the engine's threads for that.
 *
 * Invariants:
 * 1. While a request relies on where the format said its bytes are (b->mapped), nothing changes that: what may
 *    (b->changing) waits until there are none, and keeps new ones away. Or a write could end up in a cluster that was
 *    given back and is somebody else's by now.
 * 2. Only one request at a time changes the mapping. So no two fill the same new cluster.
 *
 * Threads: formatted_enter() and formatted_leave() from any; formatted_execute() from engines' threads.
 */
#include "block/disk.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GATHER_BYTES (1 * MiB)

/* --- who relies on the mapping, and who changes it --- */

void formatted_lean(struct block *b)
{
    pthread_mutex_lock(&b->lock);
    while (b->changing)
        pthread_cond_wait(&b->idle, &b->lock);
    b->mapped++;
    pthread_mutex_unlock(&b->lock);
}

void formatted_let_go(struct block *b)
{
    pthread_mutex_lock(&b->lock);
    if (--b->mapped == 0)
        pthread_cond_broadcast(&b->idle);
    pthread_mutex_unlock(&b->lock);
}

static void start_change(struct block *b)
{
    pthread_mutex_lock(&b->lock);
    while (b->changing)
        pthread_cond_wait(&b->idle, &b->lock);
    b->changing = true;
    while (b->mapped)
        pthread_cond_wait(&b->idle, &b->lock);
    pthread_mutex_unlock(&b->lock);
}

static void end_change(struct block *b)
{
    pthread_mutex_lock(&b->lock);
    b->changing = false;
    pthread_cond_broadcast(&b->idle);
    pthread_mutex_unlock(&b->lock);
}

/* --- straight to the file --- */

static bool is_straight(struct block *b, const struct block_req *r, struct block_extent *e)
{
    struct block_image *owner;

    if (!block_image_ready(b->image, r->offset) ||
        block_image_map(b->image, r->offset, r->len, e, &owner, NULL))
        return false;
    if (e->kind != BLOCK_KIND_DATA || e->len < r->len || e->file->fd < 0)
        return false;
    /* Behind the end of the file is damage, which is not mended by writing there. */
    if (!range_fits(e->host, r->len, e->file->size))
        return false;
    return r->op == BLOCK_READ || (owner == b->image && e->in_place);
}

bool formatted_enter(struct block *b, struct block_req *r)
{
    struct block_extent e;

    r->mapped = false;
    if (r->op != BLOCK_READ && r->op != BLOCK_WRITE)
        return false;
    pthread_mutex_lock(&b->lock);
    r->mapped = !b->changing;
    b->mapped += r->mapped;
    pthread_mutex_unlock(&b->lock);
    if (!r->mapped)
        return false;
    if (is_straight(b, r, &e)) {
        r->fd = e.file->fd;
        r->host = e.host;
        return true;
    }
    r->mapped = false;
    formatted_let_go(b);
    return false;
}

void formatted_leave(struct block *b, struct block_req *r)
{
    /* After the write, or a sync in between would take it for done. */
    if (r->op == BLOCK_WRITE)
        b->image->file->unsynced = true;
    r->mapped = false;
    formatted_let_go(b);
}

/* --- everything else --- */

static int read_segments(struct block *b, struct block_req *r)
{
    int rc = 0;

    while (!rc && r->moved < r->len) {
        size_t len = r->iov->iov_len;

        rc = block_image_read(b->image, r->iov->iov_base, len, r->offset + r->moved, NULL);
        block_advance(r, len);
    }
    return rc;
}

/* The next `len` bytes of the segments. */
static void gather(struct block_req *r, u8 *to, size_t len)
{
    while (len) {
        size_t part = MIN(len, r->iov->iov_len);

        memcpy(to, r->iov->iov_base, part);
        block_advance(r, part);
        to += part;
        len -= part;
    }
}

/* In large pieces: a cluster is filled once, not once for each segment. */
static int write_segments(struct block *b, struct block_req *r)
{
    u64 room = MIN(r->len, GATHER_BYTES);
    auto_free u8 *bytes = malloc(room);
    int rc = bytes || !r->len ? 0 : -ENOMEM;

    while (!rc && r->moved < r->len) {
        u64 at = r->offset + r->moved, len = MIN(room, r->len - r->moved);

        gather(r, bytes, len);
        rc = block_image_write(b->image, bytes, len, at, NULL);
    }
    return rc;
}

static int change(struct block *b, struct block_req *r)
{
    switch (r->op) {
    case BLOCK_READ:
    case BLOCK_FLUSH:
        break;
    case BLOCK_WRITE:
        return write_segments(b, r);
    case BLOCK_DISCARD:
        return block_image_discard(b->image, r->offset, r->len, NULL);
    case BLOCK_ZERO:
        return block_image_zero(b->image, r->offset, r->len, r->unmap, NULL);
    }
    return -EINVAL;
}

int formatted_execute(struct block_req *r)
{
    struct block *b = r->disk;
    int rc;

    if (r->op == BLOCK_READ) {
        formatted_lean(b);
        rc = read_segments(b, r);
        formatted_let_go(b);
        return rc;
    }
    /* It changes nothing that anybody could see. */
    if (r->op == BLOCK_FLUSH)
        return block_sync(b, NULL);
    start_change(b);
    rc = change(b, r);
    end_change(b);
    return rc;
}
