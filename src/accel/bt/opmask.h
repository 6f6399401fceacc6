/* Which part of its memory operand a masked AVX-512 instruction accesses. Light (see cpu.h). */
#ifndef BT_OPMASK_H
#define BT_OPMASK_H

#include "accel/bt/insn.h"

/* For forms that are `masked`: from the first to behind the last byte that the mask register selects now. False: none. */
bool opmask_range(const struct insn *in, unsigned *ret_first, unsigned *ret_len);

#endif
