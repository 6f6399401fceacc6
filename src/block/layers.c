/*
 * Disks made of several images: opened from descriptors, given another layer while the machine stands still, handed from
 * host to host.
 *
 * Invariants:
 * 1. The image below the top is written to no more once it has an image above it, except that what a format still holds
 *    in memory is written by the next flush (block_image.unfinished). Until then it is locked as if it were the top.
 * 2. A disk that was given up holds nothing in memory that another host could have made untrue by the time it is taken
 *    again: its formats are opened anew then.
 *
 * Threads: the main loop, while no request is under way; block_sync() any.
 */
#include "block/disk.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- opening --- */

static void close_fds(const struct block_layer *layer, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (layer[i].fd >= 0)
            close(layer[i].fd);
        if (layer[i].data_fd >= 0)
            close(layer[i].data_fd);
    }
}

static int open_data(struct block_image *image, int fd, const struct block_options *o,
                     struct err *err)
{
    const char *name = image->fmt->data_name ? image->fmt->data_name : image->path;
    int rc;

    if (!image->fmt->data_external) {
        if (fd >= 0)
            close(fd);
        return fd < 0 ? 0 : err_set(err, EINVAL, "%s: has no external data file", image->path);
    }
    if (fd < 0)
        return err_set(err, EINVAL, "%s: keeps its data in another file, '%s', which is missing",
                       image->path, name);
    rc = block_file_from_fd(fd, name, true, &image->data_file, err);
    if (!rc && !o->given_up)
        rc = block_file_lock(image->data_file, err);
    if (!rc)
        image->fmt->data = image->data_file;
    return rc;
}

static int open_one(const struct block_layer *l, const struct block_options *o, bool top,
                    struct block_image **ret_image, struct err *err)
{
    struct block_image_options io = {.format = l->format,
                                     .readonly = !top || o->readonly || o->given_up};
    struct block_image *image = NULL;
    struct block_file *file;
    int rc = block_file_from_fd(l->fd, l->path, !top || o->readonly, &file, err);

    if (!rc && !o->given_up && (rc = block_file_lock(file, err)))
        block_file_close(file);
    if (!rc)
        rc = block_image_from(file, &io, &image, err);
    if (rc) {
        if (l->data_fd >= 0)
            close(l->data_fd);
        return rc;
    }
    rc = open_data(image, l->data_fd, o, err);
    if (rc)
        block_image_close(image);
    else
        *ret_image = image;
    return rc;
}

/* From the bottom up; takes all descriptors. */
static int open_all(const struct block_layer *layer, unsigned n, const struct block_options *o,
                    struct block_image **ret_image, struct err *err)
{
    struct block_image *below = NULL, *image = NULL;
    int rc = 0;

    while (n && !rc) {
        const struct block_layer *l = &layer[--n];

        rc = open_one(l, o, n == 0, &image, err);
        if (rc)
            break;
        if (below)
            rc = block_image_stack(image, below, err);
        else if (image->fmt->backing_name)
            rc = err_set(err, EINVAL, "%s: stands on '%s', which is missing", l->path,
                         image->fmt->backing_name);
        if (rc)
            block_image_close(image);
        else
            below = image;
    }
    if (rc) {
        block_image_close(below);
        close_fds(layer, n);
        return rc;
    }
    *ret_image = below;
    return 0;
}

int block_open_layers(const struct block_layer *layer, unsigned n, const struct block_options *o,
                      struct block_engine *e, struct block **ret_disk, struct err *err)
{
    struct block *b = n ? block_new(layer[0].path, o, e) : NULL;
    int rc;

    if (!b) {
        close_fds(layer, n);
        return n ? err_set(err, ENOMEM, "%s: no memory", layer[0].path)
                 : err_set(err, EINVAL, "a disk without an image");
    }
    rc = open_all(layer, n, o, &b->image, err);
    if (!rc)
        rc = block_adopt(b, err);
    if (rc) {
        block_close(b);
        return rc;
    }
    b->given_up = o->given_up;
    *ret_disk = b;
    return 0;
}

unsigned block_layers(const struct block *b)
{
    unsigned n = 0;

    for (const struct block_image *i = b->image; i; i = i->backing)
        n++;
    return n;
}

static const struct block_image *layer_at(const struct block *b, unsigned layer)
{
    const struct block_image *i = b->image;

    while (layer-- && i)
        i = i->backing;
    return i;
}

const char *block_layer_path(const struct block *b, unsigned layer)
{
    const struct block_image *i = layer_at(b, layer);

    return i ? i->path : NULL;
}

const char *block_layer_format(const struct block *b, unsigned layer)
{
    const struct block_image *i = layer_at(b, layer);

    return i ? i->fmt->ops->name : NULL;
}

/* --- another layer --- */

/* It must hold nothing, or the guest would see that instead of its disk. */
static int check_overlay(const struct block *b, struct block_image *overlay, struct err *err)
{
    u64 size = block_image_size(overlay);

    if (size != b->size)
        return err_set(err, EINVAL, "%s: is %llu bytes large, the disk %llu", overlay->path,
                       (unsigned long long)size, (unsigned long long)b->size);
    if (overlay->fmt->data_external)
        return err_set(err, ENOTSUP, "%s: an overlay keeps its data itself", overlay->path);
    for (u64 at = 0; at < size;) {
        struct block_extent e;
        int rc = overlay->fmt->ops->map(overlay->fmt, at, size - at, &e, err);

        if (rc)
            return rc;
        if (e.kind != BLOCK_KIND_ABSENT)
            return err_set(err, EINVAL, "%s: is not empty", overlay->path);
        at += e.len;
    }
    return 0;
}

static int open_overlay(const struct block *b, int fd, const char *path,
                        struct block_image **ret_overlay, struct err *err)
{
    const struct block_layer layer = {fd, path, "qcow2", -1};
    const struct block_options o = {0};
    struct block_image *overlay;
    int rc = open_one(&layer, &o, true, &overlay, err);

    if (rc)
        return rc;
    rc = check_overlay(b, overlay, err);
    if (rc)
        block_image_close(overlay);
    else
        *ret_overlay = overlay;
    return rc;
}

int block_push(struct block *b, int overlay_fd, const char *path, struct err *err)
{
    struct block_image *overlay, *below = b->image;
    char *name = strdup(path);
    int rc = name ? 0 : err_set(err, ENOMEM, "%s: no memory", path);

    if (!rc && (b->readonly || b->given_up))
        rc = err_set(err, EROFS, "%s: is not ours to write to, and needs no overlay", b->path);
    if (rc)
        close(overlay_fd);
    else
        rc = open_overlay(b, overlay_fd, path, &overlay, err);
    if (!rc && (rc = block_image_stack(overlay, below, err)))
        block_image_close(overlay);
    if (rc) {
        free(name);
        return rc;
    }
    block_drain(b);
    below->unfinished = true;
    below->file->unsynced = true; /* requests that went straight to it were not counted there */
    b->image = overlay;
    b->direct = false;
    b->fd = -1;
    /* A flush has something to do, even if the guest has nothing to flush. */
    atomic_fetch_add(&b->written, 1);
    free(b->path);
    b->path = name;
    return 0;
}

/* --- the medium, and other hosts --- */

int block_sync(struct block *b, struct err *err)
{
    u64 begun = block_flush_begin(b);
    int rc = atomic_load(&b->flush_failed) ? -EIO : 0;

    if (rc)
        return err_set(err, EIO, "%s: writing it to the disk has failed before", b->path);
    if (b->direct)
        b->image->file->unsynced = true;
    rc = block_image_flush(b->image, err);
    /* Metadata found no room; nothing is lost, it can be tried again. (A sync that fails is EIO always.) */
    if (rc == -ENOSPC || rc == -EDQUOT)
        return rc;
    return block_flush_end(b, begun, rc) ? -EIO : 0;
}

static int lock_all(struct block *b, enum block_lock lock, struct err *err)
{
    int rc = 0;

    for (struct block_image *i = b->image; !rc && i; i = i->backing) {
        enum block_lock wish = lock == BLOCK_EXCLUSIVE && i != b->image ? BLOCK_SHARED : lock;

        rc = block_file_set_lock(i->file, wish, err);
        if (!rc && i->data_file)
            rc = block_file_set_lock(i->data_file, MIN(wish, BLOCK_SHARED), err);
    }
    return rc;
}

static int give_up(struct block *b, struct err *err)
{
    int rc;

    block_drain(b);
    rc = b->readonly ? 0 : block_sync(b, err);
    if (!rc)
        rc = b->image->fmt->ops->freeze(b->image->fmt, err);
    if (rc)
        return rc;
    b->given_up = true;
    return lock_all(b, BLOCK_UNLOCKED, err);
}

static int take(struct block *b, enum block_lock lock, struct err *err)
{
    int rc = lock_all(b, lock, err);

    /* Those above may rely on the size of those below; no order is needed, since nobody asks them yet. */
    for (struct block_image *i = b->image; !rc && i; i = i->backing)
        rc = block_image_reopen(i, i != b->image || b->readonly, err);
    if (!rc && block_image_size(b->image) < b->size)
        rc = err_set(err, EIO, "%s: has become smaller meanwhile", b->path);
    if (rc)
        lock_all(b, BLOCK_UNLOCKED, NULL);
    else
        b->given_up = false;
    return rc;
}

int block_set_lock(struct block *b, enum block_lock lock, struct err *err)
{
    if (lock == BLOCK_UNLOCKED)
        return b->given_up ? 0 : give_up(b, err);
    lock = b->readonly ? BLOCK_SHARED : BLOCK_EXCLUSIVE;
    return b->given_up ? take(b, lock, err) : lock_all(b, lock, err);
}
