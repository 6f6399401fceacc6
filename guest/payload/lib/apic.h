/* Interrupts to oneself through the local APIC: x2APIC where there is one, else the memory-mapped registers. */
#ifndef PAYLOAD_APIC_H
#define PAYLOAD_APIC_H

#include "payload.h"

#define APIC_MMIO 0xfee00000ul

static inline bool apic_is_x2(void)
{
    return cpuid(1, 0).ecx & BIT(21);
}

static inline void apic_write(u32 reg, u32 value)
{
    if (apic_is_x2())
        wrmsr(0x800 + reg, value);
    else
        *(volatile u32 *)(APIC_MMIO + reg * 16) = value;
}

static inline u32 apic_read(u32 reg)
{
    return apic_is_x2() ? (u32)rdmsr(0x800 + reg) : *(volatile u32 *)(APIC_MMIO + reg * 16);
}

static inline void apic_enable(void)
{
    if (apic_is_x2())
        wrmsr(0x1b, rdmsr(0x1b) | 0xc00);
    apic_write(0xf, 0x1ff);
}

static inline void apic_eoi(void)
{
    apic_write(0xb, 0);
}

/* Fixed interrupt or NMI (mode 4) to this processor. */
static inline void apic_self(u32 vector, u32 mode)
{
    apic_write(0x30, 1u << 18 | 1u << 14 | mode << 8 | vector);
}
#define APIC_FIXED 0
#define APIC_NMI 4

#endif
