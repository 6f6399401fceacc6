/* Whole-file input and output. Nothing here interprets paths beyond what openat does. */
#include "container/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static int remove_entry(int dirfd, const char *name, dev_t dev, int depth);

static int remove_children(int fd, dev_t dev, int depth)
{
    DIR *dir = fdopendir(fd);
    struct dirent *e;
    int rc = 0;

    if (!dir) {
        rc = -errno;
        close(fd);
        return rc;
    }
    while (rc == 0 && (e = readdir(dir)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = remove_entry(dirfd(dir), e->d_name, dev, depth);
    closedir(dir);
    return rc;
}

static int remove_entry(int dirfd, const char *name, dev_t dev, int depth)
{
    struct stat st;
    int fd, rc;

    if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -errno;
    if (unlinkat(dirfd, name, AT_REMOVEDIR) == 0)
        return 0;
    fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_dev != dev || depth > 64) {
        rc = fd < 0 || st.st_dev == dev ? -ELOOP : -EXDEV;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    rc = remove_children(fd, dev, depth + 1);
    if (rc == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) < 0)
        rc = -errno;
    return rc;
}

int file_remove_tree(int dirfd, const char *name)
{
    struct stat st;

    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    return remove_entry(dirfd, name, st.st_dev, 0);
}
