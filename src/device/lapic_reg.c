/*
 * The local APIC's register file, as memory (xAPIC) and as MSRs (x2APIC). SDM 3A table 10-1 and
 * table 10-6.
 *
 * Both views share indices: offset / 16 in memory is the low byte of the MSR number. What differs
 * is checked where the views come in: reserved bits raise #GP only through MSRs.
 *
 * Thread: the vCPU's own.
 */
#include "device/lapic_parts.h"
#include "device/lapic_regs.h"

/* Version 0x14, LVT_ERROR is the last entry, EOI broadcast can be suppressed (10.4.8) */
#define VERSION_VALUE (0x14u | (LAPIC_LVTS - 1) << 16 | 1u << 24)

#define MSR_APIC_BASE 0x1b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC 0x800
#define MSR_X2APIC_END 0x900

/* Bits a guest may write; the delivery status (12) and remote IRR (14) are ours and read as zero.
 */
static const u32 lvt_writable[LAPIC_LVTS] = {
    [LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
    [LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

/* The set of vectors that one of the 24 registers from ISR to IRR shows a part of. */
static const u32 *vectors(const struct lapic_state *s, unsigned index)
{
    return index < LAPIC_TMR ? s->isr : index < LAPIC_IRR ? s->tmr : s->irr;
}

static bool read_locked(struct lapic *l, unsigned index, u64 *ret)
{
    const struct lapic_state *s = &l->s;

    switch (index) {
    case LAPIC_ID:
        *ret = lapic_x2(l) ? l->cpu : l->cpu << 24;
        return true;
    case LAPIC_VERSION:
        *ret = VERSION_VALUE;
        return true;
    case LAPIC_TPR:
        *ret = s->tpr;
        return true;
    case LAPIC_PPR:
        *ret = lapic_ppr(l);
        return true;
    case LAPIC_LDR:
        *ret = lapic_ldr(l);
        return true;
    case LAPIC_DFR:
        *ret = s->dfr;
        return true;
    case LAPIC_SVR:
        *ret = s->svr;
        return true;
    case LAPIC_ISR ... LAPIC_IRR + 7:
        *ret = vectors(s, index)[index & 7];
        return true;
    case LAPIC_ESR:
        *ret = s->esr;
        return true;
    case LAPIC_ICR:
        *ret = lapic_x2(l) ? s->icr : (u32)s->icr;
        return true;
    case LAPIC_ICR_HIGH:
        *ret = s->icr >> 32;
        return true;
    case LAPIC_LVT ... LAPIC_LVT_LAST:
        *ret = s->lvt[index - LAPIC_LVT];
        return true;
    case LAPIC_TIMER_COUNT:
        *ret = s->timer_count;
        return true;
    case LAPIC_TIMER_CURRENT:
        *ret = lapic_timer_current_locked(l);
        return true;
    case LAPIC_TIMER_DIVIDE:
        *ret = s->timer_divide;
        return true;
    case LAPIC_APR:
    case LAPIC_RRD:
    case LAPIC_EOI:
    case LAPIC_SELF_IPI:
        *ret = 0;
        return true;
    }
    return false;
}

bool lapic_reg_read(struct lapic *l, unsigned index, u64 *ret_value)
{
    bool known;

    pthread_mutex_lock(&l->lock);
    known = read_locked(l, index, ret_value);
    if (!known && !lapic_x2(l)) {
        lapic_error_locked(l, ESR_REG_ILLEGAL);
        lapic_update_locked(l);
    }
    pthread_mutex_unlock(&l->lock);
    return known;
}

static void write_lvt_locked(struct lapic *l, unsigned entry, u32 value)
{
    u32 old = l->s.lvt[entry];

    l->s.lvt[entry] = value & lvt_writable[entry];
    if (!lapic_sw_enabled(l))
        l->s.lvt[entry] |= LVT_MASKED;
    if (entry == LVT_TIMER)
        lapic_timer_lvt_locked(l, old);
}

static void write_esr_locked(struct lapic *l)
{
    l->s.esr = l->s.esr_new; /* 10.5.3: a write makes what was collected visible */
    l->s.esr_new = 0;
}

/* Registers whose effect stays within this local APIC. */
static bool write_locked(struct lapic *l, unsigned index, u32 value)
{
    u32 old;

    switch (index) {
    case LAPIC_TPR:
        l->s.tpr = value & 0xff;
        return true;
    case LAPIC_LDR:
        l->s.ldr = value & 0xff000000;
        return true;
    case LAPIC_DFR:
        l->s.dfr = value | 0x0fffffff;
        return true;
    case LAPIC_SVR:
        lapic_write_svr_locked(l, value);
        return true;
    case LAPIC_ESR:
        write_esr_locked(l);
        return true;
    case LAPIC_ICR_HIGH:
        l->s.icr = (u64)(value & 0xff000000) << 32 | (u32)l->s.icr;
        return true;
    case LAPIC_LVT ... LAPIC_LVT_LAST:
        write_lvt_locked(l, index - LAPIC_LVT, value);
        return true;
    case LAPIC_TIMER_COUNT:
        l->s.timer_count = value;
        lapic_timer_start_locked(l);
        return true;
    case LAPIC_TIMER_DIVIDE:
        old = l->s.timer_divide;
        l->s.timer_divide = value & 0xb;
        lapic_timer_divide_locked(l, old);
        return true;
    case LAPIC_ID: /* fixed here; writes are ignored as on processors where it is read-only */
        return true;
    }
    return false;
}

static void eoi(struct lapic *l)
{
    struct lapic_bus *bus = l->bus;
    bool kick;
    int vector;

    pthread_mutex_lock(&l->lock);
    vector = lapic_eoi_locked(l);
    kick = lapic_update_locked(l);
    pthread_mutex_unlock(&l->lock);
    if (kick)
        cpu_kick(&bus->kicker, l->cpu, KICK_INTR);
    if (vector >= 0 && bus->eoi)
        bus->eoi(bus->eoi_opaque, (u8)vector);
}

bool lapic_reg_write(struct lapic *l, unsigned index, u64 value)
{
    bool known, kick;

    switch (index) { /* those that reach beyond this local APIC take no lock here */
    case LAPIC_EOI:
        eoi(l);
        return true;
    case LAPIC_ICR:
        lapic_send_icr(l, lapic_x2(l) ? value : (l->s.icr & 0xffffffff00000000ull) | (u32)value);
        return true;
    }
    if (index == LAPIC_SELF_IPI && lapic_x2(l)) {
        lapic_send_self(l, (u8)value);
        return true;
    }
    pthread_mutex_lock(&l->lock);
    known = write_locked(l, index, (u32)value);
    if (!known)
        lapic_error_locked(l, ESR_REG_ILLEGAL);
    kick = lapic_update_locked(l);
    pthread_mutex_unlock(&l->lock);
    if (kick)
        cpu_kick(&l->bus->kicker, l->cpu, KICK_INTR);
    return known;
}

/* 10.4.4 and figure 10-27: which changes of mode there are. */
static bool write_base(struct lapic *l, u64 value)
{
    u64 mode = value & (APIC_BASE_EN | APIC_BASE_X2);
    u64 old = l->s.apic_base & (APIC_BASE_EN | APIC_BASE_X2);
    bool kick;

    if ((value & ~(0xffffffffff000ull | APIC_BASE_EN | APIC_BASE_X2 | APIC_BASE_BSP)) ||
        mode == APIC_BASE_X2)
        return false;
    if (old == (APIC_BASE_EN | APIC_BASE_X2) && mode == APIC_BASE_EN)
        return false;
    if (old == 0 && mode == (APIC_BASE_EN | APIC_BASE_X2))
        return false;
    pthread_mutex_lock(&l->lock);
    l->s.apic_base = value;
    if (old && !mode)
        lapic_init_locked(l);
    kick = lapic_update_locked(l);
    pthread_mutex_unlock(&l->lock);
    if (kick)
        cpu_kick(&l->bus->kicker, l->cpu, KICK_INTR);
    return true;
}

static bool msr_readable(unsigned index)
{
    return index != LAPIC_APR && index != LAPIC_EOI && index != LAPIC_RRD && index != LAPIC_DFR &&
           index != LAPIC_ICR_HIGH && index != LAPIC_SELF_IPI;
}

/* Table 10-6: what may be written, and with which bits. */
static bool msr_writable(unsigned index, u64 value)
{
    switch (index) {
    case LAPIC_EOI:
    case LAPIC_ESR:
        return value == 0;
    case LAPIC_TPR:
    case LAPIC_SELF_IPI:
        return value <= 0xff;
    case LAPIC_SVR:
        return !(value & ~0x11ffull);
    case LAPIC_ICR:
        return !(value & 0xfff32000ull);
    case LAPIC_LVT ... LAPIC_LVT_LAST:
        return !(value & ~(u64)(lvt_writable[index - LAPIC_LVT] | 0x5000));
    case LAPIC_TIMER_COUNT:
        return value <= 0xffffffff;
    case LAPIC_TIMER_DIVIDE:
        return !(value & ~0xbull);
    }
    return false;
}

bool lapic_read_msr(struct lapic_bus *bus, unsigned cpu, u32 msr, u64 *ret_value)
{
    struct lapic *l = &bus->cpu[cpu];

    if (msr == MSR_APIC_BASE) {
        *ret_value = l->s.apic_base;
        return true;
    }
    if (msr == MSR_TSC_DEADLINE) {
        pthread_mutex_lock(&l->lock);
        *ret_value = l->s.tsc_deadline;
        pthread_mutex_unlock(&l->lock);
        return true;
    }
    if (msr < MSR_X2APIC || msr >= MSR_X2APIC_END || !lapic_x2(l) || !msr_readable(msr & 0xff))
        return false;
    return lapic_reg_read(l, msr & 0xff, ret_value);
}

bool lapic_write_msr(struct lapic_bus *bus, unsigned cpu, u32 msr, u64 value)
{
    struct lapic *l = &bus->cpu[cpu];
    bool kick;

    if (msr == MSR_APIC_BASE)
        return write_base(l, value);
    if (msr == MSR_TSC_DEADLINE) {
        pthread_mutex_lock(&l->lock);
        lapic_timer_deadline_locked(l, value);
        kick = lapic_update_locked(l);
        pthread_mutex_unlock(&l->lock);
        if (kick)
            cpu_kick(&bus->kicker, cpu, KICK_INTR);
        return true;
    }
    if (msr < MSR_X2APIC || msr >= MSR_X2APIC_END || !lapic_x2(l) ||
        !msr_writable(msr & 0xff, value))
        return false;
    return lapic_reg_write(l, msr & 0xff, value);
}
