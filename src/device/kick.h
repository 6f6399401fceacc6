/* How interrupt controllers reach processors: the board hands in a callback that ends in the accelerator. */
#ifndef DEVICE_KICK_H
#define DEVICE_KICK_H

#include "base/types.h"

/* The same bits as the accelerator's enum vcpu_event; the board asserts it. */
enum cpu_kick { KICK_INTR = 1, KICK_NMI = 2, KICK_INIT = 4, KICK_SIPI = 8 };

/* Any thread may call, also a vCPU's own for itself; must not block and must not call back into devices. */
struct cpu_kicker {
    void (*kick)(void *opaque, unsigned cpu, u32 bits);
    void *opaque;
};

static inline void cpu_kick(const struct cpu_kicker *k, unsigned cpu, u32 bits)
{
    if (k->kick)
        k->kick(k->opaque, cpu, bits);
}

#endif
