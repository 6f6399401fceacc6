/*
 * Where a new image is made: beside the file that it becomes in the end, under a name of its own, so that nobody ever
 * takes a part for the whole; or in place, in a block device or in an image that is there (what that means, the caller
 * sees to).
 *
 * A signal that ends the program takes the part away with it.
 */
#ifndef CMD_DISK_TARGET_H
#define CMD_DISK_TARGET_H

#include "block/file.h"
#include <signal.h>

struct disk_target {
    char *path; /* what is to be there in the end */
    char *work; /* where it is made: another name, or in place the same */
    bool in_place;
    struct block_file
        *old; /* what is there and will be replaced: locked, so that nobody begins to use it */
    sigset_t before; /* signals that were blocked */
    sigset_t ending; /* those that end us */
    bool watching;
    pthread_t watcher;
};

/* in_place: write into what is there. On failure nothing is left to be closed. */
int disk_target_open(struct disk_target *t, const char *path, bool in_place, struct err *err);
/* rc 0: the image is whole and gets its name; sync: for good. Else nothing is left of it, and what was there before is
 * there still. Returns rc, or why that failed. */
int disk_target_close(struct disk_target *t, int rc, bool sync, struct err *err);

#endif
