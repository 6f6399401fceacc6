/*
 * A container as CRIU's service wants it described: options, directories, and the mounts that it must take as
 * given. Its log is where its reasons are.
 */
#include "container/criu.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "container/sys.h"

#define MIN_VERSION 31700

int criu_check(const struct runtime *rt, const struct criu_opts *o, struct err *err)
{
    unsigned version = criu_version(rt);

    if (!version)
        return err_set(
            err, ENOENT,
            "checkpoint and restore need CRIU, and %s cannot be run as a service: install one that "
            "works on this kernel (Debian 12's 3.17 does so up to Linux 6.2), or name it with "
            "--criu",
            rt->criu && rt->criu[0] ? rt->criu : "criu");
    if (version < MIN_VERSION)
        return err_set(err, ENOTSUP, "CRIU %u.%u is too old, 3.17 is needed", version / 10000,
                       version / 100 % 100);
    if ((o->pre_dump || o->parent_path) && !criu_has_features(rt, true, false))
        return err_set(err, ENOTSUP,
                       "%s needs dirty page tracking (CONFIG_MEM_SOFT_DIRTY), which this kernel or "
                       "this CRIU has not; a checkpoint without it works",
                       o->pre_dump ? "--pre-dump" : "--parent-path");
    if (o->lazy_pages && !criu_has_features(rt, false, true))
        return err_set(err, ENOTSUP,
                       "--lazy-pages needs userfaultfd, which this kernel or this CRIU has not");
    return 0;
}

static int open_dir(const char *path, struct err *err)
{
    int fd;

    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return err_sys(err, errno, "make %s", path);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? err_sys(err, errno, "open %s", path) : fd;
}

/* criu_cg_mode of rpc.proto. */
static int cgroups_mode(const char *word, u64 *ret, struct err *err)
{
    static const char *const words[] = {"ignore", NULL, NULL, "soft", "full", "strict"};

    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (words[i] && strcmp(words[i], word ? word : "soft") == 0) {
            *ret = i;
            return 0;
        }
    return err_set(err, EINVAL,
                   "Invalid manage-cgroups-mode value: %s; there are soft, full, strict and ignore",
                   word);
}

static void add_flags(struct proto *p, const struct criu_opts *o)
{
    const struct {
        bool on;
        unsigned field;
    } flags[] = {
        {o->tcp_established, CRIU_OPT_TCP_ESTABLISHED},
        {o->ext_unix_sk, CRIU_OPT_EXT_UNIX_SK},
        {o->shell_job, CRIU_OPT_SHELL_JOB},
        {o->file_locks, CRIU_OPT_FILE_LOCKS},
        {o->auto_dedup, CRIU_OPT_AUTO_DEDUP},
        {o->link_remap, CRIU_OPT_LINK_REMAP},
        {o->tcp_skip_in_flight, CRIU_OPT_SKIP_IN_FLIGHT},
        {o->lazy_pages, CRIU_OPT_LAZY_PAGES},
    };

    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        if (flags[i].on)
            proto_u64(p, flags[i].field, true);
}

/* In the new namespace. CRIU wants the root of what it restores to be a mount point. */
static int fill_namespace(struct criu_request *r, const char *images, const char *root,
                          struct err *err)
{
    if (sys_mount(NULL, "/", NULL, SYS_MS_SLAVE | SYS_MS_REC, NULL) < 0)
        return err_sys(err, errno, "make criu's mount namespace");
    if (root && sys_mount(root, root, NULL, SYS_MS_BIND | SYS_MS_REC, NULL) < 0)
        return err_sys(err, errno, "bind %s", root);
    r->mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    r->images = open_dir(images, err);
    r->work = r->images < 0 ? -1 : open_dir(r->work_path, err);
    return r->work < 0 ? -err->code : 0;
}

/*
 * CRIU mounts, control groups of all things below the directory of images, and leaves that behind when it is
 * killed. In a namespace of its own it all goes away with it. We are there for a moment only, since it takes
 * directories as descriptors of ours, which must be of its namespace.
 */
static int make_namespace(struct criu_request *r, const char *images, const char *root,
                          struct err *err)
{
    auto_close int home = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    auto_close int cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int rc;

    if (home < 0 || cwd < 0 || unshare(CLONE_NEWNS) < 0)
        return err_sys(err, errno, "make criu's mount namespace");
    rc = fill_namespace(r, images, root, err);
    if (setns(home, CLONE_NEWNS) < 0 || fchdir(cwd) < 0)
        return err_sys(err, errno, "return from criu's mount namespace");
    return rc;
}

int criu_begin(struct criu_request *ret, const struct criu_opts *o, const char *log,
               const char *root, struct err *err)
{
    const char *images = o->image_path ? o->image_path : "checkpoint";
    struct criu_request r = {.mounts = -1, .images = -1, .work = -1, .log = log};
    u64 mode = 0;

    r.work_path = o->work_path ? o->work_path : images;
    if (cgroups_mode(o->cgroups_mode, &mode, err) < 0)
        return -err->code;
    if (o->empty_ns && strcmp(o->empty_ns, "network") != 0)
        return err_set(err, EINVAL, "namespace %s is not supported by --empty-ns; network is",
                       o->empty_ns);
    if (make_namespace(&r, images, root, err) < 0) {
        criu_end(&r);
        return -err->code;
    }
    proto_u64(&r.opts, CRIU_OPT_IMAGES_FD, (u64)r.images);
    proto_u64(&r.opts, CRIU_OPT_WORK_FD, (u64)r.work);
    proto_u64(&r.opts, CRIU_OPT_LOG_LEVEL, 4);
    proto_str(&r.opts, CRIU_OPT_LOG_FILE, log);
    proto_u64(&r.opts, CRIU_OPT_MANAGE_CGROUPS, true);
    proto_u64(&r.opts, CRIU_OPT_CGROUPS_MODE, mode);
    if (o->empty_ns)
        proto_u64(&r.opts, CRIU_OPT_EMPTY_NS, CLONE_NEWNET);
    add_flags(&r.opts, o);
    *ret = r;
    return 0;
}

void criu_end(struct criu_request *r)
{
    if (r->mounts >= 0)
        close(r->mounts);
    if (r->images >= 0)
        close(r->images);
    if (r->work >= 0)
        close(r->work);
    proto_fini(&r->opts);
}

static void add_external(struct criu_request *r, struct runtime *rt, const char *dest,
                         const char *source, bool restore)
{
    proto_str(&r->opts, CRIU_OPT_EXTERNAL,
              pool_fmt(&rt->pool, "mnt[%s]:%s", dest, restore ? source : dest));
}

/* The binds that stand for a cgroup mount (cgroup_mount.c). */
static void add_cgroups(struct criu_request *r, struct runtime *rt, const struct state *st,
                        const struct spec_mount *m, bool restore)
{
    for (size_t i = 0; i < st->cgroup.n; i++) {
        const struct cgroup_dir *d = &st->cgroup.dirs[i];
        const char *name = strrchr(d->mount, '/');

        add_external(r, rt,
                     st->cgroup.pure_v2 ? m->dest : pool_fmt(&rt->pool, "%s%s", m->dest, name),
                     d->path, restore);
    }
}

static bool is_bind(const struct spec_mount *m)
{
    bool bind = m->type && strcmp(m->type, "bind") == 0;

    for (size_t i = 0; i < m->options.n; i++)
        bind |= strcmp(m->options.v[i], "bind") == 0 || strcmp(m->options.v[i], "rbind") == 0;
    return bind;
}

void criu_add_mounts(struct criu_request *r, struct runtime *rt, const struct state *st,
                     const struct spec *s, bool restore)
{
    for (size_t i = 0; i < s->mount_count; i++) {
        const struct spec_mount *m = &s->mounts[i];

        if (is_bind(m))
            add_external(r, rt, m->dest, m->source, restore);
        else if (m->type && strncmp(m->type, "cgroup", 6) == 0)
            add_cgroups(r, rt, st, m, restore);
    }
    /*
     * Masked files are binds of the host's /dev/null; masked directories are file systems of their own. Which
     * is which shows only while the container lives; a mapping that nobody asks for does no harm.
     */
    for (size_t i = 0; i < s->masked.n; i++) {
        char *path = pool_fmt(&rt->pool, "/proc/%d/root%s", st->pid, s->masked.v[i]);
        struct stat info;

        if (restore || (stat(path, &info) == 0 && !S_ISDIR(info.st_mode)))
            add_external(r, rt, s->masked.v[i], "/dev/null", restore);
    }
}
