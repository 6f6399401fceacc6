/* Limits: what v1 and v2 share, and the order in which the parts are applied (config-linux.md, resources). */
#include "container/cgroup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "container/cgroup_value.h"

int value_s64(json_t *res, const char *path, s64 *ret, struct err *err)
{
    json_t *v = json_path(res, path);

    if (!v)
        return 0;
    if (!json_object_is_type(v, json_type_int))
        return err_set(err, EINVAL, "resources.%s is no integer", path);
    *ret = json_object_get_int64(v);
    return 1;
}

int value_text(json_t *res, const char *path, char *buf, size_t size, struct err *err)
{
    json_t *v = json_path(res, path);

    if (!v)
        return 0;
    if (json_object_is_type(v, json_type_int))
        snprintf(buf, size, "%s", json_object_get_string(v));
    else if (json_object_is_type(v, json_type_boolean))
        snprintf(buf, size, "%d", json_object_get_boolean(v));
    else if (json_object_is_type(v, json_type_string) &&
             (size_t)json_object_get_string_len(v) < size &&
             !strchr(json_object_get_string(v), '\n'))
        snprintf(buf, size, "%s", json_object_get_string(v));
    else
        return err_set(err, EINVAL, "resources.%s has the wrong type or size", path);
    return 1;
}

const struct cgroup_dir *value_dir(const struct cgroup *cg, const char *controller,
                                   const char *what, struct err *err)
{
    const struct cgroup_dir *d = cgroup_find(cg, controller);

    if (!d)
        err_set(err, ENOENT,
                "%s cannot be limited: no %s cgroup controller is mounted for this container", what,
                controller);
    return d;
}

/* hugepageLimits: [{"pageSize": "2MB", "limit": n}]. In a hybrid the v2 tree may own the controller. */
static int limit_hugetlb(const struct cgroup *cg, json_t *res, struct err *err)
{
    json_t *arr;

    if (json_arr(res, "hugepageLimits", &arr, err) < 0)
        return -err->code;
    for (size_t i = 0; i < json_len(arr); i++) {
        const struct cgroup_dir *d = cgroup_find(cg, "hugetlb");
        const char *size = NULL;
        char file[80], text[32];
        u64 limit = 0;

        if (!d)
            d = cgroup_v2(cg);
        if (!d)
            return err_set(err, ENOENT,
                           "huge pages cannot be limited: no hugetlb cgroup controller");
        if (json_str(json_at(arr, i), "pageSize", &size, err) < 0 ||
            json_u64(json_at(arr, i), "limit", UINT64_MAX, &limit, err) < 0)
            return err_wrap(err, "hugepageLimits");
        if (!size || strlen(size) > 16 || strpbrk(size, "/."))
            return err_set(err, EINVAL, "hugepageLimits: invalid pageSize");
        snprintf(file, sizeof(file), "hugetlb.%s.%s", size, d->v2 ? "max" : "limit_in_bytes");
        snprintf(text, sizeof(text), "%" PRIu64, limit);
        if (cgroup_write(d, file, text, err) < 0)
            return -err->code;
        /* The reservation limit came with Linux 5.7; without it the usage limit is all there is. */
        snprintf(file, sizeof(file), "hugetlb.%s.rsvd.%s", size, d->v2 ? "max" : "limit_in_bytes");
        cgroup_write(d, file, text, NULL);
    }
    return 0;
}

static int limit_rdma(const struct cgroup *cg, json_t *res, struct err *err)
{
    json_t *map;

    if (json_obj(res, "rdma", &map, err) < 0)
        return -err->code;
    if (!map || !json_object_object_length(map))
        return 0;
    json_object_object_foreach(map, device, limits)
    {
        const struct cgroup_dir *d = cgroup_find(cg, "rdma");
        u64 handles = UINT64_MAX, objects = UINT64_MAX;
        char text[256];
        int len;

        if (!d)
            d = cgroup_v2(cg);
        if (!d)
            return err_set(err, ENOENT, "RDMA cannot be limited: no rdma cgroup controller");
        if (json_u64(limits, "hcaHandles", UINT32_MAX, &handles, err) < 0 ||
            json_u64(limits, "hcaObjects", UINT32_MAX, &objects, err) < 0)
            return err_wrap(err, "rdma.%s", device);
        len = snprintf(text, sizeof(text), "%.100s", device);
        if (handles != UINT64_MAX)
            len +=
                snprintf(text + len, sizeof(text) - (size_t)len, " hca_handle=%" PRIu64, handles);
        if (objects != UINT64_MAX)
            snprintf(text + len, sizeof(text) - (size_t)len, " hca_object=%" PRIu64, objects);
        if (cgroup_write(d, "rdma.max", text, err) < 0)
            return -err->code;
    }
    return 0;
}

/* `unified`: v2 files by name. A key may name any file of the group, never a path. */
static int limit_unified(const struct cgroup *cg, json_t *res, struct err *err)
{
    const struct cgroup_dir *d = cgroup_v2(cg);
    json_t *map;

    if (json_obj(res, "unified", &map, err) < 0)
        return -err->code;
    if (!map || !json_object_object_length(map))
        return 0;
    if (!d)
        return err_set(err, EINVAL, "invalid configuration: cannot use unified on cgroup v1");
    json_object_object_foreach(map, key, value)
    {
        char copy[1024], *line, *save = NULL;

        if (strchr(key, '/') || !strchr(key, '.') || strlen(key) > 100)
            return err_set(err, EINVAL, "unified resource \"%s\" must be a file name (no slashes)",
                           key);
        if (!json_object_is_type(value, json_type_string))
            return err_set(err, EINVAL, "unified resource \"%s\" needs a string", key);
        snprintf(copy, sizeof(copy), "%s", json_object_get_string(value));
        for (line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
            if (cgroup_write(d, key, line, err) < 0)
                return err->code == ENOENT || err->code == EACCES
                           ? err_set(err, ENOENT,
                                     "unified resource \"%s\" can't be set: controller "
                                     "\"%.*s\" not available",
                                     key, (int)strcspn(key, "."), key)
                           : -err->code;
    }
    return 0;
}

int cgroup_limit(const struct cgroup *cg, json_t *res, bool initial, struct err *err)
{
    int rc = 0;

    if (initial && cgroup_limit_devices(cg, res, err) < 0)
        return err_wrap(err, "devices");
    if (!res)
        return 0;
    rc = cg->pure_v2 ? cgroup_limit_v2(cg, res, err) : cgroup_limit_v1(cg, res, err);
    if (rc < 0 || limit_hugetlb(cg, res, err) < 0 || limit_rdma(cg, res, err) < 0 ||
        limit_unified(cg, res, err) < 0)
        return -err->code;
    return 0;
}
