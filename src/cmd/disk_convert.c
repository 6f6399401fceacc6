/* `trapeze disk convert`, `compare` and `map`: verbs that read all of an image. Main thread; copying has more. */
#include "cmd/disk.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- convert --- */

enum {
    CONVERT_FORMAT,
    CONVERT_OPTIONS,
    CONVERT_OUT,
    CONVERT_PROGRESS,
    CONVERT_SYNC,
    CONVERT_TRUST,
    CONVERT_HELP
};

static const struct args_spec convert_options[] = {
    [CONVERT_FORMAT] = {"format", 'f', "FORMAT", "of the image there is: raw or qcow2"},
    [CONVERT_OPTIONS] = {"options", 'o', "LIST", "as for create"},
    [CONVERT_OUT] = {"output-format", 'O', "FORMAT", "of the new image: raw or qcow2 (raw)"},
    [CONVERT_PROGRESS] = {"progress", 'p', NULL, "show how much is done"},
    [CONVERT_SYNC] = {"sync", 0, NULL, "end only when the new image is on the disk for good"},
    [CONVERT_TRUST] = {"trust", 0, NULL, "the image may name files outside its folder"},
    [CONVERT_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
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

/* The new name, too. */
static int sync_folder(const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    auto_free char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    auto_close int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (!folder)
        return err_set(err, ENOMEM, "no memory");
    return fd < 0 || fsync(fd) ? err_sys(err, errno, "%s: cannot sync the folder", folder) : 0;
}

static const char *out_format(const struct sub_args *a)
{
    return a->value[CONVERT_OUT] ? a->value[CONVERT_OUT] : "raw";
}

static int convert_into(struct block_image *from, const struct sub_args *a,
                        const struct qcow2_create *o, struct err *err)
{
    const char *format = out_format(a);
    struct block_image_options io = {.format = format, .unsafe = true};
    struct block_progress progress = DISK_PROGRESS;
    struct block_copy copy = {.from = from,
                              .to_is_zero = true,
                              .progress = a->value[CONVERT_PROGRESS] ? &progress : NULL};
    bool existed = access(a->operand[1], F_OK) == 0;
    int rc = disk_create_image(a->operand[1], format, o, true, err);

    if (!rc)
        rc = block_image_open(a->operand[1], &io, &copy.to, err);
    if (rc)
        return rc;
    copy.to_is_zero = !copy.to->file->device || strcmp(format, "raw");
    rc = block_copy(&copy, err);
    disk_progress_end(&progress);
    if (a->value[CONVERT_SYNC])
        copy.to->file->unsafe = false;
    if (!rc)
        rc = block_image_flush(copy.to, err);
    block_image_close(copy.to);
    if (!rc && a->value[CONVERT_SYNC])
        rc = sync_folder(a->operand[1], err);
    return rc ? disk_discard_new(a->operand[1], existed, err) : 0;
}

static int convert_run(const struct sub_args *a, struct err *err)
{
    struct block_image_options io = {
        .format = a->value[CONVERT_FORMAT], .readonly = true, .trust = a->value[CONVERT_TRUST]};
    struct block_image *from;
    struct qcow2_create o;
    int rc = disk_create_options(a->value[CONVERT_OPTIONS], out_format(a), &o, err);

    if (!rc)
        rc = block_image_open(a->operand[0], &io, &from, err);
    if (rc)
        return rc;
    o.size = ALIGN_UP(block_image_size(from), 512ull);
    rc = refuse_same(from, a->operand[1], err);
    if (!rc)
        rc = convert_into(from, a, &o, err);
    block_image_close(from);
    return rc;
}

const struct subverb disk_convert_verb = {
    .name = "convert",
    .usage = "[options] FILE NEW-FILE",
    .summary = "Copy an image into another format",
    .options = convert_options,
    .operands_min = 2,
    .operands_max = 2,
    .run = convert_run,
};

/* --- compare --- */

enum { COMPARE_FORMAT, COMPARE_SECOND, COMPARE_STRICT, COMPARE_TRUST, COMPARE_HELP };

static const struct args_spec compare_options[] = {
    [COMPARE_FORMAT] = {"format", 'f', "FORMAT", "of the first image: raw or qcow2"},
    [COMPARE_SECOND] = {"second-format", 'F', "FORMAT", "of the second"},
    [COMPARE_STRICT] = {"strict", 's', NULL, "disks of different sizes differ"},
    [COMPARE_TRUST] = {"trust", 0, NULL, "the images may name files outside their folders"},
    [COMPARE_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

static int compare_open(struct block_image *x, struct block_image *y, bool strict, struct err *err)
{
    u64 a = block_image_size(x), b = block_image_size(y), offset;
    int rc;

    if (a != b && strict) {
        printf("Strict mode: sizes differ (%llu and %llu bytes).\n", (unsigned long long)a,
               (unsigned long long)b);
        return DISK_NO;
    }
    rc = block_compare(x, y, NULL, &offset, err);
    if (rc == 1)
        printf("Content mismatch at offset %llu!\n", (unsigned long long)offset);
    if (rc)
        return rc == 1 ? DISK_NO : rc;
    if (a != b)
        printf("Sizes differ (%llu and %llu bytes); the rest is zeros.\n", (unsigned long long)a,
               (unsigned long long)b);
    puts("Images are identical.");
    return STATUS_OK;
}

static int compare_run(const struct sub_args *a, struct err *err)
{
    struct block_image_options io = {
        .format = a->value[COMPARE_FORMAT], .readonly = true, .trust = a->value[COMPARE_TRUST]};
    struct block_image *x, *y;
    int rc = block_image_open(a->operand[0], &io, &x, err);

    if (rc)
        return rc;
    io.format = a->value[COMPARE_SECOND];
    rc = block_image_open(a->operand[1], &io, &y, err);
    if (!rc) {
        rc = compare_open(x, y, a->value[COMPARE_STRICT], err);
        block_image_close(y);
    }
    block_image_close(x);
    return rc;
}

const struct subverb disk_compare_verb = {
    .name = "compare",
    .usage = "[options] FILE FILE",
    .summary = "Tell whether two images have the same content",
    .options = compare_options,
    .operands_min = 2,
    .operands_max = 2,
    .run = compare_run,
};

/* --- map --- */

enum { MAP_FORMAT, MAP_OUTPUT, MAP_TRUST, MAP_HELP };

static const struct args_spec map_options[] = {
    [MAP_FORMAT] = {"format", 'f', "FORMAT", "raw or qcow2"},
    [MAP_OUTPUT] = {"output", 0, "HOW", "human or json (human)"},
    [MAP_TRUST] = {"trust", 0, NULL, "the image may name files outside its folder"},
    [MAP_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

struct map_line {
    struct block_extent e;
    struct block_image *owner;
    u64 start;
    bool offset; /* e.host says where it is */
};

static bool joins(const struct map_line *a, const struct map_line *b)
{
    return a->e.kind == b->e.kind && a->owner == b->owner && a->offset == b->offset &&
           a->e.file == b->e.file && (!a->offset || a->e.host + a->e.len == b->e.host);
}

static int map_next(struct block_image *image, u64 offset, struct map_line *ret_line,
                    struct err *err)
{
    struct map_line *l = ret_line;
    int rc =
        block_image_map(image, offset, block_image_size(image) - offset, &l->e, &l->owner, err);

    l->start = offset;
    l->offset =
        l->e.kind == BLOCK_KIND_DATA ||
        (l->e.kind == BLOCK_KIND_ZERO && (l->e.room || !strcmp(l->owner->fmt->ops->name, "raw")));
    return rc;
}

static void print_line(const struct map_line *l)
{
    if (l->e.kind == BLOCK_KIND_DATA)
        printf("%-#15llx %-#15llx %-#15llx %s\n", (unsigned long long)l->start,
               (unsigned long long)l->e.len, (unsigned long long)l->e.host, l->e.file->name);
    else if (l->e.kind == BLOCK_KIND_PACKED)
        printf("%-#15llx %-#15llx %-15s %s\n", (unsigned long long)l->start,
               (unsigned long long)l->e.len, "compressed", l->owner->path);
}

static void print_line_json(const struct map_line *l)
{
    bool data = l->e.kind == BLOCK_KIND_DATA || l->e.kind == BLOCK_KIND_PACKED;

    printf("{ \"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, \"zero\": %s, "
           "\"data\": %s, "
           "\"compressed\": %s",
           (unsigned long long)l->start, (unsigned long long)l->e.len, l->owner->depth,
           l->e.kind == BLOCK_KIND_ABSENT ? "false" : "true", data ? "false" : "true",
           data ? "true" : "false", l->e.kind == BLOCK_KIND_PACKED ? "true" : "false");
    if (l->offset)
        printf(", \"offset\": %llu", (unsigned long long)l->e.host);
    printf("}");
}

static int print_map(struct block_image *image, bool json, struct err *err)
{
    struct map_line line, next;
    u64 size = block_image_size(image);
    int rc = size ? map_next(image, 0, &line, err) : 0;

    if (json)
        printf("[");
    else
        printf("%-15s %-15s %-15s %s\n", "Offset", "Length", "Mapped to", "File");
    while (!rc && size) {
        u64 end = line.start + line.e.len;

        if (end < size) {
            rc = map_next(image, end, &next, err);
            if (!rc && joins(&line, &next)) {
                line.e.len += next.e.len;
                continue;
            }
        }
        if (json)
            print_line_json(&line);
        else
            print_line(&line);
        if (end >= size)
            break;
        if (json && !rc)
            puts(",");
        line = next;
    }
    if (json && !rc)
        puts("]");
    return rc;
}

static int map_run(const struct sub_args *a, struct err *err)
{
    struct block_image_options io = {
        .format = a->value[MAP_FORMAT], .readonly = true, .trust = a->value[MAP_TRUST]};
    struct block_image *image;
    bool json = false;
    int rc = disk_output(a->value[MAP_OUTPUT], &json, err);

    if (!rc)
        rc = block_image_open(a->operand[0], &io, &image, err);
    if (rc)
        return rc;
    rc = print_map(image, json, err);
    block_image_close(image);
    return rc;
}

const struct subverb disk_map_verb = {
    .name = "map",
    .usage = "[options] FILE",
    .summary = "Show where the data of a disk is",
    .options = map_options,
    .operands_min = 1,
    .operands_max = 1,
    .run = map_run,
};
