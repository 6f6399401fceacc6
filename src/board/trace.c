/* The trace points that trace.h lists. */
#include "board/trace.h"

TRACE_DEFINE(board, BOARD_TRACE)
