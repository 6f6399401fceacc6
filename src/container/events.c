/*
 * `events`: statistics of the container's cgroups as runc's JSON, once or at an interval, and a line when the
 * kernel kills for lack of memory. Files that a kernel does not have count as zero.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "container/runtime.h"

/* A member of "data", one number out of one file: the whole file, or the number behind `key`. */
struct stat_file {
    const char *path; /* in data, dotted */
    const char *controller, *file, *key;
    u64 scale;
};

static const struct stat_file v1_files[] = {
    {"cpu.usage.total", "cpuacct", "cpuacct.usage", NULL, 1},
    {"cpu.usage.kernel", "cpuacct", "cpuacct.stat", "system", 10000000},
    {"cpu.usage.user", "cpuacct", "cpuacct.stat", "user", 10000000},
    {"cpu.throttling.periods", "cpu", "cpu.stat", "nr_periods", 1},
    {"cpu.throttling.throttledPeriods", "cpu", "cpu.stat", "nr_throttled", 1},
    {"cpu.throttling.throttledTime", "cpu", "cpu.stat", "throttled_time", 1},
    {"memory.usage.usage", "memory", "memory.usage_in_bytes", NULL, 1},
    {"memory.usage.max", "memory", "memory.max_usage_in_bytes", NULL, 1},
    {"memory.usage.limit", "memory", "memory.limit_in_bytes", NULL, 1},
    {"memory.usage.failcnt", "memory", "memory.failcnt", NULL, 1},
    {"memory.swap.usage", "memory", "memory.memsw.usage_in_bytes", NULL, 1},
    {"memory.swap.max", "memory", "memory.memsw.max_usage_in_bytes", NULL, 1},
    {"memory.swap.limit", "memory", "memory.memsw.limit_in_bytes", NULL, 1},
    {"memory.kernel.usage", "memory", "memory.kmem.usage_in_bytes", NULL, 1},
    {"memory.cache", "memory", "memory.stat", "cache", 1},
    {"pids.current", "pids", "pids.current", NULL, 1},
    {"pids.limit", "pids", "pids.max", NULL, 1},
};

static const struct stat_file v2_files[] = {
    {"cpu.usage.total", "", "cpu.stat", "usage_usec", 1000},
    {"cpu.usage.kernel", "", "cpu.stat", "system_usec", 1000},
    {"cpu.usage.user", "", "cpu.stat", "user_usec", 1000},
    {"cpu.throttling.periods", "", "cpu.stat", "nr_periods", 1},
    {"cpu.throttling.throttledPeriods", "", "cpu.stat", "nr_throttled", 1},
    {"cpu.throttling.throttledTime", "", "cpu.stat", "throttled_usec", 1000},
    {"memory.usage.usage", "", "memory.current", NULL, 1},
    {"memory.usage.max", "", "memory.peak", NULL, 1},
    {"memory.usage.limit", "", "memory.max", NULL, 1},
    {"memory.usage.failcnt", "", "memory.events", "max", 1},
    {"memory.swap.usage", "", "memory.swap.current", NULL, 1},
    {"memory.swap.limit", "", "memory.swap.max", NULL, 1},
    {"memory.cache", "", "memory.stat", "file", 1},
    {"pids.current", "", "pids.current", NULL, 1},
    {"pids.limit", "", "pids.max", NULL, 1},
};

static void put(json_t *data, const char *path, json_t *value)
{
    char key[64];
    size_t len = strcspn(path, ".");
    json_t *child;

    snprintf(key, sizeof(key), "%.*s", (int)len, path);
    if (!path[len]) {
        json_object_object_add(data, key, value);
        return;
    }
    child = json_get(data, key);
    if (!child) {
        child = json_object_new_object();
        json_object_object_add(data, key, child);
    }
    put(child, path + len + 1, value);
}

/* "max" is the largest number there is. */
static u64 number(const char *text)
{
    return strncmp(text, "max", 3) == 0 ? UINT64_MAX : strtoull(text, NULL, 10);
}

static u64 find_key(const char *text, const char *key)
{
    size_t len = strlen(key);

    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n')
        if (strncmp(line, key, len) == 0 && line[len] == ' ')
            return number(line + len + 1);
    return 0;
}

static void add_percpu(const struct cgroup *cg, json_t *data)
{
    const struct cgroup_dir *d = cgroup_find(cg, "cpuacct");
    char text[4096], *at = text, *end;
    json_t *arr;

    if (!d || d->v2 || cgroup_read(d, "cpuacct.usage_percpu", text, sizeof(text)) <= 0)
        return;
    arr = json_object_new_array();
    for (u64 v = strtoull(at, &end, 10); end != at; v = strtoull(at, &end, 10)) {
        json_object_array_add(arr, json_object_new_uint64(v));
        at = end;
    }
    put(data, "cpu.usage.percpu", arr);
}

/* memory.stat as it stands: engines look for their own keys in it. */
static void add_raw_memory(const struct cgroup *cg, json_t *data)
{
    const struct cgroup_dir *d = cgroup_find(cg, "memory");
    char text[8192], *line, *save = NULL;
    json_t *raw;

    if (!d || cgroup_read(d, "memory.stat", text, sizeof(text)) <= 0)
        return;
    raw = json_object_new_object();
    for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *space = strchr(line, ' ');

        if (!space)
            continue;
        *space = '\0';
        json_object_object_add(raw, line, json_object_new_uint64(number(space + 1)));
    }
    put(data, "memory.raw", raw);
}

/* "8:0 Read 4096" and "8:0 rbytes=1 wbytes=2": a list of {major, minor, op, value}. */
static void add_blkio(const struct cgroup *cg, json_t *data)
{
    static const char *const files[2][2] = {
        {"blkio.throttle.io_service_bytes_recursive", "blkio.ioServiceBytesRecursive"},
        {"blkio.throttle.io_serviced_recursive", "blkio.ioServicedRecursive"},
    };
    const struct cgroup_dir *d = cgroup_find(cg, "blkio");

    for (size_t f = 0; d && !d->v2 && f < 2; f++) {
        char text[8192], *line, *save = NULL;
        json_t *arr = json_object_new_array();

        if (cgroup_read(d, files[f][0], text, sizeof(text)) <= 0)
            text[0] = '\0';
        for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
            unsigned major, minor;
            char op[24];
            u64 value;
            json_t *o;

            if (sscanf(line, "%u:%u %23s %" SCNu64, &major, &minor, op, &value) != 4)
                continue;
            o = json_object_new_object();
            json_object_object_add(o, "major", json_object_new_uint64(major));
            json_object_object_add(o, "minor", json_object_new_uint64(minor));
            json_object_object_add(o, "op", json_object_new_string(op));
            json_object_object_add(o, "value", json_object_new_uint64(value));
            json_object_array_add(arr, o);
        }
        put(data, files[f][1], arr);
    }
}

static void print_event(const char *type, const char *id, json_t *data)
{
    json_t *o = json_object_new_object();

    json_object_object_add(o, "type", json_object_new_string(type));
    json_object_object_add(o, "id", json_object_new_string(id));
    if (data)
        json_object_object_add(o, "data", data);
    printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
                                                         JSON_C_TO_STRING_NOSLASHESCAPE));
    fflush(stdout);
    json_object_put(o);
}

static void print_stats(const struct state *st)
{
    const struct cgroup *cg = &st->cgroup;
    const struct stat_file *files = cg->pure_v2 ? v2_files : v1_files;
    size_t n = cg->pure_v2 ? ARRAY_LEN(v2_files) : ARRAY_LEN(v1_files);
    json_t *data = json_object_new_object();

    for (size_t i = 0; i < n; i++) {
        const struct cgroup_dir *d =
            cg->pure_v2 ? cgroup_v2(cg) : cgroup_find(cg, files[i].controller);
        char text[8192];
        u64 value;

        if (!d || cgroup_read(d, files[i].file, text, sizeof(text)) <= 0)
            continue;
        value = files[i].key ? find_key(text, files[i].key) : number(text);
        put(data, files[i].path, json_object_new_uint64(value * files[i].scale));
    }
    add_percpu(cg, data);
    add_raw_memory(cg, data);
    add_blkio(cg, data);
    print_event("stats", st->id, data);
}

/* v1: an eventfd that the kernel raises when it kills in the group. -1 where there is none. */
static int watch_oom(const struct cgroup *cg)
{
    const struct cgroup_dir *d = cgroup_find(cg, "memory");
    auto_close int control = -1;
    char path[4200], text[32];
    int event;

    if (!d || d->v2)
        return -1;
    snprintf(path, sizeof(path), "%s/memory.oom_control", d->path);
    control = open(path, O_RDONLY | O_CLOEXEC);
    event = eventfd(0, EFD_CLOEXEC);
    snprintf(text, sizeof(text), "%d %d", event, control);
    if (control >= 0 && event >= 0 && cgroup_write(d, "cgroup.event_control", text, NULL) == 0)
        return event;
    if (event >= 0)
        close(event);
    return -1;
}

static int follow(const struct state *st, int interval_ms)
{
    auto_close int pidfd = state_pidfd(st), oom = watch_oom(&st->cgroup);
    struct pollfd p[2] = {{pidfd, POLLIN, 0}, {oom, POLLIN, 0}};

    while (pidfd >= 0) {
        int rc = poll(p, 2, interval_ms);
        u64 count;

        if (rc < 0 && errno != EINTR)
            break;
        if (p[1].revents && read(oom, &count, sizeof(count)) == sizeof(count) &&
            !(p[0].revents & POLLIN))
            print_event("oom", st->id, NULL);
        if (p[0].revents)
            break;
        if (rc == 0)
            print_stats(st);
    }
    return 0;
}

/* "5s", "500ms", "1m": Go's durations, as far as whole numbers go. */
static int parse_interval(const char *text, int *ret_ms, struct err *err)
{
    char *end;
    long n = strtol(text, &end, 10);
    long unit = strcmp(end, "ms") == 0  ? 1
                : strcmp(end, "s") == 0 ? 1000
                : strcmp(end, "m") == 0 ? 60000
                                        : 0;

    if (n <= 0 || !unit || n > INT32_MAX / unit)
        return err_set(err, EINVAL, "duration interval must be greater than 0");
    *ret_ms = (int)(n * unit);
    return 0;
}

int verb_events(struct runtime *rt, int argc, char **argv, struct err *err)
{
    const char *interval = "5s";
    bool once = false;
    const struct option opts[] = {
        {"interval", 0, OPTION_VALUE, &interval, NULL,
         "set the stats collection interval (default: 5s)"},
        {"stats", 0, OPTION_FLAG, &once, NULL, "display the container's stats then exit"},
    };
    int at = verb_parse(rt, opts, ARRAY_LEN(opts), 1, 1, argc, argv, err), rc, ms = 0;
    struct state st;

    if (at < 0)
        return at;
    if (parse_interval(interval, &ms, err) < 0)
        return -err->code;
    rc = state_open(&st, &rt->pool, rt->root, argv[at], false, err);
    if (rc == 0 && state_status(&st) == STATUS_STOPPED)
        rc = err_set(err, EINVAL, "container with id %s is not running", st.id);
    if (rc == 0 && once)
        print_stats(&st);
    else if (rc == 0)
        rc = follow(&st, ms);
    state_close(&st);
    return rc;
}
