/* The systemd cgroup driver: the container's groups are a transient scope that systemd makes for us. */
#ifndef CONTAINER_SYSTEMD_H
#define CONTAINER_SYSTEMD_H

#include "container/state.h"

/* Reads "slice:prefix:name" into unit and cgroup paths. */
int systemd_plan(struct state *st, const char *cgroups_path, bool user, struct err *err);
/* Starts the scope with `pid` in it and waits until it stands. */
int systemd_start(const struct state *st, json_t *resources, int pid, struct err *err);
/* Stops the scope; one that is gone already is fine. */
int systemd_stop(const struct state *st, struct err *err);

#endif
