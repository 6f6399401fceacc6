/*
 * Making a container, the runtime's side; init.c has the other.
 *
 * Invariants:
 * 1. What is made is recorded first: the state record names the cgroups before they exist, so nothing can be
 *    left that `delete --force` does not find.
 * 2. A failure anywhere undoes everything in reverse; so does our own death, as far as processes go (init
 *    dies with us until it is released).
 * 3. cgroups are made while init builds its root file system; the two meet at SYNC_CGROUPS.
 */
#include "container/create.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "container/hook.h"
#include "container/join.h"
#include "container/netdev.h"
#include "container/notify.h"
#include "container/path.h"
#include "container/plan.h"
#include "container/process.h"
#include "container/rdt.h"
#include "container/report.h"
#include "container/sync.h"
#include "container/sys.h"
#include "container/systemd.h"
#include "container/userns.h"

static int read_bundle(struct creation *c, struct err *err)
{
    const char *bundle = c->opts->bundle ? c->opts->bundle : ".";
    struct pool *p = &c->rt->pool;
    char real[4096];
    struct stat st;
    json_t *doc;

    if (chdir(bundle) < 0)
        return err_sys(err, errno, "chdir %s", bundle);
    if (!getcwd(real, sizeof(real)))
        return err_sys(err, errno, "getcwd");
    c->state.bundle = pool_str(p, real);
    if (json_load("config.json", &doc, err) < 0) {
        if (err->code == ENOENT)
            return err_set(err, ENOENT, "JSON specification file config.json not found");
        return -err->code;
    }
    if (spec_parse(&c->spec, p, doc, err) < 0)
        return -err->code;
    if (!c->spec.has_process && c->opts->run)
        return err_set(err, EINVAL, "process property must not be empty");
    if (!realpath(c->spec.root_path, real))
        return err_sys(err, errno, "invalid rootfs: stat %s", c->spec.root_path);
    if (stat(real, &st) < 0 || !S_ISDIR(st.st_mode))
        return err_set(err, ENOTDIR, "invalid rootfs: %s is not a directory", real);
    c->state.rootfs = pool_str(p, real);
    return 0;
}

static int check_terminal(const struct creation *c, struct err *err)
{
    const struct create_opts *o = c->opts;
    bool detached = !o->run || o->detach;

    if (c->spec.process.terminal && detached && !o->console_socket)
        return err_set(err, EINVAL,
                       "cannot allocate tty if runc will detach without setting console socket");
    if (o->console_socket && !(c->spec.process.terminal && detached))
        return err_set(err, EINVAL,
                       "cannot use console socket if runc will not detach or allocate tty");
    return 0;
}

static char *time_stamp(struct pool *p)
{
    struct timespec now;
    struct tm tm;
    char text[40];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    return pool_fmt(p, "%s.%09ldZ", text, now.tv_nsec);
}

static void fill_state(struct creation *c)
{
    struct state *st = &c->state;

    st->created = time_stamp(&c->rt->pool);
    st->owner = "";
    st->creator = getpid();
    st->creator_start = state_start_time(st->creator);
    st->annotations = c->spec.annotations;
    st->new_pid_ns = spec_new_ns(&c->spec, NS_PID);
    st->no_pivot = c->opts->no_pivot || !spec_new_ns(&c->spec, NS_MOUNT);
    for (size_t k = 0; k < NS_KINDS; k++)
        if (c->spec.ns[k].present)
            st->ns_flags |= ns_types[k].flag;
}

static int parse_preserve_fds(struct creation *c, struct err *err)
{
    const char *text = c->opts->preserve_fds_text, *listen_fds = getenv("LISTEN_FDS");
    struct spec_process *p = &c->spec.process;
    u32 n = 0, sockets = 0;

    if (text && sscanf(text, "%u", &n) != 1)
        return err_set(err, EINVAL, "invalid value \"%s\" for flag -preserve-fds", text);
    /* Socket activation: the descriptors follow stdio, and the program must be their process 1. */
    if (listen_fds && sscanf(listen_fds, "%u", &sockets) == 1 && sockets) {
        pool_strv_add(&c->rt->pool, &p->env, pool_fmt(&c->rt->pool, "LISTEN_FDS=%u", sockets));
        pool_strv_add(&c->rt->pool, &p->env, "LISTEN_PID=1");
    }
    if (n > 4096 || sockets > 4096)
        return err_set(err, EINVAL, "too many descriptors to preserve");
    c->init.preserve_fds = n + sockets;
    for (u32 fd = 3; fd < 3 + n + sockets; fd++)
        if (fcntl((int)fd, F_GETFD) < 0)
            return err_set(err, EBADF, "unable to preserve fd %u: it is not open", fd);
    return 0;
}

int create_load(struct creation *c, struct runtime *rt, const struct create_opts *opts,
                struct err *err)
{
    const char *bundle;
    const char *rootfs;

    c->rt = rt;
    c->opts = opts;
    c->netns = c->sync = c->pid = c->master = -1;
    c->state.dirfd = -1;
    c->init = (struct init){.root_tree = -1,
                            .procfd = -1,
                            .sync = -1,
                            .listen = -1,
                            .console = -1,
                            .notify_dir = -1,
                            .root = -1,
                            .no_new_keyring = opts->no_new_keyring,
                            .privileged = !rt->rootless};
    memset(c->init.ns_fds, 0xff, sizeof(c->init.ns_fds));
    if (state_check_id(opts->id, err) < 0 || read_bundle(c, err) < 0 ||
        parse_preserve_fds(c, err) < 0 || check_terminal(c, err) < 0)
        return -err->code;
    bundle = c->state.bundle;
    rootfs = c->state.rootfs;
    if (state_new(&c->state, &rt->pool, rt->root, opts->id, err) < 0)
        return -err->code;
    c->state.bundle = bundle;
    c->state.rootfs = rootfs;
    fill_state(c);
    c->init.no_pivot = c->state.no_pivot;
    return 0;
}

/* The address is relative to the state directory, which may be deeper than a socket address is long. */
static int make_start_socket(struct creation *c, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    mode_t mask;
    int rc;

    c->init.listen = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (c->init.listen < 0)
        return err_sys(err, errno, "socket");
    snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/" STATE_SOCKET,
             c->state.dirfd);
    mask = umask(0177);
    rc = bind(c->init.listen, (struct sockaddr *)&addr, sizeof(addr));
    umask(mask);
    if (rc < 0 || listen(c->init.listen, 8) < 0)
        return err_sys(err, errno, "make the start socket of %s", c->state.id);
    return 0;
}

static int open_console(struct creation *c, struct err *err)
{
    int pair[2];

    if (!c->spec.process.terminal)
        return 0;
    if (c->opts->console_socket) {
        c->init.console = create_connect(c->opts->console_socket, err);
        return c->init.console < 0 ? c->init.console : 0;
    }
    if (sync_pair(pair, err) < 0)
        return -err->code;
    c->master = pair[0];
    c->init.console = pair[1];
    return 0;
}

static int plan_cgroups(struct creation *c, struct err *err)
{
    struct cgroup *cg = &c->state.cgroup;

    cg->rootless = c->rt->rootless;
    if (cgroup_detect(cg, &c->rt->pool, err) < 0)
        return -err->code;
    cg->rootless = c->rt->rootless;
    if (c->rt->systemd_cgroup)
        return systemd_plan(&c->state, c->spec.cgroups_path, c->rt->rootless, err);
    return cgroup_plan(cg, &c->rt->pool, c->spec.cgroups_path, c->state.id, err);
}

/*
 * init enters the memory group last, so that its own work (mounts, namespaces, pages it shares with us) does
 * not count against a small limit. Contents that it copies for the container do count.
 */
static bool memory_is_late(const struct creation *c)
{
    for (size_t i = 0; i < c->spec.mount_count; i++)
        if (c->init.plans[i].opts.copy_up)
            return false;
    return true;
}

static int prepare(struct creation *c, struct err *err)
{
    struct init *in = &c->init;

    in->state = &c->state;
    in->spec = &c->spec;
    in->process = &c->spec.process;
    in->seccomp = &c->seccomp;
    in->procfd = procfs_open(err);
    if (in->procfd < 0 || plan_cgroups(c, err) < 0 || join_open(in, err) < 0 ||
        seccomp_compile(c->spec.seccomp, &c->seccomp, err) < 0 ||
        plan_mounts(in, &c->rt->pool, err) < 0 || open_console(c, err) < 0 ||
        notify_prepare(in, &c->spec.process, err) < 0)
        return -err->code;
    in->memory_late = memory_is_late(c);
    if (rdt_plan(&c->state, c->spec.intel_rdt, err) < 0)
        return -err->code;
    if (state_save(&c->state, err) < 0 || state_save_config(&c->state, c->spec.doc, err) < 0)
        return -err->code;
    if (!spec_has_ns(&c->spec, NS_MOUNT) &&
        (rootfs_attach_here(in, &c->state.mount_id, err) < 0 || state_save(&c->state, err) < 0))
        return -err->code;
    return c->opts->run ? 0 : make_start_socket(c, err);
}

/* It must stand before the clone, which goes into it. systemd makes its own only for a process that runs. */
static int make_v2_cgroup(struct creation *c, int *ret_fd, struct err *err)
{
    if (c->state.systemd_unit)
        return 0;
    c->made_cgroups = true;
    if (cgroup_make(&c->state.cgroup, &c->rt->pool, true, err) < 0)
        return err_wrap(err, "unable to apply cgroup configuration");
    *ret_fd = cgroup_open_v2(&c->state.cgroup);
    return 0;
}

static int spawn(struct creation *c, struct err *err)
{
    bool staged = join_needs_stage(&c->init);
    struct clone_args args = {.flags = staged ? 0 : join_clone_flags(&c->init),
                              .exit_signal = SIGCHLD};
    auto_close int group = -1;
    int pair[2];

    if (make_v2_cgroup(c, &group, err) < 0 || sync_pair(pair, err) < 0)
        return -err->code;
    c->sync = pair[0];
    c->init.sync = pair[1];
    c->pid = join_clone(&args, group, &c->in_v2);
    if (c->pid == 0) {
        close(c->sync);
        if (c->master >= 0)
            close(c->master);
        close(c->state.dirfd); /* and with it a share in the lock */
        if (staged)
            join_stage(&c->init);
        init_main(&c->init);
    }
    if (c->pid < 0)
        return err_sys(err, errno, "clone");
    c->spawned = true;
    close(c->init.sync);
    c->init.sync = -1;
    return 0;
}

/* Whoever runs the program may divide its group, if it sees a writable v2 tree with that group as the root. */
static int hand_over_cgroup(const struct creation *c, struct err *err)
{
    u32 uid = c->spec.process.uid, owner = c->spec.uid_maps.n ? UINT32_MAX : uid;
    bool writable = false;

    for (size_t i = 0; i < c->spec.mount_count; i++) {
        const char *type = c->spec.mounts[i].type;

        if (type && strncmp(type, "cgroup", 6) == 0)
            writable |= !(c->init.plans[i].opts.attr_set & MOUNT_ATTR_RDONLY);
    }
    for (size_t i = 0; i < c->spec.uid_maps.n; i++) {
        const struct spec_idmap *m = &c->spec.uid_maps.v[i];

        if (uid >= m->container && uid - m->container < m->size)
            owner = m->host + (uid - m->container);
    }
    if (!c->state.cgroup.pure_v2 || c->rt->rootless || !spec_new_ns(&c->spec, NS_CGROUP) ||
        !writable || owner == 0 || owner == UINT32_MAX)
        return 0;
    return cgroup_own_v2(&c->state.cgroup, owner, err);
}

static int set_up_cgroups(struct creation *c, struct err *err)
{
    struct cgroup *cg = &c->state.cgroup;
    struct sync_msg msg = {.kind = SYNC_CGROUPS};
    struct cgroup_doors doors;
    int rc;

    /* A unit of that name that was there is not ours to stop. */
    if (c->state.systemd_unit && systemd_start(&c->state, c->spec.resources, c->pid, err) < 0)
        return err_wrap(err, "unable to apply cgroup configuration");
    c->made_cgroups = true;
    if (rdt_apply(&c->state, c->spec.intel_rdt, c->pid, err) < 0)
        return -err->code;
    if (cgroup_make(cg, &c->rt->pool, false, err) < 0 ||
        cgroup_limit(cg, c->spec.resources, true, err) < 0 ||
        (!c->in_v2 && cgroup_attach_v2(cg, c->pid, err) < 0) || hand_over_cgroup(c, err) < 0 ||
        cgroup_open_doors(cg, &doors, err) < 0)
        return err_wrap(err, "unable to apply cgroup configuration");
    msg.value = doors.memory;
    rc = sync_send_fds(c->sync, &msg, doors.fds, doors.n);
    cgroup_close_doors(&doors);
    /* An init that is gone already has said why, or is heard to be gone, in serve(). */
    return rc < 0 && rc != -EPIPE ? err_sys(err, -rc, "talk to init") : 0;
}

static int run_hooks(struct creation *c, struct err *err)
{
    json_t *state;
    int rc;

    c->state.pid = c->pid;
    if (netdev_move(&c->spec, c->pid, &c->netns, err) < 0)
        return -err->code;
    state = state_to_json(&c->state, STATUS_CREATING);
    rc = hook_run(&c->spec, HOOK_PRESTART, state, err);
    if (rc == 0)
        rc = hook_run(&c->spec, HOOK_CREATE_RUNTIME, state, err);
    json_object_put(state);
    return rc;
}

/* The stage is done; what we hold from now on is init, our own child as well. */
static int take_pid(struct creation *c, int pid, struct err *err)
{
    while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    c->pid = pid;
    return set_up_cgroups(c, err);
}

static int answer(struct creation *c, const struct sync_msg *msg, struct err *err)
{
    int rc = 0;

    switch (msg->kind) {
    case SYNC_ERROR:
        return err_set(err, msg->value > 0 ? msg->value : EIO,
                       "unable to start container process: %s", msg->text);
    case SYNC_MAP_ME:
        rc = userns_write_maps(c->pid, &c->spec.uid_maps, &c->spec.gid_maps, !c->rt->rootless, err);
        break;
    case SYNC_PID:
        return take_pid(c, msg->value, err);
    case SYNC_MOUNTED:
        rc = run_hooks(c, err);
        break;
    case SYNC_READY:
        return task_apply(&c->spec.process, c->pid, err);
    default:
        return err_set(err, EPROTO, "unexpected message %u from init", msg->kind);
    }
    if (rc < 0)
        return rc;
    rc = sync_send(c->sync, SYNC_GO, 0, NULL, -1);
    return rc < 0 && rc != -EPIPE ? err_sys(err, -rc, "talk to init") : 0;
}

static int serve(struct creation *c, struct err *err)
{
    struct sync_msg msg;

    if (!join_needs_stage(&c->init) && set_up_cgroups(c, err) < 0)
        return -err->code;
    do {
        int status, rc = sync_recv(c->sync, &msg, NULL);

        if (rc == -EPIPE && waitpid(c->pid, &status, 0) == c->pid) {
            c->pid = -1;
            return err_set(err, EIO, "the container's init ended before it was ready (%s %d)%s",
                           WIFSIGNALED(status) ? "signal" : "status",
                           WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
                           WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL
                               ? ": is the memory limit too low?"
                               : "");
        }
        if (rc < 0)
            return err_sys(err, -rc, "talk to init");
        if (answer(c, &msg, err) < 0)
            return -err->code;
    } while (msg.kind != SYNC_READY);
    return 0;
}

int create_record(struct creation *c, struct err *err)
{
    c->state.pid = c->pid;
    c->state.start_time = state_start_time(c->pid);
    /* Without it nobody could tell this process from a later one with the same number. */
    if (!c->state.start_time)
        return err_set(err, ESRCH, "the container's init is gone, or /proc cannot be read");
    c->state.creator = 0;
    if (state_save(&c->state, err) < 0)
        return -err->code;
    if (c->opts->pid_file && create_write_pid(c->opts->pid_file, c->pid, err) < 0)
        return -err->code;
    return c->opts->pidfd_socket ? create_send_pidfd(c->opts->pidfd_socket, c->pid, err) : 0;
}

int create_prepare_restore(struct creation *c, struct err *err)
{
    if (plan_cgroups(c, err) < 0 || state_save(&c->state, err) < 0 ||
        state_save_config(&c->state, c->spec.doc, err) < 0)
        return -err->code;
    c->made_cgroups = true;
    if (cgroup_make(&c->state.cgroup, &c->rt->pool, false, err) < 0 ||
        cgroup_limit(&c->state.cgroup, c->spec.resources, true, err) < 0)
        return err_wrap(err, "unable to apply cgroup configuration");
    return 0;
}

int create_container(struct creation *c, struct err *err)
{
    if (prepare(c, err) == 0 && spawn(c, err) == 0) {
        plan_close(&c->init);
        if (serve(c, err) == 0 && create_record(c, err) == 0)
            return 0;
    }
    create_undo(c);
    return -err->code;
}

int create_release(struct creation *c, struct err *err)
{
    json_t *state;
    int rc;

    if (sync_send(c->sync, SYNC_GO, 0, NULL, -1) < 0)
        return err_set(err, EPIPE, "the container's init ended before it was started");
    /* Heard either way: init lets go of the socket when our death is no longer its own. */
    state = state_to_json(&c->state, STATUS_CREATING);
    rc = start_listen(c->sync, &c->seccomp, state, c->pid, err);
    json_object_put(state);
    return rc;
}

void create_undo(struct creation *c)
{
    struct err err = ERR_INIT;

    netdev_return(&c->spec, c->netns);
    if (c->pid > 0) {
        kill(c->pid, SIGKILL);
        while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
            ;
        c->pid = -1;
    }
    if (c->made_cgroups) {
        if (!c->state.new_pid_ns)
            cgroup_kill(&c->state.cgroup, SIGKILL, &err);
        if (c->state.systemd_unit)
            systemd_stop(&c->state, &err);
        if (cgroup_remove(&c->state.cgroup, &err) < 0)
            report(REPORT_WARN, "%s", err.msg);
        rdt_remove(&c->state, &err);
    }
    rootfs_detach_here(c->state.rootfs, c->state.mount_id);
    if (c->state.dirfd >= 0 && c->state.locked && state_remove(&c->state, &err) < 0)
        report(REPORT_WARN, "%s", err.msg);
    if (c->opts->pid_file)
        unlink(c->opts->pid_file);
    /* runtime.md, lifecycle: a failure goes on at step 12, and 13 are these. */
    if (c->spawned) {
        json_t *state = state_to_json(&c->state, STATUS_STOPPED);

        hook_run_all(&c->spec, HOOK_POSTSTOP, state);
        json_object_put(state);
    }
}

void create_fini(struct creation *c)
{
    int *fds[] = {&c->netns,       &c->sync,         &c->master,
                  &c->init.listen, &c->init.console, &c->init.procfd};

    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
    c->state.annotations = NULL;
    state_close(&c->state);
    spec_fini(&c->spec);
}
