/* virtio-rng (virtio 1.2, 5.4): the host's random numbers, at most VIRTIO_RNG_BYTES_PER_S of them.
 */
#ifndef DEVICE_VIRTIO_RNG_H
#define DEVICE_VIRTIO_RNG_H

#include "device/virtio.h"

#define VIRTIO_RNG_BYTES_PER_S (1u << 20)

extern const struct virtio_type virtio_rng_type; /* no options: NULL */

#endif
