/* Moving network devices into the container (runtime-spec 1.3, config-linux.md, netDevices). */
#ifndef CONTAINER_NETDEV_H
#define CONTAINER_NETDEV_H

#include "container/spec.h"

/* Moves each device into the network namespace of `pid`, renames it, keeps its addresses, and raises it. */
int netdev_move(const struct spec *s, int pid, struct err *err);

#endif
