/* The verbs under `trapeze disk`: one file for some of them each, one sorted table (cmd/disk.c). */
#ifndef CMD_DISK_H
#define CMD_DISK_H

#include "block/image.h"
#include "block/qcow2.h"
#include "cmd/args.h"
#include "cmd/status.h"

#define DISK_OPERANDS_MAX 2

/* Of verbs that answer a question. 2 and 4 mean what they mean everywhere. */
enum {
    DISK_NO = 1,    /* the contents differ; the image is damaged */
    DISK_LEAKS = 3, /* space is lost, nothing else */
};

enum { DISK_OPTIONS_MAX = 12 };

struct disk_args {
    const char *value
        [DISK_OPTIONS_MAX]; /* by index of the option; "" for flags that are there, NULL: not there */
    const char *operand[DISK_OPERANDS_MAX];
    unsigned operands;
};

struct disk_verb {
    const char *name;
    const char *usage; /* what follows the name */
    const char *summary;
    const struct args_spec *options;
    unsigned operands_min, operands_max;
    int (*run)(const struct disk_args *a, struct err *err); /* a status >= 0, or -errno */
};

extern const struct disk_verb disk_check_verb, disk_commit_verb, disk_compare_verb,
    disk_convert_verb, disk_create_verb, disk_info_verb, disk_map_verb, disk_rebase_verb,
    disk_resize_verb;

/* The command line is wrong: fills *err; its return value is the verb's. */
int disk_usage(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Bytes as qemu-img's users write them: 512, 64k, 1.5G; a number without a letter counts bytes. */
int disk_size(const char *text, u64 *ret_bytes, struct err *err);
/* The value of an --output option: is it JSON? */
int disk_output(const char *value, bool *ret_json, struct err *err);
void disk_json_text(const char *text); /* quoted, to standard output */
/* "1.5 GiB (1610612736 bytes)" */
/* "1.5 GiB" */
void disk_size_text(u64 bytes, char text[32]);
void disk_print_size(const char *label, u64 bytes);

/* Options of a new image, as -o of create and convert takes them: "cluster_size=64k,compat=1.1". */
int disk_create_options(const char *list, struct qcow2_create *o, struct err *err);
/* Makes an empty image; what was in the file is gone. format NULL: by the name, qcow2 for *.qcow2, else raw. */
int disk_create_image(const char *path, const char *format, const struct qcow2_create *o,
                      bool unsafe, struct err *err);

#endif
