/*
 * Masked and read-only paths (config-linux.md). What lies in the root file system was chosen by the image, so
 * each path is resolved once and checked; what is put over it is checked to be what it should be
 * (CVE-2025-31133: a /dev/null that was a link to somewhere else).
 */
#include "container/init.h"

#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "container/path.h"
#include "container/sys.h"

struct seal {
    struct init *in;
    int dir; /* an empty read-only tmpfs that has been attached once, or -1 */
};

static bool mounts_type_at(const struct spec *s, const char *dest, const char *type)
{
    for (size_t i = 0; i < s->mount_count; i++)
        if (s->mounts[i].type && strcmp(s->mounts[i].type, type) == 0 &&
            strcmp(s->mounts[i].dest, dest) == 0)
            return true;
    return false;
}

/* Paths in procfs and sysfs hold no links; one there means that something else is mounted. */
static int open_sealed(const struct init *in, const char *path, struct err *err)
{
    static const struct {
        const char *prefix, *dest, *type;
        long magic;
    } kernel_fs[] = {{"/proc/", "/proc", "proc", PROC_SUPER_MAGIC},
                     {"/sys/", "/sys", "sysfs", SYSFS_MAGIC}};

    for (size_t i = 0; i < ARRAY_LEN(kernel_fs); i++) {
        struct statfs fs;
        int fd;

        if (strncmp(path, kernel_fs[i].prefix, strlen(kernel_fs[i].prefix)) != 0 ||
            !mounts_type_at(in->spec, kernel_fs[i].dest, kernel_fs[i].type))
            continue;
        fd = path_open_nolinks(in->root, path, O_PATH);
        if (fd < 0)
            return fd;
        if (fstatfs(fd, &fs) == 0 &&
            (fs.f_type == kernel_fs[i].magic || strncmp(path, "/sys/fs/", 8) == 0))
            return fd;
        close(fd);
        return err_set(err, EINVAL, "%s is not on %s", path, kernel_fs[i].type);
    }
    return path_open(in->root, path, O_PATH);
}

static bool is_absent(int rc)
{
    return rc == -ENOENT || rc == -ENOTDIR;
}

static int open_null(struct err *err)
{
    int fd = mount_clone_tree("/dev/null", false);
    struct stat st;

    if (fd < 0)
        return err_sys(err, -fd, "open /dev/null");
    if (fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3))
        return fd;
    close(fd);
    return err_set(err, EINVAL, "the host's /dev/null is not the null device");
}

static int clone_of(int fd)
{
    int clone = sys_open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    return clone < 0 ? -errno : clone;
}

static int mask_dir(struct seal *s, int target, const char *path, struct err *err)
{
    static const struct mount_opts opts = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                                       MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC};
    auto_close int again = -1;

    if (s->dir >= 0) {
        again = clone_of(s->dir);
        if (again < 0)
            return err_sys(err, -again, "mask %s", path);
        return mount_attach(again, target, path, err);
    }
    s->dir = mount_new_fs("tmpfs", "tmpfs", &opts, err);
    return s->dir < 0 ? s->dir : mount_attach(s->dir, target, path, err);
}

static int mask(struct seal *s, const char *path, struct err *err)
{
    auto_close int target = open_sealed(s->in, path, err), null = -1;
    struct stat st;

    if (is_absent(target))
        return 0;
    if (target < 0)
        return err->code ? -err->code : err_sys(err, -target, "mask %s", path);
    if (fstat(target, &st) == 0 && S_ISDIR(st.st_mode))
        return mask_dir(s, target, path, err);
    null = open_null(err);
    return null < 0 ? null : mount_attach(null, target, path, err);
}

static int make_readonly(const struct init *in, const char *path, struct err *err)
{
    static const struct mount_opts opts = {.attr_set = MOUNT_ATTR_RDONLY};
    auto_close int target = open_sealed(in, path, err), tree = -1;

    if (is_absent(target))
        return 0;
    if (target < 0)
        return err->code ? -err->code : err_sys(err, -target, "make %s read-only", path);
    tree = sys_open_tree(target, "",
                         AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0)
        return err_sys(err, errno, "make %s read-only", path);
    if (mount_apply(tree, &opts, err) < 0)
        return err_wrap(err, "make %s read-only", path);
    return mount_attach(tree, target, path, err);
}

static int seal_root(const struct init *in, struct err *err)
{
    static const struct mount_opts opts = {.attr_set = MOUNT_ATTR_RDONLY};

    if (!in->spec->root_readonly)
        return 0;
    return mount_apply(in->root, &opts, err) < 0 ? err_wrap(err, "make the root read-only") : 0;
}

int seal_paths(struct init *in, struct err *err)
{
    struct seal s = {in, -1};
    int rc = 0;

    for (size_t i = 0; i < in->spec->readonly.n && rc == 0; i++)
        rc = make_readonly(in, in->spec->readonly.v[i], err);
    for (size_t i = 0; i < in->spec->masked.n && rc == 0; i++)
        rc = mask(&s, in->spec->masked.v[i], err);
    if (s.dir >= 0)
        close(s.dir);
    return rc < 0 ? rc : seal_root(in, err);
}
