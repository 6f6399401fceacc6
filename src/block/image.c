/*
 * Opening images with all they stand on. See image_io.c for reading and writing.
 *
 * Invariant: a chain is finite: no file appears twice in it, and it has at most CHAIN_MAX images. Any thread.
 */
#include "block/image.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CHAIN_MAX 200

static const struct {
    const char *name;
    int (*open)(struct block_file *file, const struct block_format_options *o,
                struct block_format **ret_format, struct err *err);
} formats[] = {{"qcow2", block_qcow2_open}, {"raw", block_raw_open}};

int block_format_guess(struct block_file *file, const char **ret_format, struct err *err)
{
    static const char magic[4] = {'Q', 'F', 'I', (char)0xfb}, suffix[] = ".qcow2";
    size_t len = strlen(file->name);
    bool called = len >= sizeof(suffix) && !strcmp(file->name + len - sizeof(suffix) + 1, suffix),
         looks;
    char start[4] = "";
    int rc = file->size >= sizeof(start) ? block_file_read(file, start, sizeof(start), 0) : 0;

    if (rc)
        return err_sys(err, -rc, "%s", file->name);
    looks = !memcmp(start, magic, sizeof(magic));
    if (looks && !called)
        return err_set(
            err, EINVAL,
            "%s: starts like a qcow2 image, but raw disks can be made to; say its format",
            file->name);
    if (called && !looks)
        return err_set(err, EINVAL, "%s: not a qcow2 image in spite of its name; say its format",
                       file->name);
    *ret_format = looks ? "qcow2" : "raw";
    return 0;
}

static int open_format(struct block_image *i, const struct block_image_options *o, struct err *err)
{
    struct block_format_options fo = {.readonly = o->readonly || o->given_up, .repair = o->repair};
    const char *format = o->format;
    int rc = format ? 0 : block_format_guess(i->file, &format, err);

    if (rc)
        return rc;
    for (unsigned n = 0; n < ARRAY_LEN(formats); n++)
        if (!strcmp(formats[n].name, format))
            return formats[n].open(i->file, &fo, &i->fmt, err);
    return err_set(err, EINVAL, "%s: format '%s' is not known; there are raw and qcow2", i->path,
                   format);
}

int block_image_from(struct block_file *file, const struct block_image_options *o,
                     struct block_image **ret_image, struct err *err)
{
    struct block_image *i = calloc(1, sizeof(*i));
    int rc;

    if (!i) {
        block_file_close(file);
        return err_set(err, ENOMEM, "no memory");
    }
    pthread_mutex_init(&i->lock, NULL);
    i->file = file;
    i->path = strdup(file->name);
    file->unsafe = o->unsafe;
    rc = i->path ? open_format(i, o, err) : err_set(err, ENOMEM, "no memory");
    if (rc)
        block_image_close(i);
    else
        *ret_image = i;
    return rc;
}

/* --- the files it names --- */

static bool same_file(const struct block_file *a, const struct block_file *b)
{
    struct stat x, y;

    return fstat(a->fd, &x) == 0 && fstat(b->fd, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

static int open_data_file(struct block_image *i, const struct block_image_options *o,
                          struct err *err)
{
    int rc;

    if (!i->fmt->data_name)
        return err_set(err, EINVAL, "%s: keeps its data in another file, but does not say in which",
                       i->path);
    rc = block_chain_open(i, i->fmt->data_name, o->trust, true, &i->data_file, err);
    if (!rc && !o->shared && !o->given_up)
        rc = block_file_lock(i->data_file, err);
    if (!rc)
        i->fmt->data = i->data_file;
    return rc;
}

/* May `file` be the image at that depth below `top`? */
static int check_chain(const struct block_image *top, const struct block_file *file, unsigned depth,
                       struct err *err)
{
    for (const struct block_image *above = top; above; above = above->backing)
        if (same_file(above->file, file))
            return err_set(err, ELOOP, "%s: is its own backing file, over %u images", file->name,
                           depth - above->depth);
    if (depth >= CHAIN_MAX)
        return err_set(err, ELOOP, "%s: more than %d backing files above it", file->name,
                       CHAIN_MAX);
    return 0;
}

/* The image below `i`, alone. */
static int open_below(struct block_image *top, struct block_image *i,
                      const struct block_image_options *o, struct err *err)
{
    struct block_image_options below = {.format = i->fmt->backing_format,
                                        .readonly = true,
                                        .shared = o->shared || o->given_up,
                                        .trust = o->trust};
    struct block_file *file;
    int rc = block_chain_open(i, i->fmt->backing_name, o->trust, true, &file, err);

    if (rc)
        return rc;
    rc = check_chain(top, file, i->depth + 1, err);
    /* Before the lock, which we ourselves hold: nobody else "uses" it. */
    if (!rc && o->above && same_file(o->above->file, file))
        rc = err_set(err, ELOOP, "%s: stands on %s, which would be its own backing file", i->path,
                     file->name);
    if (!rc && !below.shared)
        rc = block_file_lock(file, err);
    if (rc) {
        block_file_close(file);
        return rc;
    }
    rc = block_image_from(file, &below, &i->backing, err);
    if (!rc)
        i->backing->depth = i->depth + 1;
    return rc;
}

static int open_named(struct block_image *top, const struct block_image_options *o, struct err *err)
{
    int rc = 0;

    for (struct block_image *i = top; !rc && i; i = i->backing) {
        if (i->fmt->data_external && !o->repair)
            rc = open_data_file(i, o, err);
        if (!rc && i->fmt->backing_name && !o->no_backing && !o->repair)
            rc = open_below(top, i, o, err);
        if (rc && i != top)
            err_wrap(err, "%s", top->path);
    }
    return rc;
}

/* Takes the file; opens it and what it stands on. */
static int open_whole(struct block_file *file, const struct block_image_options *o,
                      struct block_image **ret_image, struct err *err)
{
    struct block_image *i;
    int rc = block_image_from(file, o, &i, err);

    if (rc)
        return rc;
    rc = open_named(i, o, err);
    if (rc)
        block_image_close(i);
    else
        *ret_image = i;
    return rc;
}

int block_image_open(const char *path, const struct block_image_options *o,
                     struct block_image **ret_image, struct err *err)
{
    struct block_file_options fo = BLOCK_FILE_OPTIONS;
    struct block_file *file;
    int rc;

    fo.readonly = o->readonly;
    fo.shared = o->shared || o->given_up;
    rc = block_file_open(path, &fo, &file, err);
    return rc ? rc : open_whole(file, o, ret_image, err);
}

int block_image_open_named(const struct block_image *from, const char *name,
                           const struct block_image_options *o, struct block_image **ret_image,
                           struct err *err)
{
    struct block_image_options named = *o;
    struct block_file *file;
    int rc = block_chain_open(from, name, o->trust, o->readonly, &file, err);

    if (rc)
        return rc;
    if (same_file(from->file, file))
        rc = err_set(err, ELOOP, "%s: would be its own backing file", file->name);
    if (!rc && !o->shared)
        rc = block_file_lock(file, err);
    if (rc) {
        block_file_close(file);
        return rc;
    }
    named.above = from;
    return open_whole(file, &named, ret_image, err);
}

int block_image_stack(struct block_image *top, struct block_image *below, struct err *err)
{
    int rc = 0;

    if (!top->fmt->backing_name)
        return err_set(err, EINVAL, "%s: names no backing image, so it cannot stand on %s",
                       top->path, below->path);
    for (struct block_image *i = below; !rc && i; i = i->backing)
        rc = check_chain(top, i->file, i->depth + 1, err);
    if (rc)
        return rc;
    for (struct block_image *i = below; i; i = i->backing)
        i->depth++;
    top->backing = below;
    return 0;
}

int block_image_reopen(struct block_image *i, bool readonly, struct err *err)
{
    struct block_image_options o = {.format = i->fmt->ops->name, .readonly = readonly};
    struct block_format *old = i->fmt;
    int rc = block_file_refresh(i->file, err);

    if (!rc && i->data_file)
        rc = block_file_refresh(i->data_file, err);
    if (!rc)
        rc = open_format(i, &o, err);
    if (rc)
        return rc;
    if (i->fmt->data_external && !i->data_file) {
        i->fmt->ops->close(i->fmt);
        i->fmt = old;
        return err_set(err, EIO, "%s: has got an external data file meanwhile", i->path);
    }
    if (i->fmt->data_external)
        i->fmt->data = i->data_file;
    i->unpacked_host = UINT64_MAX;
    old->ops->close(old);
    return 0;
}

void block_image_close(struct block_image *i)
{
    while (i) {
        struct block_image *backing = i->backing;

        if (i->fmt)
            i->fmt->ops->close(i->fmt);
        block_file_close(i->data_file);
        block_file_close(i->file);
        pthread_mutex_destroy(&i->lock);
        free(i->unpacked);
        free(i->path);
        free(i);
        i = backing;
    }
}

u64 block_image_size(const struct block_image *i)
{
    return i->fmt->size;
}
