/*
 * Preparing mounts. In a user namespace init may have no right to reach a source or to map its ids, so the
 * runtime clones these trees, detached, and init inherits the descriptors.
 */
#include "container/plan.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "container/lsm.h"
#include "container/sys.h"
#include "container/userns.h"

static int idmap(struct init *in, const struct spec_mount *m, const struct mount_plan *plan,
                 struct err *err)
{
    bool own = m->uid_maps.n > 0;
    const struct spec_idmaps *uids = own ? &m->uid_maps : &in->spec->uid_maps;
    const struct spec_idmaps *gids = own ? &m->gid_maps : &in->spec->gid_maps;
    auto_close int userns = -1;
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP};

    if (in->ns_fds[NS_USER] >= 0 && !own) {
        attr.userns_fd = (u64)in->ns_fds[NS_USER];
    } else {
        if (!uids->n)
            return err_set(err, EINVAL, "an id-mapped mount needs mappings or a user namespace");
        userns = userns_make(uids, gids, err);
        if (userns < 0)
            return userns;
        attr.userns_fd = (u64)userns;
    }
    if (sys_mount_setattr(plan->tree, "",
                          AT_EMPTY_PATH | (plan->opts.idmap_rec ? AT_RECURSIVE : 0u), &attr) < 0)
        return err_sys(err, errno, "map the ids of %s (does its file system allow it?)", m->source);
    return 0;
}

/* A clone is still a peer of its source; it must relate to the host as the container's root will. */
static int loosen(const struct spec *s, int tree)
{
    bool rec;
    u64 propagation =
        mount_propagation(s->rootfs_propagation ? s->rootfs_propagation : "rslave", &rec);

    return propagation == SYS_MS_SHARED ? 0 : mount_set_propagation(tree, propagation, true);
}

static int clone_source(struct init *in, const struct spec_mount *m, struct mount_plan *plan,
                        struct err *err)
{
    bool mapped = plan->opts.idmap || m->uid_maps.n;
    int rc;

    /* An unprivileged runtime may clone nothing out here; its init can, inside the user namespace. */
    if (!mapped && (!spec_has_ns(in->spec, NS_USER) || !in->privileged))
        return 0;
    plan->tree = mount_clone_tree(m->source, plan->opts.recursive);
    if (plan->tree < 0)
        return err_sys(err, -plan->tree, "bind mount source %s", m->source);
    rc = loosen(in->spec, plan->tree);
    if (rc < 0)
        return err_sys(err, -rc, "bind mount source %s", m->source);
    return mapped ? idmap(in, m, plan, err) : 0;
}

static bool takes_label(const struct spec_mount *m)
{
    return m->type && (strcmp(m->type, "tmpfs") == 0 || strcmp(m->type, "mqueue") == 0 ||
                       strcmp(m->type, "devpts") == 0);
}

static int plan_one(struct init *in, struct pool *p, const struct spec_mount *m,
                    struct mount_plan *plan, struct err *err)
{
    plan->tree = -1;
    if (mount_opts_parse(p, &m->options, &plan->opts, err) < 0)
        return err_wrap(err, "mount %s", m->dest);
    if (m->type && strcmp(m->type, "bind") == 0)
        plan->opts.bind = true;
    if (plan->opts.copy_up && (!m->type || strcmp(m->type, "tmpfs") != 0))
        return err_set(err, EINVAL, "mount %s: tmpcopyup is only for tmpfs", m->dest);
    if (in->spec->mount_label && in->spec->mount_label[0] && takes_label(m) && lsm_has_selinux())
        pool_strv_add(p, &plan->opts.data, pool_fmt(p, "context=\"%s\"", in->spec->mount_label));
    if (!plan->opts.bind || plan->opts.remount)
        return m->uid_maps.n
                   ? err_set(err, EINVAL, "mount %s: id mappings are only for bind mounts", m->dest)
                   : 0;
    if (!m->source || !m->source[0])
        return err_set(err, EINVAL, "bind mount %s has no source", m->dest);
    return clone_source(in, m, plan, err);
}

static int clone_root(struct init *in, struct err *err)
{
    int rc;

    if (!spec_has_ns(in->spec, NS_USER) || !in->privileged)
        return 0;
    in->root_tree = mount_clone_tree(in->state->rootfs, true);
    if (in->root_tree < 0)
        return err_sys(err, -in->root_tree, "clone the root file system %s", in->state->rootfs);
    rc = loosen(in->spec, in->root_tree);
    return rc < 0 ? err_sys(err, -rc, "clone the root file system") : 0;
}

int plan_mounts(struct init *in, struct pool *p, struct err *err)
{
    in->plans = pool_array(p, in->spec->mount_count, sizeof(*in->plans));
    for (size_t i = 0; i < in->spec->mount_count; i++)
        in->plans[i].tree = -1;
    if (clone_root(in, err) < 0)
        return -err->code;
    for (size_t i = 0; i < in->spec->mount_count; i++)
        if (plan_one(in, p, &in->spec->mounts[i], &in->plans[i], err) < 0)
            return -err->code;
    return 0;
}

void plan_close(struct init *in)
{
    for (size_t i = 0; i < in->spec->mount_count; i++) {
        if (in->plans[i].tree >= 0)
            close(in->plans[i].tree);
        in->plans[i].tree = -1;
    }
    if (in->root_tree >= 0)
        close(in->root_tree);
    if (in->notify_dir >= 0)
        close(in->notify_dir);
    in->root_tree = in->notify_dir = -1;
}
