/* Entering namespaces: the ones given by path, and new ones, in an order that keeps the rights to do so. */
#ifndef CONTAINER_JOIN_H
#define CONTAINER_JOIN_H

#include "container/init.h"
#include "container/sys.h"

/* Opens the namespaces given by path and checks that each is of its kind. Fills in->ns_fds. */
int join_open(struct init *in, struct err *err);
void join_close(struct init *in);
/* True when a process cannot be cloned straight into the namespaces and needs a stage in between. */
bool join_needs_stage(const struct init *in);
/* CLONE_NEW... for the clone of init itself when there is no stage. */
u64 join_clone_flags(const struct init *in);
/*
 * clone3 into a v2 group (-1: none). Where that is not possible it clones without, and *ret_in tells. The pid, 0 in
 * the child, or -1 and errno.
 */
int join_clone(struct clone_args *args, int group, bool *ret_in);
/* In the stage: joins, makes the user namespace, clones init (which continues in init_main), reports, ends. */
void join_stage(struct init *in) __attribute__((noreturn));
/* In init: asks for maps where it was cloned into a user namespace, then makes what is left. */
int join_rest(struct init *in, bool staged, struct err *err);

#endif
