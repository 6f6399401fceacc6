/* `trapeze disk commit` and `trapeze disk rebase`: an image and what it stands on. Main thread; copying has more. */
#include "block/restack.h"
#include "cmd/disk.h"
#include <errno.h>
#include <string.h>

static int need_qcow2(const struct block_image *image, struct err *err)
{
    if (!strcmp(image->fmt->ops->name, "qcow2"))
        return 0;
    return err_set(err, EINVAL, "%s: raw images have no backing image", image->path);
}

/* --- commit --- */

enum { COMMIT_KEEP, COMMIT_FORMAT, COMMIT_PROGRESS, COMMIT_TRUST, COMMIT_HELP };

static const struct args_spec commit_options[] = {
    [COMMIT_KEEP] = {"keep", 'd', NULL, "do not empty the image afterwards"},
    [COMMIT_FORMAT] = {"format", 'f', "FORMAT", "qcow2"},
    [COMMIT_PROGRESS] = {"progress", 'p', NULL, "show how much is done"},
    [COMMIT_TRUST] = {"trust", 0, NULL, "the images may name files outside their folders"},
    [COMMIT_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

static int commit_run(const struct sub_args *a, struct err *err)
{
    struct block_image_options io = {
        .format = a->value[COMMIT_FORMAT], .no_backing = true, .trust = a->value[COMMIT_TRUST]};
    struct block_progress progress = DISK_PROGRESS;
    struct block_image *top, *base;
    int rc = block_image_open(a->operand[0], &io, &top, err);

    if (rc)
        return rc;
    rc = need_qcow2(top, err);
    if (!rc && !top->fmt->backing_name)
        rc = err_set(err, EINVAL, "%s: has no backing image", top->path);
    if (!rc) {
        io = (struct block_image_options){.format = top->fmt->backing_format, .trust = io.trust};
        rc = block_image_open_named(top, top->fmt->backing_name, &io, &base, err);
    }
    if (!rc) {
        rc = block_commit(top, base, a->value[COMMIT_KEEP],
                          a->value[COMMIT_PROGRESS] ? &progress : NULL, err);
        disk_progress_end(&progress);
        block_image_close(base);
    }
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
    REBASE_PROGRESS,
    REBASE_TRUST,
    REBASE_UNSAFE,
    REBASE_HELP
};

static const struct args_spec rebase_options[] = {
    [REBASE_BACKING] = {"backing", 'b', "FILE", "the new backing image; empty: none"},
    [REBASE_BACKING_FORMAT] = {"backing-format", 'F', "FORMAT", "its format"},
    [REBASE_FORMAT] = {"format", 'f', "FORMAT", "of the image: qcow2"},
    [REBASE_PROGRESS] = {"progress", 'p', NULL, "show how much is done"},
    [REBASE_TRUST] = {"trust", 0, NULL, "the images may name files outside their folders"},
    [REBASE_UNSAFE] = {"unsafe", 'u', NULL,
                       "only change the name: the new one has the same content"},
    [REBASE_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

static int rebase_onto(struct block_image *top, const struct sub_args *a, struct err *err)
{
    const char *name = *a->value[REBASE_BACKING] ? a->value[REBASE_BACKING] : NULL;
    const char *format = a->value[REBASE_BACKING_FORMAT];
    struct block_image_options io = {
        .format = format, .readonly = true, .trust = a->value[REBASE_TRUST]};
    struct block_progress progress = DISK_PROGRESS;
    struct block_image *base = NULL;
    int rc = need_qcow2(top, err);

    if (!rc && a->value[REBASE_UNSAFE])
        return qcow2_set_backing(top->fmt, name, format, err);
    if (!rc && name)
        rc = block_image_open_named(top, name, &io, &base, err);
    if (!rc)
        rc = block_rebase(top, base, name, format, a->value[REBASE_PROGRESS] ? &progress : NULL,
                          err);
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
    int rc;

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
