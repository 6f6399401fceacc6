/*
 * Paths inside a container's root file system. The container's owner made that tree and may be changing it
 * right now, so no path in it is ever used as a string twice: it is resolved once, by the kernel, with the
 * root as its "/", and what follows works on the descriptor.
 */
#ifndef CONTAINER_PATH_H
#define CONTAINER_PATH_H

#include "base/err.h"

#include <sys/types.h>

/* Opens `path` below root (O_CLOEXEC added). No magic links. A descriptor or -errno. */
int path_open(int root, const char *path, int flags);
/* As path_open, but no component may be a symbolic link at all. */
int path_open_nolinks(int root, const char *path, int flags);
/* Makes the directory and its parents (0755) where missing; returns an O_PATH descriptor or -errno. */
int path_make_dir(int root, const char *path);
/* Makes an empty regular file unless something is there, parents too; an O_PATH descriptor or -errno. */
int path_make_file(int root, const char *path);
/* The directory that holds the last component, made where missing; *ret_name points into path. */
int path_make_parent(int root, const char *path, const char **ret_name);
/* Where a descriptor is, as seen from our "/" (procfd: see procfs_open). 0 or -errno. */
int path_of_fd(int procfd, int fd, char *buf, size_t size);

/* /proc of the host, verified to be procfs and its root, for all that is read and written through it. */
int procfs_open(struct err *err);
/* Opens below it; never crosses a mount, so what others mounted over an entry is not followed. */
int procfs_open_at(int procfd, const char *path, int flags);
/* Writes one value. 0 or -errno. */
int procfs_write(int procfd, const char *path, const char *value);

#endif
