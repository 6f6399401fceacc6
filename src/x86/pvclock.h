/*
 * The paravirtual clock (kvmclock): nanoseconds made of the guest's TSC by a 32-bit factor and a shift. Both accelerators
 * and the guest must round alike, or a guest that moves sees the clock jump.
 */
#ifndef X86_PVCLOCK_H
#define X86_PVCLOCK_H

#include "base/types.h"

/* ns = ((tsc << shift) * mul) >> 32, with a negative shift to the right. */
static inline void pvclock_scale(u32 khz, u32 *ret_mul, s8 *ret_shift)
{
    u64 hz = (u64)khz * 1000;
    s8 shift = 0;

    while (hz > 2 * (u64)NS_PER_S) {
        hz >>= 1;
        shift--;
    }
    while (hz && hz <= (u64)NS_PER_S) {
        hz <<= 1;
        shift++;
    }
    *ret_mul = hz ? (u32)(((u64)NS_PER_S << 32) / hz) : 0;
    *ret_shift = shift;
}

static inline u64 pvclock_ns(u32 khz, u64 tsc)
{
    u32 mul;
    s8 shift;

    pvclock_scale(khz, &mul, &shift);
    tsc = shift < 0 ? tsc >> -shift : tsc << shift;
    return (u64)((unsigned __int128)tsc * mul >> 32);
}

#endif
