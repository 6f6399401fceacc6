/* virtio-blk (virtio 1.2, 5.2): a disk. */
#ifndef DEVICE_VIRTIO_BLK_H
#define DEVICE_VIRTIO_BLK_H

#include "block/block.h"
#include "device/virtio.h"

enum virtio_blk_on_error {
    VIRTIO_BLK_STOP_FULL, /* stopped() when the host has no space left, else as REPORT; of reads: as REPORT */
    VIRTIO_BLK_REPORT, /* the guest gets the error */
    VIRTIO_BLK_STOP,   /* stopped() */
};

struct virtio_blk_options {
    struct block *disk; /* outlives the device */
    const char *serial; /* up to 20 bytes, answers GET_ID; NULL: empty */
    unsigned queues;    /* 0: one per cpu, at most 4 */
    u64 bytes_per_s, requests_per_s; /* 0: no limit */
    enum virtio_blk_on_error on_write, on_read;
    /* The host failed and the guest is not to know: the machine must be paused soon. What failed is done again when it is
     * resumed. error: errno. Any thread, the queue's lock held. False, or NULL: the guest gets the error. */
    bool (*stopped)(void *opaque, struct block *disk, int error);
    void *opaque;
};

extern const struct virtio_type virtio_blk_type;

#endif
