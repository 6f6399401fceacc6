/* The trace points of all folders below, for --trace. */
#ifndef VM_TRACE_H
#define VM_TRACE_H

#include "base/trace.h"

/* Of every folder that has any; NULL at the end. */
extern const struct trace_list *const vm_traces[];

#endif
