/* Hooks of the configuration: programs run at fixed points of a container's life (config.md, POSIX hooks). */
#ifndef CONTAINER_HOOK_H
#define CONTAINER_HOOK_H

#include "container/spec.h"

/* Runs the hooks of one kind in order, each with the state on its standard input; stops at a failure. */
int hook_run(const struct spec *s, enum hook_kind kind, json_t *state, struct err *err);
/* As hook_run, but a failure only warns and the rest still run: poststop's rule. */
void hook_run_all(const struct spec *s, enum hook_kind kind, json_t *state);

#endif
