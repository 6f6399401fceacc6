/*
 * A mount of type cgroup: the container's own groups and nothing above them, as bind mounts. With a cgroup
 * namespace that is what a mount of the file system would show too, and it needs no privilege over it.
 */
#include "container/init.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "container/file.h"
#include "container/path.h"
#include "container/sys.h"
#include "container/systemd.h"

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* 1: bound. 0: there is no such group, which only an unprivileged runtime may find (cgroup_make). */
static int bind_group(const struct init *in, const struct mount_plan *plan, const char *path,
                      int target, struct err *err)
{
    auto_close int tree = mount_clone_tree(path, false);

    if (tree == -ENOENT && in->state->cgroup.rootless)
        return 0;
    if (tree < 0)
        return err_sys(err, -tree, "bind the cgroup %s", path);
    if (mount_attach(tree, target, path, err) < 0)
        return -err->code;
    return mount_apply(tree, &plan->opts, err) < 0 ? -err->code : 1;
}

static int mount_v2(struct init *in, const struct mount_plan *plan, int target, struct err *err)
{
    const struct cgroup_dir *d = cgroup_v2(&in->state->cgroup);
    auto_close int tree = -1;
    char groups[4096];
    int rc;

    /* The runtime has learnt it since we were cloned. */
    if (in->state->systemd_unit &&
        file_read_at(in->procfd, "self/cgroup", groups, sizeof(groups)) > 0)
        systemd_place(in->state, groups);
    rc = d ? bind_group(in, plan, d->path, target, err) : 0;
    if (rc)
        return MIN(rc, 0);
    /* No group of our own (rootless without delegation): a mount if the namespaces allow one. */
    tree = mount_new_fs("cgroup2", "cgroup", &plan->opts, err);
    return tree < 0 ? tree : mount_attach(tree, target, "cgroup2", err);
}

/* "cpu,cpuacct" also gets the links cpu and cpuacct. */
static int link_controllers(int dir, const char *name, struct err *err)
{
    char copy[128], *word, *save = NULL;

    if (!strchr(name, ','))
        return 0;
    snprintf(copy, sizeof(copy), "%s", name);
    for (word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save))
        if (symlinkat(name, dir, word) < 0 && errno != EEXIST)
            return err_sys(err, errno, "link the cgroup controller %s", word);
    return 0;
}

static int mount_v1(struct init *in, const struct mount_plan *plan, int target, struct err *err)
{
    static const struct mount_opts tmpfs = {
        .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, .has_mode = true};
    const struct mount_opts finish = {.attr_set = plan->opts.attr_set & MOUNT_ATTR_RDONLY};
    auto_close int root = mount_new_fs("tmpfs", "tmpfs", &tmpfs, err);
    const struct cgroup *cg = &in->state->cgroup;

    if (root < 0 || mount_attach(root, target, "cgroup", err) < 0)
        return -err->code;
    if (fchmodat(root, ".", 0755, 0) < 0)
        return err_sys(err, errno, "cgroup tmpfs");
    for (size_t i = 0; i < cg->n; i++) {
        const char *name = base_name(cg->dirs[i].mount);
        auto_close int dir = -1;

        if (mkdirat(root, name, 0755) < 0 && errno != EEXIST)
            return err_sys(err, errno, "make the cgroup mount point %s", name);
        dir = path_open_nolinks(root, name, O_PATH | O_DIRECTORY);
        if (dir < 0)
            return err_sys(err, -dir, "open the cgroup mount point %s", name);
        if (bind_group(in, plan, cg->dirs[i].path, dir, err) < 0 ||
            link_controllers(root, name, err) < 0)
            return -err->code;
    }
    return mount_apply(root, &finish, err);
}

int cgroup_mount(struct init *in, const struct spec_mount *m, const struct mount_plan *plan,
                 int target, struct err *err)
{
    if (init_wait_cgroups(in, err) < 0)
        return -err->code;
    return in->state->cgroup.pure_v2 ? mount_v2(in, plan, target, err)
                                     : mount_v1(in, plan, target, err);
}
