/*
 * The container's first process, from its clone to execve of the program.
 *
 *   runtime                      init
 *      | clone                     | namespaces, root file system       (at the same time as the cgroups)
 *      | cgroups, SYNC_CGROUPS --> | enters them; cgroup mounts
 *      | hooks        <-- MOUNTED  | (only when something waits for it)
 *      |                           | createContainer hooks, terminal, masks, pivot_root, sysctl
 *      |                           | memory cgroup, cgroup namespace, ids, capabilities
 *      | rlimits        <-- READY  |
 *      | GO -->                    | waits for `start` at start.sock, or goes on for `run`
 *                                  | startContainer hooks, seccomp, capabilities, execve
 *
 * Any failure is sent as one message and ends the process. Until GO the death of the runtime ends it too.
 * init is never dumpable, so nothing in the container can trace it or look into it before its program runs.
 */
#include "container/init.h"

#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "container/hook.h"
#include "container/join.h"
#include "container/lsm.h"
#include "container/path.h"
#include "container/process.h"
#include "container/sync.h"
#include "container/sys.h"

static int wait_for(struct init *in, u32 kind, struct err *err)
{
    struct sync_msg msg;

    do {
        int fds[SYNC_FDS];
        size_t n;

        if (sync_recv_fds(in->sync, &msg, fds, &n) < 0)
            return err_set(err, EPIPE, "the runtime has gone away");
        if (msg.kind != SYNC_CGROUPS)
            continue;
        in->cgroups_told = true;
        in->doors = (struct cgroup_doors){
            .n = n, .memory = msg.value, .rootless = in->state->cgroup.rootless};
        memcpy(in->doors.fds, fds, n * sizeof(fds[0]));
    } while (msg.kind != kind);
    return 0;
}

int init_ask(struct init *in, int question, struct err *err)
{
    if (sync_send(in->sync, (enum sync_kind)question, 0, NULL, -1) < 0)
        return err_set(err, EPIPE, "the runtime has gone away");
    return wait_for(in, SYNC_GO, err);
}

int init_wait_cgroups(struct init *in, struct err *err)
{
    if (in->cgroups_done)
        return 0;
    if (!in->cgroups_told && wait_for(in, SYNC_CGROUPS, err) < 0)
        return -err->code;
    in->cgroups_done = true;
    return cgroup_enter(&in->doors, !in->memory_late, err);
}

/* The namespace's roots are the groups we are in when it is made, so this comes after the last of them. */
static int enter_last_cgroup(struct init *in, struct err *err)
{
    if (init_wait_cgroups(in, err) < 0 || cgroup_enter(&in->doors, true, err) < 0)
        return -err->code;
    if (spec_new_ns(in->spec, NS_CGROUP) && unshare(CLONE_NEWCGROUP) < 0)
        return err_sys(err, errno, "make a cgroup namespace");
    return 0;
}

/* A new network namespace has a loopback device that is down. */
static int raise_loopback(struct err *err)
{
    auto_close int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq req = {.ifr_name = "lo"};

    if (sock < 0)
        return 0; /* a kernel without IPv4 has no loopback to raise */
    if (ioctl(sock, SIOCGIFFLAGS, &req) < 0)
        return err_sys(err, errno, "read the flags of lo");
    req.ifr_flags |= IFF_UP;
    if (ioctl(sock, SIOCSIFFLAGS, &req) < 0)
        return err_sys(err, errno, "raise lo");
    return 0;
}

static int set_names(const struct spec *s, struct err *err)
{
    if (s->hostname && s->hostname[0] && sethostname(s->hostname, strlen(s->hostname)) < 0)
        return err_sys(err, errno, "sethostname");
    if (s->domainname && s->domainname[0] &&
        setdomainname(s->domainname, strlen(s->domainname)) < 0)
        return err_sys(err, errno, "setdomainname");
    return 0;
}

/* Through the host's procfs: what /proc/sys shows is decided by the namespaces of who writes. */
static int set_sysctls(const struct init *in, struct err *err)
{
    for (size_t i = 0; i < in->spec->sysctl_count; i++) {
        const struct spec_pair *pair = &in->spec->sysctl[i];
        char path[300];
        int rc;

        snprintf(path, sizeof(path), "sys/%s", pair->key);
        if (path[4 + strcspn(pair->key, "./")] == '.')
            for (char *c = path + 4; *c; c++)
                *c = *c == '.' ? '/' : *c;
        rc = procfs_write(in->procfd, path, pair->value);
        if (rc < 0)
            return err_sys(err, -rc, "sysctl %s", pair->key);
    }
    return 0;
}

static int new_session(const struct init *in, struct err *err)
{
    if (setsid() < 0)
        return err_sys(err, errno, "setsid");
    /* Engines that ask for no keyring, and kernels that have none, are both fine. */
    if (!in->no_new_keyring &&
        syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, in->state->id) < 0 &&
        errno != ENOSYS && errno != EPERM && errno != EDQUOT)
        return err_sys(err, errno, "unable to create session key");
    return 0;
}

static bool runtime_waits_for_mounts(const struct spec *s)
{
    return s->hooks[HOOK_PRESTART].n || s->hooks[HOOK_CREATE_RUNTIME].n || s->netdev_count;
}

static int run_own_hooks(struct init *in, enum hook_kind kind, enum status st, struct err *err)
{
    json_t *state;
    int rc;

    if (!in->spec->hooks[kind].n)
        return 0;
    state = state_to_json(in->state, st);
    json_object_object_add(state, "pid", json_object_new_int(getpid()));
    rc = hook_run(in->spec, kind, state, err);
    json_object_put(state);
    return rc;
}

static int build(struct init *in, struct err *err)
{
    if (rootfs_build(in, err) < 0)
        return -err->code;
    if (runtime_waits_for_mounts(in->spec)) {
        if (init_wait_cgroups(in, err) < 0)
            return -err->code;
        if (init_ask(in, SYNC_MOUNTED, err) < 0)
            return -err->code;
    }
    return run_own_hooks(in, HOOK_CREATE_CONTAINER, STATUS_CREATING, err);
}

/* The configuration's working directory is made when it is missing, as runc does. */
static int make_cwd(const struct init *in, struct err *err)
{
    int fd = path_make_dir(in->root, in->process->cwd);

    if (fd >= 0)
        close(fd);
    return fd < 0 && fd != -EROFS && fd != -EACCES
               ? err_sys(err, -fd, "make cwd %s", in->process->cwd)
               : 0;
}

/* Before pivot_root, while the host's /dev/null can be reached; the container's own could be anything. */
static int furnish(struct init *in, struct err *err)
{
    if (in->process->terminal && console_open(in, true, err) < 0)
        return -err->code;
    if (make_cwd(in, err) < 0 || seal_paths(in, err) < 0)
        return -err->code;
    return rootfs_enter(in, err);
}

static int set_up(struct init *in, bool staged, struct err *err)
{
    const struct spec *s = in->spec;

    if (process_begin(in, err) < 0 || new_session(in, err) < 0 || join_rest(in, staged, err) < 0)
        return -err->code;
    prctl(PR_SET_DUMPABLE, 0);
    if ((spec_new_ns(s, NS_NET) && raise_loopback(err) < 0) || build(in, err) < 0 ||
        furnish(in, err) < 0)
        return -err->code;
    if (set_names(s, err) < 0 || set_sysctls(in, err) < 0)
        return -err->code;
    if (enter_last_cgroup(in, err) < 0 || task_apply_self(s, err) < 0 ||
        lsm_apply(in->procfd, in->process, err) < 0)
        return -err->code;
    return process_become(in, err);
}

static void end_by_signal(int sig)
{
    _exit(128 + sig);
}

/* As pid 1 we would get no signal without a handler; a container that was never started must still end. */
static void catch_signals(void)
{
    static const int sigs[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM,
                               SIGUSR1, SIGUSR2, SIGALRM, SIGABRT};
    struct sigaction act = {.sa_handler = end_by_signal};

    for (size_t i = 0; i < ARRAY_LEN(sigs); i++)
        sigaction(sigs[i], &act, NULL);
}

/* Returns the socket of the `start` that let us go. One that dies before it says so is forgotten. */
static int wait_for_start(int listen)
{
    for (;;) {
        int sock = accept4(listen, NULL, NULL, SOCK_CLOEXEC);
        struct sync_msg msg;

        if (sock < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (sock < 0)
            return -errno;
        if (sync_recv(sock, &msg, NULL) == 0 && msg.kind == SYNC_GO)
            return sock;
        close(sock);
    }
}

static int run_program(struct init *in, int sock, struct err *err)
{
    int listener;

    if (run_own_hooks(in, HOOK_START_CONTAINER, STATUS_CREATED, err) < 0 ||
        process_finish(in, &listener, err) < 0)
        return -err->code;
    if (listener >= 0) {
        int rc = sync_send(sock, SYNC_NOTIFY, 0, NULL, listener);

        close(listener);
        if (rc < 0 || sync_expect(sock, SYNC_GO, NULL, err) < 0)
            return err->code ? -err->code : err_sys(err, -rc, "send the seccomp listener");
    }
    return process_exec(in, err);
}

void init_main(struct init *in)
{
    struct err err = ERR_INIT;
    bool staged = join_needs_stage(in);
    int sock = in->sync;

    if (set_up(in, staged, &err) < 0) {
        sync_send_error(in->sync, &err);
        _exit(1);
    }
    if (init_ask(in, SYNC_READY, &err) < 0)
        _exit(1);
    prctl(PR_SET_PDEATHSIG, 0);
    if (in->listen >= 0) {
        close(in->sync);
        catch_signals();
        sock = wait_for_start(in->listen);
        close(in->listen);
    }
    if (sock < 0)
        _exit(1);
    run_program(in, sock, &err);
    sync_send_error(sock, &err);
    _exit(err.code == ENOENT ? 127 : 126);
}
