/*
 * Copying images. The disk is cut into pieces that start at multiples of CHUNK_BYTES, which are multiples of every
 * cluster size: no two threads ever write to one cluster. A thread takes the next piece that is not known to be zeros.
 *
 * Threads take turns at writing, and read and look for zeros side by side: the kernel lets one write at a time into a file
 * anyway, and whoever waits for that there spins on its processor instead of leaving it to the one that works.
 *
 * What is a hole in the file under an image is zeros without being read: images are made whose clusters are all there and
 * hold nothing yet (preallocation=metadata).
 *
 * Bytes are shared with the source (FICLONERANGE) where the file system can; else they are read, looked at for zeros,
 * and written.
 */
#include "block/copy.h"
#include "block/copy_packed.h"
#include <errno.h>
#include <linux/fs.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define CHUNK_BYTES COPY_PIECE_BYTES
#define BUFFER_BYTES \
    CHUNK_BYTES /* one turn for a piece: to take turns more often costs more than the cache gains */
#define COMPARE_BYTES (256 * KiB) /* of each image: stays in the processor's cache */
#define ZERO_BYTES (4 * KiB)      /* smaller runs of zeros are not worth a hole */
#define THREADS_MAX 16
#define THREADS_OF_USE 4 /* writing is one at a time */
#define CLONE_ALIGN (4 * KiB)

/* What was found last: to find where a range ends, some file systems walk all of it. */
struct holes {
    struct block_file *file;
    u64 start, end;
    bool data;
};

struct copier {
    const struct block_copy *c;
    u64 size, unit;       /* unit: zeros are looked for in steps of it */
    atomic_bool no_clone; /* the file system cannot */
    pthread_mutex_t turn; /* held to write data */
    pthread_mutex_t seen; /* protects holes; taken after lock */
    struct holes holes;
    pthread_mutex_t lock; /* protects all below */
    u64 next, data_end;   /* the next piece; up to data_end nothing may be skipped */
    int rc;
    struct err err;
};

bool block_is_zero(const void *buf, size_t len)
{
    const u64 *word = buf;
    const u8 *byte = buf;
    size_t blocks = len / 128;

    if (len && (byte[0] | byte[len - 1]))
        return false;
    for (size_t i = 0; i < blocks; i++, word += 16) {
        u64 any = 0;

        for (unsigned n = 0; n < 16; n++)
            any |= word[n];
        if (any)
            return false;
    }
    for (size_t i = blocks * 128; i < len; i++)
        if (byte[i])
            return false;
    return true;
}

/* An extent of a file that does not change meanwhile: zeros if it begins with a hole; it ends where that does. */
static void see_hole(struct holes *h, struct block_extent *e)
{
    struct holes found = {.file = e->file, .start = e->host};

    if (e->kind != BLOCK_KIND_DATA || e->host >= e->file->size)
        return;
    if (h->file != e->file || e->host < h->start || e->host >= h->end) {
        if (block_file_next(e->file, e->host, &found.data, &found.end))
            return;
        *h = found;
    }
    e->kind = h->data ? BLOCK_KIND_DATA : BLOCK_KIND_ZERO;
    e->len = MIN(e->len, h->end - e->host);
}

/* --- one piece --- */

int block_copy_map(const struct block_copy *c, u64 offset, u64 len, struct block_extent *ret_extent,
                   struct err *err)
{
    struct block_image *i = c->from, *owner;

    for (; c->last; i = i->backing) {
        int rc = i->fmt->ops->map(i->fmt, offset, len, ret_extent, err);

        if (rc || ret_extent->kind != BLOCK_KIND_ABSENT || i == c->last)
            return rc;
        len = ret_extent->len;
        /* What a shorter image does not reach is zeros, whatever is further below. */
        if (offset >= i->backing->fmt->size) {
            ret_extent->kind = BLOCK_KIND_ZERO;
            return 0;
        }
        len = MIN(len, i->backing->fmt->size - offset);
    }
    return block_image_map(i, offset, len, ret_extent, &owner, err);
}

static int map_source(struct copier *k, u64 offset, u64 len, struct block_extent *e,
                      struct err *err)
{
    int rc = block_copy_map(k->c, offset, len, e, err);

    if (rc)
        return rc;
    pthread_mutex_lock(&k->seen);
    see_hole(&k->holes, e);
    pthread_mutex_unlock(&k->seen);
    return 0;
}

static bool needs_nothing(const struct copier *k, const struct block_extent *e)
{
    if (k->c->full)
        return false;
    if (e->kind == BLOCK_KIND_ABSENT)
        return k->c->last || k->c->to_is_zero;
    return e->kind == BLOCK_KIND_ZERO && k->c->to_is_zero;
}

static int put_zeros(struct copier *k, u64 offset, u64 len, struct err *err)
{
    return k->c->to_is_zero ? 0 : block_image_zero(k->c->to, offset, len, true, err);
}

static int put_data(struct copier *k, const u8 *buf, u64 len, u64 offset, struct err *err)
{
    int rc;

    pthread_mutex_lock(&k->turn);
    rc = block_image_write(k->c->to, buf, len, offset, err);
    pthread_mutex_unlock(&k->turn);
    return rc;
}

/* Writes runs that are not zeros. */
static int put_bytes(struct copier *k, const u8 *buf, u64 len, u64 offset, struct err *err)
{
    u64 start = 0, at = 0;
    int rc = 0;

    while (!rc && start < len) {
        bool zero = block_is_zero(buf + start, MIN(k->unit, len - start));

        for (at = MIN(start + k->unit, len); at < len; at = MIN(at + k->unit, len))
            if (block_is_zero(buf + at, MIN(k->unit, len - at)) != zero)
                break;
        rc = zero ? put_zeros(k, offset + start, at - start, err)
                  : put_data(k, buf + start, at - start, offset + start, err);
        start = at;
    }
    return rc;
}

/* Lets the target share the bytes of the source. 0: done; -EAGAIN: not possible here. */
static int clone_extent(struct copier *k, u64 offset, const struct block_extent *e, struct err *err)
{
    struct block_format *to = k->c->to->fmt;
    struct block_room r;
    struct file_clone_range range;
    int rc;

    if (k->no_clone || e->file->fd < 0 || to->file->fd < 0 ||
        (e->host | offset | e->len) % CLONE_ALIGN || (offset | e->len) % to->cluster_bytes)
        return -EAGAIN;
    rc = to->ops->room(to, offset, e->len, &r, err);
    if (rc)
        return rc;
    range = (struct file_clone_range){
        .src_fd = e->file->fd, .src_offset = e->host, .src_length = r.len, .dest_offset = r.host};
    if (r.len != e->len) {
        rc = -EAGAIN;
    } else if (ioctl(r.file->fd, FICLONERANGE, &range)) {
        k->no_clone = true;
        rc = -EAGAIN;
    } else {
        block_file_grown(r.file, r.host + r.len);
    }
    if (!rc && r.fresh)
        rc = to->ops->link(to, &r, err);
    if (rc && r.fresh)
        to->ops->drop(to, &r);
    return rc;
}

static int read_source(struct copier *k, u64 offset, const struct block_extent *e, u64 done,
                       u8 *buf, u64 len, struct err *err)
{
    int rc;

    if (e->kind != BLOCK_KIND_DATA)
        return block_image_read(k->c->from, buf, len, offset + done, err);
    rc = block_file_read(e->file, buf, len, e->host + done);
    return rc ? err_sys(err, -rc, "%s: cannot read at 0x%llx", e->file->name,
                        (unsigned long long)(e->host + done))
              : 0;
}

static int copy_data(struct copier *k, u64 offset, const struct block_extent *e, u8 *buf,
                     struct err *err)
{
    int rc = e->kind == BLOCK_KIND_DATA ? clone_extent(k, offset, e, err) : -EAGAIN;

    if (rc != -EAGAIN)
        return rc;
    rc = 0;
    for (u64 done = 0; !rc && done < e->len;) {
        u64 part = MIN(e->len - done, BUFFER_BYTES);

        rc = read_source(k, offset, e, done, buf, part, err);
        if (!rc)
            rc = put_bytes(k, buf, part, offset + done, err);
        done += part;
    }
    return rc;
}

/* Everything, whether it is zeros or not. */
static int copy_full(struct copier *k, u64 offset, u64 end, u8 *buf, struct err *err)
{
    int rc = block_image_read(k->c->from, buf, end - offset, offset, err);

    return rc ? rc : put_data(k, buf, end - offset, offset, err);
}

static int copy_piece(struct copier *k, u64 offset, u64 end, u8 *buf, struct err *err)
{
    int rc = 0;

    if (k->c->full)
        return copy_full(k, offset, end, buf, err);
    while (!rc && offset < end) {
        struct block_extent e;

        rc = map_source(k, offset, end - offset, &e, err);
        if (rc)
            break;
        if (needs_nothing(k, &e))
            rc = 0;
        else if (e.kind == BLOCK_KIND_ZERO || e.kind == BLOCK_KIND_ABSENT)
            rc = put_zeros(k, offset, e.len, err);
        else
            rc = copy_data(k, offset, &e, buf, err);
        offset += e.len;
    }
    return rc;
}

/* --- all pieces --- */

/* The next piece; false: there is none. */
static bool take(struct copier *k, u64 *ret_offset, u64 *ret_end)
{
    struct block_extent e;
    bool found = false;

    pthread_mutex_lock(&k->lock);
    found = k->next < k->data_end && !k->rc;
    while (!k->rc && !found && k->next < k->size) {
        k->rc = map_source(k, k->next, k->size - k->next, &e, &k->err);
        if (k->rc)
            break;
        found = !needs_nothing(k, &e);
        *(found ? &k->data_end : &k->next) = k->next + e.len;
    }
    if (found) {
        /* A compressed cluster is made as a whole. */
        *ret_offset =
            k->c->compress ? ALIGN_DOWN(k->next, (u64)k->c->to->fmt->cluster_bytes) : k->next;
        *ret_end = k->next = MIN(ALIGN_DOWN(k->next, CHUNK_BYTES) + CHUNK_BYTES, k->size);
    }
    if (!k->rc && k->c->progress)
        k->c->progress->tell(k->c->progress, found ? *ret_offset : k->size, k->size);
    pthread_mutex_unlock(&k->lock);
    return found;
}

static void *copier_run(void *opaque)
{
    struct copier *k = opaque;
    auto_free u8 *buf = aligned_alloc(4096, BUFFER_BYTES);
    struct copy_packed *packed = buf && k->c->compress ? copy_packed_new(k->c, &k->turn) : NULL;
    struct err err = ERR_INIT;
    u64 offset, end;
    int rc = buf && (packed || !k->c->compress) ? 0 : err_set(&err, ENOMEM, "no memory");

    while (!rc && take(k, &offset, &end))
        rc = packed ? copy_packed_piece(packed, offset, end, buf, &err)
                    : copy_piece(k, offset, end, buf, &err);
    copy_packed_free(packed);
    if (rc) {
        pthread_mutex_lock(&k->lock);
        if (!k->rc) {
            k->rc = rc;
            k->err = err;
        }
        pthread_mutex_unlock(&k->lock);
    }
    return NULL;
}

static unsigned processors(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned)CPU_COUNT(&set);
}

int block_copy(const struct block_copy *c, struct err *err)
{
    struct copier k = {.c = c, .size = c->from->fmt->size};
    unsigned of_use = c->compress ? THREADS_MAX : THREADS_OF_USE, started = 0;
    unsigned more = MIN(c->threads ? c->threads : MIN(processors(), of_use), THREADS_MAX) - 1;
    pthread_t thread[THREADS_MAX];

    k.unit = MAX((u64)MIN(c->to->fmt->cluster_bytes, BUFFER_BYTES),
                 c->sparse_bytes ? c->sparse_bytes : ZERO_BYTES);
    pthread_mutex_init(&k.turn, NULL);
    pthread_mutex_init(&k.seen, NULL);
    pthread_mutex_init(&k.lock, NULL);
    while (started < more && pthread_create(&thread[started], NULL, copier_run, &k) == 0)
        started++;
    copier_run(&k);
    for (unsigned i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    pthread_mutex_destroy(&k.lock);
    pthread_mutex_destroy(&k.seen);
    pthread_mutex_destroy(&k.turn);
    if (k.rc && err)
        *err = k.err;
    return k.rc;
}

/* --- comparing --- */

int block_read_padded(struct block_image *i, void *buf, size_t len, u64 offset, struct err *err)
{
    u64 size = i->fmt->size, part = offset < size ? MIN(len, size - offset) : 0;

    memset((u8 *)buf + part, 0, len - part);
    return part ? block_image_read(i, buf, part, offset, err) : 0;
}

/* How many bytes from offset on are known to be zeros without reading them. */
static int zeros_at(struct block_image *i, struct holes *h, u64 offset, u64 len, u64 *ret_len,
                    struct err *err)
{
    struct block_image *owner;
    struct block_extent e;
    int rc;

    *ret_len = len;
    if (offset >= i->fmt->size)
        return 0;
    rc = block_image_map(i, offset, MIN(len, i->fmt->size - offset), &e, &owner, err);
    if (rc)
        return rc;
    see_hole(h, &e);
    *ret_len = e.kind == BLOCK_KIND_ZERO || e.kind == BLOCK_KIND_ABSENT ? e.len : 0;
    return 0;
}

int block_compare(struct block_image *a, struct block_image *b, struct block_progress *progress,
                  u64 *ret_offset, struct err *err)
{
    u64 size = MAX(a->fmt->size, b->fmt->size);
    auto_free u8 *x = malloc(COMPARE_BYTES);
    auto_free u8 *y = malloc(COMPARE_BYTES);
    struct holes in_a = {0}, in_b = {0};

    if (!x || !y)
        return err_set(err, ENOMEM, "no memory");
    for (u64 offset = 0, za, zb, part; offset < size; offset += part) {
        int rc = zeros_at(a, &in_a, offset, size - offset, &za, err);

        if (!rc)
            rc = zeros_at(b, &in_b, offset, size - offset, &zb, err);
        if (rc)
            return rc;
        part = MIN(za, zb);
        if (progress)
            progress->tell(progress, offset + part, size);
        if (part)
            continue;
        part = MIN(size - offset, COMPARE_BYTES);
        rc = block_read_padded(a, x, part, offset, err);
        if (!rc)
            rc = block_read_padded(b, y, part, offset, err);
        if (rc)
            return rc;
        if (memcmp(x, y, part) == 0)
            continue;
        for (za = 0; x[za] == y[za]; za++)
            ;
        *ret_offset = offset + za;
        return 1;
    }
    if (progress)
        progress->tell(progress, size, size);
    return 0;
}
