/* Trace points of accelerators. */
#ifndef ACCEL_TRACE_H
#define ACCEL_TRACE_H

#include "base/trace.h"

#define ACCEL_TRACE(X)                                                                                            \
    X(accel, bt_translate, (u64 vpc, u64 gpa, unsigned insns, unsigned bytes, unsigned host_bytes),               \
      "0x%" PRIx64 " at 0x%" PRIx64 ": %u instructions, %u bytes, %u of host code", vpc, gpa, insns, bytes,       \
      host_bytes)                                                                                                 \
    X(accel, bt_full, (u64 code, unsigned blocks), "%" PRIu64 " bytes of code in %u blocks", code, blocks)        \
    X(accel, kvm_exit, (unsigned cpu, unsigned reason), "cpu%u: reason %u", cpu, reason)                          \
    X(accel, kvm_complete, (unsigned cpu, u64 rip, int result), "cpu%u: rip 0x%" PRIx64 ": %d", cpu, rip, result)

TRACE_PROBES(ACCEL_TRACE)
extern const struct trace_list accel_trace;

#endif
