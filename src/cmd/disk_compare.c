/* `trapeze disk compare`. Main thread. */
#include "cmd/disk.h"
#include <stdio.h>

enum {
    COMPARE_FORMAT,
    COMPARE_SECOND,
    COMPARE_SHARE,
    COMPARE_PROGRESS,
    COMPARE_QUIET,
    COMPARE_CACHE,
    COMPARE_STRICT,
    COMPARE_TRUST,
    COMPARE_IMAGE_OPTS,
    COMPARE_OBJECT,
    COMPARE_HELP
};

static const struct args_spec options[] = {
    [COMPARE_FORMAT] = {"format", 'f', "FORMAT", "of the first image: raw or qcow2"},
    [COMPARE_SECOND] = {"second-format", 'F', "FORMAT", "of the second"},
    [COMPARE_SHARE] = {"force-share", 'U', NULL, "read images that somebody writes to"},
    [COMPARE_PROGRESS] = {"progress", 'p', NULL, "show how much is done"},
    [COMPARE_QUIET] = {"quiet", 'q', NULL, "only the exit status tells"},
    [COMPARE_CACHE] = {"source-cache", 'T', "MODE", "changes nothing"},
    [COMPARE_STRICT] = {"strict", 's', NULL, "disks of different sizes differ"},
    [COMPARE_TRUST] = {"trust", 0, NULL, "the images may name files outside their folders"},
    [COMPARE_IMAGE_OPTS] = {"image-opts", 0, NULL, NULL},
    [COMPARE_OBJECT] = {"object", 0, "OBJECT", NULL},
    [COMPARE_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

static const struct disk_refusal refused[] = {
    {COMPARE_IMAGE_OPTS, DISK_WHY_IMAGE_OPTS}, {COMPARE_OBJECT, DISK_WHY_OBJECT}, {0, NULL}};

/* What there is to be said, unless --quiet. */
static void say(const struct sub_args *a, const char *text, u64 x, u64 y)
{
    if (!a->value[COMPARE_QUIET])
        printf(text, (unsigned long long)x, (unsigned long long)y);
}

static int compare_images(struct block_image *x, struct block_image *y, const struct sub_args *a,
                          struct err *err)
{
    struct block_progress progress = DISK_PROGRESS;
    bool show = a->value[COMPARE_PROGRESS] && !a->value[COMPARE_QUIET];
    u64 size = block_image_size(x), other = block_image_size(y), offset;
    int rc;

    if (size != other && a->value[COMPARE_STRICT]) {
        say(a, "Strict mode: sizes differ (%llu and %llu bytes).\n", size, other);
        return DISK_NO;
    }
    rc = block_compare(x, y, show ? &progress : NULL, &offset, err);
    disk_progress_end(&progress);
    if (rc == 1)
        say(a, "Content mismatch at offset %llu!\n", offset, 0);
    if (rc)
        return rc == 1 ? DISK_NO : rc;
    if (size != other)
        say(a, "Sizes differ (%llu and %llu bytes); the rest is zeros.\n", size, other);
    say(a, "Images are identical.\n", 0, 0);
    return STATUS_OK;
}

static int compare_run(const struct sub_args *a, struct err *err)
{
    struct block_image_options io = {.format = a->value[COMPARE_FORMAT],
                                     .readonly = true,
                                     .shared = a->value[COMPARE_SHARE],
                                     .trust = a->value[COMPARE_TRUST]};
    struct block_image *x, *y;
    int rc = disk_refuse(a, options, refused, err);

    if (!rc)
        rc = disk_cache(a->value[COMPARE_CACHE], NULL, err);
    if (!rc)
        rc = block_image_open(a->operand[0], &io, &x, err);
    if (rc)
        return rc;
    io.format = a->value[COMPARE_SECOND];
    rc = block_image_open(a->operand[1], &io, &y, err);
    if (!rc) {
        rc = compare_images(x, y, a, err);
        block_image_close(y);
    }
    block_image_close(x);
    return rc;
}

const struct subverb disk_compare_verb = {
    .name = "compare",
    .usage = "[options] FILE FILE",
    .summary = "Tell whether two images have the same content",
    .options = options,
    .operands_min = 2,
    .operands_max = 2,
    .run = compare_run,
};
