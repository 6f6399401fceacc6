/* The trace points that trace.h lists. */
#include "state/trace.h"

TRACE_DEFINE(state, STATE_TRACE)
