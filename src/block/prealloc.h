/* Space for what will be written: new disks and parts of disks that have it from the start. */
#ifndef BLOCK_PREALLOC_H
#define BLOCK_PREALLOC_H

#include "block/image.h"

enum block_prealloc {
    BLOCK_PREALLOC_OFF,
    BLOCK_PREALLOC_METADATA, /* qcow2: every cluster has its place, in a file with holes */
    BLOCK_PREALLOC_FALLOC,   /* and the file system has set the space apart */
    BLOCK_PREALLOC_FULL,     /* or it is written full of zeros */
};

/* [from, to) of the disk, which reads as zeros and goes on to do so. */
int block_image_preallocate(struct block_image *i, u64 from, u64 to, enum block_prealloc how,
                            struct err *err);

#endif
