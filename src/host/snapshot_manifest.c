/*
 * The manifest of a snapshot. The checksum is that of the object without it, keys sorted, no blanks: so it may be laid out
 * as people like it. Any thread; no state.
 */
#include "host/snapshot_manifest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static int checksum(const json_t *object, char ret_hex[9])
{
    auto_free char *text = json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS);

    if (!text)
        return -ENOMEM;
    snprintf(ret_hex, 9, "%08lx", crc32_z(0, (const Bytef *)text, strlen(text)));
    return 0;
}

static json_t *write_disk(const struct snapshot_disk *d)
{
    json_t *layers = json_array();

    for (unsigned i = 0; i < d->nlayers; i++)
        json_array_append_new(
            layers, json_pack("{s:s,s:s}", "path", d->layer[i].path, "format", d->layer[i].format));
    return json_pack("{s:I,s:b,s:o}", "size", (json_int_t)d->size, "readonly", (int)d->readonly,
                     "layers", layers);
}

json_t *manifest_write(const struct snapshot *s)
{
    json_t *disks = json_array();
    char sum[9];

    for (unsigned i = 0; i < s->ndisks; i++)
        json_array_append_new(disks, write_disk(&s->disk[i]));
    json_t *o =
        json_pack("{s:i,s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:b,s:o}", "format", MANIFEST_FORMAT,
                  "id", s->id, "name", s->name, "parent", s->parent, "guest", s->guest, "accel",
                  s->accel, "created", (json_int_t)(s->created_ns / NS_PER_S), "created_ns",
                  (json_int_t)(s->created_ns % NS_PER_S), "memory", (json_int_t)s->memory_bytes,
                  "pages", (json_int_t)s->pages, "compressed", (int)s->compressed, "disks", disks);
    if (o && !checksum(o, sum) && !json_object_set_new(o, "checksum", json_string(sum)))
        return o;
    json_decref(o);
    return NULL;
}

static int wrong(struct err *err, const char *what)
{
    return err_set(err, EBADMSG, "manifest: '%s' is missing or cannot be", what);
}

static int read_text(const json_t *o, const char *key, char *to, size_t size, struct err *err)
{
    const char *text = json_string_value(json_object_get(o, key));

    if (!text || strlen(text) >= size)
        return wrong(err, key);
    snprintf(to, size, "%s", text);
    return 0;
}

static int read_number(const json_t *o, const char *key, u64 max, u64 *ret, struct err *err)
{
    const json_t *n = json_object_get(o, key);

    if (!json_is_integer(n) || json_integer_value(n) < 0 || (u64)json_integer_value(n) > max)
        return wrong(err, key);
    *ret = (u64)json_integer_value(n);
    return 0;
}

static int read_layer(const json_t *o, struct snapshot_disk *d, struct err *err)
{
    struct snapshot_layer *l = &d->layer[d->nlayers];
    const char *path = json_string_value(json_object_get(o, "path"));

    if (!path || *path != '/' || read_text(o, "format", l->format, sizeof(l->format), err))
        return wrong(err, "layers");
    if (strcmp(l->format, "raw") && strcmp(l->format, "qcow2"))
        return wrong(err, "format");
    l->path = strdup(path);
    if (!l->path)
        return err_set(err, ENOMEM, "no memory");
    d->nlayers++;
    return 0;
}

static int read_disk(const json_t *o, struct snapshot_disk *d, struct err *err)
{
    const json_t *layers = json_object_get(o, "layers"), *readonly = json_object_get(o, "readonly");
    int rc = read_number(o, "size", INT64_MAX, &d->size, err);

    if (rc)
        return rc;
    if (!json_is_boolean(readonly) || !json_array_size(layers) ||
        json_array_size(layers) > SNAPSHOT_LAYERS)
        return wrong(err, "layers");
    d->readonly = json_is_true(readonly);
    for (size_t i = 0; i < json_array_size(layers) && !rc; i++)
        rc = read_layer(json_array_get(layers, i), d, err);
    return rc;
}

static int read_disks(const json_t *o, struct snapshot *s, struct err *err)
{
    const json_t *disks = json_object_get(o, "disks");
    int rc = 0;

    if (!json_is_array(disks) || json_array_size(disks) > VM_DISKS)
        return wrong(err, "disks");
    s->disk = calloc(VM_DISKS, sizeof(*s->disk));
    if (!s->disk)
        return err_set(err, ENOMEM, "no memory");
    for (size_t i = 0; i < json_array_size(disks) && !rc; i++) {
        s->ndisks++;
        rc = read_disk(json_array_get(disks, i), &s->disk[i], err);
    }
    return rc;
}

static bool is_id(const char *id)
{
    return strlen(id) == RECORD_ID_LEN && strspn(id, "0123456789abcdef") == RECORD_ID_LEN;
}

static int read_object(const json_t *o, struct snapshot *s, struct err *err)
{
    u64 created = 0, fraction = 0;
    int rc = read_text(o, "id", s->id, sizeof(s->id), err);

    rc = rc ? rc : read_text(o, "name", s->name, sizeof(s->name), err);
    rc = rc ? rc : read_text(o, "parent", s->parent, sizeof(s->parent), err);
    rc = rc ? rc : read_text(o, "guest", s->guest, sizeof(s->guest), err);
    rc = rc ? rc : read_text(o, "accel", s->accel, sizeof(s->accel), err);
    rc = rc ? rc : read_number(o, "created", INT64_MAX / NS_PER_S - 1, &created, err);
    if (!rc && json_object_get(o, "created_ns")) /* the first manifests had whole seconds */
        rc = read_number(o, "created_ns", NS_PER_S - 1, &fraction, err);
    rc = rc ? rc : read_number(o, "memory", VM_MEMORY_MAX, &s->memory_bytes, err);
    rc = rc ? rc : read_number(o, "pages", VM_MEMORY_MAX, &s->pages, err);
    if (rc)
        return rc;
    s->created_ns = (s64)created * NS_PER_S + (s64)fraction;
    s->compressed = json_is_true(json_object_get(o, "compressed"));
    if (!is_id(s->id) || (*s->parent && !is_id(s->parent)))
        return wrong(err, "id");
    if (!*s->name || strchr(s->name, '/'))
        return wrong(err, "name");
    if (s->memory_bytes < VM_MEMORY_MIN || s->memory_bytes % (2 * MiB))
        return wrong(err, "memory");
    return read_disks(o, s, err);
}

static int check(json_t *o, struct err *err)
{
    const json_t *format = json_object_get(o, "format");
    char sum[9], said[9];

    if (!json_is_object(o) || !json_is_integer(format))
        return wrong(err, "format");
    if (json_integer_value(format) != MANIFEST_FORMAT)
        return err_set(err, ENOTSUP, "manifest: has format %lld, this release reads %d",
                       (long long)json_integer_value(format), MANIFEST_FORMAT);
    if (read_text(o, "checksum", said, sizeof(said), err))
        return -err->code;
    json_object_del(o, "checksum");
    if (checksum(o, sum))
        return err_set(err, ENOMEM, "no memory");
    if (strcmp(sum, said))
        return err_set(err, EBADMSG, "manifest: checksum is wrong, it was altered");
    return 0;
}

int manifest_read(const char *text, size_t len, struct snapshot *ret_s, struct err *err)
{
    struct snapshot s = {0};
    json_error_t why;
    json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);

    if (!o)
        return err_set(err, EBADMSG, "manifest: at offset %d: %s", why.position, why.text);
    int rc = check(o, err);
    rc = rc ? rc : read_object(o, &s, err);
    json_decref(o);
    if (rc)
        snapshot_fini(&s);
    else
        *ret_s = s;
    return rc;
}
