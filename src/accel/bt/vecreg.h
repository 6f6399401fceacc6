/*
 * The live vector registers by number, for helpers that need one of them as bytes. Light: inline assembler only; the
 * guest's registers are the host's. Wider forms may be used only when the guest's instruction is of that width, which
 * implies that the host has it.
 */
#ifndef BT_VECREG_H
#define BT_VECREG_H

#include "base/types.h"

/* Register `reg` to or from `bytes` (16, 32 or 64) at p. Writing clears the bits above, as VEX instructions do. */
void vecreg_read(unsigned reg, unsigned bytes, void *p);
void vecreg_write(unsigned reg, unsigned bytes, const void *p);
void vecreg_read_sse(unsigned reg, void *p); /* 16 bytes, on any host */
void vecreg_read_mmx(unsigned reg, void *p); /* 8 bytes */
u64 vecreg_read_k(unsigned reg);             /* opmask, 16 bits and more */
void vecreg_clear_k(unsigned reg);

#endif
