/* Id maps of user namespaces. user_namespaces(7). */
#ifndef CONTAINER_USERNS_H
#define CONTAINER_USERNS_H

#include "container/spec.h"

/* Writes both maps of a process that waits in a new user namespace; newuidmap's help where we may not. */
int userns_write_maps(int pid, const struct spec_idmaps *uids, const struct spec_idmaps *gids,
                      bool privileged, struct err *err);
/* A namespace with these maps and no process in it, for idmapped mounts. A descriptor or -errno. */
int userns_make(const struct spec_idmaps *uids, const struct spec_idmaps *gids, struct err *err);

#endif
