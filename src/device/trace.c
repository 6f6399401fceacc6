/* The trace points that trace.h lists. */
#include "device/trace.h"

TRACE_DEFINE(device, DEVICE_TRACE)
