/* Trace points of saved state. */
#ifndef STATE_TRACE_H
#define STATE_TRACE_H

#include "base/trace.h"

#define STATE_TRACE(X)                                                                          \
    X(state, save, (const char *name, u32 instance, u64 len), "%s %u: %" PRIu64 " bytes", name, \
      instance, len)                                                                            \
    X(state, load, (const char *name, u32 instance, u32 version), "%s %u: version %u", name,    \
      instance, version)

TRACE_PROBES(STATE_TRACE)
extern const struct trace_list state_trace;

#endif
