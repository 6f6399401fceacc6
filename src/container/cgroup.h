/*
 * Control groups of one container, whatever the host has: v1 hierarchies, a v2 tree, or both side by side.
 * A container's group is a list of directories, one per hierarchy; the list is kept in the state record so
 * that no other verb has to look at the host's layout again.
 */
#ifndef CONTAINER_CGROUP_H
#define CONTAINER_CGROUP_H

#include "container/json.h"

#define CGROUP_MAX 20

struct cgroup_dir {
    const char *controllers; /* v1: "cpu,cpuacct", "name=systemd"; v2: "" */
    const char *mount;       /* where the hierarchy is mounted */
    const char *own;         /* our process's own path in it */
    const char *path;        /* the container's directory, absolute */
    const char *top;         /* the highest of the directories above it that we made, or NULL */
    bool v2;
    bool made; /* we made it, so we remove it */
};

struct cgroup {
    struct cgroup_dir dirs[CGROUP_MAX];
    size_t n;
    bool pure_v2;  /* the only hierarchy is v2 */
    bool rootless; /* missing permission drops a hierarchy instead of failing */
};

/* Finds the hierarchies of this host. */
int cgroup_detect(struct cgroup *cg, struct pool *p, struct err *err);
/* Chooses the directories: `path` as in config.json (NULL: by id). Touches nothing. */
int cgroup_plan(struct cgroup *cg, struct pool *p, const char *path, const char *id,
                struct err *err);
/*
 * Makes the directories, or only that of v2 (again is harmless). What was made before a failure is marked and removed
 * by cgroup_remove.
 */
int cgroup_make(struct cgroup *cg, struct pool *p, bool only_v2, struct err *err);

/* cgroup_enter.c: the open `tasks` files of the v1 groups. They may be passed to another process. */
struct cgroup_doors {
    int fds[CGROUP_MAX];
    size_t n;
    int memory; /* index of the memory group's, -1 */
    bool rootless;
};

int cgroup_open_doors(const struct cgroup *cg, struct cgroup_doors *ret, struct err *err);
void cgroup_close_doors(struct cgroup_doors *doors);
/* Moves the calling process, which has one thread, into all but the memory group, or (memory) all that are left. */
int cgroup_enter(struct cgroup_doors *doors, bool memory, struct err *err);
/* The v2 group, for CLONE_INTO_CGROUP; -1 when there is none or it cannot be opened. */
int cgroup_open_v2(const struct cgroup *cg);
/* Puts another process into the v2 group, if there is one. */
int cgroup_attach_v2(const struct cgroup *cg, int pid, struct err *err);
/*
 * Puts a process into the v2 group that another one is in: a program that made groups below its own (systemd, say)
 * leaves the container's own group closed to processes.
 */
int cgroup_attach_beside(const struct cgroup *cg, int other, int pid, struct err *err);
/* Removes directories and the groups below them; waits for dying processes. Missing ones are fine. */
int cgroup_remove(const struct cgroup *cg, struct err *err);

/* The directory that has a controller; for v2, the one directory there is. NULL: none. */
const struct cgroup_dir *cgroup_find(const struct cgroup *cg, const char *controller);
/* The v2 directory, NULL when there is none. */
const struct cgroup_dir *cgroup_v2(const struct cgroup *cg);
/* Writes into a control file of a directory; the message names file and value. */
int cgroup_write(const struct cgroup_dir *dir, const char *file, const char *value,
                 struct err *err);
/* Reads a control file as a string. Length or -errno. */
ssize_t cgroup_read(const struct cgroup_dir *dir, const char *file, char *buf, size_t size);

/* Applies `resources` of the configuration, or of `update`. `initial`: devices too. */
int cgroup_limit(const struct cgroup *cg, json_t *resources, bool initial, struct err *err);
/* Parts of cgroup_limit, each in its own file. */
int cgroup_limit_v1(const struct cgroup *cg, json_t *res, struct err *err);
int cgroup_limit_v2(const struct cgroup *cg, json_t *res, struct err *err);
int cgroup_limit_devices(const struct cgroup *cg, json_t *res, struct err *err);

/* cgroup_v2.c: makes a user of the host the owner of the v2 group, so that the container may divide it. */
int cgroup_own_v2(const struct cgroup *cg, u32 uid, struct err *err);

/* Freezes or thaws; returns when the kernel says so, or -ETIMEDOUT after two seconds. */
int cgroup_freeze(const struct cgroup *cg, bool frozen, struct err *err);
bool cgroup_is_frozen(const struct cgroup *cg);
/* Every process of the group and the groups below it. The caller frees *ret. */
int cgroup_pids(const struct cgroup *cg, int **ret, size_t *ret_n, struct err *err);
/* Sends a signal to all of them; with SIGKILL until none is left. */
int cgroup_kill(const struct cgroup *cg, int sig, struct err *err);

/* For the state record. */
json_t *cgroup_to_json(const struct cgroup *cg);
int cgroup_from_json(struct cgroup *cg, json_t *arr, struct err *err);

#endif
