/* The systemd cgroup driver: the container's groups are a transient scope that systemd makes for us. */
#ifndef CONTAINER_SYSTEMD_H
#define CONTAINER_SYSTEMD_H

#include "container/state.h"

/* Reads "slice:prefix:name" into unit and cgroup paths. */
int systemd_plan(struct state *st, const char *cgroups_path, bool user, struct err *err);
/* Starts the scope with `pid` in it and waits until it stands. On failure there is no scope of ours. */
int systemd_start(struct state *st, json_t *resources, int pid, struct err *err);
/*
 * Where the scope is, from /proc/PID/cgroup of a process in it: a user's systemd has its tree somewhere below the
 * system's.
 */
void systemd_place(struct state *st, const char *groups);
/* Tells systemd of new limits; without that it writes the old ones again some day. */
int systemd_update(const struct state *st, json_t *resources, struct err *err);
/* Has systemd put a process into the scope, which a user may not from outside of what is delegated to it. */
int systemd_attach(const struct state *st, int pid, struct err *err);
/* Stops the scope; one that is gone already is fine. */
int systemd_stop(const struct state *st, struct err *err);

#endif
