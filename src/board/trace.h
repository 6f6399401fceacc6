/* Trace points of the board. */
#ifndef BOARD_TRACE_H
#define BOARD_TRACE_H

#include "base/trace.h"

#define BOARD_TRACE(X)                                                                                       \
    X(board, boot, (const char *way, u64 rip, u64 cr0), "%s: enters at 0x%" PRIx64 ", CR0 0x%" PRIx64, way, \
      rip, cr0)                                                                                              \
    X(board, reset, (const char *name), "%s", name)                                                          \
    X(board, power_button, (const char *name), "%s", name)

TRACE_PROBES(BOARD_TRACE)
extern const struct trace_list board_trace;

#endif
