/*
 * Migration of a whole machine: what ties source.h and destination.h to vCPUs, devices and
 * the main loop. All in the main loop's thread, unless said otherwise.
 */
#ifndef VM_MIGRATE_VM_H
#define VM_MIGRATE_VM_H

#include "vm/control.h"
#include "vm/migrate/owner.h"
#include "vm/vm.h"

/*
 * The machine, made by vm_new_from() and not run yet, is filled by a migration over these descriptors (taken over, on
 * failure too; HELLO and JOIN were read), and goes on as it was when all is there. vm_run() then ends with
 * VM_END_FAILED if it never comes. word: see owner.h, outlives the machine.
 */
int vm_migrate_in(struct vm *vm, const int *fds, unsigned nfds, struct migrate_word *word,
                  struct err *err);
/* Cuts whatever is under way, and waits for its threads. The vCPUs have ended; before devices and memory go. */
void vm_migrate_free(struct vm *vm);
/* The vCPUs are to stop: those that wait for a page let go. */
void vm_migrate_interrupt(struct vm *vm);
/* May a person resume the machine now? false while another host has it, or may have. */
bool vm_migrate_may_resume(const struct vm *vm);
/* Takes back the disks that a migration gave up, when it failed and could not. */
int vm_migrate_retake(struct vm *vm);
/* -EBUSY: the machine is on its way, so its disks must stay as they were described and its state is not ours to take. */
int vm_migrate_stays(const struct vm *vm, struct err *err);
/* -EBUSY: if the process ended now, the guest would be lost here or on another host, and not everybody who ends a guest
 * knows that. Not after it was asked by a person who does. */
int vm_migrate_may_end(const struct vm *vm, struct err *err);
/* For `status`: NULL when there is nothing to say. */
const char *vm_migrate_state(const struct vm *vm);

#endif
