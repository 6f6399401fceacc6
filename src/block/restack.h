/*
 * Images that change places: what one holds goes into the image below it, or it gets another one below it. Power may fail
 * at any moment: the image at the top shows the same before, after and in between, on the images its header names then.
 */
#ifndef BLOCK_RESTACK_H
#define BLOCK_RESTACK_H

#include "block/image.h"

struct block_progress; /* block/copy.h */

/* Writes what `top` and the images it is opened with hold into `base`, and unless `keep` empties top. top: qcow2, opened
 * with the images above base only; base: opened for writing. base grows to top's size if it is smaller. */
int block_commit(struct block_image *top, struct block_image *base, bool keep,
                 struct block_progress *progress, struct err *err);

/* `top`, a qcow2 image opened with all below it, stands on `base` from now on (NULL: on nothing), which its header calls
 * `name`, of `format`. What it showed of the old images and not of the new one is written into it. (If the content below is
 * the same, qcow2_set_backing() is enough.) */
int block_rebase(struct block_image *top, struct block_image *base, const char *name,
                 const char *format, struct block_progress *progress, struct err *err);

#endif
