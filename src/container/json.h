/* Reading JSON with messages that name the key, over json-c. Absent and null are the same thing. */
#ifndef CONTAINER_JSON_H
#define CONTAINER_JSON_H

#include "base/err.h"
#include "container/pool.h"

#include <sys/types.h>

#include <json-c/json_object.h>
#include <json-c/linkhash.h>

typedef struct json_object json_t;

/* At most this many bytes are read from a file, and this many levels are followed. */
#define JSON_MAX_BYTES (32 * MiB)
#define JSON_MAX_DEPTH 64

/* text[len] must be a NUL. The caller releases *ret with json_object_put. `what` names the source in messages. */
int json_parse(const char *text, size_t len, const char *what, json_t **ret, struct err *err);
int json_load_fd(int fd, const char *what, json_t **ret, struct err *err);
int json_load(const char *path, json_t **ret, struct err *err);

/* The member, or NULL when obj is NULL, no object, or has no such member (or null). */
json_t *json_get(json_t *obj, const char *key);
/* Follows "a.b.c". */
json_t *json_path(json_t *obj, const char *path);

/*
 * Members by type: *ret is untouched when the member is absent (0 is returned); a wrong type is -EINVAL.
 * Strings stay owned by the object and hold no NUL inside.
 */
int json_obj(json_t *obj, const char *key, json_t **ret, struct err *err);
int json_arr(json_t *obj, const char *key, json_t **ret, struct err *err);
int json_str(json_t *obj, const char *key, const char **ret, struct err *err);
int json_flag(json_t *obj, const char *key, bool *ret, struct err *err);
int json_s64(json_t *obj, const char *key, s64 min, s64 max, s64 *ret, struct err *err);
int json_u64(json_t *obj, const char *key, u64 max, u64 *ret, struct err *err);
int json_u32(json_t *obj, const char *key, u32 *ret, struct err *err);
int json_strv(struct pool *p, json_t *obj, const char *key, struct strv *ret, struct err *err);

/* True when the member is there at all. */
bool json_has(json_t *obj, const char *key);
size_t json_len(json_t *arr);
json_t *json_at(json_t *arr, size_t i);

#endif
