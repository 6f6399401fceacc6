/* Small files and directories, by descriptor: whole reads, whole writes, atomic replacement. */
#ifndef CONTAINER_FILE_H
#define CONTAINER_FILE_H

#include "base/err.h"
#include "base/types.h"

#include <sys/types.h>

/* Reads to the end; *ret gets a NUL behind its `len` bytes and is freed by the caller. -errno, -EFBIG. */
int file_read_all(int fd, size_t max, char **ret, size_t *ret_len);
/* Reads a small file (`size` - 1 bytes at most) into buf as a string. Returns its length or -errno. */
ssize_t file_read_at(int dirfd, const char *path, char *buf, size_t size);
/* One write(2) into an existing file, as pseudo file systems want it. 0 or -errno. */
int file_write_at(int dirfd, const char *path, const char *text);
/* Everything, however many writes it takes. */
int file_write_all(int fd, const void *data, size_t len);
/* Replaces dirfd/name by a file with these contents, or leaves it as it was. */
int file_replace(int dirfd, const char *name, mode_t mode, const void *data, size_t len);
/*
 * Removes all that is in a directory, but for one name, without following links or entering mounts (-EXDEV,
 * -EBUSY). 0 or -errno.
 */
int file_remove_all_but(int dirfd, const char *keep);

#endif
