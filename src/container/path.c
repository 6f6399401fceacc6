/* Resolution with openat2(2): RESOLVE_IN_ROOT for what the container's tree holds, NO_XDEV for procfs. */
#include "container/path.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "container/sys.h"

#define IN_ROOT (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
#define PROC_ROOT_INO 1
#define MAX_LINKS 16

/* openat2 may answer EAGAIN when it races with a rename anywhere on the system (openat2(2)). */
static int open_retry(int dirfd, const char *path, int flags, u64 resolve)
{
    for (int i = 0; i < 128; i++) {
        int fd = sys_openat2(dirfd, path, (u64)flags | O_CLOEXEC, 0, resolve);

        if (fd >= 0)
            return fd;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
    }
    return -EAGAIN;
}

int path_open(int root, const char *path, int flags)
{
    return open_retry(root, path, flags, IN_ROOT);
}

int path_open_nolinks(int root, const char *path, int flags)
{
    return open_retry(root, path, flags, IN_ROOT | RESOLVE_NO_SYMLINKS);
}

static int make_dir(int root, const char *path, int links);

/* `name` in the directory `dir` (whose path is `prefix`) is a link to nothing: makes what it points to. */
static int make_link_target(int root, int dir, const char *prefix, const char *name, int links)
{
    char target[4096], joined[4096];
    ssize_t len = readlinkat(dir, name, target, sizeof(target) - 1);

    if (len < 0)
        return -errno;
    if (links >= MAX_LINKS)
        return -ELOOP;
    target[len] = '\0';
    if (target[0] == '/')
        return make_dir(root, target, links + 1);
    if (snprintf(joined, sizeof(joined), "%s/%s", prefix, target) >= (int)sizeof(joined))
        return -ENAMETOOLONG;
    return make_dir(root, joined, links + 1);
}

/* One component: opens it, or makes it. */
static int step_into(int root, int dir, const char *prefix, const char *name, int links)
{
    char whole[4096];
    int fd;

    if (snprintf(whole, sizeof(whole), "%s/%s", prefix, name) >= (int)sizeof(whole))
        return -ENAMETOOLONG;
    fd = path_open(root, whole, O_PATH | O_DIRECTORY);
    if (fd != -ENOENT)
        return fd;
    if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
        return -errno;
    fd = path_open(root, whole, O_PATH | O_DIRECTORY);
    if (fd != -ENOENT)
        return fd;
    return make_link_target(root, dir, prefix, name, links);
}

static int make_dir(int root, const char *path, int links)
{
    int fd = path_open(root, path, O_PATH | O_DIRECTORY);
    char copy[4096], prefix[4096] = "", *part, *save = NULL;
    size_t used = 0;

    if (fd != -ENOENT)
        return fd;
    if (strlen(path) >= sizeof(copy))
        return -ENAMETOOLONG;
    memcpy(copy, path, strlen(path) + 1);
    fd = path_open(root, ".", O_PATH | O_DIRECTORY);
    for (part = strtok_r(copy, "/", &save); part && fd >= 0; part = strtok_r(NULL, "/", &save)) {
        int next = step_into(root, fd, prefix, part, links);

        close(fd);
        fd = next;
        used += (size_t)snprintf(prefix + used, sizeof(prefix) - used, "/%s", part);
        if (used >= sizeof(prefix)) {
            if (fd >= 0)
                close(fd);
            return -ENAMETOOLONG;
        }
    }
    return fd;
}

int path_make_dir(int root, const char *path)
{
    return make_dir(root, path, 0);
}

int path_make_parent(int root, const char *path, const char **ret_name)
{
    char parent[4096];
    const char *name = strrchr(path, '/');
    size_t len = name ? (size_t)(name - path) : 0;

    if (len >= sizeof(parent))
        return -ENAMETOOLONG;
    name = name ? name + 1 : path;
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return -EINVAL;
    memcpy(parent, path, len);
    parent[len] = '\0';
    *ret_name = name;
    return path_make_dir(root, len ? parent : ".");
}

int path_make_file(int root, const char *path)
{
    const char *name;
    int fd = path_open(root, path, O_PATH), dir, made;

    if (fd != -ENOENT)
        return fd;
    dir = path_make_parent(root, path, &name);
    if (dir < 0)
        return dir;
    /* O_EXCL: a link put here meanwhile is not followed; the path_open below then resolves it safely. */
    made = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (made >= 0)
        close(made);
    close(dir);
    return path_open(root, path, O_PATH);
}

int path_of_fd(int procfd, int fd, char *buf, size_t size)
{
    char link[40];
    ssize_t len;

    snprintf(link, sizeof(link), "self/fd/%d", fd);
    len = readlinkat(procfd, link, buf, size - 1);
    if (len < 0)
        return -errno;
    buf[len] = '\0';
    return 0;
}

int procfs_open(struct err *err)
{
    int fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct statfs fs;
    struct stat st;

    if (fd < 0)
        return err_sys(err, errno, "open /proc");
    if (fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC && fstat(fd, &st) == 0 &&
        st.st_ino == PROC_ROOT_INO)
        return fd;
    close(fd);
    return err_set(err, EINVAL, "/proc is not a procfs mount");
}

int procfs_open_at(int procfd, const char *path, int flags)
{
    return open_retry(procfd, path, flags,
                      RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
}

int procfs_write(int procfd, const char *path, const char *value)
{
    auto_close int fd = procfs_open_at(procfd, path, O_WRONLY);

    if (fd < 0)
        return fd;
    return write(fd, value, strlen(value)) < 0 ? -errno : 0;
}
