/*
 * v2 limits (kernel documentation, cgroup-v2.rst). The configuration speaks v1; the conversions are those
 * that runc and crun document, so that the same file means the same everywhere.
 */
#include "container/cgroup_value.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "container/file.h"

/* A number, or "max" for -1. */
static int write_max(const struct cgroup_dir *d, const char *file, s64 value, struct err *err)
{
    char text[32] = "max";

    if (value >= 0)
        snprintf(text, sizeof(text), "%" PRId64, value);
    return cgroup_write(d, file, text, err);
}

static int limit_cpu(const struct cgroup_dir *d, json_t *res, struct err *err)
{
    s64 shares = 0, quota = 0, period = 0, burst = 0, idle = 0;
    char text[64];
    int has_burst, has_idle;

    if (value_s64(res, "cpu.shares", &shares, err) < 0 ||
        value_s64(res, "cpu.quota", &quota, err) < 0 ||
        value_s64(res, "cpu.period", &period, err) < 0)
        return -err->code;
    has_burst = value_s64(res, "cpu.burst", &burst, err);
    has_idle = value_s64(res, "cpu.idle", &idle, err);
    if (has_burst < 0 || has_idle < 0)
        return -err->code;
    if (has_idle > 0 && write_max(d, "cpu.idle", idle, err) < 0)
        return -err->code;
    /* An idle group has no weight. */
    if (shares && !idle && write_max(d, "cpu.weight", weight_of_shares(shares), err) < 0)
        return -err->code;
    if (has_burst > 0 && write_max(d, "cpu.max.burst", burst, NULL) == 0)
        has_burst = 0; /* else it is tried again below, under the new quota */
    if (quota || period) {
        if (quota > 0)
            snprintf(text, sizeof(text), "%" PRId64 " %" PRId64, quota, period ? period : 100000);
        else if (quota == 0)
            snprintf(text, sizeof(text), "max %" PRId64, period);
        else
            snprintf(text, sizeof(text), period ? "max %" PRId64 : "max", period);
        if (cgroup_write(d, "cpu.max", text, err) < 0)
            return -err->code;
    }
    return has_burst > 0 ? write_max(d, "cpu.max.burst", burst, err) : 0;
}

/* memory.checkBeforeUpdate: the kernel would take the limit and kill. (v1's refuses by itself.) */
static int check_usage(const struct cgroup_dir *d, json_t *res, s64 limit, struct err *err)
{
    json_t *wanted = json_path(res, "memory.checkBeforeUpdate");
    char text[32];

    if (limit <= 0 || !wanted || !json_object_get_boolean(wanted) ||
        cgroup_read(d, "memory.current", text, sizeof(text)) <= 0)
        return 0;
    return strtoll(text, NULL, 10) > limit ? err_set(err, EBUSY,
                                                     "unable to set memory limit to %" PRId64
                                                     ": the container already uses %.*s",
                                                     limit, (int)strcspn(text, "\n"), text)
                                           : 0;
}

static int limit_memory(const struct cgroup_dir *d, json_t *res, struct err *err)
{
    s64 limit = 0, swap = 0, reservation = 0;

    if (value_s64(res, "memory.limit", &limit, err) < 0 ||
        value_s64(res, "memory.swap", &swap, err) < 0 ||
        value_s64(res, "memory.reservation", &reservation, err) < 0)
        return -err->code;
    if (check_usage(d, res, limit, err) < 0)
        return -err->code;
    if (swap > 0 && limit <= 0)
        return err_set(err, EINVAL, "unable to set swap limit without memory limit");
    if (swap > 0 && swap < limit)
        return err_set(err, EINVAL, "memory+swap limit must not be below the memory limit");
    /* v1 bounds the sum, v2 swap alone. */
    if (swap && write_max(d, "memory.swap.max", swap < 0 ? -1 : swap - limit, err) < 0 &&
        !(err->code == ENOENT && swap < 0))
        return -err->code;
    if (limit && write_max(d, "memory.max", limit, err) < 0)
        return -err->code;
    if (reservation && write_max(d, "memory.low", reservation, err) < 0)
        return -err->code;
    return 0;
}

static int limit_cpuset_and_pids(const struct cgroup_dir *d, json_t *res, struct err *err)
{
    static const char *const pairs[2][2] = {{"cpu.cpus", "cpuset.cpus"},
                                            {"cpu.mems", "cpuset.mems"}};
    char text[512];
    s64 pids = 0;

    for (size_t i = 0; i < 2; i++) {
        int rc = value_text(res, pairs[i][0], text, sizeof(text), err);

        if (rc < 0 || (rc > 0 && text[0] && cgroup_write(d, pairs[i][1], text, err) < 0))
            return -err->code;
    }
    if (value_s64(res, "pids.limit", &pids, err) < 0)
        return -err->code;
    return pids ? write_max(d, "pids.max", pids, err) : 0;
}

/* io.bfq.weight takes [1, 1000]; io.weight [1, 10000], for which [10, 1000] is stretched. */
static int limit_io_weight(const struct cgroup_dir *d, json_t *res, struct err *err)
{
    s64 weight = 0;

    if (value_s64(res, "blockIO.weight", &weight, err) < 0)
        return -err->code;
    if (!weight || write_max(d, "io.bfq.weight", weight, NULL) == 0)
        return 0;
    return write_max(d, "io.weight", 1 + (MAX(weight, 10) - 10) * 9999 / 990, err);
}

static int limit_io_max(const struct cgroup_dir *d, json_t *res, struct err *err)
{
    static const char *const pairs[][2] = {
        {"throttleReadBpsDevice", "rbps"},
        {"throttleWriteBpsDevice", "wbps"},
        {"throttleReadIOPSDevice", "riops"},
        {"throttleWriteIOPSDevice", "wiops"},
    };

    for (size_t k = 0; k < ARRAY_LEN(pairs); k++) {
        json_t *arr;

        if (json_arr(json_get(res, "blockIO"), pairs[k][0], &arr, err) < 0)
            return -err->code;
        for (size_t i = 0; i < json_len(arr); i++) {
            u64 major = 0, minor = 0, rate = 0;
            char text[96];

            if (json_u64(json_at(arr, i), "major", UINT32_MAX, &major, err) < 0 ||
                json_u64(json_at(arr, i), "minor", UINT32_MAX, &minor, err) < 0 ||
                json_u64(json_at(arr, i), "rate", UINT64_MAX, &rate, err) < 0)
                return err_wrap(err, "blockIO.%s", pairs[k][0]);
            snprintf(text, sizeof(text), "%" PRIu64 ":%" PRIu64 " %s=%" PRIu64, major, minor,
                     pairs[k][1], rate);
            if (cgroup_write(d, "io.max", text, err) < 0)
                return -err->code;
        }
    }
    return 0;
}

int cgroup_limit_v2(const struct cgroup *cg, json_t *res, struct err *err)
{
    const struct cgroup_dir *d = cgroup_v2(cg);

    if (!d)
        return err_set(err, ENOENT, "no cgroup: limits cannot be set");
    if (limit_cpu(d, res, err) < 0 || limit_memory(d, res, err) < 0 ||
        limit_cpuset_and_pids(d, res, err) < 0 || limit_io_weight(d, res, err) < 0 ||
        limit_io_max(d, res, err) < 0)
        return -err->code;
    return 0;
}

/* config-linux.md, cgroup ownership: what the kernel lists as safe to hand to somebody, and the directory. */
int cgroup_own_v2(const struct cgroup *cg, u32 uid, struct err *err)
{
    static const char fallback[] = "cgroup.procs\ncgroup.threads\ncgroup.subtree_control\n";
    const struct cgroup_dir *d = cgroup_v2(cg);
    auto_close int dir = open(d->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char text[1024], *file, *save = NULL;

    if (dir < 0 || fchown(dir, uid, (gid_t)-1) < 0)
        return err_sys(err, errno, "hand over the cgroup %s", d->path);
    if (file_read_at(AT_FDCWD, "/sys/kernel/cgroup/delegate", text, sizeof(text)) <= 0)
        snprintf(text, sizeof(text), "%s", fallback);
    for (file = strtok_r(text, "\n", &save); file; file = strtok_r(NULL, "\n", &save))
        if (fchownat(dir, file, uid, (gid_t)-1, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
            return err_sys(err, errno, "hand over %s/%s", d->path, file);
    return 0;
}
