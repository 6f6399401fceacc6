/* Scheduling, limits and memory placement of a process (config.md: rlimits, scheduler, ioPriority, ...). */
#include "container/process.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>

#include "container/report.h"
#include "container/sys.h"

/* struct sched_attr of sched_setattr(2); Debian 12's libc does not define it. */
struct sched_attr_v0 {
    u32 size, policy;
    u64 flags;
    s32 nice;
    u32 priority;
    u64 runtime, deadline, period;
};

/* Raising a hard limit takes CAP_SYS_RESOURCE. Without it the container gets the highest we may give. */
static int raise_limit(const struct spec_rlimit *r, enum report_level told, struct err *err)
{
    struct rlimit have, want;

    if (getrlimit((__rlimit_resource_t)r->resource, &have) < 0)
        return err_sys(err, errno, "error setting rlimit type %s", r->name);
    if (r->hard <= have.rlim_max)
        return 0;
    want = (struct rlimit){have.rlim_cur, r->hard};
    if (setrlimit((__rlimit_resource_t)r->resource, &want) == 0)
        return 0;
    if (errno != EPERM)
        return err_sys(err, errno, "error setting rlimit type %s", r->name);
    report(told,
           "%s: raising the hard limit from %llu to %llu is not permitted (CAP_SYS_RESOURCE is "
           "missing); "
           "the container gets %llu",
           r->name, (unsigned long long)have.rlim_max, (unsigned long long)r->hard,
           (unsigned long long)have.rlim_max);
    return 0;
}

int task_raise_limits(const struct spec_process *p, enum report_level told, struct err *err)
{
    for (size_t i = 0; i < p->rlimit_count; i++)
        if (raise_limit(&p->rlimits[i], told, err) < 0)
            return -err->code;
    return 0;
}

int task_set_limits(const struct spec_process *p, struct err *err)
{
    for (size_t i = 0; i < p->rlimit_count; i++) {
        const struct spec_rlimit *r = &p->rlimits[i];
        struct rlimit limit;

        if (r->soft > r->hard)
            return err_set(err, EINVAL, "rlimit %s: the soft limit is above the hard one", r->name);
        if (getrlimit((__rlimit_resource_t)r->resource, &limit) < 0)
            return err_sys(err, errno, "error setting rlimit type %s", r->name);
        limit.rlim_max = MIN((rlim_t)r->hard, limit.rlim_max);
        limit.rlim_cur = MIN((rlim_t)r->soft, limit.rlim_max);
        if (setrlimit((__rlimit_resource_t)r->resource, &limit) < 0)
            return err_sys(err, errno, "error setting rlimit type %s", r->name);
    }
    return 0;
}

static int set_scheduler(const struct spec_scheduler *s, int pid, struct err *err)
{
    struct sched_attr_v0 attr = {
        .size = sizeof(attr),
        .policy = s->policy,
        .flags = s->flags,
        .nice = s->nice,
        .priority = s->priority,
        .runtime = s->runtime,
        .deadline = s->deadline,
        .period = s->period,
    };

    if (!s->present)
        return 0;
    if (syscall(SYS_sched_setattr, pid, &attr, 0) < 0)
        return err_set(err, errno, "error setting the scheduler: %s: %s%s", s->policy_name,
                       strerror(errno),
                       errno == EPERM ? " (needs CAP_SYS_NICE; real time needs a cgroup with "
                                        "cpu.realtimeRuntime, too)"
                                      : "");
    return 0;
}

int task_parse_list(const char *text, unsigned long *bits, size_t bit_count)
{
    const size_t per = 8 * sizeof(unsigned long);

    memset(bits, 0, bit_count / 8);
    while (*text) {
        char *end;
        unsigned long first = strtoul(text, &end, 10), last = first;

        if (end == text || *text == '-' || *text == '+')
            return -EINVAL;
        if (*end == '-') {
            text = end + 1;
            last = strtoul(text, &end, 10);
            if (end == text)
                return -EINVAL;
        }
        if (last < first || last >= bit_count)
            return -EINVAL;
        for (unsigned long b = first; b <= last; b++)
            bits[b / per] |= 1ul << (b % per);
        if (*end && *end != ',')
            return -EINVAL;
        text = end + (*end == ',');
    }
    return 0;
}

int task_set_cpus(int pid, const char *list, struct err *err)
{
    unsigned long bits[TASK_LIST_BITS / 8 / sizeof(unsigned long)];

    if (!list || !list[0])
        return 0;
    if (task_parse_list(list, bits, TASK_LIST_BITS) < 0)
        return err_set(err, EINVAL, "\"%s\" is no list of processors", list);
    if (sched_setaffinity(pid, sizeof(bits), (cpu_set_t *)bits) < 0)
        return err_set(err, errno, "set CPU affinity %s: %s%s", list, strerror(errno),
                       errno == EINVAL ? " (none of these processors is in the container's cpuset)"
                                       : "");
    return 0;
}

int task_apply(const struct spec_process *p, int pid, struct err *err)
{
    if (set_scheduler(&p->scheduler, pid, err) < 0)
        return -err->code;
    if (p->has_ioprio && syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, pid, p->ioprio) < 0)
        return err_sys(err, errno, "error setting ioPriority");
    return 0;
}

static int set_mempolicy(const struct spec_mempolicy *m, struct err *err)
{
    unsigned long nodes[1024 / 8 / sizeof(unsigned long)];

    if (!m->present)
        return 0;
    if (task_parse_list(m->nodes ? m->nodes : "", nodes, 1024) < 0)
        return err_set(err, EINVAL, "memoryPolicy: \"%s\" is no list of nodes", m->nodes);
    /* The kernel wants no mask at all where a mode takes no nodes. */
    if (syscall(SYS_set_mempolicy, m->mode, m->nodes && m->nodes[0] ? nodes : NULL,
                m->nodes && m->nodes[0] ? 1025ul : 0ul) < 0)
        return err_set(
            err, errno,
            "memoryPolicy: %s, nodes \"%s\": %s (/sys/devices/system/node/has_memory and "
            "the container's cpuset.mems name those that can be had)",
            m->mode_name, m->nodes ? m->nodes : "", strerror(errno));
    return 0;
}

int task_apply_self(const struct spec *s, struct err *err)
{
    if (s->has_personality && personality(s->personality) < 0)
        return err_sys(err, errno, "set personality");
    return set_mempolicy(&s->mempolicy, err);
}
