/*
 * `trapeze disk convert`. The copy is made beside the file that it becomes; where that cannot be, in a block device or in
 * an image that is there (--no-create), a qcow2 image has no magic number until it is whole. Main thread; copying has
 * more.
 */
#include "cmd/disk.h"
#include "cmd/disk_new.h"
#include "cmd/new_file.h"
#include "vm/value.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define SPARSE_MAX (16 * MiB)

enum {
    CONVERT_BACKING,
    CONVERT_CACHE,
    CONVERT_COMPRESS,
    CONVERT_BACKING_FORMAT,
    CONVERT_FORMAT,
    CONVERT_SHARE,
    CONVERT_NO_CREATE,
    CONVERT_OPTIONS,
    CONVERT_OUT,
    CONVERT_PROGRESS,
    CONVERT_QUIET,
    CONVERT_SOURCE_CACHE,
    CONVERT_SPARSE,
    CONVERT_SYNC,
    CONVERT_ZERO,
    CONVERT_THREADS,
    CONVERT_TRUST,
    CONVERT_ORDER,
    CONVERT_BITMAPS,
    CONVERT_SKIP_BITMAPS,
    CONVERT_OFFLOAD,
    CONVERT_IMAGE_OPTS,
    CONVERT_TARGET_OPTS,
    CONVERT_OBJECT,
    CONVERT_SNAPSHOT,
    CONVERT_RATE,
    CONVERT_SALVAGE,
    CONVERT_HELP
};

static const struct args_spec options[] = {
    [CONVERT_BACKING] = {"backing", 'B', "FILE",
                         "the new image stands on this one, which has the content of the old base"},
    [CONVERT_CACHE] = {"cache", 't', "MODE", "all but unsafe: the same as --sync (unsafe)"},
    [CONVERT_COMPRESS] = {"compress", 'c', NULL, "into compressed clusters (qcow2)"},
    [CONVERT_BACKING_FORMAT] = {"backing-format", 'F', "FORMAT", "the format of the backing image"},
    [CONVERT_FORMAT] = {"format", 'f', "FORMAT", "of the image there is: raw or qcow2"},
    [CONVERT_SHARE] = {"force-share", 'U', NULL, "read an image that somebody writes to"},
    [CONVERT_NO_CREATE] = {"no-create", 'n', NULL, "write into an image that is there"},
    [CONVERT_OPTIONS] = {"options", 'o', "LIST", "as for create"},
    [CONVERT_OUT] = {"output-format", 'O', "FORMAT", "of the new image: raw or qcow2 (raw)"},
    [CONVERT_PROGRESS] = {"progress", 'p', NULL, "show how much is done"},
    [CONVERT_QUIET] = {"quiet", 'q', NULL, "print nothing but errors"},
    [CONVERT_SOURCE_CACHE] = {"source-cache", 'T', "MODE", "changes nothing"},
    [CONVERT_SPARSE] = {"sparse", 'S', "SIZE",
                        "shorter runs of zeros are written; 0: all is written (4k)"},
    [CONVERT_SYNC] = {"sync", 0, NULL, "end only when the new image is on the disk for good"},
    [CONVERT_ZERO] = {"target-is-zero", 0, NULL, "with -n: what is there reads as zeros"},
    [CONVERT_THREADS] = {"threads", 'm', "NUMBER", "at most so many at work"},
    [CONVERT_TRUST] = {"trust", 0, NULL, "the images may name files outside their folders"},
    [CONVERT_ORDER] = {"out-of-order", 'W', NULL, "changes nothing: pieces have no order"},
    [CONVERT_BITMAPS] = {"bitmaps", 0, NULL, NULL},
    [CONVERT_SKIP_BITMAPS] = {"skip-broken-bitmaps", 0, NULL, NULL},
    [CONVERT_OFFLOAD] = {"copy-offload", 'C', NULL, NULL},
    [CONVERT_IMAGE_OPTS] = {"image-opts", 0, NULL, NULL},
    [CONVERT_TARGET_OPTS] = {"target-image-opts", 0, NULL, NULL},
    [CONVERT_OBJECT] = {"object", 0, "OBJECT", NULL},
    [CONVERT_SNAPSHOT] = {"snapshot", 'l', "NAME", NULL},
    [CONVERT_RATE] = {"rate-limit", 'r', "RATE", NULL},
    [CONVERT_SALVAGE] = {"salvage", 0, NULL, NULL},
    [CONVERT_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

static const struct disk_refusal refused[] = {
    {CONVERT_BITMAPS, "bitmaps of other programs are not copied; they keep them in the old image"},
    {CONVERT_SKIP_BITMAPS, "bitmaps of other programs are not copied"},
    {CONVERT_OFFLOAD, "bytes are shared with the old image wherever the file system can; leave it "
                      "out"},
    {CONVERT_IMAGE_OPTS, DISK_WHY_IMAGE_OPTS},
    {CONVERT_TARGET_OPTS, DISK_WHY_IMAGE_OPTS},
    {CONVERT_OBJECT, DISK_WHY_OBJECT},
    {CONVERT_SNAPSHOT, "internal snapshots are only listed; on a copy of the image, qemu-img "
                       "snapshot -a makes it the disk"},
    {CONVERT_RATE, DISK_WHY_RATE},
    {CONVERT_SALVAGE, "errors are never copied as zeros; disk check --repair all, on a copy of the "
                      "image, or ddrescue first"},
    {0, NULL},
};

/* What the command line says, together. */
struct convert {
    struct disk_new new;
    struct block_copy copy;
    struct block_progress progress;
    bool no_create, sync, trust;
    const char *path; /* of the new image */
};

static int refuse_same(const struct block_image *from, const char *path, struct err *err)
{
    struct stat a, b;

    for (const struct block_image *i = from; i; i = i->backing)
        if (fstat(i->file->fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev &&
            a.st_ino == b.st_ino)
            return sub_usage(err, "%s is read and cannot be written as well", path);
    return 0;
}

/* --- the command line --- */

static int read_numbers(struct convert *v, const struct sub_args *a, struct err *err)
{
    u64 sparse = 1, threads;
    int rc = a->value[CONVERT_SPARSE] ? disk_size(a->value[CONVERT_SPARSE], &sparse, err) : 0;

    if (!rc && a->value[CONVERT_SPARSE]) {
        if (sparse % 512 || sparse > SPARSE_MAX)
            return sub_usage(err, "--sparse '%s' must be a multiple of 512, up to 16M",
                             a->value[CONVERT_SPARSE]);
        v->copy.full = !sparse;
        v->copy.sparse_bytes = (u32)sparse;
    }
    if (!rc && a->value[CONVERT_THREADS]) {
        if (value_number(a->value[CONVERT_THREADS], 1, 16, &threads, err))
            return sub_usage(err, "--threads: %s", ((struct err) * err).msg);
        v->copy.threads = (unsigned)threads;
    }
    return rc;
}

static int check_no_create(const struct sub_args *a, struct err *err)
{
    if (!a->value[CONVERT_NO_CREATE])
        return a->value[CONVERT_ZERO]
                   ? sub_usage(err, "--target-is-zero is for --no-create: new images are empty")
                   : 0;
    if (a->value[CONVERT_OPTIONS] || a->value[CONVERT_BACKING])
        return sub_usage(err, "--%s is for a new image, and --no-create makes none",
                         a->value[CONVERT_OPTIONS] ? "options" : "backing");
    return 0;
}

static int check_together(const struct convert *v, const struct sub_args *a, struct err *err)
{
    bool qcow2 = !strcmp(v->new.format, "qcow2");

    if (v->new.q.backing_name && !v->new.q.backing_format)
        return sub_usage(
            err, "--backing needs --backing-format: the format is never guessed from content");
    if (v->copy.compress && !qcow2 && !v->no_create)
        return sub_usage(err, "--compress is for qcow2 images; say --output-format qcow2");
    if (v->copy.compress && v->new.prealloc != BLOCK_PREALLOC_OFF)
        return sub_usage(err, "compressed clusters cannot be preallocated");
    if (v->copy.compress && a->value[CONVERT_SPARSE])
        return sub_usage(err, "--sparse is not for compressed clusters, which are zeros or not");
    if (v->copy.full && v->new.q.backing_name)
        return sub_usage(err, "--sparse 0 writes everything, and leaves nothing to --backing");
    if (a->value[CONVERT_BACKING_FORMAT] && !v->new.q.backing_name)
        return sub_usage(err, "--backing-format without --backing");
    if (v->new.has_size)
        return sub_usage(err, "-o size is for create; disk resize changes it afterwards");
    return check_no_create(a, err);
}

static int read_options(struct convert *v, const struct sub_args *a, struct err *err)
{
    int rc = disk_new_options(&v->new, a->value[CONVERT_OPTIONS],
                              a->value[CONVERT_OUT] ? a->value[CONVERT_OUT] : "raw", err);

    v->progress = DISK_PROGRESS;
    v->path = a->operand[1];
    v->no_create = a->value[CONVERT_NO_CREATE];
    v->trust = a->value[CONVERT_TRUST];
    v->copy.compress = a->value[CONVERT_COMPRESS];
    v->copy.to_is_zero = !v->no_create || a->value[CONVERT_ZERO];
    if (a->value[CONVERT_PROGRESS] && !a->value[CONVERT_QUIET])
        v->copy.progress = &v->progress;
    if (a->value[CONVERT_BACKING])
        v->new.q.backing_name = a->value[CONVERT_BACKING];
    if (a->value[CONVERT_BACKING_FORMAT])
        v->new.q.backing_format = a->value[CONVERT_BACKING_FORMAT];
    if (!rc)
        rc = disk_cache(a->value[CONVERT_CACHE], &v->sync, err);
    v->sync = v->sync || a->value[CONVERT_SYNC];
    if (!rc)
        rc = disk_cache(a->value[CONVERT_SOURCE_CACHE], NULL, err);
    if (!rc)
        rc = read_numbers(v, a, err);
    return rc ? rc : check_together(v, a, err);
}

/* --- copying --- */

/* Opens what the copy goes to. The format of an image that is there is what it says it is, if nobody else does. */
static int open_target(struct convert *v, const struct new_file *t, const char *format,
                       struct err *err)
{
    struct block_image_options io = {.format = format, .unsafe = true, .trust = v->trust};
    u64 size;
    int rc = block_image_open(t->work, &io, &v->copy.to, err);

    if (rc)
        return rc;
    size = block_image_size(v->copy.to);
    if (size < block_image_size(v->copy.from))
        rc = err_set(err, ENOSPC, "%s: has %llu bytes, and %llu are needed", v->path,
                     (unsigned long long)size, (unsigned long long)block_image_size(v->copy.from));
    if (!rc && v->copy.compress && strcmp(v->copy.to->fmt->ops->name, "qcow2"))
        rc = sub_usage(err, "--compress is for qcow2 images, and %s is none", v->path);
    if (rc)
        block_image_close(v->copy.to);
    return rc;
}

/* In place there is no other name to hide behind. */
static int copy_content(struct convert *v, bool in_place, struct err *err)
{
    struct block_image *to = v->copy.to;
    bool marked = in_place && !strcmp(to->fmt->ops->name, "qcow2");
    int rc = marked ? qcow2_header_whole(to->fmt, false, err) : 0;

    if (!rc)
        rc = block_copy(&v->copy, err);
    disk_progress_end(&v->progress);
    to->file->unsafe = !v->sync;
    if (!rc)
        rc = block_image_flush(to, err);
    if (!rc && marked)
        rc = qcow2_header_whole(to->fmt, true, err);
    if (rc && in_place)
        err_wrap(err,
                 marked ? "%s holds only a part, and is no image any more; make it anew"
                        : "%s holds only a part; make it anew",
                 v->path);
    return rc;
}

static int convert_into(struct convert *v, const struct new_file *t, const char *format,
                        struct err *err)
{
    int rc = v->no_create ? 0 : disk_new_make(&v->new, t->work, err);

    if (!rc)
        rc = open_target(v, t, format, err);
    if (rc)
        return rc;
    /* What a device holds is not known, and what stands on another image shows that. */
    if (t->in_place && !v->no_create && !strcmp(v->new.format, "raw"))
        v->copy.to_is_zero = false;
    if (v->new.q.backing_name) {
        v->copy.to_is_zero = false;
        v->copy.last = v->copy.from->backing ? v->copy.from : NULL;
    }
    rc = copy_content(v, t->in_place, err);
    block_image_close(v->copy.to);
    return rc;
}

static int convert(struct convert *v, const struct sub_args *a, struct err *err)
{
    const char *format = v->no_create ? a->value[CONVERT_OUT] : v->new.format;
    struct new_file target;
    int rc = refuse_same(v->copy.from, v->path, err);

    v->new.q.size = ALIGN_UP(block_image_size(v->copy.from), 512ull);
    v->new.unsafe = true;
    if (!rc)
        rc = disk_new_check(&v->new, v->path, err);
    if (!rc)
        rc =
            new_file_open(&target, v->path, v->no_create ? NEW_FILE_IN_PLACE : NEW_FILE_IMAGE, err);
    if (rc)
        return rc;
    rc = convert_into(v, &target, format, err);
    return new_file_close(&target, rc, v->sync, err);
}

static int convert_run(const struct sub_args *a, struct err *err)
{
    struct block_image_options io = {.format = a->value[CONVERT_FORMAT],
                                     .readonly = true,
                                     .shared = a->value[CONVERT_SHARE],
                                     .trust = a->value[CONVERT_TRUST]};
    struct convert v = {0};
    int rc = disk_refuse(a, options, refused, err);

    if (rc)
        return rc;
    if (disk_new_help(a->value[CONVERT_OPTIONS]))
        return STATUS_OK;
    rc = read_options(&v, a, err);
    if (!rc)
        rc = block_image_open(a->operand[0], &io, &v.copy.from, err);
    if (!rc) {
        rc = convert(&v, a, err);
        block_image_close(v.copy.from);
    }
    disk_new_free(&v.new);
    return rc;
}

const struct subverb disk_convert_verb = {
    .name = "convert",
    .usage = "[options] FILE NEW-FILE",
    .summary = "Copy an image into another format",
    .options = options,
    .operands_min = 2,
    .operands_max = 2,
    .run = convert_run,
};
