/*
 * Raw images: the guest's bytes as they are. What is a hole in the file reads as zeros and is reported so.
 *
 * The disk's size is the file's, rounded up to sectors; the part of the last sector that the file lacks reads as zeros.
 * Any thread.
 */
#include "block/format.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define SECTOR 512

struct raw {
    struct block_format fmt;
    pthread_mutex_t lock; /* protects the range below */
    u64 start, end;       /* what was found last; only of files that do not change */
    bool data;
};

static struct raw *raw_of(struct block_format *f)
{
    return CONTAINER_OF(f, struct raw, fmt);
}

static void raw_close(struct block_format *f)
{
    pthread_mutex_destroy(&raw_of(f)->lock);
    free(raw_of(f));
}

/* Asking where a range ends makes some file systems walk all of it, so what they said is kept. */
static int range_at(struct raw *r, u64 offset, bool *ret_data, u64 *ret_end)
{
    int rc = 0;

    if (!r->fmt.readonly)
        return block_file_next(r->fmt.file, offset, ret_data, ret_end);
    pthread_mutex_lock(&r->lock);
    if (offset < r->start || offset >= r->end) {
        rc = block_file_next(r->fmt.file, offset, &r->data, &r->end);
        r->start = rc ? r->end : offset;
    }
    *ret_data = r->data;
    *ret_end = r->end;
    pthread_mutex_unlock(&r->lock);
    return rc;
}

static int raw_map(struct block_format *f, u64 offset, u64 len, struct block_extent *ret_extent,
                   struct err *err)
{
    u64 file_size = f->file->size, end;
    bool data = false;
    int rc;

    *ret_extent =
        (struct block_extent){.kind = BLOCK_KIND_ZERO, .len = len, .file = f->file, .host = offset};
    if (offset >= file_size)
        return 0;
    rc = range_at(raw_of(f), offset, &data, &end);
    if (rc)
        return err_sys(err, -rc, "%s: cannot tell data from holes", f->file->name);
    ret_extent->kind = data ? BLOCK_KIND_DATA : BLOCK_KIND_ZERO;
    ret_extent->len = MIN(len, end - offset);
    return 0;
}

static bool raw_ready(struct block_format *f, u64 offset)
{
    return true;
}

static int raw_unpack(struct block_format *f, const struct block_extent *e, void *buf,
                      struct err *err)
{
    return err_set(err, EINVAL, "raw images are not compressed");
}

static int raw_room(struct block_format *f, u64 offset, u64 len, struct block_room *ret_room,
                    struct err *err)
{
    *ret_room = (struct block_room){.file = f->file, .start = offset, .len = len, .host = offset};
    return 0;
}

static int raw_link(struct block_format *f, const struct block_room *r, struct err *err)
{
    return 0;
}

static void raw_drop(struct block_format *f, const struct block_room *r)
{
}

static int raw_zero(struct block_format *f, u64 offset, u64 len, bool unmap, struct err *err)
{
    int rc = block_file_zero(f->file, offset, len, unmap);

    return rc ? err_sys(err, -rc, "%s: cannot zero", f->file->name) : 0;
}

static int raw_flush(struct block_format *f, struct err *err)
{
    int rc = block_file_sync(f->file);

    return rc ? err_sys(err, -rc, "%s: cannot sync", f->file->name) : 0;
}

static int raw_freeze(struct block_format *f, struct err *err)
{
    int rc = f->readonly ? 0 : raw_flush(f, err);

    f->readonly = f->readonly || !rc;
    return rc;
}

static int raw_resize(struct block_format *f, u64 size, struct err *err)
{
    int rc;

    if (f->file->device && size != f->size)
        return err_set(err, ENOTSUP, "%s: a block device has the size that it has", f->file->name);
    rc = block_file_truncate(f->file, size);
    if (rc)
        return err_sys(err, -rc, "%s: cannot resize", f->file->name);
    f->size = size;
    return 0;
}

static const struct block_format_ops raw_ops = {
    .name = "raw",
    .close = raw_close,
    .map = raw_map,
    .ready = raw_ready,
    .unpack = raw_unpack,
    .room = raw_room,
    .link = raw_link,
    .drop = raw_drop,
    .zero = raw_zero,
    .flush = raw_flush,
    .freeze = raw_freeze,
    .resize = raw_resize,
};

int block_raw_open(struct block_file *file, const struct block_format_options *o,
                   struct block_format **ret_format, struct err *err)
{
    struct raw *r = calloc(1, sizeof(*r));

    if (!r)
        return err_set(err, ENOMEM, "%s: no memory", file->name);
    pthread_mutex_init(&r->lock, NULL);
    r->fmt = (struct block_format){.ops = &raw_ops,
                                   .file = file,
                                   .data = file,
                                   .size = ALIGN_UP((u64)file->size, (u64)SECTOR),
                                   .cluster_bytes = SECTOR,
                                   .readonly = o->readonly};
    *ret_format = &r->fmt;
    return 0;
}
