/* The options of new images, and making them: see disk_new.h. Main thread. */
#include "cmd/disk_new.h"
#include "cmd/disk.h"
#include "vm/value.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- values --- */

static int power_of_two(const char *text, u32 *ret_bits, struct err *err)
{
    u64 n;
    int rc = disk_size(text, &n, err);

    if (rc)
        return rc;
    if (!n || n & (n - 1))
        return sub_usage(err, "'%s' is no power of two", text);
    *ret_bits = (u32)__builtin_ctzll(n);
    return 0;
}

static int take_cluster_size(struct disk_new *n, const char *value, struct err *err)
{
    return power_of_two(value, &n->q.cluster_bits, err);
}

static int take_refcount_bits(struct disk_new *n, const char *value, struct err *err)
{
    return power_of_two(value, &n->q.refcount_order, err);
}

static int take_compat(struct disk_new *n, const char *value, struct err *err)
{
    bool two = !strcmp(value, "0.10") || !strcmp(value, "v2");

    if (!two && strcmp(value, "1.1") && strcmp(value, "v3"))
        return sub_usage(err, "-o compat '%s' is not known; there are 0.10 (v2) and 1.1 (v3)",
                         value);
    n->q.version = two ? 2 : 3;
    return 0;
}

static int take_lazy(struct disk_new *n, const char *value, struct err *err)
{
    if (strcmp(value, "on") && strcmp(value, "off"))
        return sub_usage(err, "-o lazy_refcounts is on or off");
    n->q.lazy_refcounts = !strcmp(value, "on");
    return 0;
}

static int take_compression(struct disk_new *n, const char *value, struct err *err)
{
    if (strcmp(value, "zlib") && strcmp(value, "zstd"))
        return sub_usage(err, "-o compression_type '%s' is not known; there are zlib and zstd",
                         value);
    n->q.compression = !strcmp(value, "zstd") ? QCOW2_ZSTD : QCOW2_ZLIB;
    return 0;
}

int disk_prealloc(const char *text, enum block_prealloc *ret_how, struct err *err)
{
    static const char *const names[] = {[BLOCK_PREALLOC_OFF] = "off",
                                        [BLOCK_PREALLOC_METADATA] = "metadata",
                                        [BLOCK_PREALLOC_FALLOC] = "falloc",
                                        [BLOCK_PREALLOC_FULL] = "full"};

    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (!strcmp(text, names[i])) {
            *ret_how = (enum block_prealloc)i;
            return 0;
        }
    return sub_usage(err, "preallocation '%s' is not known; there are off, metadata, falloc, full",
                     text);
}

static int take_prealloc(struct disk_new *n, const char *value, struct err *err)
{
    return disk_prealloc(value, &n->prealloc, err);
}

static int take_size(struct disk_new *n, const char *value, struct err *err)
{
    n->has_size = true;
    return disk_size(value, &n->q.size, err);
}

static int take_backing(struct disk_new *n, const char *value, struct err *err)
{
    n->q.backing_name = *value ? value : NULL;
    return 0;
}

static int take_backing_format(struct disk_new *n, const char *value, struct err *err)
{
    n->q.backing_format = value;
    return 0;
}

/* --- the list --- */

static const struct {
    const char *name;
    int (*take)(struct disk_new *n, const char *value, struct err *err);
    bool raw; /* for raw images, too */
    const char *help;
} all[] = {
    {"backing_file", take_backing, false, "what the new image does not hold is in this one"},
    {"backing_fmt", take_backing_format, false, "the format of the backing image"},
    {"cluster_size", take_cluster_size, false, "a power of two from 512 to 2M (64k)"},
    {"compat", take_compat, false, "0.10 or 1.1: versions 2 and 3 (1.1)"},
    {"compression_type", take_compression, false, "zlib or zstd (zlib)"},
    {"lazy_refcounts", take_lazy, false, "on: fewer writes, a check after a crash (off)"},
    {"preallocation", take_prealloc, true, "off, metadata (qcow2), falloc or full (off)"},
    {"refcount_bits", take_refcount_bits, false, "a power of two up to 64 (16)"},
    {"size", take_size, true, "of the disk"},
};

/* Of qemu-img, and not ours. */
static const struct {
    const char *name, *why;
} refused[] = {
    {"data_file", "external data files are read and never written; leave it out"},
    {"data_file_raw", "external data files are read and never written; leave it out"},
    {"encryption", "images are not encrypted; encrypt what they lie on (cryptsetup)"},
    {"encrypt.format", "images are not encrypted; encrypt what they lie on (cryptsetup)"},
    {"extended_l2", "extended L2 entries are not supported; a smaller cluster_size allocates less"},
    {"nocow", "it is the file system's; chattr +C on the folder does the same"},
};

static int unknown_option(const char *name, struct err *err)
{
    for (unsigned i = 0; i < ARRAY_LEN(refused); i++)
        if (!strcmp(name, refused[i].name))
            return sub_usage(err, "-o %s is not offered: %s", name, refused[i].why);
    return sub_usage(err, "-o '%s' is not known; -o help lists those there are", name);
}

static int one_option(struct disk_new *n, char *item, struct err *err)
{
    char *value = strchr(item, '=');

    if (value)
        *value++ = '\0';
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        if (strcmp(item, all[i].name))
            continue;
        if (!all[i].raw && strcmp(n->format, "qcow2"))
            return sub_usage(err, "-o is for qcow2 images (%s), and this one is to be %s", item,
                             n->format);
        return value ? all[i].take(n, value, err) : sub_usage(err, "-o '%s' has no value", item);
    }
    return unknown_option(item, err);
}

int disk_new_options(struct disk_new *n, const char *list, const char *format, struct err *err)
{
    char *cursor, *item;
    int rc = 0;

    *n = (struct disk_new){.format = format,
                           .q = {.version = 3, .cluster_bits = 16, .refcount_order = 4}};
    if (strcmp(format, "raw") && strcmp(format, "qcow2"))
        return sub_usage(err, "format '%s' is not known; there are raw and qcow2", format);
    n->texts = strdup(list ? list : "");
    cursor = n->texts;
    if (!cursor)
        return err_set(err, ENOMEM, "no memory");
    while (list && !rc && (item = value_item(&cursor)))
        rc = one_option(n, item, err);
    return rc;
}

void disk_new_free(struct disk_new *n)
{
    free(n->texts);
    n->texts = NULL;
}

bool disk_new_help(const char *list)
{
    if (!list || (strcmp(list, "help") && strcmp(list, "?")))
        return false;
    puts("Options of a new image (raw ones have the last and preallocation only):");
    for (unsigned i = 0; i < ARRAY_LEN(all); i++)
        printf("  %-18s %s\n", all[i].name, all[i].help);
    return true;
}

/* --- making --- */

int disk_new_check(const struct disk_new *n, const char *path, struct err *err)
{
    bool qcow2 = !strcmp(n->format, "qcow2");
    int rc = qcow2 ? qcow2_create_check(&n->q, err) : 0;

    if (rc)
        return err_wrap(err, "%s", path);
    if (!qcow2 && n->q.backing_name)
        return sub_usage(err, "raw images have no backing image");
    if (!qcow2 && n->prealloc == BLOCK_PREALLOC_METADATA)
        return sub_usage(err, "raw images have no metadata; preallocation is falloc or full");
    if (n->q.backing_name && n->prealloc != BLOCK_PREALLOC_OFF)
        return sub_usage(err, "an image that is preallocated shows nothing of a backing image");
    return 0;
}

static int preallocate(const struct disk_new *n, const char *path, struct err *err)
{
    struct block_image_options io = {.format = n->format, .unsafe = n->unsafe};
    struct block_image *image;
    int rc = block_image_open(path, &io, &image, err);

    if (rc)
        return rc;
    rc = block_image_preallocate(image, 0, block_image_size(image), n->prealloc, err);
    if (!rc)
        rc = block_image_flush(image, err);
    block_image_close(image);
    return rc;
}

int disk_new_make(const struct disk_new *n, const char *path, struct err *err)
{
    struct block_file_options fo = BLOCK_FILE_OPTIONS;
    struct block_file *file;
    int rc;

    fo.create = true;
    rc = block_file_open(path, &fo, &file, err);
    if (rc)
        return rc;
    file->unsafe = n->unsafe;
    if (!strcmp(n->format, "qcow2")) {
        rc = qcow2_create(file, &n->q, err);
    } else {
        rc = block_file_truncate(file, ALIGN_UP(n->q.size, 512ull));
        if (!rc)
            rc = block_file_sync(file);
        if (rc)
            err_sys(err, -rc, "%s: cannot make it %llu bytes long", path,
                    (unsigned long long)n->q.size);
    }
    block_file_close(file);
    return rc || n->prealloc == BLOCK_PREALLOC_OFF ? rc : preallocate(n, path, err);
}
