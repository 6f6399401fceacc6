/* Trace points of guest memory and address spaces. */
#ifndef MEM_TRACE_H
#define MEM_TRACE_H

#include "base/trace.h"

#define MEM_TRACE(X)                                                                           \
    X(mem, map, (const char *name, u64 base, u64 len), "%s at 0x%" PRIx64 "+0x%" PRIx64, name, \
      base, len)                                                                               \
    X(mem, unmap, (const char *name, u64 base), "%s at 0x%" PRIx64, name, base)                \
    X(mem, read, (const char *name, u64 offset, unsigned size, u64 value),                     \
      "%s +0x%" PRIx64 "/%u: 0x%" PRIx64, name, offset, size, value)                           \
    X(mem, write, (const char *name, u64 offset, unsigned size, u64 value),                    \
      "%s +0x%" PRIx64 "/%u = 0x%" PRIx64, name, offset, size, value)                          \
    X(mem, lost_read, (u64 addr, unsigned size), "nothing at 0x%" PRIx64 "/%u", addr, size)    \
    X(mem, lost_write, (u64 addr, unsigned size, u64 value),                                   \
      "nothing at 0x%" PRIx64 "/%u for 0x%" PRIx64, addr, size, value)

TRACE_PROBES(MEM_TRACE)
extern const struct trace_list mem_trace;

#endif
