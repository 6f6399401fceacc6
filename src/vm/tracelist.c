/* One line per folder with trace points, sorted. */
#include "vm/tracelist.h"

#include "mem/trace.h"
#include "state/trace.h"

const struct trace_list *const vm_traces[] = {
    &mem_trace,
    &state_trace,
    NULL,
};
