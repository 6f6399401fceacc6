/*
 * Reading and writing through a chain of images: a format says where bytes are, this moves them.
 *
 * A new cluster is filled before it is linked: what the guest does not write of it is copied from what was there before,
 * in this image or below. Any thread.
 */
#include "block/image.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BOUNCE_BYTES (64 * KiB)

/* --- reading --- */

int block_image_map(struct block_image *i, u64 offset, u64 len, struct block_extent *ret_extent,
                    struct block_image **ret_owner, struct err *err)
{
    struct block_extent e = {.kind = BLOCK_KIND_ABSENT, .len = len};

    for (struct block_image *next = i; next && offset < next->fmt->size; next = next->backing) {
        i = next;
        int rc = i->fmt->ops->map(i->fmt, offset, MIN(len, i->fmt->size - offset), &e, err);
        if (rc)
            return rc;
        if (e.kind != BLOCK_KIND_ABSENT)
            break;
        len = e.len;
    }
    *ret_extent = e;
    *ret_owner = i;
    return 0;
}

bool block_image_ready(struct block_image *i, u64 offset)
{
    for (; i && offset < i->fmt->size; i = i->backing)
        if (!i->fmt->ops->ready(i->fmt, offset))
            return false;
    return true;
}

static int read_packed(struct block_image *owner, const struct block_extent *e, void *buf,
                       size_t len, u64 offset, struct err *err)
{
    u64 bytes = owner->fmt->cluster_bytes;
    int rc = 0;

    if (offset == e->cluster && len == bytes)
        return owner->fmt->ops->unpack(owner->fmt, e, buf, err);
    pthread_mutex_lock(&owner->lock);
    if (!owner->unpacked) {
        owner->unpacked = malloc(bytes);
        owner->unpacked_host = UINT64_MAX;
    }
    if (!owner->unpacked)
        rc = err_set(err, ENOMEM, "%s: no memory", owner->path);
    if (!rc && owner->unpacked_host != e->host) {
        owner->unpacked_host = UINT64_MAX;
        rc = owner->fmt->ops->unpack(owner->fmt, e, owner->unpacked, err);
        if (!rc)
            owner->unpacked_host = e->host;
    }
    if (!rc)
        memcpy(buf, owner->unpacked + (offset - e->cluster), len);
    pthread_mutex_unlock(&owner->lock);
    return rc;
}

int block_image_read(struct block_image *i, void *buf, size_t len, u64 offset, struct err *err)
{
    u8 *to = buf;

    while (len) {
        struct block_image *owner;
        struct block_extent e;
        int rc = block_image_map(i, offset, len, &e, &owner, err);

        if (!rc && e.kind == BLOCK_KIND_DATA) {
            rc = block_file_read(e.file, to, e.len, e.host);
            if (rc)
                err_sys(err, -rc, "%s: cannot read at 0x%llx", e.file->name,
                        (unsigned long long)e.host);
        } else if (!rc && e.kind == BLOCK_KIND_PACKED) {
            rc = read_packed(owner, &e, to, e.len, offset, err);
        } else if (!rc) {
            memset(to, 0, e.len);
        }
        if (rc)
            return rc;
        to += e.len;
        offset += e.len;
        len -= e.len;
    }
    return 0;
}

/* --- writing --- */

static int write_file(struct block_file *f, const void *buf, size_t len, u64 host, struct err *err)
{
    int rc = block_file_write(f, buf, len, host);

    return rc ? err_sys(err, -rc, "%s: cannot write at 0x%llx", f->name, (unsigned long long)host)
              : 0;
}

static int zero_file(struct block_file *f, u64 host, u64 len, struct err *err)
{
    int rc = block_file_zero(f, host, len, true);

    return rc ? err_sys(err, -rc, "%s: cannot zero at 0x%llx", f->name, (unsigned long long)host)
              : 0;
}

/* Copies what the guest sees in [from, to) into new room. */
static int fill(struct block_image *i, const struct block_room *r, u64 from, u64 to,
                struct err *err)
{
    auto_free u8 *bounce = NULL;
    int rc = 0;

    while (!rc && from < to) {
        u64 host = r->host + (from - r->start), size = i->fmt->size, len = to - from;
        struct block_extent e = {.kind = BLOCK_KIND_ZERO, .len = len};
        struct block_image *owner;

        if (from < size)
            rc = block_image_map(i, from, MIN(len, size - from), &e, &owner, err);
        if (rc)
            break;
        if (e.kind == BLOCK_KIND_ZERO || e.kind == BLOCK_KIND_ABSENT) {
            rc = zero_file(r->file, host, e.len, err);
            from += e.len;
            continue;
        }
        if (!bounce && !(bounce = malloc(BOUNCE_BYTES)))
            return err_set(err, ENOMEM, "%s: no memory", i->path);
        len = MIN(e.len, BOUNCE_BYTES);
        rc = block_image_read(i, bounce, len, from, err);
        if (!rc)
            rc = write_file(r->file, bounce, len, host, err);
        from += len;
    }
    return rc;
}

static int write_part(struct block_image *i, const u8 *buf, size_t len, u64 offset,
                      size_t *ret_done, struct err *err)
{
    const struct block_format_ops *ops = i->fmt->ops;
    struct block_room r;
    int rc = ops->room(i->fmt, offset, len, &r, err);

    if (rc)
        return rc;
    len = MIN(len, r.start + r.len - offset);
    if (r.fresh)
        rc = fill(i, &r, r.start, offset, err);
    if (!rc && r.fresh)
        rc = fill(i, &r, offset + len, r.start + r.len, err);
    if (!rc)
        rc = write_file(r.file, buf, len, r.host + (offset - r.start), err);
    if (r.fresh && !rc)
        rc = ops->link(i->fmt, &r, err);
    if (r.fresh && rc)
        ops->drop(i->fmt, &r);
    *ret_done = len;
    return rc;
}

int block_image_write(struct block_image *i, const void *buf, size_t len, u64 offset,
                      struct err *err)
{
    const u8 *from = buf;

    if (!range_fits(offset, len, i->fmt->size))
        return err_set(err, EINVAL, "%s: write past the end", i->path);
    while (len) {
        size_t done = 0;
        int rc = write_part(i, from, len, offset, &done, err);

        if (rc)
            return rc;
        from += done;
        offset += done;
        len -= done;
    }
    return 0;
}

/* Zeros as data, where there is something else. */
static int write_zeros(struct block_image *i, u64 offset, u64 len, struct err *err)
{
    static const u8 zeros[BOUNCE_BYTES];
    int rc = 0;

    while (!rc && len) {
        struct block_image *owner;
        struct block_extent e;
        u64 part = MIN(len, BOUNCE_BYTES);

        rc = block_image_map(i, offset, part, &e, &owner, err);
        if (rc)
            break;
        part = MIN(part, e.len);
        if (e.kind == BLOCK_KIND_DATA || e.kind == BLOCK_KIND_PACKED)
            rc = block_image_write(i, zeros, part, offset, err);
        offset += part;
        len -= part;
    }
    return rc;
}

int block_image_zero(struct block_image *i, u64 offset, u64 len, bool unmap, struct err *err)
{
    u64 bytes = i->fmt->cluster_bytes, end = offset + len, first, last;
    int rc = 0;

    if (!range_fits(offset, len, i->fmt->size))
        return err_set(err, EINVAL, "%s: zero past the end", i->path);
    first = ALIGN_UP(offset, bytes);
    last = end == i->fmt->size ? end : ALIGN_DOWN(end, bytes);
    if (first >= last)
        return write_zeros(i, offset, len, err);
    rc = write_zeros(i, offset, first - offset, err);
    if (!rc)
        rc = i->fmt->ops->zero(i->fmt, first, last - first, unmap, err);
    if (rc == -EOPNOTSUPP)
        rc = write_zeros(i, first, last - first, err);
    return rc ? rc : write_zeros(i, last, end - last, err);
}

int block_image_discard(struct block_image *i, u64 offset, u64 len, struct err *err)
{
    u64 bytes = i->fmt->cluster_bytes, end = offset + len, first, last;
    int rc;

    if (!range_fits(offset, len, i->fmt->size))
        return err_set(err, EINVAL, "%s: discard past the end", i->path);
    first = ALIGN_UP(offset, bytes);
    last = end == i->fmt->size ? end : ALIGN_DOWN(end, bytes);
    rc = first < last ? i->fmt->ops->zero(i->fmt, first, last - first, true, err) : 0;
    return rc == -EOPNOTSUPP ? 0 : rc;
}

int block_image_flush(struct block_image *i, struct err *err)
{
    int rc = 0;

    for (struct block_image *below = i->backing; !rc && below; below = below->backing) {
        if (!below->unfinished)
            continue;
        rc = below->fmt->ops->freeze(below->fmt, err);
        below->unfinished = rc != 0;
        /* Others may use it as their backing image from now on. */
        if (!rc && below->file->lock == BLOCK_EXCLUSIVE)
            block_file_set_lock(below->file, BLOCK_SHARED, NULL);
    }
    return rc ? rc : i->fmt->ops->flush(i->fmt, err);
}

int block_image_resize(struct block_image *i, u64 size, struct err *err)
{
    u64 old = i->fmt->size, bytes = i->fmt->cluster_bytes,
        below = i->backing ? i->backing->fmt->size : 0;
    u64 tail_end = MIN(ALIGN_UP(size, bytes), old), end = MIN(size, below);
    int rc = 0;

    /* What is cut off must not come back when the disk grows again. */
    if (size < tail_end)
        rc = write_zeros(i, size, tail_end - size, err);
    if (!rc)
        rc = i->fmt->ops->resize(i->fmt, size, err);
    /* Nor may the backing image show through where there was nothing. */
    if (!rc && end > old)
        rc = block_image_zero(i, old, end - old, true, err);
    return rc;
}
