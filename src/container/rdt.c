/*
 * resctrl groups (kernel documentation, filesystems/resctrl.rst). A closID names a group that may be shared
 * and outlives us when it was there before; without one the group is named after the container and ours.
 */
#include "container/rdt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "container/file.h"

#define ROOT "/sys/fs/resctrl"
#define RDTGROUP_MAGIC 0x7655821

bool rdt_available(void)
{
    struct statfs fs;

    return statfs(ROOT, &fs) == 0 && fs.f_type == RDTGROUP_MAGIC;
}

int rdt_plan(struct state *st, json_t *rdt, struct err *err)
{
    const char *id = NULL;

    if (!rdt)
        return 0;
    if (!rdt_available())
        return err_set(err, ENOTSUP,
                       "intelRdt is enabled in the config, but resctrl is not mounted or the "
                       "processor lacks it");
    if (json_str(rdt, "closID", &id, err) < 0)
        return -err->code;
    if (id && (!id[0] || strchr(id, '/') || strcmp(id, ".") == 0 || strcmp(id, "..") == 0))
        return err_set(err, EINVAL, "intelRdt: invalid closID");
    st->rdt_path = pool_fmt(st->pool, "%s/%s", ROOT, id ? id : st->id);
    return 0;
}

static int write_line(const struct state *st, const char *file, const char *text, struct err *err)
{
    auto_close int dir = open(st->rdt_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int rc = dir < 0 ? -errno : file_write_at(dir, file, text);

    return rc < 0 ? err_sys(err, -rc, "intelRdt: write \"%s\" to %s/%s", text, st->rdt_path, file)
                  : 0;
}

static int write_schema(const struct state *st, const char *schema, struct err *err)
{
    char line[1024];

    if (!schema || !schema[0])
        return 0;
    if (snprintf(line, sizeof(line), "%s\n", schema) >= (int)sizeof(line))
        return err_set(err, EINVAL, "intelRdt: the schema is too long");
    return write_line(st, "schemata", line, err);
}

int rdt_update(const struct state *st, const char *l3, const char *mem_bw, struct err *err)
{
    if (!st->rdt_path && (l3 || mem_bw))
        return err_set(err, ENOTSUP,
                       "the container has no resctrl group: intelRdt was not in its configuration");
    return write_schema(st, l3, err) < 0 || write_schema(st, mem_bw, err) < 0 ? -err->code : 0;
}

int rdt_apply(const struct state *st, json_t *rdt, int pid, struct err *err)
{
    const char *l3 = NULL, *mem_bw = NULL;
    json_t *lines;
    char text[16];

    if (!rdt)
        return 0;
    if (mkdir(st->rdt_path, 0755) < 0 && errno != EEXIST)
        return err_sys(err, errno, "intelRdt: make %s", st->rdt_path);
    if (json_str(rdt, "l3CacheSchema", &l3, err) < 0 ||
        json_str(rdt, "memBwSchema", &mem_bw, err) < 0 ||
        json_arr(rdt, "schemata", &lines, err) < 0 || rdt_update(st, l3, mem_bw, err) < 0)
        return -err->code;
    for (size_t i = 0; i < json_len(lines); i++)
        if (write_schema(st, json_object_get_string(json_at(lines, i)), err) < 0)
            return -err->code;
    snprintf(text, sizeof(text), "%d", pid);
    return write_line(st, "tasks", text, err);
}

int rdt_remove(const struct state *st, struct err *err)
{
    size_t len = st->rdt_path ? strlen(st->rdt_path) : 0, id = strlen(st->id);

    /* Only a group named after the container is surely ours. */
    if (len <= id || strcmp(st->rdt_path + len - id, st->id) != 0)
        return 0;
    return rmdir(st->rdt_path) < 0 && errno != ENOENT
               ? err_sys(err, errno, "remove %s", st->rdt_path)
               : 0;
}
