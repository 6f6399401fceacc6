/*
 * Registers of a local APIC: index is offset / 16 in memory, or the low byte of the x2APIC's MSR. SDM 3A, tables 10-1 and
 * 10-6. For the device, and for those who bring another one's registers into its state.
 */
#ifndef DEVICE_LAPIC_REGS_H
#define DEVICE_LAPIC_REGS_H

#include "device/lapic.h"

enum {
    LAPIC_ID = 0x02,
    LAPIC_VERSION = 0x03,
    LAPIC_TPR = 0x08,
    LAPIC_APR = 0x09,
    LAPIC_PPR = 0x0a,
    LAPIC_EOI = 0x0b,
    LAPIC_RRD = 0x0c,
    LAPIC_LDR = 0x0d,
    LAPIC_DFR = 0x0e,
    LAPIC_SVR = 0x0f,
    LAPIC_ISR = 0x10,
    LAPIC_TMR = 0x18,
    LAPIC_IRR = 0x20,
    LAPIC_ESR = 0x28,
    LAPIC_ICR = 0x30,
    LAPIC_ICR_HIGH = 0x31,
    LAPIC_LVT = 0x32,
    LAPIC_LVT_LAST = LAPIC_LVT + LAPIC_LVTS - 1,
    LAPIC_TIMER_COUNT = 0x38,
    LAPIC_TIMER_CURRENT = 0x39,
    LAPIC_TIMER_DIVIDE = 0x3e,
    LAPIC_SELF_IPI = 0x3f,
};

/* Bits 17 and 18 of the timer's LVT entry. SDM 3A, 10.5.4. */
enum lapic_timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_DEADLINE };

static inline enum lapic_timer_mode lapic_timer_mode(u32 lvt)
{
    return (enum lapic_timer_mode)(lvt >> 17 & 3);
}

/* What the divide configuration register's bits 0, 1 and 3 stand for. SDM 3A, figure 10-10. */
static inline u64 lapic_divisor(u32 divide)
{
    u32 shift = ((divide & 3) | (divide >> 1 & 4)) + 1;

    return 1ull << (shift & 7);
}

#endif
