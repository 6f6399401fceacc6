/* Moving network devices into the container (runtime-spec 1.3, config-linux.md, netDevices). */
#ifndef CONTAINER_NETDEV_H
#define CONTAINER_NETDEV_H

#include "container/spec.h"

/*
 * Moves each device into the network namespace of `pid`, renames it, keeps its addresses, and raises it. The
 * namespace is opened as *ret_netns (-1 without devices), on failure too: it is what netdev_return() needs.
 */
int netdev_move(struct spec *s, int pid, int *ret_netns, struct err *err);
/* Undoes it: devices that were moved come back under their names. The kernel would destroy virtual ones. */
void netdev_return(const struct spec *s, int netns);

#endif
