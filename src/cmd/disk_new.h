/* What a new image is to be: the options of `-o`, and making it empty. */
#ifndef CMD_DISK_NEW_H
#define CMD_DISK_NEW_H

#include "block/prealloc.h"
#include "block/qcow2.h"

struct disk_new {
    const char *format; /* raw or qcow2 */
    struct qcow2_create q;
    enum block_prealloc prealloc;
    bool has_size; /* -o size=, in q.size */
    bool unsafe;   /* it is worth nothing until more was done with it: no syncs */
    char *texts;   /* what q's names point into */
};

/* "cluster_size=64k,compat=1.1"; NULL: nothing said. `n` is to be freed also on failure. */
int disk_new_options(struct disk_new *n, const char *list, const char *format, struct err *err);
void disk_new_free(struct disk_new *n);
/* Is it a question for the options there are, and not a list of them? They are printed then. */
bool disk_new_help(const char *list);
int disk_prealloc(const char *text, enum block_prealloc *ret_how, struct err *err);
/* Before anything is lost for it: can there be such an image? */
int disk_new_check(const struct disk_new *n, const char *path, struct err *err);
/* Makes it in that file, an empty one or a device. */
int disk_new_make(const struct disk_new *n, const char *path, struct err *err);

#endif
