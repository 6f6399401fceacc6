/* virtio-console (virtio 1.2, 5.3): port 0 only, /dev/hvc0 in Linux. */
#ifndef DEVICE_VIRTIO_CONSOLE_H
#define DEVICE_VIRTIO_CONSOLE_H

#include "device/chardev.h"
#include "device/virtio.h"

struct virtio_console_options {
    struct chardev *port; /* outlives the device; NULL: output is dropped */
    u16 cols, rows;       /* 0: unknown */
};

extern const struct virtio_type virtio_console_type;

/* The terminal has another size now. Any thread. */
void virtio_console_resize(struct virtio *v, u16 cols, u16 rows);

#endif
