/*
 * The container's root file system: from a cloned tree to "/".
 *
 * The tree is mounted over our own "/": processes that have a root already do not see it, so nothing is
 * disturbed, no path has to lead to it, and every path below it reads as the container will see it.
 *
 * Invariants:
 * 1. A destination is resolved once, with openat2 inside in->root; what is mounted goes to that descriptor.
 * 2. /proc holds a procfs or nothing: a mount to a place below it is allowed only for the files on the list
 *    (CVE-2019-16884, CVE-2019-19921, CVE-2025-52881: a fake /proc makes label and mask writes go astray).
 */
#include "container/init.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "container/path.h"
#include "container/sys.h"

static bool is_below(const char *path, const char *dir)
{
    size_t len = strlen(dir);

    return strncmp(path, dir, len) == 0 && path[len] == '/';
}

static bool is_allowed_proc_file(const char *path)
{
    static const char *const allowed[] = {
        "/proc/cpuinfo",
        "/proc/diskstats",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/swaps",
        "/proc/uptime",
        "/proc/loadavg",
        "/proc/slabinfo",
        "/proc/net/dev",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/crypto/fips_enabled",
    };

    for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
        if (strcmp(path, allowed[i]) == 0)
            return true;
    return false;
}

static bool has_magic(int fd, long magic)
{
    struct statfs fs;

    return fstatfs(fd, &fs) == 0 && fs.f_type == magic;
}

/* Whether a mount made of `tree` may go to the resolved place `target`. */
static int check_target(const struct init *in, const struct spec_mount *m, int tree, int target,
                        struct err *err)
{
    char path[4096];
    int rc = path_of_fd(in->procfd, target, path, sizeof(path));

    if (rc < 0)
        return err_sys(err, -rc, "find where %s leads", m->dest);
    if (strcmp(path, "/proc") == 0 && !has_magic(tree, PROC_SUPER_MAGIC))
        return err_set(err, EINVAL,
                       "\"%s\" cannot be mounted on /proc because it is not of type proc", m->dest);
    if (is_below(path, "/proc") && !is_allowed_proc_file(path))
        return err_set(err, EINVAL, "\"%s\" cannot be mounted because it is inside /proc", m->dest);
    return 0;
}

/* Resolves the destination, making it where it is missing: a directory, or a file for a file. */
static int open_target(const struct init *in, const struct spec_mount *m, bool is_file,
                       struct err *err)
{
    bool kernel_fs = m->type && (strcmp(m->type, "proc") == 0 || strcmp(m->type, "sysfs") == 0);
    int fd;

    if (is_file) {
        fd = path_make_file(in->root, m->dest);
    } else {
        fd = path_make_dir(in->root, m->dest);
        /* A link in the way of procfs or sysfs is never innocent (CVE-2023-27561 and its kin). */
        if (fd >= 0 && kernel_fs) {
            close(fd);
            fd = path_open_nolinks(in->root, m->dest, O_PATH | O_DIRECTORY);
            if (fd == -ELOOP)
                return err_set(err, ELOOP,
                               "filesystem \"%s\" must be mounted on ordinary directory", m->type);
        }
    }
    return fd < 0 ? err_sys(err, -fd, "open or make the mount point %s", m->dest) : fd;
}

static bool tree_is_file(int tree)
{
    struct stat st;

    return fstat(tree, &st) == 0 && !S_ISDIR(st.st_mode);
}

static int get_tree(struct init *in, const struct spec_mount *m, struct mount_plan *plan,
                    struct err *err)
{
    int fd;

    if (plan->tree >= 0)
        return plan->tree;
    if (!plan->opts.bind)
        return mount_new_fs(m->type ? m->type : "none", m->source, &plan->opts, err);
    fd = mount_clone_tree(m->source, plan->opts.recursive);
    return fd < 0 ? err_sys(err, -fd, "bind mount source %s", m->source) : fd;
}

/* `remount`: changes the attributes of what is mounted there already. */
static int remount(struct init *in, const struct spec_mount *m, const struct mount_plan *plan,
                   struct err *err)
{
    auto_close int target = path_open(in->root, m->dest, O_PATH);

    if (target < 0)
        return err_sys(err, -target, "remount");
    return mount_apply(target, &plan->opts, err);
}

static int fill_tmpfs(const struct mount_plan *plan, int tree, int target, struct err *err)
{
    struct stat st;
    int rc = 0;

    if (plan->opts.copy_up)
        rc = mount_copy_tree(target, tree);
    else if (!plan->opts.has_mode && fstat(target, &st) == 0)
        rc = fchmodat(tree, ".", st.st_mode & 07777, 0) < 0 ? -errno : 0;
    return rc < 0 ? err_sys(err, -rc, "copy the contents below a tmpfs") : 0;
}

static int mount_one(struct init *in, const struct spec_mount *m, struct mount_plan *plan,
                     struct err *err)
{
    auto_close int tree = -1, target = -1;

    if (m->type && (strcmp(m->type, "cgroup") == 0 || strcmp(m->type, "cgroup2") == 0) &&
        !plan->opts.bind) {
        target = open_target(in, m, false, err);
        return target < 0 ? target : cgroup_mount(in, m, plan, target, err);
    }
    if (plan->opts.remount)
        return remount(in, m, plan, err);
    tree = get_tree(in, m, plan, err);
    if (tree < 0)
        return tree;
    target = open_target(in, m, tree_is_file(tree), err);
    if (target < 0 || check_target(in, m, tree, target, err) < 0)
        return -err->code;
    if (m->type && strcmp(m->type, "tmpfs") == 0 && !plan->opts.bind &&
        fill_tmpfs(plan, tree, target, err) < 0)
        return -err->code;
    if (mount_attach(tree, target, m->dest, err) < 0)
        return -err->code;
    return plan->opts.bind || plan->opts.propagation || plan->opts.rec_set || plan->opts.rec_clr ||
                   plan->opts.copy_up
               ? mount_apply(tree, &plan->opts, err)
               : 0;
}

/* Mounts made here must not reach the host. The parent of the new root must not be shared (pivot_root(2)). */
static int isolate(const struct init *in, struct err *err)
{
    const char *word = in->spec->rootfs_propagation ? in->spec->rootfs_propagation : "rslave";
    auto_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool rec;
    u64 wanted = mount_propagation(word, &rec);
    /* What is unbindable could not be bound by ourselves any more; rootfs_enter makes it so in the end. */
    u64 propagation = wanted == SYS_MS_UNBINDABLE ? SYS_MS_PRIVATE : wanted;
    int rc = root < 0 ? -errno : mount_set_propagation(root, propagation, true);

    if (rc == 0 && propagation == SYS_MS_SHARED)
        rc = mount_set_propagation(root, SYS_MS_PRIVATE, false);
    return rc < 0 ? err_sys(err, -rc, "set mount propagation of /") : 0;
}

static int mount_notify_dir(struct init *in, struct err *err)
{
    auto_close int target = -1;

    if (in->notify_dir < 0)
        return 0;
    target = path_make_dir(in->root, "/run/notify");
    if (target < 0)
        return err_sys(err, -target, "make /run/notify");
    return mount_attach(in->notify_dir, target, "/run/notify", err);
}

/*
 * In a mount namespace of others the tree goes to its own place instead of over "/", and is entered by chroot: what
 * is mounted below shows there, but is not handed on to their peers.
 */
static int attach_in_foreign(int tree, const char *place, struct err *err)
{
    auto_close int target = open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int rc;

    if (target < 0)
        return err_sys(err, errno, "open %s in the mount namespace", place);
    if (mount_attach(tree, target, place, err) < 0)
        return -err->code;
    rc = mount_set_propagation(tree, SYS_MS_PRIVATE, true);
    return rc < 0 ? err_sys(err, -rc, "make %s private", place) : 0;
}

static u64 mount_id(int fd)
{
    struct statx st;

    return statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) == 0 ? st.stx_mnt_id : 0;
}

static int clone_root(struct init *in, struct err *err)
{
    if (in->root_tree >= 0)
        return 0;
    in->root_tree = mount_clone_tree(in->state->rootfs, true);
    return in->root_tree < 0
               ? err_sys(err, -in->root_tree, "clone the root file system %s", in->state->rootfs)
               : 0;
}

int rootfs_attach_here(struct init *in, u64 *ret_mount_id, struct err *err)
{
    if (clone_root(in, err) < 0 || attach_in_foreign(in->root_tree, in->state->rootfs, err) < 0)
        return -err->code;
    *ret_mount_id = mount_id(in->root_tree);
    return 0;
}

void rootfs_detach_here(const char *rootfs, u64 id)
{
    auto_close int fd = open(rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);

    /* Only what is still ours: the engine may have mounted the same place, too. */
    if (id && fd >= 0 && mount_id(fd) == id)
        sys_umount(rootfs, SYS_MNT_DETACH);
}

static int attach_root(struct init *in, struct err *err)
{
    auto_close int slash = -1;

    if (!spec_has_ns(in->spec, NS_MOUNT))
        return 0; /* the runtime has done it */
    if (in->spec->ns[NS_MOUNT].path)
        return clone_root(in, err) < 0 ? -err->code
                                       : attach_in_foreign(in->root_tree, in->state->rootfs, err);
    if (isolate(in, err) < 0)
        return -err->code;
    slash = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (slash < 0)
        return err_sys(err, errno, "open /");
    return clone_root(in, err) < 0 ? -err->code : mount_attach(in->root_tree, slash, "/", err);
}

int rootfs_build(struct init *in, struct err *err)
{
    if (attach_root(in, err) < 0)
        return -err->code;
    in->root = in->root_tree;
    for (size_t i = 0; i < in->spec->mount_count; i++)
        if (mount_one(in, &in->spec->mounts[i], &in->plans[i], err) < 0)
            return err_wrap(err, "error mounting \"%s\" to rootfs at \"%s\"",
                            in->spec->mounts[i].source ? in->spec->mounts[i].source : "",
                            in->spec->mounts[i].dest);
    if (mount_notify_dir(in, err) < 0)
        return -err->code;
    return device_make_all(in, err);
}

/* Without pivot_root (a root on initramfs) the new root is moved over the old one, which stays below. */
static int enter_by_move(struct init *in, struct err *err)
{
    if (fchdir(in->root) < 0 || chroot(".") < 0 || chdir("/") < 0)
        return err_sys(err, errno, "enter the root file system");
    return 0;
}

int rootfs_enter(struct init *in, struct err *err)
{
    auto_close int old = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool rec = false;
    u64 propagation =
        in->spec->rootfs_propagation ? mount_propagation(in->spec->rootfs_propagation, &rec) : 0;
    int rc = 0;

    if (old < 0)
        return err_sys(err, errno, "open the old root");
    if (in->no_pivot)
        return enter_by_move(in, err);
    if (fchdir(in->root) < 0 || sys_pivot_root(".", ".") < 0 || fchdir(old) < 0)
        return err_sys(err, errno, "pivot_root");
    /* What is unmounted here must stay mounted on the host (pivot_root(2), last example). */
    if (propagation == SYS_MS_SHARED || propagation == SYS_MS_UNBINDABLE)
        rc = mount_set_propagation(old, SYS_MS_SLAVE, true);
    if (rc < 0 || sys_umount(".", SYS_MNT_DETACH) < 0 || chdir("/") < 0)
        return err_sys(err, rc < 0 ? -rc : errno, "let go of the old root");
    if (propagation == SYS_MS_SHARED || propagation == SYS_MS_UNBINDABLE)
        rc = mount_set_propagation(in->root, propagation, rec);
    return rc < 0 ? err_sys(err, -rc, "set rootfsPropagation") : 0;
}
