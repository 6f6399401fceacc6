/*
 * v1 limits (kernel documentation, cgroup-v1/). Most members are one file each: a table. The rest depend on
 * each other and are written in the order that the kernel's checks allow.
 */
#include "container/cgroup_value.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct limit {
    const char *path; /* in resources */
    const char *controller, *file;
    bool zero_counts; /* 0 is a value, not "unset" */
};

static const struct limit limits[] = {
    {"cpu.shares", "cpu", "cpu.shares", false},
    {"cpu.realtimePeriod", "cpu", "cpu.rt_period_us", false},
    {"cpu.realtimeRuntime", "cpu", "cpu.rt_runtime_us", false},
    {"cpu.idle", "cpu", "cpu.idle", true},
    {"cpu.cpus", "cpuset", "cpuset.cpus", false},
    {"cpu.mems", "cpuset", "cpuset.mems", false},
    {"memory.reservation", "memory", "memory.soft_limit_in_bytes", false},
    {"memory.kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes", false},
    {"memory.swappiness", "memory", "memory.swappiness", true},
    {"blockIO.leafWeight", "blkio", "blkio.leaf_weight", false},
    {"network.classID", "net_cls", "net_cls.classid", false},
};

static int limit_table(const struct cgroup *cg, json_t *res, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        const struct limit *l = &limits[i];
        const struct cgroup_dir *d;
        char text[512];
        int rc = value_text(res, l->path, text, sizeof(text), err);

        if (rc < 0)
            return rc;
        if (rc == 0 || !text[0] ||
            (strcmp(text, "0") == 0 && !l->zero_counts && strcmp(l->controller, "cpuset") != 0))
            continue;
        d = value_dir(cg, l->controller, l->path, err);
        if (!d || cgroup_write(d, l->file, text, err) < 0)
            return -err->code;
    }
    return 0;
}

/* Quota and period bound each other (and the burst), so either order may be the one that is refused. */
static int limit_cpu_quota(const struct cgroup *cg, json_t *res, struct err *err)
{
    static const char *const files[3] = {"cpu.cfs_period_us", "cpu.cfs_quota_us",
                                         "cpu.cfs_burst_us"};
    static const char *const paths[3] = {"cpu.period", "cpu.quota", "cpu.burst"};
    static const u8 orders[4][3] = {{0, 1, 2}, {1, 0, 2}, {2, 0, 1}, {2, 1, 0}};
    const struct cgroup_dir *d = cgroup_find(cg, "cpu");
    char text[3][32] = {""};
    bool any = false;

    for (size_t i = 0; i < 3; i++) {
        s64 value = 0;

        if (value_s64(res, paths[i], &value, err) < 0)
            return -err->code;
        if (value || (i == 2 && json_path(res, paths[i])))
            snprintf(text[i], sizeof(text[i]), "%" PRId64, value);
        any |= text[i][0] != '\0';
    }
    if (!any)
        return 0;
    if (!d)
        return value_dir(cg, "cpu", "cpu.quota", err) ? 0 : -err->code;
    for (size_t o = 0; o < ARRAY_LEN(orders); o++) {
        int rc = 0;

        for (size_t i = 0; i < 3 && rc == 0; i++)
            if (text[orders[o][i]][0])
                rc = cgroup_write(d, files[orders[o][i]], text[orders[o][i]], err);
        if (rc != -EINVAL)
            return rc;
    }
    return -err->code;
}

static int write_number(const struct cgroup_dir *d, const char *file, s64 value, struct err *err)
{
    char text[32];

    snprintf(text, sizeof(text), "%" PRId64, value);
    return cgroup_write(d, file, text, err);
}

/* memory + swap must never be below memory: raise the sum first, lower it last. */
static int limit_memory(const struct cgroup *cg, json_t *res, struct err *err)
{
    const struct cgroup_dir *d;
    s64 limit = 0, swap = 0;

    if (value_s64(res, "memory.limit", &limit, err) < 0 ||
        value_s64(res, "memory.swap", &swap, err) < 0)
        return -err->code;
    if (!limit && !swap)
        return 0;
    d = value_dir(cg, "memory", "memory.limit", err);
    if (!d)
        return -err->code;
    /* Without swap accounting there is no file; a limit on the sum then means nothing. */
    if (swap && cgroup_read(d, "memory.memsw.limit_in_bytes", (char[8]){0}, 8) < 0)
        swap = 0;
    if (limit == -1 && swap == 0 &&
        cgroup_read(d, "memory.memsw.limit_in_bytes", (char[8]){0}, 8) > 0)
        swap = -1;
    if (swap > 0 && limit > swap)
        return err_set(err, EINVAL,
                       "memory+swap limit %" PRId64 " is below the memory limit %" PRId64, swap,
                       limit);
    if (limit && write_number(d, "memory.limit_in_bytes", limit, err) == 0)
        limit = 0;
    if (swap && write_number(d, "memory.memsw.limit_in_bytes", swap, err) < 0)
        return -err->code;
    if (!limit)
        return 0;
    if (write_number(d, "memory.limit_in_bytes", limit, err) < 0)
        return err->code == EBUSY ? err_set(err, EBUSY,
                                            "unable to set memory limit to %" PRId64
                                            ": the container already uses more",
                                            limit)
                                  : -err->code;
    return 0;
}

static int limit_oom_and_pids(const struct cgroup *cg, json_t *res, struct err *err)
{
    const struct cgroup_dir *d;
    json_t *off = json_path(res, "memory.disableOOMKiller");
    s64 pids = 0;

    if (off && json_object_get_boolean(off)) {
        d = value_dir(cg, "memory", "memory.disableOOMKiller", err);
        if (!d || cgroup_write(d, "memory.oom_control", "1", err) < 0)
            return -err->code;
    }
    if (value_s64(res, "pids.limit", &pids, err) < 0)
        return -err->code;
    if (!pids)
        return 0;
    d = value_dir(cg, "pids", "pids.limit", err);
    if (!d)
        return -err->code;
    return pids < 0 ? cgroup_write(d, "pids.max", "max", err)
                    : write_number(d, "pids.max", pids, err);
}

/* blkio.weight belongs to CFQ, which is gone; BFQ has its own name for it. */
static int limit_blkio_weight(const struct cgroup *cg, json_t *res, struct err *err)
{
    const struct cgroup_dir *d;
    json_t *arr;
    s64 weight = 0;

    if (value_s64(res, "blockIO.weight", &weight, err) < 0 ||
        json_arr(json_get(res, "blockIO"), "weightDevice", &arr, err) < 0)
        return -err->code;
    if (!weight && !json_len(arr))
        return 0;
    d = value_dir(cg, "blkio", "blockIO.weight", err);
    if (!d)
        return -err->code;
    if (weight && write_number(d, "blkio.bfq.weight", weight, err) < 0 &&
        write_number(d, "blkio.weight", weight, err) < 0)
        return err->code == ENOENT ? err_set(err, ENOENT, "blkio weights need the BFQ scheduler")
                                   : -err->code;
    for (size_t i = 0; i < json_len(arr); i++) {
        u64 major = 0, minor = 0, value = 0;
        char text[80];

        if (json_u64(json_at(arr, i), "major", UINT32_MAX, &major, err) < 0 ||
            json_u64(json_at(arr, i), "minor", UINT32_MAX, &minor, err) < 0 ||
            json_u64(json_at(arr, i), "weight", 1000, &value, err) < 0)
            return err_wrap(err, "blockIO.weightDevice");
        snprintf(text, sizeof(text), "%" PRIu64 ":%" PRIu64 " %" PRIu64, major, minor, value);
        if (value && cgroup_write(d, "blkio.bfq.weight_device", text, err) < 0 &&
            cgroup_write(d, "blkio.weight_device", text, err) < 0)
            return -err->code;
    }
    return 0;
}

static int limit_blkio_throttle(const struct cgroup *cg, json_t *res, struct err *err)
{
    static const char *const pairs[][2] = {
        {"throttleReadBpsDevice", "blkio.throttle.read_bps_device"},
        {"throttleWriteBpsDevice", "blkio.throttle.write_bps_device"},
        {"throttleReadIOPSDevice", "blkio.throttle.read_iops_device"},
        {"throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"},
    };

    for (size_t k = 0; k < ARRAY_LEN(pairs); k++) {
        json_t *arr;

        if (json_arr(json_get(res, "blockIO"), pairs[k][0], &arr, err) < 0)
            return -err->code;
        for (size_t i = 0; i < json_len(arr); i++) {
            const struct cgroup_dir *d = value_dir(cg, "blkio", pairs[k][0], err);
            u64 major = 0, minor = 0, rate = 0;
            char text[96];

            if (!d || json_u64(json_at(arr, i), "major", UINT32_MAX, &major, err) < 0 ||
                json_u64(json_at(arr, i), "minor", UINT32_MAX, &minor, err) < 0 ||
                json_u64(json_at(arr, i), "rate", UINT64_MAX, &rate, err) < 0)
                return err_wrap(err, "blockIO.%s", pairs[k][0]);
            snprintf(text, sizeof(text), "%" PRIu64 ":%" PRIu64 " %" PRIu64, major, minor, rate);
            if (cgroup_write(d, pairs[k][1], text, err) < 0)
                return -err->code;
        }
    }
    return 0;
}

static int limit_net_prio(const struct cgroup *cg, json_t *res, struct err *err)
{
    json_t *arr;

    if (json_arr(json_get(res, "network"), "priorities", &arr, err) < 0)
        return -err->code;
    for (size_t i = 0; i < json_len(arr); i++) {
        const struct cgroup_dir *d = value_dir(cg, "net_prio", "network.priorities", err);
        const char *name = NULL;
        u64 priority = 0;
        char text[64];

        if (!d || json_str(json_at(arr, i), "name", &name, err) < 0 ||
            json_u64(json_at(arr, i), "priority", UINT32_MAX, &priority, err) < 0)
            return -err->code;
        snprintf(text, sizeof(text), "%.20s %" PRIu64, name ? name : "", priority);
        if (cgroup_write(d, "net_prio.ifpriomap", text, err) < 0)
            return -err->code;
    }
    return 0;
}

int cgroup_limit_v1(const struct cgroup *cg, json_t *res, struct err *err)
{
    if (limit_table(cg, res, err) < 0 || limit_cpu_quota(cg, res, err) < 0 ||
        limit_memory(cg, res, err) < 0 || limit_oom_and_pids(cg, res, err) < 0 ||
        limit_blkio_weight(cg, res, err) < 0 || limit_blkio_throttle(cg, res, err) < 0 ||
        limit_net_prio(cg, res, err) < 0)
        return -err->code;
    return 0;
}
