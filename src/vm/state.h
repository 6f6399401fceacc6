/*
 * The state of a whole machine as one stream: processors, clock, every device. Memory and disks are not in it
 * (vm/snapshot/snapshot.h), nor is how the machine is built (vm/identity.h).
 *
 * In the main loop's thread, with the machine paused.
 */
#ifndef VM_STATE_H
#define VM_STATE_H

#include "state/stream.h"
#include "vm/identity.h"
#include "vm/vm.h"
#include <stdio.h>

/* What a guest's clocks do about the time between save and load. They never go back. */
enum vm_clock {
    VM_CLOCK_REAL, /* it has passed: wall clock and monotonic clock are right, what is overdue fires */
    VM_CLOCK_FROZEN, /* it has not: the guest never knows, its wall clock is late */
};

const struct vm_identity *vm_identity(const struct vm *vm);
int vm_state_save(struct vm *vm, const struct state_sink *to, struct err *err);
/* vm is freshly made by vm_new_from(), its memory as it was (or coming, mem/lazy.h). On failure it must be freed. */
int vm_state_load(struct vm *vm, const struct state_source *from, enum vm_clock clock,
                  struct err *err);
extern const struct state_table vm_clock_table;

/* As text, as of the last save or load. */
void vm_state_print(struct vm *vm, FILE *out);

/* Tells a guest whose state was just saved or loaded, by its paravirtual clock, that it stood still: its watchdogs forgive
 * that. */
void vm_state_tell_watchdogs(struct vm *vm);

#endif
