/* `trapeze disk info`. Main thread. */
#include "cmd/disk.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum {
    INFO_CHAIN,
    INFO_FORMAT,
    INFO_SHARE,
    INFO_OUTPUT,
    INFO_TRUST,
    INFO_IMAGE_OPTS,
    INFO_OBJECT,
    INFO_HELP
};

static const struct args_spec options[] = {
    [INFO_CHAIN] = {"backing-chain", 0, NULL, "the backing images too"},
    [INFO_FORMAT] = {"format", 'f', "FORMAT", "raw or qcow2"},
    [INFO_SHARE] = {"force-share", 'U', NULL, "changes nothing: images in use are always shown"},
    [INFO_OUTPUT] = {"output", 0, "HOW", "human or json (human)"},
    [INFO_TRUST] = {"trust", 0, NULL, "the image may name files outside its folder"},
    [INFO_IMAGE_OPTS] = {"image-opts", 0, NULL, NULL},
    [INFO_OBJECT] = {"object", 0, "OBJECT", NULL},
    [INFO_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

static const struct disk_refusal refused[] = {
    {INFO_IMAGE_OPTS, DISK_WHY_IMAGE_OPTS}, {INFO_OBJECT, DISK_WHY_OBJECT}, {0, NULL}};

/* Where an image looks for its backing image: in its own folder, unless the name says otherwise. */
static void print_backing_path(const struct block_image *image, void (*print)(const char *text))
{
    const char *name = image->fmt->backing_name, *slash = strrchr(image->path, '/');
    auto_free char *path = NULL;
    bool whole = *name == '/' || !slash || strcspn(name, ":") < strcspn(name, "/");

    if (!whole && asprintf(&path, "%.*s/%s", (int)(slash - image->path), image->path, name) < 0)
        path = NULL;
    print(whole || !path ? name : path);
}

static void print_actual(const char *text)
{
    printf(" (actual path: %s)", text);
}

static u64 disk_usage_of(const struct block_image *image)
{
    struct stat st;

    return fstat(image->file->fd, &st) ? 0 : (u64)st.st_blocks * 512;
}

static const char *yes_no(u64 bit)
{
    return bit ? "true" : "false";
}

/* --- internal snapshots --- */

/* What an image says of itself goes to terminals. */
static void print_visible(const char *text, int width)
{
    int n = 0;

    for (; text[n]; n++)
        putchar((unsigned char)text[n] < ' ' || text[n] == 0x7f ? '?' : text[n]);
    printf("%*s", MAX(width - n, 0), "");
}

static void print_snapshot(void *opaque, unsigned n, const struct qcow2_snapshot *s)
{
    char size[32], date[32] = "";
    time_t when = s->seconds;
    struct tm tm;
    u64 seconds = s->clock_ns / NS_PER_S;

    if (!n)
        printf("Snapshot list:\n%-9s %-16s %8s %19s %12s %10s\n", "ID", "TAG", "VM SIZE", "DATE",
               "VM CLOCK", "ICOUNT");
    if (localtime_r(&when, &tm))
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
    disk_size_text(s->state_bytes, size);
    print_visible(s->id, 10);
    print_visible(s->name, 17);
    printf("%8s %19s %02llu:%02llu:%02llu.%03llu", size, date, (unsigned long long)seconds / 3600,
           (unsigned long long)seconds / 60 % 60, (unsigned long long)seconds % 60,
           (unsigned long long)s->clock_ns / 1000000 % 1000);
    if (s->has_icount)
        printf(" %10llu", (unsigned long long)s->icount);
    puts("");
}

static void print_snapshot_json(void *opaque, unsigned n, const struct qcow2_snapshot *s)
{
    printf("%s\n        {\n            \"id\": ", n ? "," : "");
    disk_json_text(s->id);
    printf(",\n            \"name\": ");
    disk_json_text(s->name);
    printf(",\n            \"vm-state-size\": %llu,\n            \"date-sec\": %u,\n            "
           "\"date-nsec\": %u,\n            \"vm-clock-sec\": %llu,\n            "
           "\"vm-clock-nsec\": %llu",
           (unsigned long long)s->state_bytes, s->seconds, s->nanoseconds,
           (unsigned long long)(s->clock_ns / NS_PER_S),
           (unsigned long long)(s->clock_ns % NS_PER_S));
    if (s->has_icount)
        printf(",\n            \"icount\": %llu", (unsigned long long)s->icount);
    printf("\n        }");
}

/* A damaged table is said, and what else is known is shown all the same. */
static void print_snapshots(const struct block_image *image, bool json)
{
    struct err err = ERR_INIT;

    if (!qcow2_of(image->fmt)->h.snapshots)
        return;
    if (json)
        printf(",\n    \"snapshots\": [");
    if (qcow2_snapshots(image->fmt, json ? print_snapshot_json : print_snapshot, NULL, &err))
        fprintf(stderr, "trapeze disk info: %s\n", err.msg);
    if (json)
        printf("\n    ]");
}

static void print_human(const struct block_image *image)
{
    const struct block_format *fmt = image->fmt;
    const struct qcow2_header *h;

    printf("image: %s\nfile format: %s\n", image->path, fmt->ops->name);
    disk_print_size("virtual size", fmt->size);
    disk_print_size("disk size", disk_usage_of(image));
    if (strcmp(fmt->ops->name, "qcow2"))
        return;
    h = &qcow2_of(image->fmt)->h;
    printf("cluster_size: %u\n", fmt->cluster_bytes);
    if (fmt->backing_name) {
        printf("backing file: %s", fmt->backing_name);
        if (strchr(image->path, '/') && *fmt->backing_name != '/')
            print_backing_path(image, print_actual);
        puts("");
    }
    if (fmt->backing_format)
        printf("backing file format: %s\n", fmt->backing_format);
    print_snapshots(image, false);
    printf("Format specific information:\n    compat: %s\n    compression type: %s\n",
           h->version == 2 ? "0.10" : "1.1", h->compression == QCOW2_ZSTD ? "zstd" : "zlib");
    if (h->version == 3)
        printf("    lazy refcounts: %s\n", yes_no(h->compat & QCOW2_LAZY));
    printf("    refcount bits: %u\n", 1u << h->refcount_order);
    if (h->version == 3)
        printf("    dirty: %s\n    corrupt: %s\n", yes_no(h->incompat & QCOW2_DIRTY),
               yes_no(h->incompat & QCOW2_CORRUPT));
    if (fmt->data_name)
        printf("    data file: %s\n    data file raw: %s\n", fmt->data_name,
               yes_no(h->autoclear & QCOW2_DATA_RAW));
    if (h->bitmaps)
        printf("    bitmaps: %u\n", h->bitmaps);
}

/* What version 2 has not is not said of it. */
static void print_json_version3(const struct qcow2_header *h)
{
    printf(",\n            \"lazy-refcounts\": %s,\n            \"corrupt\": %s,\n            "
           "\"extended-l2\": false",
           yes_no(h->compat & QCOW2_LAZY), yes_no(h->incompat & QCOW2_CORRUPT));
}

static void print_json_qcow2(const struct block_image *image, const struct qcow2_header *h)
{
    const struct block_format *fmt = image->fmt;

    printf(
        ",\n    \"cluster-size\": %u,\n    \"format-specific\": {\n        \"type\": \"qcow2\",\n"
        "        \"data\": {\n            \"compat\": \"%s\",\n            \"compression-type\": "
        "\"%s\",\n            \"refcount-bits\": %u",
        fmt->cluster_bytes, h->version == 2 ? "0.10" : "1.1",
        h->compression == QCOW2_ZSTD ? "zstd" : "zlib", 1u << h->refcount_order);
    if (h->version == 3)
        print_json_version3(h);
    if (fmt->data_name) {
        printf(",\n            \"data-file\": ");
        disk_json_text(fmt->data_name);
        printf(",\n            \"data-file-raw\": %s", yes_no(h->autoclear & QCOW2_DATA_RAW));
    }
    printf("\n        }\n    }");
    if (fmt->backing_name) {
        printf(",\n    \"backing-filename\": ");
        disk_json_text(fmt->backing_name);
        printf(",\n    \"full-backing-filename\": ");
        print_backing_path(image, disk_json_text);
    }
    if (fmt->backing_format) {
        printf(",\n    \"backing-filename-format\": ");
        disk_json_text(fmt->backing_format);
    }
}

static void print_json(const struct block_image *image)
{
    bool qcow2 = !strcmp(image->fmt->ops->name, "qcow2");

    printf("{\n    \"virtual-size\": %llu,\n    \"filename\": ",
           (unsigned long long)image->fmt->size);
    disk_json_text(image->path);
    printf(",\n    \"format\": \"%s\",\n    \"actual-size\": %llu,\n    \"dirty-flag\": %s",
           image->fmt->ops->name, (unsigned long long)disk_usage_of(image),
           yes_no(qcow2 && qcow2_of(image->fmt)->h.incompat & QCOW2_DIRTY));
    if (qcow2) {
        print_json_qcow2(image, &qcow2_of(image->fmt)->h);
        print_snapshots(image, true);
    }
    printf("\n}");
}

static int info_run(const struct sub_args *a, struct err *err)
{
    bool chain = a->value[INFO_CHAIN], json = false;
    struct block_image_options io = {.format = a->value[INFO_FORMAT],
                                     .readonly = true,
                                     .shared = true,
                                     .repair = !chain,
                                     .trust = a->value[INFO_TRUST]};
    struct block_image *image;
    int rc = disk_refuse(a, options, refused, err);

    if (!rc)
        rc = disk_output(a->value[INFO_OUTPUT], &json, err);
    if (!rc)
        rc = block_image_open(a->operand[0], &io, &image, err);
    if (rc)
        return rc;
    if (json && chain)
        puts("[");
    for (const struct block_image *i = image; i; i = i->backing) {
        if (i != image)
            puts(json ? "," : "");
        if (json)
            print_json(i);
        else
            print_human(i);
    }
    if (json)
        puts(chain ? "\n]" : "");
    block_image_close(image);
    return STATUS_OK;
}

const struct subverb disk_info_verb = {
    .name = "info",
    .usage = "[options] FILE",
    .summary = "Say what an image is",
    .options = options,
    .operands_min = 1,
    .operands_max = 1,
    .run = info_run,
};
