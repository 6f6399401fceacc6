/*
 * Namespaces (config-linux.md, namespaces; namespaces(7), user_namespaces(7)).
 *
 * Usually init is cloned with CLONE_NEWUSER and CLONE_NEWPID and unshares the rest itself, while the runtime
 * makes the cgroups. A pid namespace that is joined, or that must belong to a user namespace made after other
 * joins, only takes effect for a child: then a stage process does it and clones init as its sibling.
 *
 * A privileged runtime joins everything else before the user namespace, where it loses its rights over the
 * others; an unprivileged one has rights only inside it and joins it first.
 */
#include "container/join.h"

#include <errno.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/vfs.h>

#include "container/path.h"
#include "container/process.h"
#include "container/sync.h"
#include "container/sys.h"

static int open_ns(const char *path, const struct ns_type *type, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct statfs fs;

    if (fd < 0)
        return err_sys(err, errno, "open the %s namespace %s", type->name, path);
    if (fstatfs(fd, &fs) == 0 && fs.f_type == NSFS_MAGIC &&
        (u64)ioctl(fd, NS_GET_NSTYPE) == type->flag)
        return fd;
    close(fd);
    return err_set(err, EINVAL, "%s is not a %s namespace", path, type->name);
}

int join_open(struct init *in, struct err *err)
{
    for (size_t k = 0; k < NS_KINDS; k++) {
        if (!in->spec->ns[k].path)
            continue;
        in->ns_fds[k] = open_ns(in->spec->ns[k].path, &ns_types[k], err);
        if (in->ns_fds[k] < 0)
            return -err->code;
    }
    return 0;
}

void join_close(struct init *in)
{
    for (size_t k = 0; k < NS_KINDS; k++) {
        if (in->ns_fds[k] >= 0)
            close(in->ns_fds[k]);
        in->ns_fds[k] = -1;
    }
}

bool join_needs_stage(const struct init *in)
{
    bool any = false;

    for (size_t k = 0; k < NS_KINDS; k++)
        any |= in->ns_fds[k] >= 0;
    return in->ns_fds[NS_USER] >= 0 || in->ns_fds[NS_PID] >= 0 ||
           (any && spec_new_ns(in->spec, NS_USER));
}

u64 join_clone_flags(const struct init *in)
{
    return (spec_new_ns(in->spec, NS_USER) ? CLONE_NEWUSER : 0) |
           (spec_new_ns(in->spec, NS_PID) ? CLONE_NEWPID : 0);
}

int join_clone(struct clone_args *args, int group, bool *ret_in)
{
    struct clone_args into = *args;
    int pid;

    into.flags |= CLONE_INTO_CGROUP;
    into.cgroup = (u64)group;
    pid = group < 0 ? -1 : (int)sys_clone3(&into);
    *ret_in = pid >= 0;
    /* The group takes no processes, or the kernel does not know the flag: writing to it tells which. */
    return pid >= 0 ? pid : (int)sys_clone3(args);
}

static int join_one(const struct init *in, enum ns_kind k, struct err *err)
{
    if (in->ns_fds[k] < 0)
        return 0;
    if (setns(in->ns_fds[k], (int)ns_types[k].flag) < 0)
        return err_sys(err, errno, "join the %s namespace %s", ns_types[k].name,
                       in->spec->ns[k].path);
    return 0;
}

static int join_others(const struct init *in, struct err *err)
{
    for (size_t k = 0; k < NS_KINDS; k++)
        if (k != NS_USER && join_one(in, k, err) < 0)
            return -err->code;
    return 0;
}

static int become_root(struct err *err)
{
    if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
        return err_sys(err, errno, "become root of the user namespace (is id 0 mapped?)");
    return 0;
}

static int get_mapped(struct init *in, struct err *err)
{
    return init_ask(in, SYNC_MAP_ME, err) < 0 ? -err->code : become_root(err);
}

static int enter_user_ns(struct init *in, struct err *err)
{
    if (in->ns_fds[NS_USER] >= 0)
        return join_one(in, NS_USER, err) < 0 ? -err->code : become_root(err);
    if (!spec_new_ns(in->spec, NS_USER))
        return 0;
    if (unshare(CLONE_NEWUSER) < 0)
        return err_sys(err, errno, "make a user namespace");
    return get_mapped(in, err);
}

static int stage_enter(struct init *in, struct err *err)
{
    if (in->privileged ? join_others(in, err) < 0 || enter_user_ns(in, err) < 0
                       : enter_user_ns(in, err) < 0 || join_others(in, err) < 0)
        return -err->code;
    if (spec_new_ns(in->spec, NS_PID) && unshare(CLONE_NEWPID) < 0)
        return err_sys(err, errno, "make a pid namespace");
    return 0;
}

void join_stage(struct init *in)
{
    struct clone_args args = {.flags = CLONE_PARENT};
    struct err err = ERR_INIT;
    long pid;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (stage_enter(in, &err) < 0) {
        sync_send_error(in->sync, &err);
        _exit(1);
    }
    pid = sys_clone3(&args);
    if (pid == 0)
        init_main(in);
    if (pid < 0) {
        err_sys(&err, errno, "clone");
        sync_send_error(in->sync, &err);
        _exit(1);
    }
    /* Our own pid namespace is still the host's, so the number is the one the runtime needs. */
    sync_send(in->sync, SYNC_PID, (int)pid, NULL, -1);
    _exit(0);
}

static int set_time_offsets(const struct init *in, struct err *err)
{
    const struct spec *s = in->spec;
    char text[160];
    int rc;

    if (!s->has_time_offsets)
        return 0;
    snprintf(text, sizeof(text), "monotonic %lld %u\nboottime %lld %u\n",
             (long long)s->time_offset_s[0], s->time_offset_ns[0], (long long)s->time_offset_s[1],
             s->time_offset_ns[1]);
    rc = procfs_write(in->procfd, "self/timens_offsets", text);
    if (rc == -ERANGE)
        return err_set(err, ERANGE,
                       "set timeOffsets: monotonic by %lld s, boottime by %lld s: a clock would go "
                       "below 0, or too far ahead",
                       (long long)s->time_offset_s[0], (long long)s->time_offset_s[1]);
    return rc < 0 ? err_sys(err, -rc, "set timeOffsets") : 0;
}

int join_rest(struct init *in, bool staged, struct err *err)
{
    static const enum ns_kind own[] = {NS_MOUNT, NS_NET, NS_IPC, NS_UTS, NS_TIME};
    u64 flags = 0;

    if (!staged && spec_new_ns(in->spec, NS_USER) && get_mapped(in, err) < 0)
        return -err->code;
    if (!staged && join_others(in, err) < 0)
        return -err->code;
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        if (spec_new_ns(in->spec, own[i]))
            flags |= ns_types[own[i]].flag;
    if (unshare((int)flags) < 0)
        return err_sys(err, errno, "make namespaces");
    return set_time_offsets(in, err);
}
