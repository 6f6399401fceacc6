/* The saved state of a processor: struct x86_cpu (x86/cpu.h) as fields, and what a file may not say. */
#ifndef VM_STATE_CPU_H
#define VM_STATE_CPU_H

#include "state/field.h"
#include "x86/cpu.h"

extern const struct state_table vm_cpu_table;

/* state_entry.check; opaque is the struct cpu_model. */
int vm_cpu_check(void *opaque, const void *scratch, struct err *err);

#endif
