/*
 * `exec`: another process in a running container. The runtime prepares and stays outside; its child enters
 * the namespaces of the container's init by pidfd, so that no path in /proc is raced with, and then becomes
 * the process as init did (process.c).
 */
#include "container/process.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "container/caps.h"
#include "container/create.h"
#include "container/join.h"
#include "container/lsm.h"
#include "container/path.h"
#include "container/sync.h"
#include "container/sys.h"
#include "container/systemd.h"

struct exec_opts {
    const char *console_socket, *cwd, *user, *process, *pid_file, *pidfd_socket, *label, *apparmor,
        *preserve;
    struct strv env, gids, caps, cgroups;
    bool tty, detach, no_new_privs, ignore_paused, no_subreaper;
};

struct exec {
    struct runtime *rt;
    struct exec_opts o;
    struct state state;
    struct spec spec;
    struct spec_process process;
    struct seccomp_prog seccomp;
    struct init init;
    json_t *process_doc;
    int pidfd, sync, pid, master;
    bool in_v2; /* the process was cloned into its v2 group */
};

static int parse_number(const char *text, u32 *ret, struct err *err)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (end == text || *end || value > UINT32_MAX - 1 || *text == '-')
        return err_set(err, EINVAL, "\"%s\" is no id", text);
    *ret = (u32)value;
    return 0;
}

static int apply_user(struct exec *x, struct err *err)
{
    struct spec_process *p = &x->process;
    char text[64], *colon;

    if (x->o.user) {
        snprintf(text, sizeof(text), "%s", x->o.user);
        colon = strchr(text, ':');
        if (colon)
            *colon = '\0';
        if (parse_number(text, &p->uid, err) < 0 ||
            (colon && parse_number(colon + 1, &p->gid, err) < 0))
            return err_wrap(err, "--user");
    }
    if (!x->o.gids.n)
        return 0;
    p->gids = pool_array(&x->rt->pool, x->o.gids.n, sizeof(u32));
    p->gid_count = x->o.gids.n;
    for (size_t i = 0; i < x->o.gids.n; i++)
        if (parse_number(x->o.gids.v[i], &p->gids[i], err) < 0)
            return err_wrap(err, "--additional-gids");
    return 0;
}

static int apply_caps(struct exec *x, struct err *err)
{
    for (size_t i = 0; i < x->o.caps.n; i++) {
        int cap = caps_number(x->o.caps.v[i]);

        if (cap < 0)
            return err_set(err, EINVAL, "unknown capability \"%s\"", x->o.caps.v[i]);
        for (size_t s = 0; s < CAP_SETS; s++)
            if (s != CAPS_INHERITABLE && (s != CAPS_AMBIENT || x->process.caps[CAPS_AMBIENT]))
                x->process.caps[s] |= BIT(cap);
    }
    return 0;
}

/* The process of config.json with what the command line changes. */
static int process_from_args(struct exec *x, int argc, char **argv, struct err *err)
{
    struct spec_process *p = &x->process;
    struct strv args = {0}, env = {0};
    struct pool *pool = &x->rt->pool;

    *p = x->spec.process;
    for (int i = 0; i < argc; i++)
        pool_strv_add(pool, &args, argv[i]);
    for (size_t i = 0; i < p->env.n; i++)
        pool_strv_add(pool, &env, p->env.v[i]);
    for (size_t i = 0; i < x->o.env.n; i++)
        pool_strv_add(pool, &env, x->o.env.v[i]);
    if (!args.n)
        return err_set(err, EINVAL, "process args cannot be empty");
    p->args = args;
    if (env.n)
        p->env = env;
    p->terminal = x->o.tty;
    p->cwd = x->o.cwd ? x->o.cwd : p->cwd;
    if (p->cwd[0] != '/')
        return err_set(err, EINVAL, "Cwd must be an absolute path");
    p->apparmor = x->o.apparmor ? x->o.apparmor : p->apparmor;
    p->selinux = x->o.label ? x->o.label : p->selinux;
    p->no_new_privs |= x->o.no_new_privs;
    return apply_user(x, err) < 0 ? -err->code : apply_caps(x, err);
}

static int load_process(struct exec *x, int argc, char **argv, struct err *err)
{
    struct spec_process *p = &x->process;

    if (!x->o.process)
        return process_from_args(x, argc, argv, err);
    if (json_load(x->o.process, &x->process_doc, err) < 0)
        return -err->code;
    if (spec_parse_process(&x->rt->pool, x->process_doc, p, err) < 0)
        return -err->code;
    if (x->o.tty)
        p->terminal = true;
    if (!p->cpus_initial && !p->cpus_final) {
        p->cpus_initial = x->spec.process.cpus_initial;
        p->cpus_final = x->spec.process.cpus_final;
    }
    return 0;
}

static int check_status(struct exec *x, struct err *err)
{
    switch (state_status(&x->state)) {
    case STATUS_STOPPED:
        return err_set(err, EINVAL, "cannot exec in a stopped container");
    case STATUS_CREATING:
        return err_set(err, EINVAL, "cannot exec in a container that is being created");
    case STATUS_PAUSED:
        if (!x->o.ignore_paused)
            return err_set(err, EINVAL,
                           "cannot exec in a paused container (use --ignore-paused to override)");
        return 0;
    case STATUS_CREATED:
    case STATUS_RUNNING:
        return 0;
    }
    return 0;
}

/* --cgroup [controllers:]path: below the container's group, in the hierarchies named or in all. */
static int apply_cgroups(struct exec *x, struct err *err)
{
    struct cgroup *cg = &x->state.cgroup;

    for (size_t i = 0; i < x->o.cgroups.n; i++) {
        char *text = x->o.cgroups.v[i], *colon = strchr(text, ':');
        const char *sub = colon ? colon + 1 : text;
        bool found = false;

        if (strstr(sub, ".."))
            return err_set(err, EINVAL, "bad --cgroup: %s is not a sub cgroup path", sub);
        for (size_t d = 0; d < cg->n; d++) {
            size_t len = colon ? (size_t)(colon - text) : 0;

            if (colon && (strlen(cg->dirs[d].controllers) != len ||
                          strncmp(cg->dirs[d].controllers, text, len) != 0))
                continue;
            cg->dirs[d].path = pool_fmt(&x->rt->pool, "%s/%s", cg->dirs[d].path, sub);
            found = true;
        }
        if (!found)
            return err_set(err, EINVAL, "bad --cgroup: controller of %s not found", text);
    }
    return 0;
}

static int prepare(struct exec *x, struct err *err)
{
    struct init *in = &x->init;
    u32 n = 0;
    int pair[2];

    *in = (struct init){.state = &x->state,
                        .spec = &x->spec,
                        .process = &x->process,
                        .seccomp = &x->seccomp,
                        .root_tree = -1,
                        .sync = -1,
                        .listen = -1,
                        .console = -1,
                        .notify_dir = -1,
                        .root = -1,
                        .privileged = !x->rt->rootless};
    if (x->o.preserve && sscanf(x->o.preserve, "%u", &n) != 1)
        return err_set(err, EINVAL, "invalid value \"%s\" for flag -preserve-fds", x->o.preserve);
    in->preserve_fds = MIN(n, 4096u);
    in->procfd = procfs_open(err);
    x->pidfd = state_pidfd(&x->state);
    if (x->pidfd < 0)
        return err_set(err, ESRCH, "cannot exec in a stopped container");
    if (in->procfd < 0 || seccomp_compile(x->spec.seccomp, &x->seccomp, err) < 0 ||
        apply_cgroups(x, err) < 0)
        return -err->code;
    if (!x->process.terminal)
        return 0;
    if (x->o.console_socket) {
        in->console = create_connect(x->o.console_socket, err);
        return in->console < 0 ? in->console : 0;
    }
    if (x->o.detach)
        return err_set(err, EINVAL,
                       "cannot allocate tty if runc will detach without setting console socket");
    if (sync_pair(pair, err) < 0)
        return -err->code;
    x->master = pair[0];
    in->console = pair[1];
    return 0;
}

static int enter(struct exec *x, struct err *err)
{
    struct init *in = &x->init;
    auto_close int root = -1;
    char path[40];

    /* With --no-pivot the container's root is not that of its mount namespace. */
    snprintf(path, sizeof(path), "/proc/%d/root", x->state.pid);
    if (x->state.no_pivot && (root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
        return err_sys(err, errno, "open the container's root");
    prctl(PR_SET_DUMPABLE, 0);
    if (setns(x->pidfd, (int)(x->state.ns_flags & ~(u64)CLONE_NEWTIME)) < 0)
        return err_sys(err, errno, "enter the container's namespaces");
    /* Kernels take the time namespace of a pidfd only from a single-threaded caller, alone. */
    if ((x->state.ns_flags & CLONE_NEWTIME) && setns(x->pidfd, CLONE_NEWTIME) < 0)
        return err_sys(err, errno, "enter the container's time namespace");
    if ((x->state.ns_flags & CLONE_NEWUSER) && (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0))
        return err_sys(err, errno, "become root of the user namespace");
    if (root >= 0 && (fchdir(root) < 0 || chroot(".") < 0))
        return err_sys(err, errno, "enter the container's root");
    in->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return in->root < 0 ? err_sys(err, errno, "open /") : 0;
}

static int become(struct exec *x, bool entered, struct err *err)
{
    struct init *in = &x->init;
    int fd;

    if (process_begin(in, err) < 0 || (setsid() < 0 && errno != EPERM) ||
        (!entered && enter(x, err) < 0))
        return err->code ? -err->code : err_sys(err, errno, "setsid");
    if (in->process->terminal && console_open(in, false, err) < 0)
        return -err->code;
    fd = path_make_dir(in->root, in->process->cwd);
    if (fd >= 0)
        close(fd);
    if (task_apply_self(&x->spec, err) < 0 || lsm_apply(in->procfd, in->process, err) < 0)
        return -err->code;
    return process_become(in, err);
}

/* By itself, before anything else: cgroup_enter.c says why. */
static int enter_groups(struct exec *x, struct err *err)
{
    return task_set_cpus(0, x->process.cpus_initial, err) < 0 ||
                   cgroup_enter(&x->init.doors, true, err) < 0 ||
                   task_set_cpus(0, x->process.cpus_final, err) < 0
               ? -err->code
               : 0;
}

static void exec_main(struct exec *x, bool entered) __attribute__((noreturn));

static void exec_main(struct exec *x, bool entered)
{
    struct init *in = &x->init;
    struct err err = ERR_INIT;
    int listener = -1;

    if ((!entered && enter_groups(x, &err) < 0) || become(x, entered, &err) < 0)
        goto fail;
    if (sync_send(in->sync, SYNC_READY, 0, NULL, -1) < 0 ||
        sync_expect(in->sync, SYNC_GO, NULL, &err) < 0)
        _exit(255);
    if (process_finish(in, &listener, &err) < 0)
        goto fail;
    if (listener >= 0) {
        sync_send(in->sync, SYNC_NOTIFY, 0, NULL, listener);
        close(listener);
        if (sync_expect(in->sync, SYNC_GO, NULL, &err) < 0)
            goto fail;
    }
    process_exec(in, &err);
fail:
    sync_send_error(in->sync, &err);
    _exit(255);
}

/* An unprivileged runtime has rights over the pid namespace only inside the user namespace. */
static void exec_stage(struct exec *x)
{
    struct clone_args args = {.flags = CLONE_PARENT};
    struct err err = ERR_INIT;
    long pid;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (enter_groups(x, &err) < 0 || enter(x, &err) < 0) {
        sync_send_error(x->init.sync, &err);
        _exit(255);
    }
    pid = sys_clone3(&args);
    if (pid == 0)
        exec_main(x, true);
    sync_send(x->init.sync, SYNC_PID, (int)pid, NULL, -1);
    _exit(pid < 0);
}

static int spawn(struct exec *x, struct err *err)
{
    bool staged = x->rt->rootless && (x->state.ns_flags & CLONE_NEWPID);
    struct clone_args args = {.exit_signal = SIGCHLD};
    auto_close int group = x->process.cpus_initial ? -1 : cgroup_open_v2(&x->state.cgroup);
    struct sync_msg msg;
    int pair[2];

    if (cgroup_open_doors(&x->state.cgroup, &x->init.doors, err) < 0 || sync_pair(pair, err) < 0)
        return -err->code;
    x->sync = pair[0];
    x->init.sync = pair[1];
    if (!staged && (x->state.ns_flags & CLONE_NEWPID) && setns(x->pidfd, CLONE_NEWPID) < 0)
        return err_sys(err, errno, "enter the container's pid namespace");
    x->pid = join_clone(&args, group, &x->in_v2);
    if (x->pid == 0) {
        close(x->sync);
        if (staged)
            exec_stage(x);
        /* The pid namespace is ours by birth. */
        x->state.ns_flags &= ~(u64)CLONE_NEWPID;
        exec_main(x, false);
    }
    close(x->init.sync);
    x->init.sync = -1;
    cgroup_close_doors(&x->init.doors);
    if (x->pid < 0)
        return err_sys(err, errno, "clone");
    if (!staged)
        return 0;
    if (sync_expect(x->sync, SYNC_PID, &msg, err) < 0)
        return -err->code;
    while (waitpid(x->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    x->pid = msg.value;
    return 0;
}

static int attach(struct exec *x, struct err *err)
{
    int rc = x->in_v2 ? 0 : cgroup_attach_v2(&x->state.cgroup, x->pid, err);

    if ((rc == -EACCES || rc == -EPERM) && x->state.systemd_unit && x->state.cgroup.pure_v2) {
        *err = (struct err)ERR_INIT;
        return systemd_attach(&x->state, x->pid, err);
    }
    if ((rc != -EBUSY && rc != -EOPNOTSUPP) || !x->state.cgroup.pure_v2 || x->o.cgroups.n)
        return rc;
    return cgroup_attach_beside(&x->state.cgroup, x->state.pid, x->pid, err);
}

static int start(struct exec *x, struct err *err)
{
    json_t *state;
    int rc;

    if (spawn(x, err) < 0 || task_set_cpus(x->pid, x->process.cpus_initial, err) < 0 ||
        attach(x, err) < 0 || task_set_cpus(x->pid, x->process.cpus_final, err) < 0 ||
        sync_expect(x->sync, SYNC_READY, NULL, err) < 0 || task_apply(&x->process, x->pid, err) < 0)
        return err_wrap(err, "unable to start container process");
    if (x->o.pid_file && create_write_pid(x->o.pid_file, x->pid, err) < 0)
        return -err->code;
    if (x->o.pidfd_socket && create_send_pidfd(x->o.pidfd_socket, x->pid, err) < 0)
        return -err->code;
    rc = sync_send(x->sync, SYNC_GO, 0, NULL, -1);
    /* One that is gone already has said why; one that cannot be reached would wait for ever, and we for it. */
    if (rc < 0 && rc != -EPIPE)
        return err_sys(err, -rc, "talk to the process");
    state = state_to_json(&x->state, STATUS_RUNNING);
    rc = start_listen(x->sync, &x->seccomp, state, x->pid, err);
    json_object_put(state);
    return rc;
}

static int run(struct exec *x, struct err *err)
{
    if (start(x, err) < 0) {
        if (x->pid > 0) {
            kill(x->pid, SIGKILL);
            while (waitpid(x->pid, NULL, 0) < 0 && errno == EINTR)
                ;
        }
        return -err->code;
    }
    return x->o.detach ? 0 : foreground_wait(x->pid, x->master, !x->o.no_subreaper, err);
}

static int parse(struct exec *x, int argc, char **argv, struct err *err)
{
    struct exec_opts *o = &x->o;
    const struct option opts[] = {
        {"console-socket", 0, OPTION_VALUE, &o->console_socket, NULL,
         "path to an AF_UNIX socket which will receive the terminal's master"},
        {"pidfd-socket", 0, OPTION_VALUE, &o->pidfd_socket, NULL,
         "path to an AF_UNIX socket which will receive a pidfd of the process"},
        {"cwd", 0, OPTION_VALUE, &o->cwd, NULL, "current working directory in the container"},
        {"env", 'e', OPTION_LIST, &o->env, NULL, "set environment variables"},
        {"tty", 't', OPTION_FLAG, &o->tty, NULL, "allocate a pseudo-TTY"},
        {"user", 'u', OPTION_VALUE, &o->user, NULL, "UID (format: <uid>[:<gid>])"},
        {"additional-gids", 'g', OPTION_LIST, &o->gids, NULL, "additional gids"},
        {"process", 'p', OPTION_VALUE, &o->process, NULL, "path to the process.json"},
        {"detach", 'd', OPTION_FLAG, &o->detach, NULL, "detach from the container's process"},
        {"pid-file", 0, OPTION_VALUE, &o->pid_file, NULL,
         "specify the file to write the process id to"},
        {"process-label", 0, OPTION_VALUE, &o->label, NULL, "set the SELinux label of the process"},
        {"apparmor", 0, OPTION_VALUE, &o->apparmor, NULL,
         "set the apparmor profile for the process"},
        {"no-new-privs", 0, OPTION_FLAG, &o->no_new_privs, NULL,
         "set the no new privileges value for the process"},
        {"cap", 'c', OPTION_LIST, &o->caps, NULL, "add a capability to the sets of the process"},
        {"preserve-fds", 0, OPTION_VALUE, &o->preserve, NULL,
         "pass N additional file descriptors to the container"},
        {"cgroup", 0, OPTION_LIST, &o->cgroups, NULL,
         "run the process in an (existing) sub-cgroup(s): [<controller>:]<cgroup>"},
        {"ignore-paused", 0, OPTION_FLAG, &o->ignore_paused, NULL,
         "allow exec in a paused container"},
        {"no-subreaper", 0, OPTION_FLAG, &o->no_subreaper, NULL,
         "do not reap reparented processes"},
    };

    return verb_parse(x->rt, opts, ARRAY_LEN(opts), 1, -1, argc, argv, err);
}

int verb_exec(struct runtime *rt, int argc, char **argv, struct err *err)
{
    struct exec x = {.rt = rt, .pidfd = -1, .sync = -1, .pid = -1, .master = -1};
    int at = parse(&x, argc, argv, err), rc;

    if (at < 0)
        return at;
    rc = state_open(&x.state, &rt->pool, rt->root, argv[at], false, err);
    if (rc == 0)
        rc = check_status(&x, err);
    if (rc == 0)
        rc = state_spec(&x.state, &x.spec, err);
    if (rc == 0)
        rc = load_process(&x, argc - at - 1, argv + at + 1, err);
    if (rc == 0)
        rc = prepare(&x, err);
    if (rc == 0)
        rc = run(&x, err);
    json_object_put(x.process_doc);
    spec_fini(&x.spec);
    state_close(&x.state);
    return rc;
}
