/* `update`: new limits for a running container, from a file or from options; the rest stays as it is. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "container/rdt.h"
#include "container/runtime.h"
#include "container/systemd.h"

/* Where an option goes in `resources`; numbers unless `text`. */
struct target {
    const char *option, *section, *member;
    bool text;
};

static const struct target targets[] = {
    {"blkio-weight", "blockIO", "weight", false},
    {"cpu-period", "cpu", "period", false},
    {"cpu-quota", "cpu", "quota", false},
    {"cpu-burst", "cpu", "burst", false},
    {"cpu-share", "cpu", "shares", false},
    {"cpu-rt-period", "cpu", "realtimePeriod", false},
    {"cpu-rt-runtime", "cpu", "realtimeRuntime", false},
    {"cpu-idle", "cpu", "idle", false},
    {"cpuset-cpus", "cpu", "cpus", true},
    {"cpuset-mems", "cpu", "mems", true},
    {"memory", "memory", "limit", false},
    {"memory-reservation", "memory", "reservation", false},
    {"memory-swap", "memory", "swap", false},
    {"kernel-memory", NULL, NULL, false},
    {"kernel-memory-tcp", NULL, NULL, false},
    {"pids-limit", "pids", "limit", false},
};

/* "512m", "-1", "4096": bytes, as docker writes sizes. */
static int parse_size(const char *text, s64 *ret)
{
    static const char suffixes[] = "kmgtp";
    char *end;
    s64 value = strtoll(text, &end, 10);
    const char *suffix;

    if (end == text)
        return -EINVAL;
    if (*end) {
        suffix = strchr(suffixes, *end | 0x20);
        if (!suffix || (end[1] && strcasecmp(end + 1, "b") != 0 && strcasecmp(end + 1, "ib") != 0))
            return -EINVAL;
        if (MUL_OVERFLOWS(value, 1ll << (10 * (suffix - suffixes + 1)), &value))
            return -ERANGE;
    }
    *ret = value;
    return 0;
}

static int add_target(json_t *res, const struct target *t, const char *value, struct err *err)
{
    json_t *section;
    s64 number = 0;

    if (!t->section)
        return 0;
    if (!t->text && parse_size(value, &number) < 0)
        return err_set(err, EINVAL, "invalid value for %s: %s", t->option, value);
    section = json_get(res, t->section);
    if (!section) {
        section = json_object_new_object();
        json_object_object_add(res, t->section, section);
    }
    json_object_object_add(section, t->member,
                           t->text ? json_object_new_string(value) : json_object_new_int64(number));
    return 0;
}

static int load_resources(const char *path, const char *const *values, json_t **ret,
                          struct err *err)
{
    if (path && strcmp(path, "-") == 0)
        return json_load_fd(STDIN_FILENO, "the resources on standard input", ret, err);
    if (path)
        return json_load(path, ret, err);
    *ret = json_object_new_object();
    for (size_t i = 0; i < ARRAY_LEN(targets); i++)
        if (values[i] && add_target(*ret, &targets[i], values[i], err) < 0) {
            json_object_put(*ret);
            return -err->code;
        }
    return 0;
}

/* Members of `from` replace or join those of `into`, two levels deep, for the saved configuration. */
static void merge(json_t *into, json_t *from)
{
    json_object_object_foreach(from, key, value)
    {
        json_t *old = json_get(into, key);

        if (old && json_object_is_type(old, json_type_object) &&
            json_object_is_type(value, json_type_object))
            merge(old, value);
        else
            json_object_object_add(into, key, json_object_get(value));
    }
}

static int update_saved(struct state *st, json_t *res, struct err *err)
{
    struct spec s = {0};
    json_t *linux_obj;
    int rc = state_spec(st, &s, err);

    if (rc == 0 && json_object_is_type(res, json_type_object) &&
        json_obj(s.doc, "linux", &linux_obj, err) == 0 && linux_obj) {
        if (!s.resources) {
            s.resources = json_object_new_object();
            json_object_object_add(linux_obj, "resources", s.resources);
        }
        merge(s.resources, res);
        rc = state_save_config(st, s.doc, err);
    }
    spec_fini(&s);
    return rc;
}

static int apply(struct state *st, json_t *res, const char *l3, const char *mem_bw, struct err *err)
{
    enum status status = state_status(st);

    if (status == STATUS_STOPPED || status == STATUS_CREATING)
        return err_set(err, EINVAL, "container not running");
    if (!json_object_is_type(res, json_type_object))
        return err_set(err, EINVAL, "the resources are no JSON object");
    if (st->systemd_unit && systemd_update(st, res, err) < 0)
        return -err->code;
    if (cgroup_limit(&st->cgroup, res, false, err) < 0 || rdt_update(st, l3, mem_bw, err) < 0)
        return -err->code;
    return update_saved(st, res, err);
}

int verb_update(struct runtime *rt, int argc, char **argv, struct err *err)
{
    const char *path = NULL, *l3 = NULL, *mem_bw = NULL, *values[ARRAY_LEN(targets)] = {NULL};
    struct option opts[ARRAY_LEN(targets) + 3] = {
        {"resources", 'r', OPTION_VALUE, &path, NULL,
         "path to the file containing the resources to update or '-' to read from the standard "
         "input"},
        {"l3-cache-schema", 0, OPTION_VALUE, &l3, NULL,
         "the string of Intel RDT/CAT L3 cache schema"},
        {"mem-bw-schema", 0, OPTION_VALUE, &mem_bw, NULL,
         "the string of Intel RDT/MBA memory bandwidth schema"},
    };
    json_t *res = NULL;
    struct state st;
    int at, rc;

    for (size_t i = 0; i < ARRAY_LEN(targets); i++)
        opts[3 + i] = (struct option){targets[i].option,
                                      0,
                                      OPTION_VALUE,
                                      &values[i],
                                      NULL,
                                      targets[i].section ? targets[i].member
                                                         : "ignored: the kernel has no such limit"};
    at = verb_parse(rt, opts, ARRAY_LEN(opts), 1, 1, argc, argv, err);
    if (at < 0)
        return at;
    rc = state_open(&st, &rt->pool, rt->root, argv[at], true, err);
    if (rc == 0)
        rc = load_resources(path, values, &res, err);
    if (rc == 0) {
        rc = apply(&st, res, l3, mem_bw, err);
        json_object_put(res);
    }
    state_close(&st);
    return rc;
}
