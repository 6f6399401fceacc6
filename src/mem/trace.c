/* The trace points that trace.h lists. */
#include "mem/trace.h"

TRACE_DEFINE(mem, MEM_TRACE)
