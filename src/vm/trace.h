/* Trace points of a machine's life, and the list of those of all folders below, for --trace. */
#ifndef VM_TRACE_H
#define VM_TRACE_H

#include "base/trace.h"

#define VM_TRACE(X)                                                                         \
    X(vm, go, (unsigned cpus), "%u processors", cpus)                                       \
    X(vm, stop, (unsigned cpus), "%u processors", cpus)                                     \
    X(vm, end, (int end, int code), "end %d, code %d", end, code)                           \
    X(vm, control, (const char *verb), "%s", verb)

TRACE_PROBES(VM_TRACE)

/* Of every folder that has any; NULL at the end. */
extern const struct trace_list *const vm_traces[];

#endif
