/*
 * Mounting by descriptor: a mount is made detached, gets its attributes while nobody can see it, and is then
 * attached to a place that was resolved before. No step takes a path inside the container.
 */
#include "container/mount.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "container/sys.h"

int mount_clone_tree(const char *source, bool recursive)
{
    int fd = sys_open_tree(AT_FDCWD, source,
                           OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0u));

    return fd < 0 ? -errno : fd;
}

/* The kernel explains a refused parameter in the context's log, "e tmpfs: Bad value for 'size'". */
static int context_error(int fs, int code, const char *type, const char *what, struct err *err)
{
    char why[256];
    ssize_t len = read(fs, why, sizeof(why) - 1);

    if (len <= 2)
        return err_sys(err, code, "mount %s: %s", type, what);
    why[len] = '\0';
    why[strcspn(why, "\n")] = '\0';
    return err_set(err, code, "mount %s: %s: %s", type, what, why + 2);
}

static int set_parameter(int fs, const char *type, const char *word, struct err *err)
{
    char key[128];
    const char *value = strchr(word, '=');
    size_t len = value ? (size_t)(value - word) : strlen(word);
    int rc;

    if (len >= sizeof(key))
        return err_set(err, EINVAL, "mount %s: the option %.40s... is too long", type, word);
    memcpy(key, word, len);
    key[len] = '\0';
    rc = value ? sys_fsconfig(fs, FSCONFIG_SET_STRING, key, value + 1, 0)
               : sys_fsconfig(fs, FSCONFIG_SET_FLAG, key, NULL, 0);
    return rc < 0 ? context_error(fs, errno, type, word, err) : 0;
}

/* For these "ro" is a matter of the mount alone: their superblock is shared, or must be filled first. */
static bool is_pseudo(const char *type)
{
    static const char *const types[] = {"tmpfs",  "sysfs",  "proc",   "devpts",
                                        "mqueue", "cgroup", "cgroup2"};

    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (strcmp(types[i], type) == 0)
            return true;
    return false;
}

int mount_new_fs(const char *type, const char *source, const struct mount_opts *o, struct err *err)
{
    auto_close int fs = sys_fsopen(type, FSOPEN_CLOEXEC);
    int fd;

    if (fs < 0)
        return err_sys(err, errno, "mount: file system type %s", type);
    if (source && source[0] && sys_fsconfig(fs, FSCONFIG_SET_STRING, "source", source, 0) < 0)
        return context_error(fs, errno, type, source, err);
    if ((o->attr_set & MOUNT_ATTR_RDONLY) && !is_pseudo(type) &&
        set_parameter(fs, type, "ro", err) < 0)
        return -err->code;
    for (size_t i = 0; i < o->data.n; i++)
        if (set_parameter(fs, type, o->data.v[i], err) < 0)
            return -err->code;
    if (sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return context_error(fs, errno, type, "create", err);
    /* A copy-up writes into the mount first; it becomes read-only afterwards (mount_apply). */
    fd = sys_fsmount(fs, FSMOUNT_CLOEXEC,
                     (unsigned)(o->copy_up ? o->attr_set & ~(u64)MOUNT_ATTR_RDONLY : o->attr_set));
    return fd < 0 ? context_error(fs, errno, type, "mount", err) : fd;
}

int mount_set_propagation(int fd, u64 propagation, bool recursive)
{
    struct mount_attr attr = {.propagation = propagation};

    return sys_mount_setattr(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0u), &attr) < 0
               ? -errno
               : 0;
}

int mount_apply(int fd, const struct mount_opts *o, struct err *err)
{
    struct mount_attr attr = {.attr_set = o->attr_set, .attr_clr = o->attr_clr};
    struct mount_attr rec = {.attr_set = o->rec_set, .attr_clr = o->rec_clr};

    if ((attr.attr_set || attr.attr_clr) && sys_mount_setattr(fd, "", AT_EMPTY_PATH, &attr) < 0)
        return err_sys(err, errno, "set mount attributes");
    if ((rec.attr_set || rec.attr_clr) &&
        sys_mount_setattr(fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &rec) < 0)
        return err_sys(err, errno, "set recursive mount attributes");
    if (o->propagation) {
        int rc = mount_set_propagation(fd, o->propagation, o->propagation_rec);

        if (rc < 0)
            return err_sys(err, -rc, "set mount propagation");
    }
    return 0;
}

int mount_attach(int fd, int target, const char *what, struct err *err)
{
    if (sys_move_mount(fd, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
        return err_sys(err, errno, "mount to %s", what);
    return 0;
}

static int copy_entry(int from, int to, const char *name, int depth);

static int copy_children(int from, int to, int depth)
{
    DIR *dir;
    struct dirent *e;
    int rc = 0, fd = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        rc = -errno;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    while (rc == 0 && (e = readdir(dir)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = copy_entry(from, to, e->d_name, depth);
    closedir(dir);
    return rc;
}

static int copy_file(int from, int to, const char *name, const struct stat *st)
{
    auto_close int in = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    auto_close int out =
        openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    ssize_t n;

    if (in < 0 || out < 0)
        return -errno;
    while ((n = sendfile(out, in, NULL, 1 << 20)) > 0)
        ;
    if (n < 0 || fchown(out, st->st_uid, st->st_gid) < 0 || fchmod(out, st->st_mode & 07777) < 0)
        return -errno;
    return 0;
}

static int copy_dir(int from, int to, const char *name, const struct stat *st, int depth)
{
    auto_close int in = -1, out = -1;
    int rc;

    if (mkdirat(to, name, 0700) < 0)
        return -errno;
    in = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    out = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (in < 0 || out < 0)
        return -errno;
    rc = copy_children(in, out, depth + 1);
    if (rc < 0)
        return rc;
    return fchown(out, st->st_uid, st->st_gid) < 0 || fchmod(out, st->st_mode & 07777) < 0 ? -errno
                                                                                           : 0;
}

static int copy_entry(int from, int to, const char *name, int depth)
{
    char target[4096];
    struct stat st;
    ssize_t len;

    if (depth > 64)
        return -ELOOP;
    if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    switch (st.st_mode & S_IFMT) {
    case S_IFDIR:
        return copy_dir(from, to, name, &st, depth);
    case S_IFREG:
        return copy_file(from, to, name, &st);
    case S_IFLNK:
        len = readlinkat(from, name, target, sizeof(target) - 1);
        if (len < 0)
            return -errno;
        target[len] = '\0';
        if (symlinkat(target, to, name) < 0)
            return -errno;
        break;
    default:
        if (mknodat(to, name, st.st_mode, st.st_rdev) < 0)
            return -errno;
    }
    return fchownat(to, name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

int mount_copy_tree(int from, int to)
{
    struct stat st;

    if (fstat(from, &st) < 0)
        return -errno;
    if (fchownat(to, ".", st.st_uid, st.st_gid, 0) < 0 ||
        fchmodat(to, ".", st.st_mode & 07777, 0) < 0)
        return -errno;
    return copy_children(from, to, 0);
}
