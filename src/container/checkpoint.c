/*
 * `checkpoint` and `restore` through CRIU. What CRIU cannot know travels in descriptors.json beside its
 * images: where the container's standard streams led, so that `restore` can put new ones in their place.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "container/create.h"
#include "container/criu.h"
#include "container/file.h"
#include "container/sys.h"

#define DESCRIPTORS "descriptors.json"

static size_t shared_options(struct criu_opts *c, struct option *opts)
{
    const struct option all[] = {
        {"image-path", 0, OPTION_VALUE, &c->image_path, NULL, "path for saving criu image files"},
        {"work-path", 0, OPTION_VALUE, &c->work_path, NULL, "path for saving work files and logs"},
        {"tcp-established", 0, OPTION_FLAG, &c->tcp_established, NULL,
         "allow open tcp connections"},
        {"tcp-skip-in-flight", 0, OPTION_FLAG, &c->tcp_skip_in_flight, NULL,
         "skip in-flight tcp connections"},
        {"link-remap", 0, OPTION_FLAG, &c->link_remap, NULL,
         "allow to link unlinked files back when possible"},
        {"ext-unix-sk", 0, OPTION_FLAG, &c->ext_unix_sk, NULL, "allow external unix sockets"},
        {"shell-job", 0, OPTION_FLAG, &c->shell_job, NULL, "allow shell jobs"},
        {"lazy-pages", 0, OPTION_FLAG, &c->lazy_pages, NULL,
         "use userfaultfd to lazily restore memory pages"},
        {"file-locks", 0, OPTION_FLAG, &c->file_locks, NULL, "handle file locks, for safety"},
        {"manage-cgroups-mode", 0, OPTION_VALUE, &c->cgroups_mode, NULL,
         "cgroups mode: soft (default), full, strict and ignore"},
        {"empty-ns", 0, OPTION_VALUE, &c->empty_ns, NULL,
         "create a namespace, but don't restore its properties"},
        {"auto-dedup", 0, OPTION_FLAG, &c->auto_dedup, NULL,
         "enable auto deduplication of memory images"},
    };

    memcpy(opts, all, sizeof(all));
    return ARRAY_LEN(all);
}

static void add(struct runtime *rt, struct strv *args, const char *word, const char *value)
{
    pool_strv_add(&rt->pool, args, (char *)word);
    if (value)
        pool_strv_add(&rt->pool, args, (char *)value);
}

/* Where the three standard descriptors of the process lead, as a JSON list. */
static int save_descriptors(const struct state *st, const char *images, struct err *err)
{
    json_t *arr = json_object_new_array();
    const char *text;
    int rc = 0, dir = open(images, O_PATH | O_DIRECTORY | O_CLOEXEC);

    for (int fd = 0; fd < 3; fd++) {
        char path[48], target[4096];
        ssize_t len;

        snprintf(path, sizeof(path), "/proc/%d/fd/%d", st->pid, fd);
        len = readlink(path, target, sizeof(target) - 1);
        target[len < 0 ? 0 : len] = '\0';
        json_object_array_add(arr, json_object_new_string(target));
    }
    text = json_object_to_json_string_ext(arr,
                                          JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    rc = dir < 0 ? -errno : file_replace(dir, DESCRIPTORS, 0644, text, strlen(text));
    if (dir >= 0)
        close(dir);
    json_object_put(arr);
    return rc < 0 ? err_sys(err, -rc, "write " DESCRIPTORS) : 0;
}

static int dump(struct runtime *rt, struct state *st, const struct spec *s,
                const struct criu_opts *c, struct err *err)
{
    const char *criu = NULL, *images = c->image_path ? c->image_path : "checkpoint";
    const struct cgroup_dir *freezer;
    struct strv args = {0};
    char *colon;

    if (criu_find(rt, &criu, err) < 0)
        return -err->code;
    add(rt, &args, criu, c->pre_dump ? "pre-dump" : "dump");
    add(rt, &args, "-t", pool_fmt(&rt->pool, "%d", st->pid));
    if (criu_add_options(rt, c, &args, err) < 0)
        return -err->code;
    add(rt, &args, "-o", "dump.log");
    add(rt, &args, "--root", st->rootfs);
    if (c->leave_running || c->pre_dump)
        add(rt, &args, "--leave-running", NULL);
    if (c->pre_dump || c->parent_path)
        add(rt, &args, "--track-mem", NULL);
    if (c->parent_path)
        add(rt, &args, "--prev-images-dir", c->parent_path);
    if (c->lazy_pages)
        add(rt, &args, "--lazy-pages", NULL);
    if (c->status_fd)
        add(rt, &args, "--status-fd", c->status_fd);
    if (c->page_server && (colon = strrchr((char *)c->page_server, ':'))) {
        add(rt, &args, "--page-server", NULL);
        add(rt, &args, "--address",
            pool_fmt(&rt->pool, "%.*s", (int)(colon - c->page_server), c->page_server));
        add(rt, &args, "--port", colon + 1);
    }
    /* Engines pause first; CRIU can only take a frozen group that it knows of, and thaws it when done. */
    freezer = cgroup_find(&st->cgroup, "freezer");
    freezer = freezer ? freezer : cgroup_v2(&st->cgroup);
    if (freezer)
        add(rt, &args, "--freeze-cgroup", freezer->path);
    criu_add_mounts(rt, st, s, false, &args);
    if (!c->pre_dump && save_descriptors(st, images, err) < 0)
        return -err->code;
    return criu_run(&args, c->work_path ? c->work_path : images, "dump.log", err);
}

int verb_checkpoint(struct runtime *rt, int argc, char **argv, struct err *err)
{
    struct criu_opts c = {0};
    struct option opts[20];
    size_t n = shared_options(&c, opts);
    struct spec s = {0};
    struct state st;
    int at, rc;

    opts[n++] =
        (struct option){"parent-path",  0,    OPTION_VALUE,
                        &c.parent_path, NULL, "path for previous criu image files in pre-dump"};
    opts[n++] =
        (struct option){"leave-running",  0,    OPTION_FLAG,
                        &c.leave_running, NULL, "leave the process running after checkpointing"};
    opts[n++] =
        (struct option){"status-fd",  0,    OPTION_VALUE,
                        &c.status_fd, NULL, "criu writes \\0 to this FD once lazy-pages is ready"};
    opts[n++] = (struct option){"page-server",  0,    OPTION_VALUE,
                                &c.page_server, NULL, "ADDRESS:PORT of the page server"};
    opts[n++] = (struct option){
        "pre-dump",
        0,
        OPTION_FLAG,
        &c.pre_dump,
        NULL,
        "dump container's memory information only, leave the container running after this"};
    at = verb_parse(rt, opts, n, 1, 1, argc, argv, err);
    if (at < 0)
        return at;
    rc = state_open(&st, &rt->pool, rt->root, argv[at], true, err);
    if (rc == 0 && (state_status(&st) == STATUS_CREATED || state_status(&st) == STATUS_STOPPED))
        rc = err_set(err, EINVAL, "Container cannot be checkpointed in %s state",
                     status_name(state_status(&st)));
    if (rc == 0)
        rc = state_spec(&st, &s, err);
    if (rc == 0)
        rc = dump(rt, &st, &s, &c, err);
    if (rc == 0 && !c.leave_running && !c.pre_dump)
        rc = delete_leftovers(&st, err);
    spec_fini(&s);
    state_close(&st);
    return rc;
}

/* A pipe or socket of the old container becomes what we have now on the same descriptor. */
static void add_streams(struct runtime *rt, const char *images, struct strv *args)
{
    struct err ignored = ERR_INIT;
    json_t *arr = NULL;

    if (json_load(pool_fmt(&rt->pool, "%s/" DESCRIPTORS, images), &arr, &ignored) < 0)
        return;
    for (size_t i = 0; i < 3 && i < json_len(arr); i++) {
        const char *old = json_object_get_string(json_at(arr, i));

        if (old && strncmp(old, "pipe:", 5) == 0)
            add(rt, args, "--inherit-fd", pool_fmt(&rt->pool, "fd[%zu]:%s", i, old));
    }
    json_object_put(arr);
}

static void add_cgroup_roots(struct creation *c, struct strv *args)
{
    const struct cgroup *cg = &c->state.cgroup;

    for (size_t i = 0; i < cg->n; i++) {
        const struct cgroup_dir *d = &cg->dirs[i];
        const char *rel = d->path + strlen(d->mount);

        add(c->rt, args, "--cgroup-root",
            d->controllers[0] ? pool_fmt(&c->rt->pool, "%s:%s", d->controllers, rel) : rel);
    }
}

/* CRIU wants the new root to be a mount point: a bind of the bundle's root onto a directory of ours. */
static int mount_root(struct creation *c, const char **ret, struct err *err)
{
    char *path = pool_fmt(&c->rt->pool, "%s/%s/criu-root", c->state.root, c->state.id);

    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_sys(err, errno, "make %s", path);
    if (sys_mount(c->state.rootfs, path, NULL, 4096 /* MS_BIND */ | SYS_MS_REC, NULL) < 0)
        return err_sys(err, errno, "bind the root file system");
    *ret = path;
    return 0;
}

static int read_pid(const char *path)
{
    char text[16];

    return file_read_at(AT_FDCWD, path, text, sizeof(text)) > 0 ? (int)strtol(text, NULL, 10) : -1;
}

static int run_restore(struct creation *c, const struct criu_opts *o, const char *criu,
                       const char *root, struct err *err)
{
    const char *images = o->image_path ? o->image_path : "checkpoint";
    char *pid_file = pool_fmt(&c->rt->pool, "%s/%s/criu.pid", c->state.root, c->state.id);
    struct runtime *rt = c->rt;
    struct strv args = {0};

    add(rt, &args, criu, "restore");
    if (criu_add_options(rt, o, &args, err) < 0)
        return -err->code;
    add(rt, &args, "-o", "restore.log");
    add(rt, &args, "-d", NULL);
    add(rt, &args, "--root", root);
    add(rt, &args, "--pidfile", pid_file);
    if (o->lazy_pages)
        add(rt, &args, "--lazy-pages", NULL);
    if (o->lsm_profile)
        add(rt, &args, "--lsm-profile", o->lsm_profile);
    if (o->lsm_mount_context)
        add(rt, &args, "--lsm-mount-context", o->lsm_mount_context);
    add_cgroup_roots(c, &args);
    criu_add_mounts(rt, &c->state, &c->spec, true, &args);
    add_streams(rt, images, &args);
    unlink(pid_file);
    if (criu_run(&args, o->work_path ? o->work_path : images, "restore.log", err) < 0)
        return -err->code;
    c->pid = read_pid(pid_file);
    return c->pid > 0 ? 0 : err_set(err, EIO, "criu did not tell the pid of the restored process");
}

static int restore(struct creation *c, const struct criu_opts *o, struct err *err)
{
    const char *criu = NULL, *root = NULL;
    int rc;

    if (criu_find(c->rt, &criu, err) < 0 || create_prepare_restore(c, err) < 0)
        return -err->code;
    /* The restored process becomes ours, or the engine's, when criu leaves it. */
    prctl(PR_SET_CHILD_SUBREAPER, !c->opts->detach);
    rc = mount_root(c, &root, err);
    if (rc == 0)
        rc = run_restore(c, o, criu, root, err);
    if (root)
        sys_umount(root, SYS_MNT_DETACH);
    if (rc == 0)
        rc = create_record(c, err);
    return rc;
}

int verb_restore(struct runtime *rt, int argc, char **argv, struct err *err)
{
    struct create_opts o = {.run = true};
    struct criu_opts c = {0};
    struct creation x = {0};
    struct option opts[40];
    size_t n = shared_options(&c, opts);
    int at, rc;

    n += create_options(&o, opts + n, true);
    opts[n++] = (struct option){
        "lsm-profile", 0,
        OPTION_VALUE,  &c.lsm_profile,
        NULL,          "specify an LSM profile to be used during restore in the form of TYPE:NAME"};
    opts[n++] = (struct option){
        "lsm-mount-context",  0,    OPTION_VALUE,
        &c.lsm_mount_context, NULL, "specify an LSM mount context to be used during restore"};
    at = verb_parse(rt, opts, n, 1, 1, argc, argv, err);
    if (at < 0)
        return at;
    o.id = argv[at];
    create_absolute(rt, &o);
    pool_absolute(&rt->pool, &c.image_path);
    pool_absolute(&rt->pool, &c.work_path);
    rc = create_load(&x, rt, &o, err);
    if (rc == 0) {
        rc = restore(&x, &c, err);
        if (rc < 0)
            create_undo(&x);
    }
    if (rc == 0 && !o.detach) {
        rc = foreground_wait(x.pid, -1, false, err);
        if (rc >= 0 && !o.keep)
            delete_leftovers(&x.state, err);
    }
    create_fini(&x);
    return rc;
}
