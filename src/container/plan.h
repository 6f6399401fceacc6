/* What the runtime prepares for init's mounts, while it still sees the host with its own rights. */
#ifndef CONTAINER_PLAN_H
#define CONTAINER_PLAN_H

#include "container/init.h"

/* Parses every mount's options; clones trees that init could not: id-mapped ones, and all with a user namespace. */
int plan_mounts(struct init *in, struct pool *p, struct err *err);
/* Closes the runtime's copies of the clones once init has its own. */
void plan_close(struct init *in);

#endif
