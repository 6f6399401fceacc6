/* Intel RDT through resctrl (config-linux.md, intelRdt). */
#ifndef CONTAINER_RDT_H
#define CONTAINER_RDT_H

#include "container/state.h"

bool rdt_available(void);
/* Chooses the group; an error when one is asked for and the kernel has no resctrl mounted. */
int rdt_plan(struct state *st, json_t *rdt, struct err *err);
/* Makes the group, writes its schemata, puts the process in. */
int rdt_apply(const struct state *st, json_t *rdt, int pid, struct err *err);
/* Writes new schemata lines; for `update`. */
int rdt_update(const struct state *st, const char *l3, const char *mem_bw, struct err *err);
/* Removes a group that was made for this container alone. */
int rdt_remove(const struct state *st, struct err *err);

#endif
