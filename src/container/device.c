/*
 * /dev: the devices every container has and those of the configuration (config-linux.md, devices, default
 * devices and dev symbolic links). A node that cannot be made, in a user namespace, is bound from the host.
 */
#include "container/init.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "container/path.h"
#include "container/sys.h"

static const struct spec_device default_devices[] = {
    {"/dev/null", 'c', 1, 3, 0666, 0, 0},    {"/dev/zero", 'c', 1, 5, 0666, 0, 0},
    {"/dev/full", 'c', 1, 7, 0666, 0, 0},    {"/dev/random", 'c', 1, 8, 0666, 0, 0},
    {"/dev/urandom", 'c', 1, 9, 0666, 0, 0}, {"/dev/tty", 'c', 5, 0, 0666, 0, 0},
};

static const char *const links[][2] = {
    {"/proc/self/fd", "fd"},       {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"},
    {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"},
};

static mode_t node_type(char type)
{
    return type == 'b' ? S_IFBLK : type == 'p' ? S_IFIFO : S_IFCHR;
}

static bool is_same_node(int dir, const char *name, const struct spec_device *d)
{
    struct stat st;

    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           (st.st_mode & S_IFMT) == node_type(d->type) &&
           (d->type == 'p' || st.st_rdev == makedev(d->major, d->minor));
}

/* Binds the host's node; it must be the device that was asked for, whatever path it has. */
static int bind_node(int dir, const char *name, const struct spec_device *d, struct err *err)
{
    auto_close int tree = mount_clone_tree(d->path, false), target = -1, made = -1;
    struct stat st;

    if (tree < 0)
        return err_sys(err, -tree, "device %s", d->path);
    if (fstat(tree, &st) < 0 || (st.st_mode & S_IFMT) != node_type(d->type) ||
        st.st_rdev != makedev(d->major, d->minor))
        return err_set(err, ENODEV, "device %s: the host's node is another device", d->path);
    made = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0);
    if (made < 0 && errno != EEXIST)
        return err_sys(err, errno, "device %s", d->path);
    target = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (target < 0 || fstat(target, &st) < 0 ||
        !(S_ISREG(st.st_mode) || S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)))
        return err_set(err, EINVAL, "device %s: the place for it is taken", d->path);
    return mount_attach(tree, target, d->path, err);
}

static int make_node(const struct init *in, int dir, const char *name, const struct spec_device *d,
                     struct err *err)
{
    if (spec_has_ns(in->spec, NS_USER) && d->type != 'p')
        return bind_node(dir, name, d, err);
    if (mknodat(dir, name, node_type(d->type) | d->mode, makedev(d->major, d->minor)) < 0) {
        if (errno == EPERM && d->type != 'p')
            return bind_node(dir, name, d, err);
        if (errno != EEXIST)
            return err_sys(err, errno, "make the device %s", d->path);
        if (!is_same_node(dir, name, d))
            return err_set(err, EEXIST, "device %s: something else is there", d->path);
        return 0;
    }
    if ((d->uid || d->gid) && fchownat(dir, name, d->uid, d->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(err, errno, "chown the device %s", d->path);
    return 0;
}

static int make_configured(struct init *in, const struct spec_device *d, struct err *err)
{
    const char *name;
    auto_close int dir = path_make_parent(in->root, d->path, &name);

    if (dir < 0)
        return err_sys(err, -dir, "make the parent of %s", d->path);
    return make_node(in, dir, name, d, err);
}

static bool is_configured(const struct spec *s, const char *path)
{
    for (size_t i = 0; i < s->device_count; i++)
        if (strcmp(s->devices[i].path, path) == 0)
            return true;
    return false;
}

static bool dev_is_bound(const struct init *in)
{
    for (size_t i = 0; i < in->spec->mount_count; i++) {
        const char *dest = in->spec->mounts[i].dest;

        if (in->plans[i].opts.bind && (strcmp(dest, "/dev") == 0 || strcmp(dest, "/dev/") == 0))
            return true;
    }
    return false;
}

static int make_links(int dev, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(links); i++) {
        if (symlinkat(links[i][0], dev, links[i][1]) == 0)
            continue;
        if (errno != EEXIST)
            return err_sys(err, errno, "link /dev/%s", links[i][1]);
        /* ptmx must be the container's own, even when an image brings a node of that name. */
        if (strcmp(links[i][1], "ptmx") == 0 &&
            (unlinkat(dev, "ptmx", 0) < 0 || symlinkat(links[i][0], dev, "ptmx") < 0))
            return err_sys(err, errno, "link /dev/ptmx");
    }
    if (access("/proc/kcore", F_OK) == 0 && symlinkat("/proc/kcore", dev, "core") < 0 &&
        errno != EEXIST)
        return err_sys(err, errno, "link /dev/core");
    return 0;
}

int device_make_all(struct init *in, struct err *err)
{
    auto_close int dev = -1, made = -1;

    if (dev_is_bound(in))
        return 0;
    made = path_make_dir(in->root, "/dev");
    /* An image may bring /dev as a link; devices would then appear elsewhere (CVE-2026-41579). */
    dev = made < 0 ? made : path_open_nolinks(in->root, "/dev", O_PATH | O_DIRECTORY);
    if (dev < 0)
        return err_sys(err, -dev, "/dev");
    for (size_t i = 0; i < ARRAY_LEN(default_devices); i++)
        if (!is_configured(in->spec, default_devices[i].path) &&
            make_node(in, dev, default_devices[i].path + strlen("/dev/"), &default_devices[i],
                      err) < 0)
            return -err->code;
    for (size_t i = 0; i < in->spec->device_count; i++)
        if (make_configured(in, &in->spec->devices[i], err) < 0)
            return -err->code;
    return make_links(dev, err);
}
