/* Whole-file input and output. Nothing here interprets paths beyond what openat does. */
#include "container/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "container/sys.h"

int file_read_all(int fd, size_t max, char **ret, size_t *ret_len)
{
    size_t size = 16 * KiB, used = 0;
    char *buf = malloc(size);

    while (buf) {
        ssize_t n;

        if (size - used < 2) {
            char *grown = realloc(buf, size * 2);

            if (!grown) {
                free(buf);
                return -ENOMEM;
            }
            buf = grown;
            size *= 2;
        }
        n = read(fd, buf + used, size - used - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int code = errno;

            free(buf);
            return -code;
        }
        if (n == 0) {
            buf[used] = '\0';
            *ret = buf;
            *ret_len = used;
            return 0;
        }
        used += (size_t)n;
        if (used > max) {
            free(buf);
            return -EFBIG;
        }
    }
    return -ENOMEM;
}

ssize_t file_read_at(int dirfd, const char *path, char *buf, size_t size)
{
    auto_close int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
    size_t used = 0;
    ssize_t n;

    if (fd < 0)
        return -errno;
    while (used < size - 1 && (n = read(fd, buf + used, size - 1 - used)) != 0) {
        if (n < 0 && errno != EINTR)
            return -errno;
        used += n > 0 ? (size_t)n : 0;
    }
    buf[used] = '\0';
    return (ssize_t)used;
}

int file_write_at(int dirfd, const char *path, const char *text)
{
    auto_close int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

int file_write_all(int fd, const void *data, size_t len)
{
    const char *at = data;

    while (len) {
        ssize_t n = write(fd, at, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

int file_replace(int dirfd, const char *name, mode_t mode, const void *data, size_t len)
{
    char tmp[256];
    auto_close int fd = -1;
    int rc;

    snprintf(tmp, sizeof(tmp), ".%s.%d", name, getpid());
    fd = openat(dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return -errno;
    rc = file_write_all(fd, data, len);
    if (rc == 0 && renameat(dirfd, tmp, dirfd, name) < 0)
        rc = -errno;
    if (rc < 0)
        unlinkat(dirfd, tmp, 0);
    return rc;
}

static int remove_entry(int dirfd, const char *name, int depth);

static int remove_children(int fd, const char *keep, int depth)
{
    DIR *dir = fdopendir(fd);
    struct dirent *e;
    int rc = 0;

    if (!dir) {
        rc = -errno;
        close(fd);
        return rc;
    }
    while (rc == 0) {
        errno = 0;
        e = readdir(dir);
        if (!e) {
            rc = -errno; /* 0 at the end */
            break;
        }
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            (!keep || strcmp(e->d_name, keep) != 0))
            rc = remove_entry(dirfd(dir), e->d_name, depth);
    }
    closedir(dir);
    return rc;
}

static int remove_entry(int dirfd, const char *name, int depth)
{
    int fd, rc;

    if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0)
        return 0;
    if (depth > 64)
        return -ELOOP;
    /* A mount is somebody's data. That its device is another does not tell: a bind may be of the same one. */
    fd = sys_openat2(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0,
                     RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH);
    if (fd < 0)
        return -errno;
    rc = remove_children(fd, NULL, depth + 1);
    if (rc == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) < 0)
        rc = -errno;
    return rc;
}

int file_remove_all_but(int dirfd, const char *keep)
{
    int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? -errno : remove_children(fd, keep, 0);
}
