/* What the files of the local APIC share: state bits, and steps that run with lapic.lock held
 * ("_locked"). */
#ifndef DEVICE_LAPIC_PARTS_H
#define DEVICE_LAPIC_PARTS_H

#include "device/lapic.h"

#define APIC_BASE_BSP BIT(8)
#define APIC_BASE_X2 BIT(10)
#define APIC_BASE_EN BIT(11)

#define SVR_ENABLE BIT(8)
#define SVR_NO_EOI_BROADCAST BIT(12)

#define LVT_VECTOR 0xffu
#define LVT_MODE_SHIFT 8
#define LVT_MASKED BIT(16)

/* 10.5.3: error status */
#define ESR_SEND_ILLEGAL BIT(5)
#define ESR_RECV_ILLEGAL BIT(6)
#define ESR_REG_ILLEGAL BIT(7)

static inline bool lapic_hw_enabled(const struct lapic *l)
{
    return l->s.apic_base & APIC_BASE_EN;
}

static inline bool lapic_x2(const struct lapic *l)
{
    return (l->s.apic_base & (APIC_BASE_EN | APIC_BASE_X2)) == (APIC_BASE_EN | APIC_BASE_X2);
}

static inline bool lapic_sw_enabled(const struct lapic *l)
{
    return l->s.svr & SVR_ENABLE;
}

/* Processor priority: the higher of the task priority and the class in service, 10.8.3.1. */
u32 lapic_ppr(const struct lapic *l);
/* Logical destination as this local APIC knows itself, 10.6.2 and 10.12.10.2. */
u32 lapic_ldr(const struct lapic *l);
/* Recomputes `ready`; returns true when something became ready that was not: the caller kicks the
 * processor once it has dropped the lock. */
bool lapic_update_locked(struct lapic *l);
/* Puts a fixed interrupt into IRR. false: not accepted. */
bool lapic_accept_locked(struct lapic *l, u8 vector, bool level);
void lapic_error_locked(struct lapic *l, u32 esr_bit);
/* State after INIT, 10.4.7.3; the id and the mode stay. */
void lapic_init_locked(struct lapic *l);
/* End of the interrupt in service. The vector to broadcast to the I/O APIC, or -1. */
int lapic_eoi_locked(struct lapic *l);
/* Software enable and disable with what hangs on it. */
void lapic_write_svr_locked(struct lapic *l, u32 value);

/* Register file: index is the offset / 16, which is also the x2APIC MSR's low byte. */
bool lapic_reg_read(struct lapic *l, unsigned index, u64 *ret_value);
bool lapic_reg_write(struct lapic *l, unsigned index, u64 value);

/* IPIs. No lock held. */
void lapic_send_icr(struct lapic *l, u64 icr);
void lapic_send_self(struct lapic *l, u8 vector);

/* Timer */
void lapic_timer_init(struct lapic *l, struct timerq *q);
void lapic_timer_stop_locked(struct lapic *l);
void lapic_timer_lvt_locked(struct lapic *l, u32 old_lvt);
void lapic_timer_start_locked(struct lapic *l);
void lapic_timer_divide_locked(struct lapic *l, u32 old_divide);
u32 lapic_timer_current_locked(struct lapic *l);
/* Sets the deadline (0: none); one that has passed already puts the interrupt into IRR. */
void lapic_timer_deadline_locked(struct lapic *l, u64 tsc);
void lapic_timer_rearm_locked(struct lapic *l);

#endif
