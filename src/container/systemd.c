/*
 * The systemd driver: `--systemd-cgroup` with cgroupsPath "slice:prefix:name". systemd owns the tree, so a
 * transient scope with the container's process is asked for over D-Bus; inside the scope, which is delegated
 * to us, limits are written as without systemd. The main ones go into the unit too, since systemd writes its
 * own idea of them again whenever it reloads.
 */
#include "container/systemd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "container/cgroup_value.h"
#include "container/dbus.h"
#include "container/file.h"

#define SYSTEM_BUS "unix:path=/run/dbus/system_bus_socket"

static const struct dbus_method start_unit = {
    "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager",
    "StartTransientUnit", "ssa(sv)a(sa(sv))"};
static const struct dbus_method set_properties = {
    "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager",
    "SetUnitProperties", "sba(sv)"};
static const struct dbus_method attach_processes = {
    "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager",
    "AttachProcessesToUnit", "ssau"};
static const struct dbus_method stop_unit = {"org.freedesktop.systemd1",
                                             "/org/freedesktop/systemd1",
                                             "org.freedesktop.systemd1.Manager", "StopUnit", "ss"};

/* "a-b-c.slice" lies at /a.slice/a-b.slice/a-b-c.slice; "-.slice" is the root (systemd.slice(5)). */
static int expand_slice(const char *slice, char *ret, size_t size, struct err *err)
{
    size_t len = strlen(slice), used = 0;

    ret[0] = '\0';
    if (strcmp(slice, "-.slice") == 0)
        return 0;
    if (len <= 6 || strcmp(slice + len - 6, ".slice") != 0 || strchr(slice, '/') ||
        slice[0] == '-' || strstr(slice, "--"))
        return err_set(err, EINVAL, "invalid slice name: %s", slice);
    for (size_t i = 1; i <= len - 6; i++)
        if (slice[i] == '-' || i == len - 6)
            used +=
                (size_t)snprintf(ret + used, size - MIN(used, size), "/%.*s.slice", (int)i, slice);
    return used < size ? 0 : err_set(err, ENAMETOOLONG, "invalid slice name: %s", slice);
}

int systemd_plan(struct state *st, const char *cgroups_path, bool user, struct err *err)
{
    const char *slice = user ? "user.slice" : "system.slice", *prefix = "trapeze", *name = st->id;
    char path[2048], *copy, *first, *second;
    struct cgroup *cg = &st->cgroup;

    if (cgroups_path && cgroups_path[0]) {
        copy = pool_str(st->pool, cgroups_path);
        first = strchr(copy, ':');
        second = first ? strchr(first + 1, ':') : NULL;
        if (!second || strchr(second + 1, ':'))
            return err_set(err, EINVAL,
                           "expected cgroupsPath to be of format \"slice:prefix:name\" for "
                           "systemd cgroups, got \"%s\" instead",
                           cgroups_path);
        *first = *second = '\0';
        slice = *copy ? copy : slice;
        prefix = first + 1;
        name = second + 1;
    }
    if (expand_slice(slice, path, sizeof(path), err) < 0)
        return -err->code;
    if (strchr(name, '/') || strchr(prefix, '/') || !*name)
        return err_set(err, EINVAL, "cgroupsPath %s does not name a unit", cgroups_path);
    st->systemd_slice = pool_str(st->pool, slice);
    st->systemd_unit = *prefix ? pool_fmt(st->pool, "%s-%s.scope", prefix, name)
                               : pool_fmt(st->pool, "%s.scope", name);
    for (size_t i = 0; i < cg->n; i++)
        cg->dirs[i].path = pool_fmt(st->pool, "%s%s/%s", cg->dirs[i].mount, path, st->systemd_unit);
    return 0;
}

static int connect_bus(struct err *err)
{
    const char *address =
        getenv(geteuid() == 0 ? "DBUS_SYSTEM_BUS_ADDRESS" : "DBUS_SESSION_BUS_ADDRESS");

    return dbus_connect(address && address[0] ? address : SYSTEM_BUS, err);
}

static void prop_string(struct dbus_body *b, const char *name, const char *value)
{
    dbus_align(b, 8);
    dbus_string(b, name);
    dbus_signature(b, "s");
    dbus_string(b, value);
}

static void prop_bool(struct dbus_body *b, const char *name, bool value)
{
    dbus_align(b, 8);
    dbus_string(b, name);
    dbus_signature(b, "b");
    dbus_u32(b, value);
}

static void prop_u64(struct dbus_body *b, const char *name, u64 value)
{
    dbus_align(b, 8);
    dbus_string(b, name);
    dbus_signature(b, "t");
    dbus_u64(b, value);
}

static void put_pids(struct dbus_body *b, int pid)
{
    size_t mark = dbus_array_begin(b, 4);

    dbus_u32(b, (u32)pid);
    dbus_array_end(b, mark, 4);
}

/* A number of the configuration under systemd's name. -1 is systemd's "infinity", all bits set. */
static void prop_number(struct dbus_body *b, json_t *res, const char *path, const char *name)
{
    json_t *value = json_path(res, path);

    if (value && json_object_get_int64(value))
        prop_u64(b, name, (u64)json_object_get_int64(value));
}

static void props_of_v2(struct dbus_body *b, json_t *res)
{
    static const char *const unified[][2] = {
        {"memory.min", "MemoryMin"},          {"memory.low", "MemoryLow"},
        {"memory.high", "MemoryHigh"},        {"memory.max", "MemoryMax"},
        {"memory.swap.max", "MemorySwapMax"}, {"pids.max", "TasksMax"},
        {"cpu.weight", "CPUWeight"},
    };
    json_t *shares = json_path(res, "cpu.shares"), *swap = json_path(res, "memory.swap"),
           *limit = json_path(res, "memory.limit"), *files = json_get(res, "unified");
    s64 sum = swap ? json_object_get_int64(swap) : 0;

    prop_number(b, res, "memory.limit", "MemoryMax");
    prop_number(b, res, "memory.reservation", "MemoryLow");
    if (shares && json_object_get_int64(shares))
        prop_u64(b, "CPUWeight", (u64)weight_of_shares(json_object_get_int64(shares)));
    if (sum < 0)
        prop_u64(b, "MemorySwapMax", UINT64_MAX);
    else if (sum > 0 && limit && json_object_get_int64(limit) > 0)
        prop_u64(b, "MemorySwapMax", (u64)MAX(sum - json_object_get_int64(limit), 0));
    for (size_t i = 0; files && i < ARRAY_LEN(unified); i++) {
        const char *text = json_object_get_string(json_get(files, unified[i][0]));

        if (text)
            prop_u64(b, unified[i][1],
                     strcmp(text, "max") == 0 ? UINT64_MAX : strtoull(text, NULL, 10));
    }
}

/* The limits that systemd would otherwise reset, whenever it writes its own idea of them. */
static void props_of_limits(struct dbus_body *b, json_t *res, bool v2)
{
    json_t *quota = json_path(res, "cpu.quota"), *period = json_path(res, "cpu.period");
    s64 q = quota ? json_object_get_int64(quota) : 0,
        p = period ? json_object_get_int64(period) : 0;

    prop_number(b, res, "pids.limit", "TasksMax");
    if (v2) {
        props_of_v2(b, res);
    } else {
        prop_number(b, res, "memory.limit", "MemoryLimit");
        prop_number(b, res, "cpu.shares", "CPUShares");
    }
    if (p > 0)
        prop_u64(b, "CPUQuotaPeriodUSec", (u64)p);
    if (q)
        prop_u64(b, "CPUQuotaPerSecUSec",
                 q > 0 ? (u64)q * 1000000 / (u64)(p > 0 ? p : 100000) : UINT64_MAX);
}

void systemd_place(struct state *st, const char *groups)
{
    struct cgroup_dir *d = &st->cgroup.dirs[0];

    if (st->cgroup.pure_v2 && st->cgroup.n && strncmp(groups, "0::/", 4) == 0)
        d->path =
            pool_fmt(st->pool, "%s%.*s", d->mount, (int)strcspn(groups + 3, "\n"), groups + 3);
}

/* systemd answers before the job is done; it is when the process is in the unit's group. */
static int wait_in_scope(struct state *st, int pid, struct err *err)
{
    struct timespec pause = {0, 1000000};
    char path[32], text[8192];

    snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
    for (int i = 0; i < 5000; i++) {
        if (file_read_at(AT_FDCWD, path, text, sizeof(text)) > 0 &&
            strstr(text, st->systemd_unit)) {
            systemd_place(st, text);
            return 0;
        }
        nanosleep(&pause, NULL);
    }
    return err_set(err, ETIMEDOUT, "systemd did not put the container into %s", st->systemd_unit);
}

int systemd_start(struct state *st, json_t *resources, int pid, struct err *err)
{
    static const char *const accounting[] = {"MemoryAccounting", "CPUAccounting", "TasksAccounting",
                                             "IOAccounting"};
    auto_close int bus = connect_bus(err);
    struct dbus_body b = {.len = 0};
    size_t mark;

    if (bus < 0)
        return bus;
    dbus_string(&b, st->systemd_unit);
    dbus_string(&b, "replace");
    mark = dbus_array_begin(&b, 8);
    prop_string(&b, "Description", pool_fmt(st->pool, "container %s", st->id));
    prop_string(&b, "Slice", st->systemd_slice);
    prop_bool(&b, "Delegate", true);
    prop_bool(&b, "DefaultDependencies", false);
    for (size_t i = 0; i < ARRAY_LEN(accounting); i++)
        prop_bool(&b, accounting[i], true);
    dbus_align(&b, 8);
    dbus_string(&b, "PIDs");
    dbus_signature(&b, "au");
    put_pids(&b, pid);
    props_of_limits(&b, resources, st->cgroup.pure_v2);
    dbus_array_end(&b, mark, 8);
    mark = dbus_array_begin(&b, 8); /* no auxiliary units */
    dbus_array_end(&b, mark, 8);
    if (dbus_call(bus, &start_unit, &b, err) < 0)
        return err_wrap(err, "systemd: %s", st->systemd_unit);
    if (wait_in_scope(st, pid, err) < 0) {
        struct err ignored = ERR_INIT;

        systemd_stop(st, &ignored);
        return -err->code;
    }
    return 0;
}

int systemd_update(const struct state *st, json_t *resources, struct err *err)
{
    auto_close int bus = connect_bus(err);
    struct dbus_body b = {.len = 0};
    size_t mark;

    if (bus < 0)
        return bus;
    dbus_string(&b, st->systemd_unit);
    dbus_u32(&b, true); /* until the unit is gone */
    mark = dbus_array_begin(&b, 8);
    props_of_limits(&b, resources, st->cgroup.pure_v2);
    dbus_array_end(&b, mark, 8);
    return dbus_call(bus, &set_properties, &b, err) < 0
               ? err_wrap(err, "systemd: %s", st->systemd_unit)
               : 0;
}

int systemd_attach(const struct state *st, int pid, struct err *err)
{
    auto_close int bus = connect_bus(err);
    struct dbus_body b = {.len = 0};

    if (bus < 0)
        return bus;
    dbus_string(&b, st->systemd_unit);
    dbus_string(&b, ""); /* the unit's own group */
    put_pids(&b, pid);
    return dbus_call(bus, &attach_processes, &b, err) < 0
               ? err_wrap(err, "systemd: %s", st->systemd_unit)
               : 0;
}

int systemd_stop(const struct state *st, struct err *err)
{
    auto_close int bus = connect_bus(err);
    struct dbus_body b = {.len = 0};

    if (bus < 0)
        return bus;
    dbus_string(&b, st->systemd_unit);
    dbus_string(&b, "replace");
    if (dbus_call(bus, &stop_unit, &b, err) < 0 && !strstr(err->msg, "not loaded"))
        return -err->code;
    return 0;
}
