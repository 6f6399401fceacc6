/* The end of a container: `delete`, and `run` when its program has ended. */
#include "container/create.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "container/hook.h"
#include "container/rdt.h"
#include "container/report.h"
#include "container/sys.h"
#include "container/systemd.h"

#define KILL_TIMEOUT_MS 10000
#define ENDING_MS 100

int delete_leftovers(struct state *st, struct err *err)
{
    struct spec s = {0};
    struct err ignored = ERR_INIT;
    bool has_spec = state_spec(st, &s, &ignored) == 0;
    int rc = 0;

    /* Without a pid namespace of its own, or cut off half made, it may have left processes behind. */
    if (!st->new_pid_ns || st->pid <= 0)
        rc = cgroup_kill(&st->cgroup, SIGKILL, err);
    if (st->systemd_unit && systemd_stop(st, &ignored) < 0)
        report(REPORT_WARN, "%s", ignored.msg);
    if (rc < 0 || cgroup_remove(&st->cgroup, err) < 0 || rdt_remove(st, err) < 0) {
        spec_fini(&s);
        return -err->code;
    }
    rootfs_detach_here(st->rootfs, st->mount_id);
    rc = state_remove(st, err);
    if (rc == 0 && has_spec) {
        json_t *state = state_to_json(st, STATUS_STOPPED);

        hook_run_all(&s, HOOK_POSTSTOP, state);
        json_object_put(state);
    }
    spec_fini(&s);
    return rc;
}

static int wait_gone(int pidfd, int timeout_ms)
{
    struct pollfd p = {pidfd, POLLIN, 0};
    int rc;

    do
        rc = poll(&p, 1, timeout_ms);
    while (rc < 0 && errno == EINTR);
    return rc > 0 ? 0 : -ETIMEDOUT;
}

int delete_kill_init(struct state *st, struct err *err)
{
    auto_close int pidfd = state_pidfd(st);

    if (pidfd < 0)
        return 0;
    if (sys_pidfd_send_signal(pidfd, SIGKILL) < 0 && errno != ESRCH)
        return err_sys(err, errno,
                       "kill the container's init (does its AppArmor profile allow signals?)");
    if (cgroup_is_frozen(&st->cgroup))
        cgroup_freeze(&st->cgroup, false, err);
    /* The runtime that was still creating it dies with nothing to tell. */
    return wait_gone(pidfd, KILL_TIMEOUT_MS) < 0
               ? err_set(err, ETIMEDOUT, "container init still running after SIGKILL")
               : 0;
}

/* `kill` and then `delete`: the signal may not have done its work yet. */
static bool is_ending(const struct state *st)
{
    auto_close int pidfd = state_pidfd(st);

    return pidfd < 0 || wait_gone(pidfd, ENDING_MS) == 0;
}

static int delete_one(struct runtime *rt, const char *id, bool force, struct err *err)
{
    struct state st;
    enum status status;
    int rc = state_open(&st, &rt->pool, rt->root, id, true, err);

    if (rc == -ENOENT && force) {
        state_close(&st); /* and the lock with it */
        state_remove_empty(rt->root, id);
        rc = 0;
    } else if (rc == 0) {
        status = state_status(&st);
        if (force)
            rc = delete_kill_init(&st, err);
        else if (status == STATUS_CREATED)
            rc = delete_kill_init(&st, err);
        else if (status != STATUS_STOPPED && !(status == STATUS_RUNNING && is_ending(&st)))
            rc = err_set(err, EBUSY, "cannot delete container %s that is not stopped: %s", id,
                         status_name(status));
        if (rc == 0)
            rc = delete_leftovers(&st, err);
    }
    state_close(&st);
    return rc;
}

int verb_delete(struct runtime *rt, int argc, char **argv, struct err *err)
{
    bool force = false;
    const struct option opts[] = {
        {"force", 'f', OPTION_FLAG, &force, NULL,
         "Forcibly deletes the container if it is still running (uses SIGKILL)"},
    };
    int at = verb_parse(rt, opts, ARRAY_LEN(opts), 1, 1, argc, argv, err);

    return at < 0 ? at : delete_one(rt, argv[at], force, err);
}
