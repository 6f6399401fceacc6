/*
 * Where a container's control groups are, made and removed. cgroups(7), cgroup-v1/cgroups.rst and
 * cgroup-v2.rst of the kernel's documentation.
 *
 * Three layouts exist. v2: one tree at /sys/fs/cgroup. v1: a tmpfs there with one hierarchy per directory.
 * Hybrid: v1 with a v2 tree at /sys/fs/cgroup/unified, which may own controllers of its own. The last two
 * are one case here: a list of hierarchies, some of them v2.
 */
#include "container/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "container/file.h"

#define ROOT "/sys/fs/cgroup"

static bool is_cgroup_fs(const char *path, long magic)
{
    struct statfs fs;

    return statfs(path, &fs) == 0 && fs.f_type == magic;
}

/* One line of /proc/self/cgroup, "id:controllers:path". Hierarchies that are mounted nowhere are left out. */
static void add_hierarchy(struct cgroup *cg, struct pool *p, char *line)
{
    char *controllers = strchr(line, ':'),
         *path = controllers ? strchr(controllers + 1, ':') : NULL;
    struct cgroup_dir dir = {0};
    char mount[160];

    if (!path || cg->n == CGROUP_MAX)
        return;
    *path++ = '\0';
    controllers++;
    dir.v2 = !*controllers;
    if (dir.v2)
        snprintf(mount, sizeof(mount), "%s%s", ROOT, cg->pure_v2 ? "" : "/unified");
    else
        snprintf(mount, sizeof(mount), "%s/%.120s", ROOT,
                 strncmp(controllers, "name=", 5) == 0 ? controllers + 5 : controllers);
    if (!is_cgroup_fs(mount, dir.v2 ? CGROUP2_SUPER_MAGIC : CGROUP_SUPER_MAGIC))
        return;
    dir.controllers = pool_str(p, controllers);
    dir.mount = pool_str(p, mount);
    dir.own = pool_str(p, path);
    cg->dirs[cg->n++] = dir;
}

int cgroup_detect(struct cgroup *cg, struct pool *p, struct err *err)
{
    char text[8192], *line, *save = NULL;
    ssize_t len = file_read_at(AT_FDCWD, "/proc/self/cgroup", text, sizeof(text));

    if (len < 0)
        return err_sys(err, (int)-len, "read /proc/self/cgroup");
    cg->n = 0;
    cg->pure_v2 = is_cgroup_fs(ROOT, CGROUP2_SUPER_MAGIC);
    for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        add_hierarchy(cg, p, line);
    return 0;
}

/* Joins and cleans "a/../b//c" lexically below "/": nothing a configuration says leaves the hierarchy. */
static char *clean_path(struct pool *p, const char *base, const char *path)
{
    char *joined = pool_fmt(p, "%s/%s", base, path), *part, *save = NULL;
    size_t size = strlen(joined) + 2, len = 0;
    char *out = pool_get(p, size);

    for (part = strtok_r(joined, "/", &save); part; part = strtok_r(NULL, "/", &save)) {
        if (strcmp(part, ".") == 0)
            continue;
        if (strcmp(part, "..") == 0) {
            while (len && out[--len] != '/')
                ;
            out[len] = '\0';
            continue;
        }
        len += (size_t)snprintf(out + len, size - len, "/%s", part);
    }
    return out;
}

int cgroup_plan(struct cgroup *cg, struct pool *p, const char *path, const char *id,
                struct err *err)
{
    for (size_t i = 0; i < cg->n; i++) {
        struct cgroup_dir *d = &cg->dirs[i];
        const char *base = "";
        const char *rel;

        if ((!path || path[0] != '/') && (!cg->pure_v2 || cg->rootless) &&
            strcmp(d->own, "/") != 0 && strstr(d->own, "..") == NULL)
            base = d->own;
        /* Below its own group first, so that ".." of the configuration ends there. */
        rel = clean_path(p, "", path ? path : id);
        if (!*rel)
            return err_set(err, EINVAL, "invalid cgroup path %s", path ? path : id);
        d->path = pool_fmt(p, "%s%s%s", d->mount, base, rel);
        if (strlen(d->path) > 3500)
            return err_set(err, ENAMETOOLONG, "the cgroup path is too long");
    }
    return 0;
}

const struct cgroup_dir *cgroup_v2(const struct cgroup *cg)
{
    for (size_t i = 0; i < cg->n; i++)
        if (cg->dirs[i].v2)
            return &cg->dirs[i];
    return NULL;
}

const struct cgroup_dir *cgroup_find(const struct cgroup *cg, const char *controller)
{
    size_t len = strlen(controller);

    for (size_t i = 0; i < cg->n; i++) {
        const char *at = cg->dirs[i].controllers;

        while (*at) {
            size_t word = strcspn(at, ",");

            if (word == len && strncmp(at, controller, len) == 0)
                return &cg->dirs[i];
            at += word + (at[word] == ',');
        }
    }
    return cg->pure_v2 && cg->n ? &cg->dirs[0] : NULL;
}

ssize_t cgroup_read(const struct cgroup_dir *dir, const char *file, char *buf, size_t size)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s/%s", dir->path, file);
    return file_read_at(AT_FDCWD, path, buf, size);
}

int cgroup_write(const struct cgroup_dir *dir, const char *file, const char *value, struct err *err)
{
    char path[4096];
    int rc;

    snprintf(path, sizeof(path), "%s/%s", dir->path, file);
    rc = file_write_at(AT_FDCWD, path, value);
    return rc < 0 ? err_sys(err, -rc, "failed to write \"%s\" to %s", value, path) : 0;
}

/* A new v1 cpuset group is empty and takes no process until it has processors and memory nodes. */
static void inherit_cpuset(const char *parent, const char *child)
{
    static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};

    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char path[4352], text[1024];

        snprintf(path, sizeof(path), "%s/%s", child, files[i]);
        if (file_read_at(AT_FDCWD, path, text, sizeof(text)) > 1)
            continue;
        snprintf(path, sizeof(path), "%s/%s", parent, files[i]);
        if (file_read_at(AT_FDCWD, path, text, sizeof(text)) <= 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", child, files[i]);
        file_write_at(AT_FDCWD, path, text);
    }
}

/* v2: hands the parent's controllers down; those the kernel refuses (threaded, busy) stay where they are. */
static void delegate(const char *parent)
{
    char path[4352], text[512], word[64], *at, *save = NULL;

    snprintf(path, sizeof(path), "%s/cgroup.controllers", parent);
    if (file_read_at(AT_FDCWD, path, text, sizeof(text)) <= 0)
        return;
    snprintf(path, sizeof(path), "%s/cgroup.subtree_control", parent);
    for (at = strtok_r(text, " \n", &save); at; at = strtok_r(NULL, " \n", &save)) {
        snprintf(word, sizeof(word), "+%.60s", at);
        file_write_at(AT_FDCWD, path, word);
    }
}

static int make_dir(struct cgroup_dir *d, struct pool *p, struct err *err)
{
    char path[4096];
    size_t at = strlen(d->mount), len = strlen(d->path), parent;
    bool cpuset = strcmp(d->controllers, "cpuset") == 0 || strstr(d->controllers, "cpuset,") ||
                  strstr(d->controllers, ",cpuset");

    if (!cpuset && !d->v2) {
        if (mkdir(d->path, 0755) == 0) {
            d->made = true;
            return 0;
        }
        if (errno == EEXIST)
            return 0;
    }
    memcpy(path, d->path, len + 1);
    while (at < len) {
        parent = at;
        at += 1 + strcspn(d->path + at + 1, "/");
        path[parent] = '\0';
        if (d->v2)
            delegate(path);
        path[parent] = '/';
        path[at] = '\0';
        if (mkdir(path, 0755) == 0) {
            d->made = at == len;
            d->top = d->top || d->made ? d->top : pool_str(p, path);
        } else if (errno != EEXIST)
            return err_sys(err, errno, "make the cgroup %s", path);
        if (cpuset) {
            char up[4096];

            snprintf(up, sizeof(up), "%.*s", (int)parent, path);
            inherit_cpuset(up, path);
        }
        path[at] = at < len ? '/' : '\0';
    }
    return 0;
}

/* Another container may go, and with it a directory above that we had found: then it is made again. */
static int make_or_try_again(struct cgroup_dir *d, struct pool *p, struct err *err)
{
    for (int tries = 0;; tries++) {
        int rc = make_dir(d, p, err);

        if (rc != -ENOENT || tries == 9)
            return rc;
        *err = (struct err)ERR_INIT;
    }
}

int cgroup_make(struct cgroup *cg, struct pool *p, bool only_v2, struct err *err)
{
    for (size_t i = 0; i < cg->n; i++) {
        bool done = cg->dirs[i].v2 ? cg->dirs[i].made : only_v2;

        if (done || make_or_try_again(&cg->dirs[i], p, err) == 0)
            continue;
        if (!cg->rootless || (err->code != EACCES && err->code != EPERM && err->code != EROFS))
            return -err->code;
        /* An unprivileged user without delegation: the container runs without this hierarchy. */
        memmove(&cg->dirs[i], &cg->dirs[i + 1], (cg->n - i - 1) * sizeof(cg->dirs[0]));
        cg->n--;
        i--;
    }
    return 0;
}

json_t *cgroup_to_json(const struct cgroup *cg)
{
    json_t *arr = json_object_new_array();

    for (size_t i = 0; i < cg->n; i++) {
        json_t *o = json_object_new_object();

        json_object_object_add(o, "controllers", json_object_new_string(cg->dirs[i].controllers));
        json_object_object_add(o, "mount", json_object_new_string(cg->dirs[i].mount));
        json_object_object_add(o, "path", json_object_new_string(cg->dirs[i].path));
        if (cg->dirs[i].top)
            json_object_object_add(o, "top", json_object_new_string(cg->dirs[i].top));
        json_object_object_add(o, "v2", json_object_new_boolean(cg->dirs[i].v2));
        json_object_array_add(arr, o);
    }
    return arr;
}

int cgroup_from_json(struct cgroup *cg, json_t *arr, struct err *err)
{
    cg->n = 0;
    for (size_t i = 0; i < json_len(arr) && i < CGROUP_MAX; i++) {
        struct cgroup_dir *d = &cg->dirs[cg->n];
        json_t *o = json_at(arr, i);

        *d = (struct cgroup_dir){0};
        if (json_str(o, "controllers", &d->controllers, err) < 0 ||
            json_str(o, "mount", &d->mount, err) < 0 || json_str(o, "path", &d->path, err) < 0 ||
            json_str(o, "top", &d->top, err) < 0 || json_flag(o, "v2", &d->v2, err) < 0)
            return -err->code;
        if (!d->controllers || !d->mount || !d->path)
            return err_set(err, EINVAL, "a cgroup entry is incomplete");
        d->made = true;
        cg->n++;
    }
    cg->pure_v2 = cg->n == 1 && cg->dirs[0].v2 && strcmp(cg->dirs[0].mount, ROOT) == 0;
    return 0;
}
