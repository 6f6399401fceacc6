/* virtio-console (virtio 1.2, 5.3): port 0 only, /dev/hvc0 in Linux. */
#ifndef DEVICE_VIRTIO_CONSOLE_H
#define DEVICE_VIRTIO_CONSOLE_H

#include "device/virtio.h"

struct virtio_console_options {
    /* Takes bytes from the guest, in a vCPU's thread; never blocks for long. NULL: dropped. */
    void (*output)(void *opaque, const void *bytes, size_t len);
    /* There is room for input again after virtio_console_input() took less than it was given. Called from a vCPU's
     * thread with the queue locked: only pass it on (loop_call()). May be NULL. */
    void (*room)(void *opaque);
    void *opaque;
    u16 cols, rows; /* 0: unknown */
};

extern const struct virtio_type virtio_console_type;

/* Bytes typed at the guest; returns how many it took. Any thread. */
size_t virtio_console_input(struct virtio *v, const void *bytes, size_t len);
void virtio_console_resize(struct virtio *v, u16 cols, u16 rows);

#endif
