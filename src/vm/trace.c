/* The trace points that trace.h lists, and the list of lists. A folder that gets its first adds a line here. */
#include "vm/trace.h"

#include "accel/trace.h"
#include "board/trace.h"
#include "device/trace.h"
#include "mem/trace.h"
#include "state/trace.h"

TRACE_DEFINE(vm, VM_TRACE)

const struct trace_list *const vm_traces[] = {
    &accel_trace, &board_trace, &device_trace, &mem_trace, &state_trace, &vm_trace, NULL,
};
