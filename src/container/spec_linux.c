/* config.json's `linux` object (runtime-spec 1.3, config-linux.md), except scheduling words: spec_sched.c. */
#include "container/spec.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "container/sys.h"

const struct ns_type ns_types[NS_KINDS] = {
    [NS_USER] = {"user", "user", CLONE_NEWUSER},
    [NS_TIME] = {"time", "time", CLONE_NEWTIME},
    [NS_CGROUP] = {"cgroup", "cgroup", CLONE_NEWCGROUP},
    [NS_IPC] = {"ipc", "ipc", CLONE_NEWIPC},
    [NS_UTS] = {"uts", "uts", CLONE_NEWUTS},
    [NS_NET] = {"network", "net", CLONE_NEWNET},
    [NS_PID] = {"pid", "pid", CLONE_NEWPID},
    [NS_MOUNT] = {"mount", "mnt", CLONE_NEWNS},
};

static int parse_namespaces(struct spec *s, json_t *obj, struct err *err)
{
    json_t *arr;

    if (json_arr(obj, "namespaces", &arr, err) < 0)
        return -err->code;
    for (size_t i = 0; i < json_len(arr); i++) {
        const char *type = NULL, *path = NULL;
        size_t k = 0;

        if (json_str(json_at(arr, i), "type", &type, err) < 0 ||
            json_str(json_at(arr, i), "path", &path, err) < 0)
            return err_wrap(err, "namespaces");
        while (k < NS_KINDS && (!type || strcmp(ns_types[k].name, type) != 0))
            k++;
        if (k == NS_KINDS)
            return err_set(err, EINVAL, "invalid namespace type %s", type ? type : "(none)");
        if (s->ns[k].present)
            return err_set(err, EINVAL, "malformed spec file: duplicated ns %s", type);
        if (path && path[0] && path[0] != '/')
            return err_set(err, EINVAL, "namespace path %s is not absolute", path);
        s->ns[k] = (struct spec_ns){true, path && path[0] ? path : NULL};
    }
    return 0;
}

static bool maps_overlap(const struct spec_idmap *a, const struct spec_idmap *b)
{
    return ((u64)a->container < (u64)b->container + b->size &&
            (u64)b->container < (u64)a->container + a->size) ||
           ((u64)a->host < (u64)b->host + b->size && (u64)b->host < (u64)a->host + a->size);
}

int spec_parse_idmaps(struct pool *p, json_t *obj, const char *key, struct spec_idmaps *ret,
                      struct err *err)
{
    json_t *arr;

    if (json_arr(obj, key, &arr, err) < 0)
        return -err->code;
    if (json_len(arr) > 340) /* the kernel's own limit, user_namespaces(7) */
        return err_set(err, EINVAL, "%s: more than 340 entries", key);
    ret->v = pool_array(p, json_len(arr), sizeof(*ret->v));
    for (size_t i = 0; i < json_len(arr); i++) {
        struct spec_idmap *m = &ret->v[i];

        if (json_u32(json_at(arr, i), "containerID", &m->container, err) < 0 ||
            json_u32(json_at(arr, i), "hostID", &m->host, err) < 0 ||
            json_u32(json_at(arr, i), "size", &m->size, err) < 0)
            return err_wrap(err, "%s", key);
        if (m->size == 0 || (u64)m->container + m->size > UINT32_MAX ||
            (u64)m->host + m->size > UINT32_MAX)
            return err_set(err, EINVAL, "%s: entry %zu is empty or too large", key, i);
        for (size_t j = 0; j < i; j++)
            if (maps_overlap(m, &ret->v[j]))
                return err_set(err, EINVAL, "%s: entries %zu and %zu overlap", key, j, i);
        ret->n++;
    }
    return 0;
}

static int parse_device(json_t *obj, struct spec_device *d, struct err *err)
{
    const char *type = NULL;
    s64 major = 0, minor = 0;

    d->mode = 0666;
    if (json_str(obj, "path", &d->path, err) < 0 || json_str(obj, "type", &type, err) < 0 ||
        json_s64(obj, "major", 0, UINT32_MAX, &major, err) < 0 ||
        json_s64(obj, "minor", 0, UINT32_MAX, &minor, err) < 0 ||
        json_u32(obj, "fileMode", &d->mode, err) < 0 || json_u32(obj, "uid", &d->uid, err) < 0 ||
        json_u32(obj, "gid", &d->gid, err) < 0)
        return -err->code;
    if (!d->path || d->path[0] != '/')
        return err_set(err, EINVAL, "a device needs an absolute path");
    if (!type || strlen(type) != 1 || !strchr("cubp", type[0]))
        return err_set(err, EINVAL, "device %s: invalid type", d->path);
    d->type = type[0] == 'u' ? 'c' : type[0];
    d->major = (u32)major;
    d->minor = (u32)minor;
    d->mode &= 07777;
    return 0;
}

static int parse_devices(struct spec *s, json_t *obj, struct err *err)
{
    json_t *arr;

    if (json_arr(obj, "devices", &arr, err) < 0)
        return -err->code;
    s->devices = pool_array(s->pool, json_len(arr), sizeof(*s->devices));
    for (size_t i = 0; i < json_len(arr); i++) {
        if (parse_device(json_at(arr, i), &s->devices[i], err) < 0)
            return err_wrap(err, "devices");
        s->device_count++;
    }
    return 0;
}

static int parse_sysctl(struct spec *s, json_t *obj, struct err *err)
{
    json_t *map;

    if (json_obj(obj, "sysctl", &map, err) < 0)
        return -err->code;
    if (!map)
        return 0;
    s->sysctl = pool_array(s->pool, (size_t)json_object_object_length(map), sizeof(*s->sysctl));
    json_object_object_foreach(map, key, value)
    {
        struct spec_pair *pair = &s->sysctl[s->sysctl_count++];

        pair->key = key;
        if (!json_object_is_type(value, json_type_string))
            return err_set(err, EINVAL, "sysctl.%s is not a string", key);
        pair->value = json_object_get_string(value);
    }
    return 0;
}

static int parse_netdevs(struct spec *s, json_t *obj, struct err *err)
{
    json_t *map;

    if (json_obj(obj, "netDevices", &map, err) < 0)
        return -err->code;
    if (!map)
        return 0;
    s->netdevs = pool_array(s->pool, (size_t)json_object_object_length(map), sizeof(*s->netdevs));
    json_object_object_foreach(map, key, value)
    {
        struct spec_netdev *d = &s->netdevs[s->netdev_count++];

        d->host_name = d->name = key;
        if (json_str(value, "name", &d->name, err) < 0)
            return err_wrap(err, "netDevices.%s", key);
        if (!d->name[0]) /* as engines in Go write what is not there */
            d->name = key;
        /* A % would be the kernel's to replace, and nobody would know by what. */
        if (strlen(d->name) > 15 || strpbrk(d->name, "/:% \t\n") || strcmp(d->name, ".") == 0 ||
            strcmp(d->name, "..") == 0)
            return err_set(err, EINVAL,
                           "netDevices.%s: invalid device name \"%s\": at most 15 characters, none "
                           "of them / : %% or space",
                           key, d->name);
    }
    return 0;
}

static int parse_time_offsets(struct spec *s, json_t *obj, struct err *err)
{
    static const char *const clocks[2] = {"monotonic", "boottime"};
    json_t *offsets;

    if (json_obj(obj, "timeOffsets", &offsets, err) < 0)
        return -err->code;
    s->has_time_offsets = offsets != NULL;
    if (offsets) {
        json_object_object_foreach(offsets, key, value)
        {
            if (value && strcmp(key, clocks[0]) != 0 && strcmp(key, clocks[1]) != 0)
                return err_set(
                    err, EINVAL,
                    "timeOffsets: \"%s\": only monotonic and boottime can have an offset", key);
        }
    }
    for (size_t i = 0; i < 2; i++) {
        json_t *clock;
        u64 ns = 0;

        if (json_obj(offsets, clocks[i], &clock, err) < 0 ||
            json_s64(clock, "secs", INT64_MIN, INT64_MAX, &s->time_offset_s[i], err) < 0 ||
            json_u64(clock, "nanosecs", 999999999, &ns, err) < 0)
            return err_wrap(err, "timeOffsets.%s", clocks[i]);
        s->time_offset_ns[i] = (u32)ns;
    }
    return 0;
}

static int parse_propagation(struct spec *s, json_t *obj, struct err *err)
{
    static const char *const known[] = {"private", "rprivate", "slave",      "rslave",
                                        "shared",  "rshared",  "unbindable", "runbindable"};

    if (json_str(obj, "rootfsPropagation", &s->rootfs_propagation, err) < 0)
        return -err->code;
    if (!s->rootfs_propagation || !s->rootfs_propagation[0]) {
        s->rootfs_propagation = NULL;
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strcmp(known[i], s->rootfs_propagation) == 0)
            return 0;
    return err_set(err, EINVAL, "rootfsPropagation=%s is not supported", s->rootfs_propagation);
}

static int parse_memory_words(struct spec *s, json_t *obj, struct err *err)
{
    json_t *personality, *mempolicy;

    if (json_obj(obj, "personality", &personality, err) < 0 ||
        json_obj(obj, "memoryPolicy", &mempolicy, err) < 0)
        return -err->code;
    s->has_personality = personality != NULL;
    if (personality && spec_parse_personality(personality, &s->personality, err) < 0)
        return -err->code;
    return mempolicy ? spec_parse_mempolicy(mempolicy, &s->mempolicy, err) : 0;
}

int spec_parse_linux(struct spec *s, json_t *obj, struct err *err)
{
    if (parse_namespaces(s, obj, err) < 0 ||
        spec_parse_idmaps(s->pool, obj, "uidMappings", &s->uid_maps, err) < 0 ||
        spec_parse_idmaps(s->pool, obj, "gidMappings", &s->gid_maps, err) < 0 ||
        parse_devices(s, obj, err) < 0 || parse_sysctl(s, obj, err) < 0 ||
        parse_netdevs(s, obj, err) < 0 || parse_time_offsets(s, obj, err) < 0 ||
        parse_propagation(s, obj, err) < 0 || parse_memory_words(s, obj, err) < 0)
        return -err->code;
    if (json_str(obj, "cgroupsPath", &s->cgroups_path, err) < 0 ||
        json_obj(obj, "resources", &s->resources, err) < 0 ||
        json_obj(obj, "seccomp", &s->seccomp, err) < 0 ||
        json_obj(obj, "intelRdt", &s->intel_rdt, err) < 0 ||
        json_str(obj, "mountLabel", &s->mount_label, err) < 0 ||
        json_strv(s->pool, obj, "maskedPaths", &s->masked, err) < 0 ||
        json_strv(s->pool, obj, "readonlyPaths", &s->readonly, err) < 0)
        return -err->code;
    return 0;
}
