/* `trapeze disk create` and `trapeze disk resize`. Main thread. */
#include "cmd/disk.h"
#include "vm/value.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- options of a new image --- */

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

static int one_option(char *item, struct qcow2_create *o, struct err *err)
{
    char *value = strchr(item, '=');

    if (!value)
        return sub_usage(err, "-o '%s' has no value", item);
    *value++ = '\0';
    if (!strcmp(item, "cluster_size"))
        return power_of_two(value, &o->cluster_bits, err);
    if (!strcmp(item, "refcount_bits"))
        return power_of_two(value, &o->refcount_order, err);
    if (!strcmp(item, "compat")) {
        bool two = !strcmp(value, "0.10") || !strcmp(value, "v2");

        if (!two && strcmp(value, "1.1") && strcmp(value, "v3"))
            return sub_usage(err, "-o compat '%s' is not known; there are 0.10 (v2) and 1.1 (v3)",
                             value);
        o->version = two ? 2 : 3;
        return 0;
    }
    if (!strcmp(item, "lazy_refcounts")) {
        if (strcmp(value, "on") && strcmp(value, "off"))
            return sub_usage(err, "-o lazy_refcounts is on or off");
        o->lazy_refcounts = !strcmp(value, "on");
        return 0;
    }
    return sub_usage(
        err, "-o '%s' is not known; there are cluster_size, compat, lazy_refcounts, refcount_bits",
        item);
}

int disk_create_options(const char *list, const char *format, struct qcow2_create *o,
                        struct err *err)
{
    auto_free char *copy = strdup(list ? list : "");
    char *cursor = copy, *item;
    int rc = 0;

    *o = (struct qcow2_create){.version = 3, .cluster_bits = 16, .refcount_order = 4};
    if (!copy)
        return err_set(err, ENOMEM, "no memory");
    if (*copy && strcmp(format, "qcow2"))
        return sub_usage(err, "-o is for qcow2 images, and this one is to be %s", format);
    while (list && !rc && (item = value_item(&cursor)))
        rc = one_option(item, o, err);
    return rc;
}

int disk_discard_new(const char *path, bool existed, struct err *err)
{
    struct stat st;

    if (stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
        (existed ? truncate(path, 0) : unlink(path)) == 0)
        return err_wrap(err, existed ? "%s is empty now" : "%s was not made", path);
    return -err->code;
}

int disk_create_image(const char *path, const char *format, const struct qcow2_create *o,
                      bool unsafe, struct err *err)
{
    struct block_file_options fo = BLOCK_FILE_OPTIONS;
    struct block_file *file;
    bool existed;
    int rc;

    if (strcmp(format, "raw") && strcmp(format, "qcow2"))
        return sub_usage(err, "format '%s' is not known; there are raw and qcow2", format);
    if (!strcmp(format, "raw") && o->backing_name)
        return sub_usage(err, "raw images have no backing image");
    /* What is there is lost only for something that can be. */
    rc = strcmp(format, "qcow2") ? 0 : qcow2_create_check(o, err);
    if (rc)
        return err_wrap(err, "%s", path);
    existed = access(path, F_OK) == 0;
    fo.create = true;
    rc = block_file_open(path, &fo, &file, err);
    if (rc)
        return rc;
    file->unsafe = unsafe;
    if (!strcmp(format, "qcow2")) {
        rc = qcow2_create(file, o, err);
    } else {
        rc = block_file_truncate(file, ALIGN_UP(o->size, 512ull));
        if (!rc)
            rc = block_file_sync(file);
        if (rc)
            err_sys(err, -rc, "%s: cannot make it %llu bytes long", path,
                    (unsigned long long)o->size);
    }
    block_file_close(file);
    return rc ? disk_discard_new(path, existed, err) : 0;
}

/* --- create --- */

enum { CREATE_BACKING, CREATE_BACKING_FORMAT, CREATE_FORMAT, CREATE_OPTIONS, CREATE_HELP };

static const struct args_spec create_options[] = {
    [CREATE_BACKING] = {"backing", 'b', "FILE", "what the new image does not hold is in this one"},
    [CREATE_BACKING_FORMAT] = {"backing-format", 'F', "FORMAT", "the format of the backing image"},
    [CREATE_FORMAT] = {"format", 'f', "FORMAT",
                       "raw or qcow2 (by the name: *.qcow2 is qcow2, else raw)"},
    [CREATE_OPTIONS] = {"options", 'o', "LIST",
                        "cluster_size=, compat=, lazy_refcounts=, refcount_bits="},
    [CREATE_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

/* The backing image is looked at for its size, and to find out now that it is not there. */
static int backing_size(const char *path, const struct qcow2_create *o, u64 *ret_size,
                        struct err *err)
{
    struct block_image_options io = {
        .format = o->backing_format, .readonly = true, .shared = true, .trust = true};
    struct block_image at = {.path = (char *)path}, *backing;
    struct block_file *file;
    int rc = block_chain_open(&at, o->backing_name, true, true, &file, err);

    if (!rc)
        rc = block_image_from(file, &io, &backing, err);
    if (rc)
        return err_wrap(err, "the backing image");
    *ret_size = block_image_size(backing);
    block_image_close(backing);
    return 0;
}

static const char *format_by_name(const char *path)
{
    size_t len = strlen(path);

    return len > 6 && !strcmp(path + len - 6, ".qcow2") ? "qcow2" : "raw";
}

static int create_run(const struct sub_args *a, struct err *err)
{
    const char *path = a->operand[0],
               *format = a->value[CREATE_FORMAT] ? a->value[CREATE_FORMAT] : format_by_name(path);
    struct qcow2_create o;
    int rc = disk_create_options(a->value[CREATE_OPTIONS], format, &o, err);

    if (rc)
        return rc;
    o.backing_name = a->value[CREATE_BACKING];
    o.backing_format = a->value[CREATE_BACKING_FORMAT];
    if (o.backing_name && !o.backing_format)
        return sub_usage(
            err, "--backing needs --backing-format: the format is never guessed from content");
    if (a->operands < 2 && !o.backing_name)
        return sub_usage(err, "the size is missing");
    if (o.backing_name)
        rc = backing_size(path, &o, &o.size, err);
    if (!rc && a->operands == 2)
        rc = disk_size(a->operand[1], &o.size, err);
    o.size = ALIGN_UP(o.size, 512ull);
    return rc ? rc : disk_create_image(path, format, &o, false, err);
}

const struct subverb disk_create_verb = {
    .name = "create",
    .usage = "[options] FILE [SIZE]",
    .summary = "Make an empty image",
    .options = create_options,
    .operands_min = 1,
    .operands_max = 2,
    .run = create_run,
};

/* --- resize --- */

enum { RESIZE_FORMAT, RESIZE_SHRINK, RESIZE_TRUST, RESIZE_HELP };

static const struct args_spec resize_options[] = {
    [RESIZE_FORMAT] = {"format", 'f', "FORMAT", "raw or qcow2"},
    [RESIZE_SHRINK] = {"shrink", 0, NULL, "a smaller size is meant: what lies beyond is lost"},
    [RESIZE_TRUST] = {"trust", 0, NULL, "the image may name files outside its folder"},
    [RESIZE_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

static int new_size(const char *text, u64 old, u64 *ret_size, struct err *err)
{
    bool add = text[0] == '+', less = text[0] == '-';
    u64 size;
    int rc = disk_size(text + (add || less), &size, err);

    if (rc)
        return rc;
    if ((add && ADD_OVERFLOWS(old, size, &size)) || (less && size > old))
        return sub_usage(err, "'%s' is out of range for a disk of %llu bytes", text,
                         (unsigned long long)old);
    *ret_size = ALIGN_UP(less ? old - size : size, 512ull);
    return 0;
}

static int resize_run(const struct sub_args *a, struct err *err)
{
    struct block_image_options io = {.format = a->value[RESIZE_FORMAT],
                                     .trust = a->value[RESIZE_TRUST]};
    struct block_image *image;
    u64 old, size = 0;
    int rc = block_image_open(a->operand[0], &io, &image, err);

    if (rc)
        return rc;
    old = block_image_size(image);
    rc = new_size(a->operand[1], old, &size, err);
    if (!rc && size < old && !a->value[RESIZE_SHRINK])
        rc = sub_usage(
            err, "%llu bytes are less than the disk has (%llu); say --shrink if that is meant",
            (unsigned long long)size, (unsigned long long)old);
    if (!rc)
        rc = block_image_resize(image, size, err);
    if (!rc)
        rc = block_image_flush(image, err);
    block_image_close(image);
    return rc;
}

const struct subverb disk_resize_verb = {
    .name = "resize",
    .usage = "[options] FILE [+|-]SIZE",
    .summary = "Change the size of the disk",
    .options = resize_options,
    .operands_min = 2,
    .operands_max = 2,
    .run = resize_run,
};
