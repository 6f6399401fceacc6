/* The saved state of a processor: struct x86_cpu as fields, and what a file may not say. */
#ifndef X86_CPU_STATE_H
#define X86_CPU_STATE_H

#include "state/field.h"
#include "x86/cpu.h"

extern const struct state_table x86_cpu_table;

/* state_entry.check; opaque is the struct cpu_model. -EINVAL names the field that no processor of this model can hold. What
 * passes is taken by every accelerator. */
int x86_cpu_check(void *opaque, const void *scratch, struct err *err);

#endif
