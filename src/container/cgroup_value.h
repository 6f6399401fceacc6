/* Taking limits out of `resources`; shared by the files that apply them. */
#ifndef CONTAINER_CGROUP_VALUE_H
#define CONTAINER_CGROUP_VALUE_H

#include "container/cgroup.h"

/* The integer at a dotted path: 1 when there, 0 when not, -EINVAL. */
int value_s64(json_t *res, const char *path, s64 *ret, struct err *err);
/* An integer, boolean or one-line string as text: 1, 0 or -EINVAL. */
int value_text(json_t *res, const char *path, char *buf, size_t size, struct err *err);
/* The directory of a controller; NULL and a message naming `what` when there is none. */
const struct cgroup_dir *value_dir(const struct cgroup *cg, const char *controller,
                                   const char *what, struct err *err);

/* cpu.shares of v1, [2, 262144], as cpu.weight of v2, [1, 10000]. */
static inline s64 weight_of_shares(s64 shares)
{
    return 1 + (MIN(MAX(shares, 2), 262144) - 2) * 9999 / 262142;
}

#endif
