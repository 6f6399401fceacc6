/* virtio-net (virtio 1.2, 5.1): one pair of queues and a control queue. */
#ifndef DEVICE_VIRTIO_NET_H
#define DEVICE_VIRTIO_NET_H

#include "device/virtio.h"
#include "net/netport.h"

struct virtio_net_options {
    struct netport *port; /* outlives the device; it sets port->receive. NULL: no link */
    u8 mac[6];
};

extern const struct virtio_type virtio_net_type;

/* After the guest has moved: tells its network where it is now, and asks the guest to do so (5.1.6.5.4). Main loop. */
void virtio_net_announce(struct virtio *v);

#endif
