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

/* Asks the guest to tell its network where it is now (5.1.5.5), after it has moved. */
void virtio_net_announce(struct virtio *v);

#endif
