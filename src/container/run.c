/* `create` and `run`. */
#include "container/create.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "container/hook.h"
#include "container/notify.h"

size_t create_options(struct create_opts *o, struct option *opts, bool run)
{
    const struct option all[] = {
        {"bundle", 'b', OPTION_VALUE, &o->bundle, NULL,
         "path to the root of the bundle directory, defaults to the current directory"},
        {"console-socket", 0, OPTION_VALUE, &o->console_socket, NULL,
         "path to an AF_UNIX socket which will receive the terminal's master"},
        {"pidfd-socket", 0, OPTION_VALUE, &o->pidfd_socket, NULL,
         "path to an AF_UNIX socket which will receive a pidfd of the init process"},
        {"pid-file", 0, OPTION_VALUE, &o->pid_file, NULL,
         "specify the file to write the process id to"},
        {"no-pivot", 0, OPTION_FLAG, &o->no_pivot, NULL,
         "do not use pivot root to jail process inside rootfs"},
        {"no-new-keyring", 0, OPTION_FLAG, &o->no_new_keyring, NULL,
         "do not create a new session keyring for the container"},
        {"preserve-fds", 0, OPTION_VALUE, &o->preserve_fds_text, NULL,
         "pass N additional file descriptors to the container"},
        {"no-subreaper", 0, OPTION_FLAG, &o->no_subreaper, NULL,
         "do not reap reparented processes"},
        {"detach", 'd', OPTION_FLAG, &o->detach, NULL, "detach from the container's process"},
        {"keep", 0, OPTION_FLAG, &o->keep, NULL, "do not delete the container after it exits"},
    };
    size_t n = run ? ARRAY_LEN(all) : ARRAY_LEN(all) - 3;

    memcpy(opts, all, n * sizeof(all[0]));
    return n;
}

void create_absolute(struct runtime *rt, struct create_opts *o)
{
    pool_absolute(&rt->pool, &o->pid_file);
    pool_absolute(&rt->pool, &o->console_socket);
    pool_absolute(&rt->pool, &o->pidfd_socket);
}

static int parse(struct runtime *rt, struct create_opts *o, bool run, int argc, char **argv,
                 struct err *err)
{
    struct option opts[16];
    size_t n = create_options(o, opts, run);
    int at = verb_parse(rt, opts, n, 1, 1, argc, argv, err);

    if (at < 0)
        return at;
    o->id = argv[at];
    o->run = run;
    create_absolute(rt, o);
    return 0;
}

int verb_create(struct runtime *rt, int argc, char **argv, struct err *err)
{
    struct create_opts o = {0};
    struct creation c = {0};
    int rc = parse(rt, &o, false, argc, argv, err);

    if (rc < 0)
        return rc;
    rc = create_load(&c, rt, &o, err);
    if (rc == 0)
        rc = create_container(&c, err);
    if (rc == 0 && create_release(&c, err) < 0) {
        create_undo(&c);
        rc = -err->code;
    }
    create_fini(&c);
    return rc;
}

static int run_poststart(struct creation *c, struct err *err)
{
    json_t *state;
    int rc;

    if (!c->spec.hooks[HOOK_POSTSTART].n)
        return 0;
    state = state_to_json(&c->state, STATUS_RUNNING);
    rc = hook_run(&c->spec, HOOK_POSTSTART, state, err);
    json_object_put(state);
    return rc;
}

/* In the foreground we have other things to wait for, so a child of ours waits for readiness. */
static void pass_readiness(const struct creation *c, int fd)
{
    if (fd < 0)
        return;
    if (c->opts->detach) {
        notify_wait(fd, &c->state);
    } else if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        notify_wait(fd, &c->state);
        _exit(0);
    } else {
        close(fd);
    }
}

static int stay(struct creation *c, struct err *err)
{
    struct err late = ERR_INIT;
    int status = foreground_wait(c->pid, c->master, !c->opts->no_subreaper, err);

    if (status < 0) {
        create_undo(c);
        return status;
    }
    if (!c->opts->keep && delete_leftovers(&c->state, &late) < 0 && status == 0) {
        *err = late;
        return -late.code;
    }
    return status;
}

int verb_run(struct runtime *rt, int argc, char **argv, struct err *err)
{
    struct create_opts o = {0};
    struct creation c = {0};
    int notify = -1, rc = parse(rt, &o, true, argc, argv, err);

    if (rc < 0)
        return rc;
    rc = create_load(&c, rt, &o, err);
    if (rc == 0)
        rc = create_container(&c, err);
    if (rc == 0)
        notify = notify_open(&c.state);
    if (rc == 0 && (create_release(&c, err) < 0 || run_poststart(&c, err) < 0)) {
        create_undo(&c);
        rc = -err->code;
    }
    if (rc == 0) {
        pass_readiness(&c, notify);
        rc = o.detach ? 0 : stay(&c, err);
    }
    create_fini(&c);
    return rc;
}
