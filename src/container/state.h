/*
 * The state directory: <root>/<id>/ holds everything that outlives a verb. Other runtimes may keep theirs
 * beside it; an entry without our state file is theirs and is left alone.
 *
 *   trapeze.json   the record below, replaced atomically
 *   config.json    the configuration as it was at `create`
 *   start.sock     the created container's init listens here until it is started
 */
#ifndef CONTAINER_STATE_H
#define CONTAINER_STATE_H

#include "container/cgroup.h"
#include "container/spec.h"

#define STATE_SOCKET "start.sock"
#define STATE_CONFIG "config.json"

enum status { STATUS_CREATING, STATUS_CREATED, STATUS_RUNNING, STATUS_PAUSED, STATUS_STOPPED };

struct state {
    struct pool *pool;
    const char *root, *id;
    int dirfd; /* <root>/<id>; -1 when closed */
    bool locked;

    const char *bundle, *rootfs, *created, *owner;
    int pid;
    u64 start_time; /* field 22 of /proc/PID/stat: tells a reused pid from ours */
    int creator;    /* the `create` under way, until pid is known */
    u64 creator_start;
    bool new_pid_ns, no_pivot;
    u64 ns_flags; /* CLONE_NEW... the container has or joined */
    u64 mount_id; /* of the root in the host's mount namespace, when it has none of its own; else 0 */
    const char *systemd_unit, *systemd_slice;
    const char *rdt_path; /* the resctrl group made for the container */
    struct cgroup cgroup;
    json_t *annotations;
    json_t *doc; /* owns the strings after state_load */
};

/* 0, or -EINVAL with runc's wording. */
int state_check_id(const char *id, struct err *err);
/* Makes <root>/<id> and locks it. -EEXIST when it is there already, whoever made it. */
int state_new(struct state *s, struct pool *pool, const char *root, const char *id,
              struct err *err);
/* Opens an existing container's record; with `lock` also waits for other verbs to finish (10 s at most). */
int state_open(struct state *s, struct pool *pool, const char *root, const char *id, bool lock,
               struct err *err);
int state_save(const struct state *s, struct err *err);
/* Keeps the text of the configuration; state_spec reads it back. */
int state_save_config(const struct state *s, json_t *doc, struct err *err);
int state_spec(const struct state *s, struct spec *ret, struct err *err);
/* Removes the directory; the lock goes with it. */
int state_remove(struct state *s, struct err *err);
/* Removes what a `create` left that was killed before it wrote a record. Directories of others stay. */
void state_remove_empty(const char *root, const char *id);
/* Zeroed and half-open states are fine. */
void state_close(struct state *s);

/* Looks at the processes and the freezer. */
enum status state_status(const struct state *s);
const char *status_name(enum status st);
/* A pidfd of the container's init, checked against reuse, or -ESRCH. */
int state_pidfd(const struct state *s);
/* Start time of a process in clock ticks since boot, 0 when there is none or it is a zombie. */
u64 state_start_time(int pid);
/* The JSON that the `state` verb prints and hooks read. The caller releases it. */
json_t *state_to_json(const struct state *s, enum status st);

#endif
