/* The trace points that trace.h lists. */
#include "accel/trace.h"

TRACE_DEFINE(accel, ACCEL_TRACE)
