/*
 * The words of config.json that become numbers of the scheduler and the memory manager: scheduler,
 * ioPriority, memoryPolicy, personality (runtime-spec 1.3, config.md and config-linux.md).
 */
#include "container/spec.h"

#include <errno.h>
#include <linux/ioprio.h>
#include <linux/mempolicy.h>
#include <linux/sched.h>
#include <string.h>
#include <sys/personality.h>

struct word {
    const char *name;
    u64 value;
};

static int lookup(const struct word *table, size_t n, const char *name, u64 *ret)
{
    for (size_t i = 0; i < n; i++)
        if (name && strcmp(table[i].name, name) == 0) {
            *ret = table[i].value;
            return 0;
        }
    return -EINVAL;
}

/* ORs every word of the array obj[key] into *ret. */
static int or_words(json_t *obj, const char *key, const struct word *table, size_t n, u64 *ret,
                    struct err *err)
{
    json_t *arr;

    if (json_arr(obj, key, &arr, err) < 0)
        return -err->code;
    for (size_t i = 0; i < json_len(arr); i++) {
        const char *name = json_object_get_string(json_at(arr, i));
        u64 value;

        if (lookup(table, n, name, &value) < 0)
            return err_set(err, EINVAL, "%s: unknown value %s", key, name ? name : "null");
        *ret |= value;
    }
    return 0;
}

static const struct word policies[] = {
    {"SCHED_OTHER", SCHED_NORMAL},      {"SCHED_FIFO", SCHED_FIFO}, {"SCHED_RR", SCHED_RR},
    {"SCHED_BATCH", SCHED_BATCH},       {"SCHED_ISO", 4},           {"SCHED_IDLE", SCHED_IDLE},
    {"SCHED_DEADLINE", SCHED_DEADLINE},
};

static const struct word sched_flags[] = {
    {"SCHED_FLAG_RESET_ON_FORK", SCHED_FLAG_RESET_ON_FORK},
    {"SCHED_FLAG_RECLAIM", SCHED_FLAG_RECLAIM},
    {"SCHED_FLAG_DL_OVERRUN", SCHED_FLAG_DL_OVERRUN},
    {"SCHED_FLAG_KEEP_POLICY", SCHED_FLAG_KEEP_POLICY},
    {"SCHED_FLAG_KEEP_PARAMS", SCHED_FLAG_KEEP_PARAMS},
    {"SCHED_FLAG_UTIL_CLAMP_MIN", SCHED_FLAG_UTIL_CLAMP_MIN},
    {"SCHED_FLAG_UTIL_CLAMP_MAX", SCHED_FLAG_UTIL_CLAMP_MAX},
};

int spec_parse_scheduler(json_t *obj, struct spec_scheduler *ret, struct err *err)
{
    const char *policy = NULL;
    u64 value;
    s64 nice = 0;

    if (json_str(obj, "policy", &policy, err) < 0 ||
        json_s64(obj, "nice", -20, 19, &nice, err) < 0 ||
        json_u32(obj, "priority", &ret->priority, err) < 0 ||
        json_u64(obj, "runtime", UINT64_MAX, &ret->runtime, err) < 0 ||
        json_u64(obj, "deadline", UINT64_MAX, &ret->deadline, err) < 0 ||
        json_u64(obj, "period", UINT64_MAX, &ret->period, err) < 0 ||
        or_words(obj, "flags", sched_flags, ARRAY_LEN(sched_flags), &ret->flags, err) < 0)
        return err_wrap(err, "scheduler");
    if (lookup(policies, ARRAY_LEN(policies), policy, &value) < 0)
        return err_set(err, EINVAL, "scheduler: invalid policy %s", policy ? policy : "(none)");
    ret->policy = (u32)value;
    ret->policy_name = policy;
    ret->nice = (s32)nice;
    if (ret->priority && ret->policy != SCHED_FIFO && ret->policy != SCHED_RR)
        return err_set(err, EINVAL, "scheduler: priority is only for SCHED_FIFO and SCHED_RR");
    if ((ret->runtime || ret->deadline || ret->period) && ret->policy != SCHED_DEADLINE)
        return err_set(err, EINVAL,
                       "scheduler: runtime, deadline and period are only for SCHED_DEADLINE");
    ret->present = true;
    return 0;
}

static const struct word io_classes[] = {
    {"IOPRIO_CLASS_RT", IOPRIO_CLASS_RT},
    {"IOPRIO_CLASS_BE", IOPRIO_CLASS_BE},
    {"IOPRIO_CLASS_IDLE", IOPRIO_CLASS_IDLE},
};

int spec_parse_ioprio(json_t *obj, int *ret, struct err *err)
{
    const char *name = NULL;
    s64 priority = 0;
    u64 class;

    if (json_str(obj, "class", &name, err) < 0 ||
        json_s64(obj, "priority", 0, 7, &priority, err) < 0)
        return err_wrap(err, "ioPriority");
    if (lookup(io_classes, ARRAY_LEN(io_classes), name, &class) < 0)
        return err_set(err, EINVAL, "ioPriority: invalid class %s", name ? name : "(none)");
    *ret = (int)IOPRIO_PRIO_VALUE(class, priority);
    return 0;
}

static const struct word mem_modes[] = {
    {"MPOL_DEFAULT", MPOL_DEFAULT},  {"MPOL_PREFERRED", MPOL_PREFERRED},
    {"MPOL_BIND", MPOL_BIND},        {"MPOL_INTERLEAVE", MPOL_INTERLEAVE},
    {"MPOL_LOCAL", MPOL_LOCAL},      {"MPOL_PREFERRED_MANY", MPOL_PREFERRED_MANY},
    {"MPOL_WEIGHTED_INTERLEAVE", 6},
};

static const struct word mem_flags[] = {
    {"MPOL_F_STATIC_NODES", MPOL_F_STATIC_NODES},
    {"MPOL_F_RELATIVE_NODES", MPOL_F_RELATIVE_NODES},
    {"MPOL_F_NUMA_BALANCING", MPOL_F_NUMA_BALANCING},
};

int spec_parse_mempolicy(json_t *obj, struct spec_mempolicy *ret, struct err *err)
{
    const char *mode = NULL;
    u64 value, flags = 0;

    if (json_str(obj, "mode", &mode, err) < 0 || json_str(obj, "nodes", &ret->nodes, err) < 0 ||
        or_words(obj, "flags", mem_flags, ARRAY_LEN(mem_flags), &flags, err) < 0)
        return err_wrap(err, "memoryPolicy");
    if (lookup(mem_modes, ARRAY_LEN(mem_modes), mode, &value) < 0)
        return err_set(err, EINVAL, "memoryPolicy: invalid mode %s", mode ? mode : "(none)");
    /* mbind(2), set_mempolicy(2): the kernel would only say "Invalid argument". */
    if ((value == MPOL_DEFAULT || value == MPOL_LOCAL) && ret->nodes && ret->nodes[0])
        return err_set(err, EINVAL, "memoryPolicy: %s takes no nodes", mode);
    if (value != MPOL_DEFAULT && value != MPOL_LOCAL && value != MPOL_PREFERRED &&
        (!ret->nodes || !ret->nodes[0]))
        return err_set(err, EINVAL, "memoryPolicy: %s needs nodes", mode);
    if (flags & MPOL_F_STATIC_NODES && flags & MPOL_F_RELATIVE_NODES)
        return err_set(
            err, EINVAL,
            "memoryPolicy: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other");
    ret->mode = (int)(value | flags);
    ret->mode_name = mode;
    ret->present = true;
    return 0;
}

int spec_parse_personality(json_t *obj, unsigned long *ret, struct err *err)
{
    static const struct word domains[] = {{"LINUX", PER_LINUX}, {"LINUX32", PER_LINUX32}};
    const char *domain = NULL;
    json_t *flags;
    u64 value;

    if (json_str(obj, "domain", &domain, err) < 0 || json_arr(obj, "flags", &flags, err) < 0)
        return err_wrap(err, "personality");
    if (lookup(domains, ARRAY_LEN(domains), domain, &value) < 0)
        return err_set(err, EINVAL, "personality: invalid domain %s", domain ? domain : "(none)");
    if (json_len(flags))
        return err_set(err, EINVAL, "personality: additional flags are not supported");
    *ret = value;
    return 0;
}
