/* `kill`, `pause` and `resume`. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "container/runtime.h"
#include "container/signame.h"
#include "container/sys.h"

/* A number, or a name with or without SIG. */
int signal_number(const char *text)
{
    char *end;
    long number = strtol(text, &end, 10);

    if (end != text && !*end)
        return number > 0 && number < NSIG ? (int)number : -1;
    if (strncasecmp(text, "SIG", 3) == 0)
        text += 3;
    if (strncasecmp(text, "RTMIN+", 6) == 0) {
        number = strtol(text + 6, &end, 10);
        return end != text + 6 && !*end && number >= 0 && SIGRTMIN + number <= SIGRTMAX
                   ? SIGRTMIN + (int)number
                   : -1;
    }
    for (int sig = 1; sig < NSIG; sig++) {
        const char *name = sigabbrev_np(sig);

        if (name && strcasecmp(name, text) == 0)
            return sig;
    }
    return -1;
}

static int kill_init(struct state *st, int sig, struct err *err)
{
    auto_close int pidfd = state_pidfd(st);

    if (pidfd < 0)
        return err_set(err, ESRCH, "container not running");
    if (sys_pidfd_send_signal(pidfd, sig) < 0 && errno != ESRCH)
        return err_sys(err, errno, "signal the container");
    return 0;
}

int verb_kill(struct runtime *rt, int argc, char **argv, struct err *err)
{
    bool all = false;
    const struct option opts[] = {
        {"all", 'a', OPTION_FLAG, &all, NULL,
         "send the specified signal to all processes inside the container"},
    };
    int at = verb_parse(rt, opts, ARRAY_LEN(opts), 1, 2, argc, argv, err), sig, rc;
    struct state st;

    if (at < 0)
        return at;
    sig = at + 1 < argc ? signal_number(argv[at + 1]) : SIGTERM;
    rc = state_open(&st, &rt->pool, rt->root, argv[at], false, err);
    if (rc == 0 && sig < 0)
        rc = err_set(err, EINVAL, "unknown signal \"%s\"", argv[at + 1]);
    /* Without a pid namespace of its own, init's death would leave the others running. */
    if (rc == 0 && (all || (sig == SIGKILL && !st.new_pid_ns)))
        rc = cgroup_kill(&st.cgroup, sig, err);
    else if (rc == 0)
        rc = kill_init(&st, sig, err);
    /* A frozen process does not die before it is thawed (v1 freezer). */
    if (rc == 0 && sig == SIGKILL && !st.cgroup.pure_v2 && cgroup_is_frozen(&st.cgroup))
        rc = cgroup_freeze(&st.cgroup, false, err);
    state_close(&st);
    return rc;
}

static int freeze(struct runtime *rt, int argc, char **argv, bool frozen, struct err *err)
{
    int at = verb_parse(rt, NULL, 0, 1, 1, argc, argv, err), rc;
    enum status status;
    struct state st;

    if (at < 0)
        return at;
    rc = state_open(&st, &rt->pool, rt->root, argv[at], true, err);
    status = rc == 0 ? state_status(&st) : STATUS_STOPPED;
    if (rc == 0 && frozen && status != STATUS_RUNNING && status != STATUS_CREATED)
        rc = err_set(err, EINVAL, "container not running");
    if (rc == 0 && !frozen && !cgroup_is_frozen(&st.cgroup))
        rc = err_set(err, EINVAL, "container not paused");
    if (rc == 0)
        rc = cgroup_freeze(&st.cgroup, frozen, err);
    state_close(&st);
    return rc;
}

int verb_pause(struct runtime *rt, int argc, char **argv, struct err *err)
{
    return freeze(rt, argc, argv, true, err);
}

int verb_resume(struct runtime *rt, int argc, char **argv, struct err *err)
{
    return freeze(rt, argc, argv, false, err);
}
