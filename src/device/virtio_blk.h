/* virtio-blk (virtio 1.2, 5.2): a disk. */
#ifndef DEVICE_VIRTIO_BLK_H
#define DEVICE_VIRTIO_BLK_H

#include "block/block.h"
#include "device/virtio.h"

struct virtio_blk_options {
    struct block *disk; /* outlives the device */
    const char *serial; /* up to 20 bytes, answers GET_ID; NULL: empty */
    unsigned queues;    /* 0: one per cpu, at most 4 */
};

extern const struct virtio_type virtio_blk_type;

#endif
