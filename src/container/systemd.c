/* Placeholder until the D-Bus client stands. */
#include "container/systemd.h"

#include <errno.h>

int systemd_plan(struct state *st, const char *cgroups_path, bool user, struct err *err)
{
    return err_set(
        err, ENOTSUP,
        "systemd cgroup flag passed, but systemd support for managing cgroups is not available");
}

int systemd_start(const struct state *st, json_t *resources, int pid, struct err *err)
{
    return err_set(err, ENOTSUP, "no systemd");
}

int systemd_stop(const struct state *st, struct err *err)
{
    return 0;
}
