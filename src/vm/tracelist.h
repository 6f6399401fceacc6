/* Every trace point of the machine, for `--trace`. A folder that gets a trace.h adds its list to
 * tracelist.c. */
#ifndef VM_TRACELIST_H
#define VM_TRACELIST_H

#include "base/trace.h"

extern const struct trace_list *const vm_traces[]; /* NULL at the end */

#endif
