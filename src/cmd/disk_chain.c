/* `trapeze disk commit` and `trapeze disk rebase`: an image and what it stands on. Main thread; copying has more. */
#include "block/restack.h"
#include "cmd/disk.h"
#include "cmd/ending.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define BETWEEN_MAX 200

static int need_qcow2(const struct block_image *image, struct err *err)
{
    if (!strcmp(image->fmt->ops->name, "qcow2"))
        return 0;
    return err_set(err, EINVAL, "%s: raw images have no backing image", image->path);
}

/* --- commit --- */

enum {
    COMMIT_BASE,
    COMMIT_KEEP,
    COMMIT_FORMAT,
    COMMIT_PROGRESS,
    COMMIT_QUIET,
    COMMIT_CACHE,
    COMMIT_TRUST,
    COMMIT_IMAGE_OPTS,
    COMMIT_OBJECT,
    COMMIT_RATE,
    COMMIT_HELP
};

static const struct args_spec commit_options[] = {
    [COMMIT_BASE] = {"base", 'b', "FILE",
                     "into this one, further below, with all between; nothing is emptied"},
    [COMMIT_KEEP] = {"keep", 'd', NULL, "do not empty the image afterwards"},
    [COMMIT_FORMAT] = {"format", 'f', "FORMAT", "qcow2"},
    [COMMIT_PROGRESS] = {"progress", 'p', NULL, "show how much is done"},
    [COMMIT_QUIET] = {"quiet", 'q', NULL, "print nothing but errors"},
    [COMMIT_CACHE] = {"cache", 't', "MODE", "changes nothing: everything is on the disk then"},
    [COMMIT_TRUST] = {"trust", 0, NULL, "the images may name files outside their folders"},
    [COMMIT_IMAGE_OPTS] = {"image-opts", 0, NULL, NULL},
    [COMMIT_OBJECT] = {"object", 0, "OBJECT", NULL},
    [COMMIT_RATE] = {"rate-limit", 'r', "RATE", NULL},
    [COMMIT_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

static const struct disk_refusal commit_refused[] = {{COMMIT_IMAGE_OPTS, DISK_WHY_IMAGE_OPTS},
                                                     {COMMIT_OBJECT, DISK_WHY_OBJECT},
                                                     {COMMIT_RATE, DISK_WHY_RATE},
                                                     {0, NULL}};

/* Is the file `path` what `image` stands on? path NULL: whatever that is. */
static int stands_on(const struct block_image *image, const char *path, bool trust, bool *ret_yes,
                     struct err *err)
{
    struct stat wanted, there;
    struct block_file *file;
    int rc;

    if (!image->fmt->backing_name)
        return err_set(err, EINVAL, "%s: has no backing image%s%s", image->path,
                       path ? ", and so does not stand on " : "", path ? path : "");
    *ret_yes = true;
    if (!path)
        return 0;
    if (stat(path, &wanted))
        return err_sys(err, errno, "%s", path);
    rc = block_chain_open(image, image->fmt->backing_name, trust, true, &file, err);
    if (rc)
        return rc;
    if (fstat(file->fd, &there))
        rc = err_sys(err, errno, "%s", file->name);
    *ret_yes = wanted.st_dev == there.st_dev && wanted.st_ino == there.st_ino;
    block_file_close(file);
    return rc;
}

/* Opens what is between top and the base, so that it goes down with it; the lowest of them stands on the base. */
static int open_between(struct block_image *top, const char *base, bool trust,
                        struct block_image **ret_lowest, struct err *err)
{
    struct block_image_options io = {.readonly = true, .no_backing = true, .trust = trust};
    struct block_image *lowest = top, *next;
    bool found = false;
    int rc = stands_on(lowest, base, trust, &found, err);

    for (unsigned n = 0; !rc && !found; n++) {
        io.format = lowest->fmt->backing_format;
        if (n == BETWEEN_MAX)
            return err_set(err, ELOOP, "%s: more than %d backing files above it", base,
                           BETWEEN_MAX);
        rc = block_image_open_named(lowest, lowest->fmt->backing_name, &io, &next, err);
        if (!rc && (rc = block_image_stack(lowest, next, err)))
            block_image_close(next);
        if (!rc) {
            lowest = next;
            rc = stands_on(lowest, base, trust, &found, err);
        }
    }
    *ret_lowest = lowest;
    return rc;
}

static int commit(struct block_image *top, const struct sub_args *a, struct err *err)
{
    const char *path = a->value[COMMIT_BASE];
    struct block_image_options io = {.trust = a->value[COMMIT_TRUST]};
    bool keep = a->value[COMMIT_KEEP] || path,
         show = a->value[COMMIT_PROGRESS] && !a->value[COMMIT_QUIET];
    struct block_progress progress = DISK_PROGRESS;
    struct block_image *lowest = top, *base;
    struct ending ending = {0};
    int rc = open_between(top, path, io.trust, &lowest, err);

    if (rc)
        return rc;
    io.format = lowest->fmt->backing_format;
    rc = block_image_open_named(lowest, lowest->fmt->backing_name, &io, &base, err);
    if (rc)
        return rc;
    rc = ending_say(&ending, err,
                    "trapeze disk commit: stopped; %s shows what it did, and %s has a part of it "
                    "already: commit it again",
                    top->path, base->path);
    if (!rc)
        rc = block_commit(top, base, keep, show ? &progress : NULL, err);
    ending_stop(&ending);
    disk_progress_end(&progress);
    block_image_close(base);
    return rc;
}

static int commit_run(const struct sub_args *a, struct err *err)
{
    struct block_image_options io = {
        .format = a->value[COMMIT_FORMAT], .no_backing = true, .trust = a->value[COMMIT_TRUST]};
    struct block_image *top;
    int rc = disk_refuse(a, commit_options, commit_refused, err);

    if (!rc)
        rc = disk_cache(a->value[COMMIT_CACHE], NULL, err);
    if (!rc)
        rc = block_image_open(a->operand[0], &io, &top, err);
    if (rc)
        return rc;
    rc = need_qcow2(top, err);
    if (!rc)
        rc = commit(top, a, err);
    block_image_close(top);
    return rc;
}

const struct subverb disk_commit_verb = {
    .name = "commit",
    .usage = "[options] FILE",
    .summary = "Write what an image holds into its backing image",
    .options = commit_options,
    .operands_min = 1,
    .operands_max = 1,
    .run = commit_run,
};

/* --- rebase --- */

enum {
    REBASE_BACKING,
    REBASE_BACKING_FORMAT,
    REBASE_FORMAT,
    REBASE_SHARE,
    REBASE_PROGRESS,
    REBASE_QUIET,
    REBASE_SOURCE_CACHE,
    REBASE_CACHE,
    REBASE_TRUST,
    REBASE_UNSAFE,
    REBASE_IMAGE_OPTS,
    REBASE_OBJECT,
    REBASE_HELP
};

static const struct args_spec rebase_options[] = {
    [REBASE_BACKING] = {"backing", 'b', "FILE", "the new backing image; empty: none"},
    [REBASE_BACKING_FORMAT] = {"backing-format", 'F', "FORMAT", "its format"},
    [REBASE_FORMAT] = {"format", 'f', "FORMAT", "of the image: qcow2"},
    [REBASE_SHARE] = {"force-share", 'U', NULL, NULL},
    [REBASE_PROGRESS] = {"progress", 'p', NULL, "show how much is done"},
    [REBASE_QUIET] = {"quiet", 'q', NULL, "print nothing but errors"},
    [REBASE_SOURCE_CACHE] = {"source-cache", 'T', "MODE", "changes nothing"},
    [REBASE_CACHE] = {"cache", 't', "MODE", "changes nothing: everything is on the disk then"},
    [REBASE_TRUST] = {"trust", 0, NULL, "the images may name files outside their folders"},
    [REBASE_UNSAFE] = {"unsafe", 'u', NULL,
                       "only change the name: the new one has the same content"},
    [REBASE_IMAGE_OPTS] = {"image-opts", 0, NULL, NULL},
    [REBASE_OBJECT] = {"object", 0, "OBJECT", NULL},
    [REBASE_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

static const struct disk_refusal rebase_refused[] = {
    {REBASE_SHARE, "what is written to meanwhile has no content to keep; stop whoever uses it"},
    {REBASE_IMAGE_OPTS, DISK_WHY_IMAGE_OPTS},
    {REBASE_OBJECT, DISK_WHY_OBJECT},
    {0, NULL}};

static int rebase_onto(struct block_image *top, const struct sub_args *a, struct err *err)
{
    const char *name = *a->value[REBASE_BACKING] ? a->value[REBASE_BACKING] : NULL;
    const char *format = a->value[REBASE_BACKING_FORMAT];
    struct block_image_options io = {
        .format = format, .readonly = true, .trust = a->value[REBASE_TRUST]};
    struct block_progress progress = DISK_PROGRESS;
    bool show = a->value[REBASE_PROGRESS] && !a->value[REBASE_QUIET];
    struct block_image *base = NULL;
    struct ending ending = {0};
    int rc = need_qcow2(top, err);

    if (!rc && a->value[REBASE_UNSAFE])
        return qcow2_set_backing(top->fmt, name, format, err);
    if (!rc && name)
        rc = block_image_open_named(top, name, &io, &base, err);
    if (!rc)
        rc = ending_say(&ending, err,
                        "trapeze disk rebase: stopped; %s shows what it did: rebase it again",
                        top->path);
    if (!rc)
        rc = block_rebase(top, base, name, format, show ? &progress : NULL, err);
    ending_stop(&ending);
    disk_progress_end(&progress);
    block_image_close(base);
    return rc;
}

static int rebase_run(const struct sub_args *a, struct err *err)
{
    struct block_image_options io = {.format = a->value[REBASE_FORMAT],
                                     .no_backing = a->value[REBASE_UNSAFE],
                                     .trust = a->value[REBASE_TRUST]};
    struct block_image *top;
    int rc = disk_refuse(a, rebase_options, rebase_refused, err);

    if (!rc)
        rc = disk_cache(a->value[REBASE_CACHE], NULL, err);
    if (!rc)
        rc = disk_cache(a->value[REBASE_SOURCE_CACHE], NULL, err);
    if (rc)
        return rc;
    if (!a->value[REBASE_BACKING])
        return sub_usage(err, "--backing is missing (empty: none)");
    if (*a->value[REBASE_BACKING] && !a->value[REBASE_BACKING_FORMAT])
        return sub_usage(
            err, "--backing needs --backing-format: the format is never guessed from content");
    rc = block_image_open(a->operand[0], &io, &top, err);
    if (rc)
        return rc;
    rc = rebase_onto(top, a, err);
    block_image_close(top);
    return rc;
}

const struct subverb disk_rebase_verb = {
    .name = "rebase",
    .usage = "[options] --backing FILE --backing-format FORMAT FILE",
    .summary = "Give an image another backing image",
    .options = rebase_options,
    .operands_min = 1,
    .operands_max = 1,
    .run = rebase_run,
};
