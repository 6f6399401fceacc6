/*
 * Typed access to JSON. The text may come from anyone who can call the runtime: it is read once, parsed
 * strictly with bounded depth, and every value is checked for type and range where it is taken out.
 * json-c is used because it keeps 64-bit unsigned numbers, which RLIM_INFINITY needs.
 */
#include "container/json.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json_tokener.h>
#include <json-c/json_util.h>

#include "container/file.h"

int json_parse(const char *text, size_t len, const char *what, json_t **ret, struct err *err)
{
    struct json_tokener *tok = json_tokener_new_ex(JSON_MAX_DEPTH);
    enum json_tokener_error why;
    json_t *obj;
    size_t end;

    if (!tok)
        return err_set(err, ENOMEM, "%s: out of memory", what);
    if (len >= INT_MAX) {
        json_tokener_free(tok);
        return err_set(err, EFBIG, "%s: too large", what);
    }
    json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS);
    /* The NUL tells the tokener that a number at the very end is complete. */
    obj = json_tokener_parse_ex(tok, text, (int)len + 1);
    why = json_tokener_get_error(tok);
    end = json_tokener_get_parse_end(tok);
    json_tokener_free(tok);
    while (end < len && strchr(" \t\r\n", text[end]) && text[end])
        end++;
    if (!obj || why != json_tokener_success || end < len) {
        json_object_put(obj);
        return err_set(err, EINVAL, "%s: invalid JSON at byte %zu: %s", what, end,
                       why == json_tokener_success ? "text after the value"
                                                   : json_tokener_error_desc(why));
    }
    *ret = obj;
    return 0;
}

int json_load_fd(int fd, const char *what, json_t **ret, struct err *err)
{
    auto_free char *text = NULL;
    size_t len;
    int rc = file_read_all(fd, JSON_MAX_BYTES, &text, &len);

    if (rc < 0)
        return err_sys(err, -rc, "read %s", what);
    return json_parse(text, len, what, ret, err);
}

int json_load(const char *path, json_t **ret, struct err *err)
{
    /* Not blocking: a FIFO put in the file's place must not hold us. */
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return err_sys(err, errno, "open %s", path);
    return json_load_fd(fd, path, ret, err);
}

json_t *json_get(json_t *obj, const char *key)
{
    json_t *member = NULL;

    if (!obj || !json_object_is_type(obj, json_type_object))
        return NULL;
    json_object_object_get_ex(obj, key, &member);
    return member;
}

json_t *json_path(json_t *obj, const char *path)
{
    char key[64];

    while (obj && *path) {
        size_t len = strcspn(path, ".");

        if (len >= sizeof(key))
            return NULL;
        memcpy(key, path, len);
        key[len] = '\0';
        obj = json_get(obj, key);
        path += len + (path[len] == '.');
    }
    return obj;
}

static int of_type(json_t *obj, const char *key, enum json_type type, json_t **ret, struct err *err)
{
    json_t *member;

    *ret = NULL;
    if (obj && !json_object_is_type(obj, json_type_object))
        return err_set(err, EINVAL, "an object is needed where %s is looked for", key);
    member = json_get(obj, key);
    if (member && !json_object_is_type(member, type))
        return err_set(err, EINVAL, "%s: %s expected, not %s", key, json_type_to_name(type),
                       json_type_to_name(json_object_get_type(member)));
    *ret = member;
    return 0;
}

int json_obj(json_t *obj, const char *key, json_t **ret, struct err *err)
{
    return of_type(obj, key, json_type_object, ret, err);
}

int json_arr(json_t *obj, const char *key, json_t **ret, struct err *err)
{
    return of_type(obj, key, json_type_array, ret, err);
}

static int plain_string(json_t *value, const char *key, const char **ret, struct err *err)
{
    const char *s = json_object_get_string(value);

    if (strlen(s) != (size_t)json_object_get_string_len(value))
        return err_set(err, EINVAL, "%s: a string with a NUL inside", key);
    *ret = s;
    return 0;
}

int json_str(json_t *obj, const char *key, const char **ret, struct err *err)
{
    json_t *member;
    int rc = of_type(obj, key, json_type_string, &member, err);

    if (rc < 0 || !member)
        return rc;
    return plain_string(member, key, ret, err);
}

int json_flag(json_t *obj, const char *key, bool *ret, struct err *err)
{
    json_t *member;
    int rc = of_type(obj, key, json_type_boolean, &member, err);

    if (rc == 0 && member)
        *ret = json_object_get_boolean(member);
    return rc;
}

int json_s64(json_t *obj, const char *key, s64 min, s64 max, s64 *ret, struct err *err)
{
    json_t *member;
    s64 value;
    int rc = of_type(obj, key, json_type_int, &member, err);

    if (rc < 0 || !member)
        return rc;
    value = json_object_get_int64(member); /* clamps what does not fit */
    if ((value == INT64_MAX && json_object_get_uint64(member) > INT64_MAX) || value < min ||
        value > max)
        return err_set(err, EINVAL, "%s: %s is out of range", key, json_object_get_string(member));
    *ret = value;
    return 0;
}

int json_u64(json_t *obj, const char *key, u64 max, u64 *ret, struct err *err)
{
    json_t *member;
    int rc = of_type(obj, key, json_type_int, &member, err);

    if (rc < 0 || !member)
        return rc;
    if (json_object_get_int64(member) < 0 || json_object_get_uint64(member) > max)
        return err_set(err, EINVAL, "%s: %s is out of range", key, json_object_get_string(member));
    *ret = json_object_get_uint64(member);
    return 0;
}

int json_u32(json_t *obj, const char *key, u32 *ret, struct err *err)
{
    u64 value = *ret;
    int rc = json_u64(obj, key, UINT32_MAX, &value, err);

    *ret = (u32)value;
    return rc;
}

int json_strv(struct pool *p, json_t *obj, const char *key, struct strv *ret, struct err *err)
{
    struct strv list = {pool_array(p, 1, sizeof(char *)), 0};
    json_t *arr;
    int rc = json_arr(obj, key, &arr, err);

    if (rc < 0)
        return rc;
    for (size_t i = 0; i < json_len(arr); i++) {
        json_t *item = json_at(arr, i);
        const char *s = NULL;

        if (!item || !json_object_is_type(item, json_type_string))
            return err_set(err, EINVAL, "%s: entry %zu is not a string", key, i);
        rc = plain_string(item, key, &s, err);
        if (rc < 0)
            return rc;
        pool_strv_add(p, &list, (char *)s);
    }
    *ret = list;
    return 0;
}

bool json_has(json_t *obj, const char *key)
{
    return json_get(obj, key) != NULL;
}

size_t json_len(json_t *arr)
{
    return arr && json_object_is_type(arr, json_type_array) ? json_object_array_length(arr) : 0;
}

json_t *json_at(json_t *arr, size_t i)
{
    return json_object_array_get_idx(arr, i);
}
