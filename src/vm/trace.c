/* The list of lists of trace points. A folder that gets its first adds a line here. */
#include "vm/trace.h"

#include "mem/trace.h"
#include "state/trace.h"

const struct trace_list *const vm_traces[] = {&mem_trace, &state_trace, NULL};
