/*
 * The PC's interrupt controllers and timer as accelerators that have them hand them over: registers as the data sheets
 * name them (8259A, 8254, I/O APIC, SDM 3A chapter 10). The board converts to the state of its devices, which is what is
 * saved; so a machine may go on under an accelerator that has none.
 */
#ifndef X86_IRQCHIP_H
#define X86_IRQCHIP_H

#include "base/types.h"

#define X86_IRQCHIP_CPUS 32
#define X86_IOAPIC_PINS 24
#define X86_LAPIC_REGS 64 /* register n is at offset 16 * n */

struct x86_pic {
    u8 irr, imr, isr, base, elcr;
    u8 lines; /* levels of the inputs, as edges are told by */
    u8 top;   /* input with the highest priority */
    u8 init;  /* initialization word that comes next: 2, 3, 4; 0: none */
    u8 four;  /* a fourth will come */
    u8 read_isr, poll, special_mask, auto_eoi, rotate_auto_eoi, fully_nested;
};

struct x86_pit_channel {
    s64 start_ns; /* CLOCK_MONOTONIC */
    u32 count;    /* 1..65536, 0: not loaded */
    u16 latch;
    u8 latched; /* bytes of latch still to be read */
    u8 status, status_latched, mode, bcd, access, write_low, write_high_next, read_high_next, gate;
};

struct x86_lapic {
    u32 reg[X86_LAPIC_REGS]; /* id in bits 24-31, also in x2APIC mode; [0x39] is what is left of the count */
    u64 apic_base, tsc_deadline;
};

struct x86_irqchip {
    struct x86_pic pic[2];
    struct x86_pit_channel pit[3];
    u8 speaker, pit_disabled; /* pit_disabled: another timer has interrupt 0 */
    u64 ioapic_entry[X86_IOAPIC_PINS];
    u32 ioapic_id, ioapic_select;
    u32 ioapic_irr; /* pins whose interrupt waits; on loading, level-triggered ones only */
    struct x86_lapic lapic[X86_IRQCHIP_CPUS];
};

#endif
