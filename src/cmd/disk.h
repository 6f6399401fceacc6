/* The verbs under `trapeze disk`: one file for some of them each, one sorted table (cmd/disk.c). */
#ifndef CMD_DISK_H
#define CMD_DISK_H

#include "block/copy.h"
#include "block/qcow2.h"
#include "cmd/status.h"
#include "cmd/subverb.h"

/* Of verbs that answer a question. 2 and 4 mean what they mean everywhere. */
enum {
    DISK_NO = 1,    /* the contents differ; the image is damaged */
    DISK_LEAKS = 3, /* space is lost, nothing else */
};

extern const struct subverb disk_check_verb, disk_commit_verb, disk_compare_verb, disk_convert_verb,
    disk_create_verb, disk_info_verb, disk_map_verb, disk_rebase_verb, disk_resize_verb;

/* Bytes as qemu-img's users write them: 512, 64k, 1.5G; a number without a letter counts bytes. */
int disk_size(const char *text, u64 *ret_bytes, struct err *err);
/* The value of an --output option: is it JSON? */
int disk_output(const char *value, bool *ret_json, struct err *err);
void disk_json_text(const char *text);         /* quoted, to standard output */
void disk_size_text(u64 bytes, char text[32]); /* "1.5 GiB" */
/* "label: 1.5 GiB (1610612736 bytes)" */
void disk_print_size(const char *label, u64 bytes);

/* As qemu-img shows it, on standard output: "    (42.00/100%)", over and over in one line. */
void disk_progress(struct block_progress *p, u64 done, u64 size);
void disk_progress_end(const struct block_progress *p);
#define DISK_PROGRESS ((struct block_progress){.tell = disk_progress, .percent = UINT32_MAX})

/* Options of a new image, as -o of create and convert takes them: "cluster_size=64k,compat=1.1". */
int disk_create_options(const char *list, const char *format, struct qcow2_create *o,
                        struct err *err);
/* After something failed: of what was to be made nothing is left that could be taken for an image. Returns -err->code. */
int disk_discard_new(const char *path, bool existed, struct err *err);
/* Makes an empty image; what was in the file is gone. format NULL: by the name, qcow2 for *.qcow2, else raw. */
int disk_create_image(const char *path, const char *format, const struct qcow2_create *o,
                      bool unsafe, struct err *err);

#endif
