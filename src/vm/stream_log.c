/*
 * A log of bounded size, in one file: whoever looks at it with tail or less sees what there is. The second half is copied
 * over the first before the file is cut; if the process is killed meanwhile, some lines are there twice.
 *
 * Thread: the main loop's.
 */
#include "vm/stream_log.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE (16 * KiB)

int stream_log_open(const char *path, struct stream_log *ret_log, struct err *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat st;

    if (fd < 0 || fstat(fd, &st))
        return err_sys(err, errno, "cannot write '%s'", path);
    *ret_log = (struct stream_log){.fd = fd, .size = (u64)st.st_size};
    if (ret_log->size >= LOG_MAX) { /* not ours: we never leave it that long */
        ret_log->size = 0;
        if (ftruncate(fd, 0)) {
            /* It is written over then. */
        }
    }
    return 0;
}

static int drop_first_half(struct stream_log *log)
{
    static _Thread_local char piece[PIECE];

    for (u64 at = LOG_SHIFT; at < LOG_MAX; at += PIECE)
        if (pread(log->fd, piece, PIECE, (off_t)at) != PIECE ||
            pwrite(log->fd, piece, PIECE, (off_t)(at - LOG_SHIFT)) != PIECE)
            return -EIO;
    if (ftruncate(log->fd, (off_t)(LOG_MAX - LOG_SHIFT)))
        return -errno;
    log->size = LOG_MAX - LOG_SHIFT;
    return 0;
}

int stream_log_write(struct stream_log *log, const void *buf, size_t len)
{
    const char *from = buf;

    while (len) {
        ssize_t n =
            pwrite(log->fd, from, MIN(len, (size_t)(LOG_MAX - log->size)), (off_t)log->size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        from += n;
        len -= (size_t)n;
        log->size += (u64)n;
        if (log->size == LOG_MAX) {
            int rc = drop_first_half(log);

            if (rc)
                return rc;
        }
    }
    return 0;
}
