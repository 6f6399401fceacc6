/* `trapeze disk map`. Main thread. */
#include "cmd/disk.h"
#include <stdio.h>
#include <string.h>

enum {
    MAP_FORMAT,
    MAP_SHARE,
    MAP_LENGTH,
    MAP_OUTPUT,
    MAP_START,
    MAP_TRUST,
    MAP_IMAGE_OPTS,
    MAP_OBJECT,
    MAP_HELP
};

static const struct args_spec options[] = {
    [MAP_FORMAT] = {"format", 'f', "FORMAT", "raw or qcow2"},
    [MAP_SHARE] = {"force-share", 'U', NULL, "read an image that somebody writes to"},
    [MAP_LENGTH] = {"max-length", 'l', "SIZE", "so many bytes of the disk (all)"},
    [MAP_OUTPUT] = {"output", 0, "HOW", "human or json (human)"},
    [MAP_START] = {"start-offset", 's', "SIZE", "from that byte on (0)"},
    [MAP_TRUST] = {"trust", 0, NULL, "the image may name files outside its folder"},
    [MAP_IMAGE_OPTS] = {"image-opts", 0, NULL, NULL},
    [MAP_OBJECT] = {"object", 0, "OBJECT", NULL},
    [MAP_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

static const struct disk_refusal refused[] = {
    {MAP_IMAGE_OPTS, DISK_WHY_IMAGE_OPTS}, {MAP_OBJECT, DISK_WHY_OBJECT}, {0, NULL}};

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

static int map_next(struct block_image *image, u64 offset, u64 end, struct map_line *ret_line,
                    struct err *err)
{
    struct map_line *l = ret_line;
    int rc = block_image_map(image, offset, end - offset, &l->e, &l->owner, err);

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

static int print_map(struct block_image *image, u64 start, u64 end, bool json, struct err *err)
{
    struct map_line line, next;
    int rc = start < end ? map_next(image, start, end, &line, err) : 0;

    if (json)
        printf("[");
    else
        printf("%-15s %-15s %-15s %s\n", "Offset", "Length", "Mapped to", "File");
    while (!rc && start < end) {
        start = line.start + line.e.len;
        if (start < end) {
            rc = map_next(image, start, end, &next, err);
            if (!rc && joins(&line, &next)) {
                line.e.len += next.e.len;
                continue;
            }
        }
        if (json)
            print_line_json(&line);
        else
            print_line(&line);
        if (json && !rc && start < end)
            puts(",");
        line = next;
    }
    if (json && !rc)
        puts("]");
    return rc;
}

/* The part of the disk that was asked for; what of it there is. */
static int range_of(const struct sub_args *a, u64 size, u64 *ret_start, u64 *ret_end,
                    struct err *err)
{
    u64 start = 0, len = size;
    int rc = a->value[MAP_START] ? disk_size(a->value[MAP_START], &start, err) : 0;

    if (!rc && a->value[MAP_LENGTH])
        rc = disk_size(a->value[MAP_LENGTH], &len, err);
    if (rc)
        return rc;
    *ret_start = MIN(start, size);
    *ret_end = *ret_start + MIN(len, size - *ret_start);
    return 0;
}

static int map_run(const struct sub_args *a, struct err *err)
{
    struct block_image_options io = {.format = a->value[MAP_FORMAT],
                                     .readonly = true,
                                     .shared = a->value[MAP_SHARE],
                                     .trust = a->value[MAP_TRUST]};
    struct block_image *image;
    bool json = false;
    u64 start, end;
    int rc = disk_refuse(a, options, refused, err);

    if (!rc)
        rc = disk_output(a->value[MAP_OUTPUT], &json, err);
    if (!rc)
        rc = block_image_open(a->operand[0], &io, &image, err);
    if (rc)
        return rc;
    rc = range_of(a, block_image_size(image), &start, &end, err);
    if (!rc)
        rc = print_map(image, start, end, json, err);
    block_image_close(image);
    return rc;
}

const struct subverb disk_map_verb = {
    .name = "map",
    .usage = "[options] FILE",
    .summary = "Show where the data of a disk is",
    .options = options,
    .operands_min = 1,
    .operands_max = 1,
    .run = map_run,
};
