/*
 * A file that is made beside what it becomes in the end, under a name of its own, so that nobody ever takes a part for the
 * whole: a new image, a snapshot in a file. Or, an image only, in place: in a block device or in an image that is there
 * (what that means, the caller sees to).
 *
 * A signal that ends the program takes the part away with it.
 */
#ifndef CMD_NEW_FILE_H
#define CMD_NEW_FILE_H

#include "block/file.h"
#include "cmd/ending.h"

enum new_file_how {
    NEW_FILE_IMAGE,    /* an image that was there before is replaced, if nobody uses it */
    NEW_FILE_IN_PLACE, /* write into the image that is there */
    NEW_FILE_PRIVATE,  /* nothing is replaced, and only its owner may read it */
};

struct new_file {
    char *path; /* what is to be there in the end */
    char *work; /* where it is made: another name, or in place the same */
    bool in_place;
    struct block_file
        *old; /* what is there and will be replaced: locked, so that nobody begins to use it */
    struct ending ending;
};

/* Makes an empty file. On failure nothing is left to be closed. */
int new_file_open(struct new_file *t, const char *path, enum new_file_how how, struct err *err);
/* rc 0: the file is whole and gets its name; sync: for good. Else nothing is left of it, and what was there before is
 * there still, also what another program has put there meanwhile. Returns rc, or why that failed. */
int new_file_close(struct new_file *t, int rc, bool sync, struct err *err);

#endif
