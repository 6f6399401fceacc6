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

/* Options of qemu-img that we do not have, and what to do instead; why NULL at the end. Their rows in the table of options
 * have no help. */
struct disk_refusal {
    int option;
    const char *why;
};
int disk_refuse(const struct sub_args *a, const struct args_spec *options,
                const struct disk_refusal *list, struct err *err);
#define DISK_WHY_IMAGE_OPTS                                                                  \
    "an image is a plain file; give its name, and its format with -f (data in other files: " \
    "--trust)"
#define DISK_WHY_OBJECT "images are not encrypted; encrypt what they lie on (cryptsetup)"
#define DISK_WHY_RATE "use systemd-run -p IOWriteBandwidthMax=..., or ionice"

/* --cache and --source-cache, as qemu-img names the modes: must everything be on the disk in the end? mode NULL: no;
 * ret_sync NULL: whoever asks does the same in every mode. */
int disk_cache(const char *mode, bool *ret_sync, struct err *err);

#endif
