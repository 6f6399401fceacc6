/*
 * A log of bounded size: what was written last stays. When the file has LOG_MAX bytes, its first LOG_SHIFT bytes are
 * dropped, always exactly that many, so that a reader who follows it knows how far its place has moved.
 */
#ifndef VM_STREAM_LOG_H
#define VM_STREAM_LOG_H

#include "base/err.h"

#define LOG_MAX (4 * MiB)
#define LOG_SHIFT (2 * MiB)

struct stream_log {
    int fd;
    u64 size;
};

/* Goes on behind what is in the file. */
int stream_log_open(const char *path, struct stream_log *ret_log, struct err *err);
/* Writes it all: 0 or -errno. Works in the sandbox. */
int stream_log_write(struct stream_log *log, const void *buf, size_t len);

#endif
