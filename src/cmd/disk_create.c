/* `trapeze disk create` and `trapeze disk resize`. Main thread. */
#include "cmd/disk.h"
#include "cmd/disk_new.h"
#include "cmd/ending.h"
#include "cmd/new_file.h"
#include <errno.h>
#include <string.h>

/* --- create --- */

enum {
    CREATE_BACKING,
    CREATE_BACKING_FORMAT,
    CREATE_FORMAT,
    CREATE_OPTIONS,
    CREATE_QUIET,
    CREATE_UNSAFE,
    CREATE_OBJECT,
    CREATE_HELP
};

static const struct args_spec create_options[] = {
    [CREATE_BACKING] = {"backing", 'b', "FILE", "what the new image does not hold is in this one"},
    [CREATE_BACKING_FORMAT] = {"backing-format", 'F', "FORMAT", "the format of the backing image"},
    [CREATE_FORMAT] = {"format", 'f', "FORMAT",
                       "raw or qcow2 (by the name: *.qcow2 is qcow2, else raw)"},
    [CREATE_OPTIONS] = {"options", 'o', "LIST",
                        "cluster_size=, preallocation=, ...; help lists them"},
    [CREATE_QUIET] = {"quiet", 'q', NULL, "print nothing but errors, as always"},
    [CREATE_UNSAFE] = {"unsafe", 'u', NULL, "do not look whether there is that backing image"},
    [CREATE_OBJECT] = {"object", 0, "OBJECT", NULL},
    [CREATE_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

static const struct disk_refusal create_refused[] = {{CREATE_OBJECT, DISK_WHY_OBJECT}, {0, NULL}};

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

/* What the options and operands together say. */
static int settle(const struct sub_args *a, struct disk_new *n, struct err *err)
{
    u64 size = 0;
    int rc = 0;

    if (a->value[CREATE_BACKING])
        n->q.backing_name = a->value[CREATE_BACKING];
    if (a->value[CREATE_BACKING_FORMAT])
        n->q.backing_format = a->value[CREATE_BACKING_FORMAT];
    if (n->q.backing_name && !n->q.backing_format)
        return sub_usage(
            err, "--backing needs --backing-format: the format is never guessed from content");
    if (a->operands == 2 && n->has_size)
        return sub_usage(err, "the size is given twice, as an operand and with -o");
    if (a->operands == 2)
        rc = disk_size(a->operand[1], &n->q.size, err);
    else if (!n->has_size && (!n->q.backing_name || a->value[CREATE_UNSAFE]))
        return sub_usage(err, "the size is missing");
    if (!rc && n->q.backing_name && !a->value[CREATE_UNSAFE])
        rc = backing_size(a->operand[0], &n->q, &size, err);
    if (a->operands < 2 && !n->has_size)
        n->q.size = size;
    n->q.size = ALIGN_UP(n->q.size, 512ull);
    return rc ? rc : disk_new_check(n, a->operand[0], err);
}

static int create_run(const struct sub_args *a, struct err *err)
{
    const char *path = a->operand[0],
               *format = a->value[CREATE_FORMAT] ? a->value[CREATE_FORMAT] : format_by_name(path);
    struct new_file target;
    struct disk_new n;
    int rc = disk_refuse(a, create_options, create_refused, err);

    if (rc)
        return rc;
    if (disk_new_help(a->value[CREATE_OPTIONS]))
        return STATUS_OK;
    rc = disk_new_options(&n, a->value[CREATE_OPTIONS], format, err);
    if (!rc)
        rc = settle(a, &n, err);
    if (!rc)
        rc = new_file_open(&target, path, NEW_FILE_IMAGE, err);
    if (!rc) {
        rc = disk_new_make(&n, target.work, err);
        rc = new_file_close(&target, rc, false, err);
    }
    disk_new_free(&n);
    return rc;
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

enum {
    RESIZE_FORMAT,
    RESIZE_PREALLOCATION,
    RESIZE_QUIET,
    RESIZE_SHRINK,
    RESIZE_TRUST,
    RESIZE_IMAGE_OPTS,
    RESIZE_OBJECT,
    RESIZE_HELP
};

static const struct args_spec resize_options[] = {
    [RESIZE_FORMAT] = {"format", 'f', "FORMAT", "raw or qcow2"},
    [RESIZE_PREALLOCATION] = {"preallocation", 0, "HOW",
                              "what is new has its space: off, metadata, falloc or full (off)"},
    [RESIZE_QUIET] = {"quiet", 'q', NULL, "print nothing but errors, as always"},
    [RESIZE_SHRINK] = {"shrink", 0, NULL, "a smaller size is meant: what lies beyond is lost"},
    [RESIZE_TRUST] = {"trust", 0, NULL, "the image may name files outside its folder"},
    [RESIZE_IMAGE_OPTS] = {"image-opts", 0, NULL, NULL},
    [RESIZE_OBJECT] = {"object", 0, "OBJECT", NULL},
    [RESIZE_HELP] = {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

static const struct disk_refusal resize_refused[] = {
    {RESIZE_IMAGE_OPTS, DISK_WHY_IMAGE_OPTS}, {RESIZE_OBJECT, DISK_WHY_OBJECT}, {0, NULL}};

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

static int resize_image(const struct sub_args *a, struct block_image *image,
                        enum block_prealloc how, struct err *err)
{
    u64 old = block_image_size(image), size = 0;
    struct ending ending = {0};
    int rc = new_size(a->operand[1], old, &size, err);

    if (rc)
        return rc;
    if (size < old && !a->value[RESIZE_SHRINK])
        return sub_usage(
            err, "%llu bytes are less than the disk has (%llu); say --shrink if that is meant",
            (unsigned long long)size, (unsigned long long)old);
    if (size < old && how != BLOCK_PREALLOC_OFF)
        return sub_usage(err, "--preallocation is for a disk that grows");
    if (how == BLOCK_PREALLOC_METADATA && !strcmp(image->fmt->ops->name, "raw"))
        return sub_usage(err, "raw images have no metadata; --preallocation is falloc or full");
    rc = ending_say(
        &ending, err,
        "trapeze disk resize: stopped; %s may have its new size already, but not all its "
        "space; 'trapeze disk check --repair leaks' gives back what nothing uses",
        image->path);
    if (!rc)
        rc = block_image_resize(image, size, err);
    if (!rc && (rc = block_image_preallocate(image, old, size, how, err)))
        err_wrap(err, block_image_resize(image, old, NULL) ? "the disk has its new size, but"
                                                           : "the disk keeps its size");
    if (!rc)
        rc = block_image_flush(image, err);
    ending_stop(&ending);
    return rc;
}

static int resize_run(const struct sub_args *a, struct err *err)
{
    struct block_image_options io = {.format = a->value[RESIZE_FORMAT],
                                     .trust = a->value[RESIZE_TRUST]};
    const char *how_text = a->value[RESIZE_PREALLOCATION];
    enum block_prealloc how = BLOCK_PREALLOC_OFF;
    struct block_image *image;
    int rc = disk_refuse(a, resize_options, resize_refused, err);

    if (!rc && how_text)
        rc = disk_prealloc(how_text, &how, err);
    if (!rc)
        rc = block_image_open(a->operand[0], &io, &image, err);
    if (rc)
        return rc;
    rc = resize_image(a, image, how, err);
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
