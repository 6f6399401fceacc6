/*
 * config.json, the parts every platform has: root, process, mounts, hooks (runtime-spec 1.3, config.md).
 * Everything here is hostile input: each value is checked once, here, and used as checked.
 */
#include "container/spec.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "container/caps.h"
#include "container/process.h"

const char *const hook_names[HOOK_KINDS] = {
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
};

static const struct {
    const char *name;
    int resource;
} rlimit_names[] = {
    {"RLIMIT_AS", RLIMIT_AS},
    {"RLIMIT_CORE", RLIMIT_CORE},
    {"RLIMIT_CPU", RLIMIT_CPU},
    {"RLIMIT_DATA", RLIMIT_DATA},
    {"RLIMIT_FSIZE", RLIMIT_FSIZE},
    {"RLIMIT_LOCKS", RLIMIT_LOCKS},
    {"RLIMIT_MEMLOCK", RLIMIT_MEMLOCK},
    {"RLIMIT_MSGQUEUE", RLIMIT_MSGQUEUE},
    {"RLIMIT_NICE", RLIMIT_NICE},
    {"RLIMIT_NOFILE", RLIMIT_NOFILE},
    {"RLIMIT_NPROC", RLIMIT_NPROC},
    {"RLIMIT_RSS", RLIMIT_RSS},
    {"RLIMIT_RTPRIO", RLIMIT_RTPRIO},
    {"RLIMIT_RTTIME", RLIMIT_RTTIME},
    {"RLIMIT_SIGPENDING", RLIMIT_SIGPENDING},
    {"RLIMIT_STACK", RLIMIT_STACK},
};

static int rlimit_number(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(rlimit_names); i++)
        if (strcmp(rlimit_names[i].name, name) == 0)
            return rlimit_names[i].resource;
    return -1;
}

static int parse_rlimits(struct pool *p, json_t *obj, struct spec_process *proc, struct err *err)
{
    json_t *arr;
    size_t n;

    if (json_arr(obj, "rlimits", &arr, err) < 0)
        return -err->code;
    n = json_len(arr);
    proc->rlimits = pool_array(p, n, sizeof(*proc->rlimits));
    for (size_t i = 0; i < n; i++) {
        struct spec_rlimit *r = &proc->rlimits[i];

        if (json_str(json_at(arr, i), "type", &r->name, err) < 0 ||
            json_u64(json_at(arr, i), "soft", UINT64_MAX, &r->soft, err) < 0 ||
            json_u64(json_at(arr, i), "hard", UINT64_MAX, &r->hard, err) < 0)
            return err_wrap(err, "process.rlimits");
        r->resource = r->name ? rlimit_number(r->name) : -1;
        if (r->resource < 0)
            return err_set(err, EINVAL, "invalid rlimit type %s", r->name ? r->name : "(none)");
        for (size_t j = 0; j < i; j++)
            if (proc->rlimits[j].resource == r->resource)
                return err_set(err, EINVAL, "rlimit %s is given twice", r->name);
    }
    proc->rlimit_count = n;
    return 0;
}

static int parse_caps(json_t *obj, struct spec_process *proc, struct err *err)
{
    static const char *const sets[CAP_SETS] = {
        "bounding", "effective", "permitted", "inheritable", "ambient",
    };
    json_t *caps;

    if (json_obj(obj, "capabilities", &caps, err) < 0)
        return -err->code;
    proc->has_caps = caps != NULL;
    for (size_t s = 0; s < CAP_SETS; s++) {
        json_t *arr;

        if (json_arr(caps, sets[s], &arr, err) < 0)
            return -err->code;
        for (size_t i = 0; i < json_len(arr); i++) {
            int cap = caps_number(json_object_get_string(json_at(arr, i)));

            /* Names of a newer kernel are ignored, as the specification asks (config.md, process). */
            if (cap >= 0)
                proc->caps[s] |= BIT(cap);
        }
    }
    return 0;
}

static int parse_user(struct pool *p, json_t *obj, struct spec_process *proc, struct err *err)
{
    json_t *user, *gids;

    if (json_obj(obj, "user", &user, err) < 0 || json_u32(user, "uid", &proc->uid, err) < 0 ||
        json_u32(user, "gid", &proc->gid, err) < 0 ||
        json_arr(user, "additionalGids", &gids, err) < 0)
        return err_wrap(err, "process.user");
    proc->has_umask = json_has(user, "umask");
    if (json_u32(user, "umask", &proc->umask, err) < 0)
        return err_wrap(err, "process.user");
    proc->gid_count = json_len(gids);
    proc->gids = pool_array(p, proc->gid_count, sizeof(u32));
    for (size_t i = 0; i < proc->gid_count; i++) {
        json_t *gid = json_at(gids, i);

        if (!json_object_is_type(gid, json_type_int) || json_object_get_int64(gid) < 0 ||
            json_object_get_int64(gid) > UINT32_MAX)
            return err_set(err, EINVAL, "process.user.additionalGids: entry %zu is no group id", i);
        proc->gids[i] = (u32)json_object_get_int64(gid);
    }
    return 0;
}

static int parse_cpu_affinity(json_t *obj, struct spec_process *proc, struct err *err)
{
    unsigned long bits[TASK_LIST_BITS / 8 / sizeof(unsigned long)];
    json_t *affinity;

    if (json_obj(obj, "execCPUAffinity", &affinity, err) < 0 ||
        json_str(affinity, "initial", &proc->cpus_initial, err) < 0 ||
        json_str(affinity, "final", &proc->cpus_final, err) < 0)
        return -err->code;
    for (size_t i = 0; i < 2; i++) {
        const char *list = i ? proc->cpus_final : proc->cpus_initial;

        if (list && task_parse_list(list, bits, TASK_LIST_BITS) < 0)
            return err_set(err, EINVAL, "execCPUAffinity.%s: \"%s\" is no list of processors",
                           i ? "final" : "initial", list);
    }
    return 0;
}

static int parse_process_extras(json_t *obj, struct spec_process *proc, struct err *err)
{
    json_t *size, *ioprio, *scheduler;
    s64 oom = 0;

    if (json_obj(obj, "consoleSize", &size, err) < 0 ||
        json_u32(size, "height", &proc->rows, err) < 0 ||
        json_u32(size, "width", &proc->cols, err) < 0 ||
        json_s64(obj, "oomScoreAdj", -1000, 1000, &oom, err) < 0 ||
        json_obj(obj, "ioPriority", &ioprio, err) < 0 ||
        json_obj(obj, "scheduler", &scheduler, err) < 0)
        return -err->code;
    proc->has_oom = json_has(obj, "oomScoreAdj");
    proc->oom_score = (s32)oom;
    proc->has_ioprio = ioprio != NULL;
    if (ioprio && spec_parse_ioprio(ioprio, &proc->ioprio, err) < 0)
        return -err->code;
    if (scheduler && spec_parse_scheduler(scheduler, &proc->scheduler, err) < 0)
        return -err->code;
    return parse_cpu_affinity(obj, proc, err);
}

int spec_parse_process(struct pool *p, json_t *obj, struct spec_process *proc, struct err *err)
{
    if (json_flag(obj, "terminal", &proc->terminal, err) < 0 ||
        json_flag(obj, "noNewPrivileges", &proc->no_new_privs, err) < 0 ||
        json_strv(p, obj, "args", &proc->args, err) < 0 ||
        json_strv(p, obj, "env", &proc->env, err) < 0 ||
        json_str(obj, "cwd", &proc->cwd, err) < 0 ||
        json_str(obj, "apparmorProfile", &proc->apparmor, err) < 0 ||
        json_str(obj, "selinuxLabel", &proc->selinux, err) < 0 ||
        parse_user(p, obj, proc, err) < 0 || parse_rlimits(p, obj, proc, err) < 0 ||
        parse_caps(obj, proc, err) < 0 || parse_process_extras(obj, proc, err) < 0)
        return err_wrap(err, "process");
    if (proc->args.n == 0 || !proc->args.v[0][0])
        return err_set(err, EINVAL, "args must not be empty");
    if (!proc->cwd || !proc->cwd[0])
        return err_set(err, EINVAL, "Cwd property must not be empty");
    if (proc->cwd[0] != '/')
        return err_set(err, EINVAL, "Cwd must be an absolute path");
    return 0;
}

static int parse_hook_list(struct spec *s, json_t *arr, struct spec_hooks *ret, struct err *err)
{
    ret->v = pool_array(s->pool, json_len(arr), sizeof(*ret->v));
    for (size_t i = 0; i < json_len(arr); i++) {
        struct spec_hook *h = &ret->v[i];
        json_t *obj = json_at(arr, i);
        s64 timeout = 0;

        if (json_str(obj, "path", &h->path, err) < 0 ||
            json_strv(s->pool, obj, "args", &h->args, err) < 0 ||
            json_strv(s->pool, obj, "env", &h->env, err) < 0 ||
            json_s64(obj, "timeout", 1, INT32_MAX / 1000, &timeout, err) < 0)
            return -err->code;
        if (!h->path || h->path[0] != '/')
            return err_set(err, EINVAL, "hook %zu needs an absolute path", i);
        h->timeout_s = (int)timeout;
        ret->n++;
    }
    return 0;
}

static int parse_hooks(struct spec *s, struct err *err)
{
    json_t *hooks;

    if (json_obj(s->doc, "hooks", &hooks, err) < 0)
        return -err->code;
    for (size_t k = 0; k < HOOK_KINDS; k++) {
        json_t *arr;

        if (json_arr(hooks, hook_names[k], &arr, err) < 0 ||
            parse_hook_list(s, arr, &s->hooks[k], err) < 0)
            return err_wrap(err, "hooks.%s", hook_names[k]);
    }
    return 0;
}

static int parse_mounts(struct spec *s, struct err *err)
{
    json_t *arr;

    if (json_arr(s->doc, "mounts", &arr, err) < 0)
        return -err->code;
    s->mounts = pool_array(s->pool, json_len(arr), sizeof(*s->mounts));
    for (size_t i = 0; i < json_len(arr); i++) {
        struct spec_mount *m = &s->mounts[i];
        json_t *obj = json_at(arr, i);

        if (json_str(obj, "destination", &m->dest, err) < 0 ||
            json_str(obj, "type", &m->type, err) < 0 ||
            json_str(obj, "source", &m->source, err) < 0 ||
            json_strv(s->pool, obj, "options", &m->options, err) < 0 ||
            spec_parse_idmaps(s->pool, obj, "uidMappings", &m->uid_maps, err) < 0 ||
            spec_parse_idmaps(s->pool, obj, "gidMappings", &m->gid_maps, err) < 0)
            return err_wrap(err, "mounts[%zu]", i);
        if (!m->dest || !m->dest[0])
            return err_set(err, EINVAL, "mounts[%zu]: no destination", i);
        if ((m->uid_maps.n == 0) != (m->gid_maps.n == 0))
            return err_set(err, EINVAL, "mounts[%zu]: uidMappings and gidMappings go together", i);
        s->mount_count++;
    }
    return 0;
}

/* Any 1.x is taken, a pre-release too; anything else is not a version we know (config.md). */
static int check_version(const char *version, struct err *err)
{
    unsigned major, minor, patch;
    int used = 0;

    if (!version)
        return err_set(err, EINVAL, "ociVersion is missing");
    if (sscanf(version, "%3u.%3u.%3u%n", &major, &minor, &patch, &used) != 3 ||
        (version[used] && version[used] != '-' && version[used] != '+'))
        return err_set(err, EINVAL, "invalid ociVersion %s", version);
    if (major != 1)
        return err_set(err, EINVAL, "unsupported ociVersion %s: 1.x is needed", version);
    return 0;
}

static int parse_root(struct spec *s, struct err *err)
{
    json_t *root;

    if (json_obj(s->doc, "root", &root, err) < 0 ||
        json_str(root, "path", &s->root_path, err) < 0 ||
        json_flag(root, "readonly", &s->root_readonly, err) < 0)
        return -err->code;
    if (!s->root_path || !s->root_path[0])
        return err_set(err, EINVAL, "root.path is missing");
    return 0;
}

int spec_parse(struct spec *s, struct pool *pool, json_t *doc, struct err *err)
{
    json_t *process, *linux_obj;

    s->pool = pool;
    s->doc = doc;
    if (!json_object_is_type(doc, json_type_object))
        return err_set(err, EINVAL, "config.json does not hold an object");
    if (json_str(doc, "ociVersion", &s->version, err) < 0 || check_version(s->version, err) < 0 ||
        parse_root(s, err) < 0 || json_str(doc, "hostname", &s->hostname, err) < 0 ||
        json_str(doc, "domainname", &s->domainname, err) < 0 ||
        json_obj(doc, "annotations", &s->annotations, err) < 0 ||
        json_obj(doc, "process", &process, err) < 0 || json_obj(doc, "linux", &linux_obj, err) < 0)
        return -err->code;
    s->has_process = process != NULL;
    s->process.cwd = "/"; /* of a container that is created without a process */
    if (process && spec_parse_process(pool, process, &s->process, err) < 0)
        return -err->code;
    if (parse_mounts(s, err) < 0 || parse_hooks(s, err) < 0)
        return -err->code;
    if (spec_parse_linux(s, linux_obj, err) < 0)
        return err_wrap(err, "linux");
    return spec_check(s, err);
}

void spec_fini(struct spec *s)
{
    json_object_put(s->doc);
    s->doc = NULL;
}
