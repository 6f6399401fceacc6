/*
 * `checkpoint` and `restore` through CRIU. What CRIU cannot know travels in descriptors.json beside its
 * images: where the container's standard streams led, so that `restore` can put new ones in their place.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "container/create.h"
#include "container/criu.h"
#include "container/file.h"

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

/* "ADDRESS:PORT" */
static int add_page_server(struct proto *opts, struct runtime *rt, const char *text,
                           struct err *err)
{
    const char *colon = strrchr(text, ':');
    unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : 0;
    struct proto ps = {0};

    if (!port || port > 65535)
        return err_set(err, EINVAL, "--page-server: \"%s\" is no ADDRESS:PORT", text);
    proto_str(&ps, 1, pool_fmt(&rt->pool, "%.*s", (int)(colon - text), text));
    proto_u64(&ps, 2, port);
    proto_msg(opts, CRIU_OPT_PAGE_SERVER, &ps);
    proto_fini(&ps);
    return 0;
}

static int add_status_fd(struct proto *opts, const char *text, struct err *err)
{
    char *end;
    unsigned long fd = strtoul(text, &end, 10);

    if (end == text || *end || fd > 1u << 20 || fcntl((int)fd, F_GETFD) < 0)
        return err_set(err, EBADF, "--status-fd: \"%s\" is no open descriptor", text);
    proto_u64(opts, CRIU_OPT_STATUS_FD, fd);
    return 0;
}

static int describe_dump(struct criu_request *r, struct runtime *rt, const struct state *st,
                         const struct criu_opts *c, struct err *err)
{
    const struct cgroup_dir *freezer = cgroup_find(&st->cgroup, "freezer");

    proto_u64(&r->opts, CRIU_OPT_PID, (u64)st->pid);
    proto_str(&r->opts, CRIU_OPT_ROOT, st->rootfs);
    if (c->leave_running || c->pre_dump)
        proto_u64(&r->opts, CRIU_OPT_LEAVE_RUNNING, true);
    if (c->pre_dump || c->parent_path)
        proto_u64(&r->opts, CRIU_OPT_TRACK_MEM, true);
    proto_str(&r->opts, CRIU_OPT_PARENT, c->parent_path);
    if (c->status_fd && add_status_fd(&r->opts, c->status_fd, err) < 0)
        return -err->code;
    /* Engines pause first; CRIU can only take a frozen group that it knows of, and thaws it when done. */
    freezer = freezer ? freezer : cgroup_v2(&st->cgroup);
    if (freezer)
        proto_str(&r->opts, CRIU_OPT_FREEZE, freezer->path);
    return c->page_server ? add_page_server(&r->opts, rt, c->page_server, err) : 0;
}

static int dump(struct runtime *rt, struct state *st, const struct spec *s,
                const struct criu_opts *c, struct err *err)
{
    const char *images = c->image_path ? c->image_path : "checkpoint";
    struct criu_request r;
    int rc;

    if (criu_check(rt, c, err) < 0 || criu_begin(&r, c, "dump.log", NULL, err) < 0)
        return -err->code;
    rc = describe_dump(&r, rt, st, c, err);
    criu_add_mounts(&r, rt, st, s, false);
    if (rc == 0 && !c->pre_dump)
        rc = save_descriptors(st, images, err);
    if (rc == 0)
        rc = criu_call(rt, c->pre_dump ? CRIU_PRE_DUMP : CRIU_DUMP, &r, NULL, err);
    criu_end(&r);
    return rc;
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
static void add_streams(struct criu_request *r, struct runtime *rt, const char *images)
{
    struct err ignored = ERR_INIT;
    json_t *arr = NULL;

    if (json_load(pool_fmt(&rt->pool, "%s/" DESCRIPTORS, images), &arr, &ignored) < 0)
        return;
    for (size_t i = 0; i < 3 && i < json_len(arr); i++) {
        const char *old = json_object_get_string(json_at(arr, i));
        struct proto fd = {0};

        if (!old || strncmp(old, "pipe:", 5) != 0)
            continue;
        proto_str(&fd, 1, old);
        proto_u64(&fd, 2, i);
        proto_msg(&r->opts, CRIU_OPT_INHERIT_FD, &fd);
        proto_fini(&fd);
    }
    json_object_put(arr);
}

static void add_cgroup_roots(struct criu_request *r, const struct cgroup *cg)
{
    for (size_t i = 0; i < cg->n; i++) {
        const struct cgroup_dir *d = &cg->dirs[i];
        struct proto root = {0};

        proto_str(&root, 1, d->controllers[0] ? d->controllers : NULL);
        proto_str(&root, 2, d->path + strlen(d->mount));
        proto_msg(&r->opts, CRIU_OPT_CGROUP_ROOT, &root);
        proto_fini(&root);
    }
}

static int run_restore(struct creation *c, const struct criu_opts *o, struct err *err)
{
    struct criu_request r;
    int rc = criu_begin(&r, o, "restore.log", c->state.rootfs, err);

    if (rc < 0)
        return rc;
    proto_str(&r.opts, CRIU_OPT_ROOT, c->state.rootfs);
    proto_u64(&r.opts, CRIU_OPT_SIBLING, true); /* the service's sibling is our child */
    proto_str(&r.opts, CRIU_OPT_LSM_PROFILE, o->lsm_profile);
    proto_str(&r.opts, CRIU_OPT_LSM_MOUNT_CONTEXT, o->lsm_mount_context);
    add_cgroup_roots(&r, &c->state.cgroup);
    criu_add_mounts(&r, c->rt, &c->state, &c->spec, true);
    add_streams(&r, c->rt, o->image_path ? o->image_path : "checkpoint");
    rc = criu_call(c->rt, CRIU_RESTORE, &r, &c->pid, err);
    criu_end(&r);
    if (rc == 0 && c->pid <= 0)
        rc = err_set(err, EIO, "criu did not tell the pid of the restored process");
    return rc;
}

/* CRIU would make a directory that is not there, and complain about an empty file. */
static int check_images(struct runtime *rt, const struct criu_opts *o, struct err *err)
{
    const char *images = o->image_path ? o->image_path : "checkpoint";

    if (access(pool_fmt(&rt->pool, "%s/inventory.img", images), R_OK) < 0)
        return err_sys(err, errno, "--image-path %s: inventory.img of a checkpoint", images);
    return 0;
}

static int restore(struct creation *c, const struct criu_opts *o, struct err *err)
{
    if (check_images(c->rt, o, err) < 0 || criu_check(c->rt, o, err) < 0 ||
        create_prepare_restore(c, err) < 0 || run_restore(c, o, err) < 0)
        return -err->code;
    return create_record(c, err);
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
