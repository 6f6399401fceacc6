/* What must not happen to a process that runs hostile guests, and how it is noticed. */
#ifndef HOSTILE_GUARD_H
#define HOSTILE_GUARD_H

#include "base/types.h"

/* Reserves memory full of a pattern. Called before and after the machine is made, so that its mappings lie between. */
void guard_surround(void);
/* An address in that memory, or elsewhere in this process: what a guest would love to reach. */
u64 guard_host_address(u64 random);
/* From now on: a system call from the code cache, or one that running a guest does not need, kills the process. */
int guard_calls(void);
/* Is the pattern whole? */
bool guard_intact(void);
/* Is no mapping writable and executable? */
bool guard_maps_ok(void);

#endif
