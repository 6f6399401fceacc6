/*
 * Files of the host under disk images, and what all kinds of block_file share: size, the need to sync.
 *
 * Invariants:
 * 1. Files are never mapped: one that is truncated under us gives -EIO, not SIGBUS.
 * 2. A sync that failed once fails for ever.
 *
 * Any thread. Two writers of one range are the caller's mistake.
 */
#include "block/file.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ZEROS_BYTES (64 * KiB)
#define DEVICE_BLOCK (4 * KiB) /* or a part of it */
#define IO_BYTES_MAX (1 * GiB) /* of one system call */

/* --- a file of the host --- */

static int host_read(struct block_file *f, void *buf, size_t len, u64 offset)
{
    for (size_t done = 0; done < len;) {
        ssize_t n =
            pread(f->fd, (u8 *)buf + done, MIN(len - done, IO_BYTES_MAX), (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -EIO;
        done += (size_t)n;
    }
    return 0;
}

static int host_write(struct block_file *f, const void *buf, size_t len, u64 offset)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(f->fd, (const u8 *)buf + done, MIN(len - done, IO_BYTES_MAX),
                           (off_t)(offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -EIO;
        done += (size_t)n;
    }
    return 0;
}

static int write_zeros(struct block_file *f, u64 offset, u64 len)
{
    static const u8 zeros[ZEROS_BYTES];

    for (u64 done = 0; done < len;) {
        size_t part = MIN(len - done, ZEROS_BYTES);
        int rc = host_write(f, zeros, part, offset + done);

        if (rc)
            return rc;
        done += part;
    }
    return 0;
}

static int host_zero(struct block_file *f, u64 offset, u64 len, bool hole)
{
    int mode = FALLOC_FL_KEEP_SIZE | (hole ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
    /* Devices do so in whole blocks of theirs. */
    u64 unit = f->device ? DEVICE_BLOCK : 1, end = offset + len;
    u64 first = ALIGN_UP(offset, unit), last = ALIGN_DOWN(end, unit);
    int rc;

    if (first >= last)
        return write_zeros(f, offset, len);
    rc = write_zeros(f, offset, first - offset);
    if (!rc)
        rc = write_zeros(f, last, end - last);
    if (rc || fallocate(f->fd, mode, (off_t)first, (off_t)(last - first)) == 0)
        return rc;
    if (errno != EOPNOTSUPP && errno != ENODEV)
        return -errno;
    return write_zeros(f, first, last - first);
}

static int host_sync(struct block_file *f)
{
    return fdatasync(f->fd) ? -errno : 0;
}

static int host_truncate(struct block_file *f, u64 size)
{
    return ftruncate(f->fd, (off_t)size) ? -errno : 0;
}

static int host_next(struct block_file *f, u64 offset, bool *ret_data, u64 *ret_end)
{
    u64 size = f->size;
    off_t data = lseek(f->fd, (off_t)offset, SEEK_DATA), hole;

    if (data < 0 && errno != ENXIO) { /* a file system or a device that cannot tell */
        *ret_data = true;
        *ret_end = size;
        return 0;
    }
    if (data < 0 || (u64)data > offset) {
        *ret_data = false;
        *ret_end = data < 0 ? size : MIN((u64)data, size);
        return 0;
    }
    hole = lseek(f->fd, (off_t)offset, SEEK_HOLE);
    *ret_data = true;
    *ret_end = hole > (off_t)offset ? MIN((u64)hole, size) : size;
    return 0;
}

static void host_close(struct block_file *f)
{
    if (f->fd >= 0)
        close(f->fd); /* lets go of the lock as well */
    free(f->name);
    free(f);
}

static const struct block_file_ops host_ops = {
    .read = host_read,
    .write = host_write,
    .zero = host_zero,
    .sync = host_sync,
    .truncate = host_truncate,
    .next = host_next,
    .close = host_close,
};

/* --- opening --- */

int block_file_set_lock(struct block_file *f, enum block_lock lock, struct err *err)
{
    static const short types[] = {
        [BLOCK_UNLOCKED] = F_UNLCK, [BLOCK_SHARED] = F_RDLCK, [BLOCK_EXCLUSIVE] = F_WRLCK};
    struct flock fl = {.l_type = types[lock], .l_whence = SEEK_SET};

    if (f->fd < 0 || fcntl(f->fd, F_OFD_SETLK, &fl) == 0) {
        f->lock = lock;
        return 0;
    }
    if (errno == EAGAIN || errno == EACCES)
        return err_set(err, EBUSY, "%s: in use%s", f->name,
                       lock == BLOCK_SHARED
                           ? " by a program that writes to it"
                           : "; a machine or another program has it open (if all of them only "
                             "read, open it read-only)");
    return err_sys(err, errno, "%s: cannot lock it", f->name);
}

int block_file_lock(struct block_file *f, struct err *err)
{
    return block_file_set_lock(f, f->readonly ? BLOCK_SHARED : BLOCK_EXCLUSIVE, err);
}

static int host_size(struct block_file *f, struct err *err)
{
    struct stat st;
    u64 size;

    if (fstat(f->fd, &st))
        return err_sys(err, errno, "%s", f->name);
    f->device = S_ISBLK(st.st_mode);
    if (S_ISREG(st.st_mode))
        size = (u64)st.st_size;
    else if (!f->device)
        return err_set(err, EINVAL, "%s: neither a regular file nor a block device", f->name);
    else if (ioctl(f->fd, BLKGETSIZE64, &size))
        return err_sys(err, errno, "%s: size", f->name);
    f->size = size;
    return 0;
}

/* Asked when it is opened only: what a running guest wrote to before a snapshot stands on it stays open as it is. */
static int begin(struct block_file *f, struct err *err)
{
    struct stat st;
    int rc = host_size(f, err);

    if (rc || f->readonly || f->device)
        return rc;
    if (fstat(f->fd, &st))
        return err_sys(err, errno, "%s", f->name);
    if (st.st_mode & 0222)
        return 0;
    return err_set(err, EROFS,
                   "%s: is write-protected (nobody has write permission), as the base of snapshots "
                   "and overlays is; put an overlay on it (trapeze disk create --backing), or "
                   "chmod u+w it if nothing stands on it",
                   f->name);
}

int block_file_protect(const char *path, bool on, struct err *err)
{
    struct stat st;

    if (stat(path, &st))
        return err_sys(err, errno, "%s", path);
    if (S_ISREG(st.st_mode) &&
        chmod(path, on ? st.st_mode & 07555 : (st.st_mode & 07777) | S_IWUSR))
        return err_sys(err, errno, "%s: cannot change its permissions", path);
    return 0;
}

int block_file_refresh(struct block_file *f, struct err *err)
{
    return f->fd < 0 ? 0 : host_size(f, err);
}

int block_file_from_fd(int fd, const char *name, bool readonly, struct block_file **ret_file,
                       struct err *err)
{
    struct block_file *f = calloc(1, sizeof(*f));
    int flags = fcntl(fd, F_GETFL), rc = 0;

    if (!f || block_file_init(f, &host_ops, name)) {
        free(f);
        close(fd);
        return err_set(err, ENOMEM, "%s: no memory", name);
    }
    f->fd = fd;
    f->readonly = readonly;
    if (flags < 0)
        rc = err_sys(err, errno, "%s: descriptor %d", name, fd);
    else if (!readonly && (flags & O_ACCMODE) != O_RDWR)
        rc = err_set(err, EBADF, "%s: was opened for reading only", name);
    if (!rc)
        rc = begin(f, err);
    if (rc)
        host_close(f);
    else
        *ret_file = f;
    return rc;
}

static int open_beneath(int dir_fd, const char *path, int flags)
{
    struct open_how how = {.flags = (u64)flags, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};

    return (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
}

int block_file_open(const char *path, const struct block_file_options *o,
                    struct block_file **ret_file, struct err *err)
{
    int flags = (o->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    struct block_file *f = calloc(1, sizeof(*f));
    int rc = 0;

    if (!f)
        return err_set(err, ENOMEM, "%s: no memory", path);
    f->fd = -1;
    if (block_file_init(f, &host_ops, path)) {
        free(f);
        return err_set(err, ENOMEM, "%s: no memory", path);
    }
    f->readonly = o->readonly;
    f->fd = o->dir_fd >= 0 ? open_beneath(o->dir_fd, path, flags)
                           : open(path, flags | (o->create ? O_CREAT : 0), 0644);
    if (f->fd < 0)
        rc = err_sys(err, errno, "%s", path);
    if (!rc)
        rc = begin(f, err);
    if (!rc && !o->shared)
        rc = block_file_lock(f, err);
    /* Emptied only once it is known that nobody else uses it. */
    if (!rc && o->create && !f->device && block_file_truncate(f, 0))
        rc = err_sys(err, errno, "%s: cannot empty it", path);
    if (rc) {
        host_close(f);
        return rc;
    }
    *ret_file = f;
    return 0;
}

int block_file_init(struct block_file *f, const struct block_file_ops *ops, const char *name)
{
    f->ops = ops;
    f->syncing = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    f->name = strdup(name);
    return f->name ? 0 : -ENOMEM;
}

void block_file_close(struct block_file *f)
{
    if (f)
        f->ops->close(f);
}

/* --- what every kind shares --- */

void block_file_grown(struct block_file *f, u64 end)
{
    u64 size = f->size;

    f->unsynced = true;
    while (end > size && !atomic_compare_exchange_weak(&f->size, &size, end))
        ;
}

int block_file_read(struct block_file *f, void *buf, size_t len, u64 offset)
{
    if (!range_fits(offset, len, f->size))
        return -EIO;
    return len ? f->ops->read(f, buf, len, offset) : 0;
}

int block_file_write(struct block_file *f, const void *buf, size_t len, u64 offset)
{
    u64 end;
    int rc;

    if (f->readonly)
        return -EROFS;
    if (ADD_OVERFLOWS(offset, len, &end) || end > INT64_MAX)
        return -EFBIG;
    f->unsynced = true;
    rc = f->ops->write(f, buf, len, offset);
    if (!rc)
        block_file_grown(f, end);
    return rc;
}

int block_file_zero(struct block_file *f, u64 offset, u64 len, bool hole)
{
    u64 end, size = f->size, known = offset < size ? MIN(len, size - offset) : 0;
    int rc = 0;

    if (f->readonly)
        return -EROFS;
    if (ADD_OVERFLOWS(offset, len, &end) || end > INT64_MAX)
        return -EFBIG;
    f->unsynced = true;
    if (known)
        rc = f->ops->zero(f, offset, known, hole);
    /* Grown by a byte of ours, not by truncate: that would cut off what others write behind us at this moment. */
    return rc || end <= size ? rc : block_file_write(f, "", 1, end - 1);
}

int block_file_sync(struct block_file *f)
{
    int rc = 0;

    pthread_mutex_lock(&f->syncing);
    if (!f->unsafe && !f->sync_failed && atomic_exchange(&f->unsynced, false))
        f->sync_failed = f->ops->sync(f) != 0;
    if (f->sync_failed)
        rc = -EIO;
    pthread_mutex_unlock(&f->syncing);
    return rc;
}

int block_file_truncate(struct block_file *f, u64 size)
{
    int rc;

    if (f->readonly)
        return -EROFS;
    if (f->device)
        return size <= f->size ? 0 : -ENOSPC;
    f->unsynced = true;
    rc = f->ops->truncate(f, size);
    if (!rc)
        f->size = size;
    return rc;
}

int block_file_next(struct block_file *f, u64 offset, bool *ret_data, u64 *ret_end)
{
    return offset < f->size ? f->ops->next(f, offset, ret_data, ret_end) : -ENXIO;
}
