/*
 * Local APIC: state, priorities, acceptance and end of interrupts. SDM 3A chapter 10.
 *
 * Invariants:
 *  1. `ready` always equals what lapic_update_locked() would compute from the state, once the lock
 * is free.
 *  2. Whoever makes `ready` go from nothing to something kicks the processor after dropping the
 * lock.
 *  3. The lock is not held while the PIC or the I/O APIC is called.
 *
 * Threads: any; see lapic.h.
 */
#include "device/lapic_parts.h"
#include "device/trace.h"
#include <string.h>

static _Thread_local unsigned thread_cpu;

void lapic_set_thread_cpu(unsigned cpu)
{
    thread_cpu = cpu;
}

static int highest_bit(const u32 set[8])
{
    for (int i = 7; i >= 0; i--) {
        if (set[i])
            return i * 32 + 31 - __builtin_clz(set[i]);
    }
    return -1;
}

static void set_bit(u32 set[8], unsigned bit)
{
    set[bit / 32] |= 1u << (bit % 32);
}

static void clear_bit(u32 set[8], unsigned bit)
{
    set[bit / 32] &= ~(1u << (bit % 32));
}

static bool test_bit(const u32 set[8], unsigned bit)
{
    return set[bit / 32] & (1u << (bit % 32));
}

u32 lapic_ppr(const struct lapic *l)
{
    int isr = highest_bit(l->s.isr);
    u32 in_service = isr < 0 ? 0 : (u32)isr & 0xf0;

    return (l->s.tpr & 0xf0) >= in_service ? l->s.tpr : in_service;
}

u32 lapic_ldr(const struct lapic *l)
{
    if (lapic_x2(l))
        return (l->cpu >> 4) << 16 | 1u << (l->cpu & 15);
    return l->s.ldr;
}

/* The PIC's output reaches the processor through LINT0 in ExtINT mode, or directly when the APIC is
 * off. */
static bool extint_passes(const struct lapic *l)
{
    u32 lvt = l->s.lvt[LVT_LINT0];

    if (!l->s.extint)
        return false;
    if (!lapic_hw_enabled(l))
        return true;
    return !(lvt & LVT_MASKED) && ((lvt >> LVT_MODE_SHIFT) & 7) == LAPIC_EXTINT;
}

bool lapic_update_locked(struct lapic *l)
{
    unsigned ready = 0, old;
    int irr = highest_bit(l->s.irr);

    if (lapic_hw_enabled(l) && irr >= 0 && ((u32)irr & 0xf0) > (lapic_ppr(l) & 0xf0))
        ready |= LAPIC_READY_FIXED;
    if (extint_passes(l))
        ready |= LAPIC_READY_EXTINT;
    old = atomic_exchange_explicit(&l->ready, ready, memory_order_acq_rel);
    return (ready & ~old) != 0;
}

/* Drops the lock; kicks the processor if something became ready. */
static void unlock_and_kick(struct lapic *l)
{
    bool kick = lapic_update_locked(l);

    pthread_mutex_unlock(&l->lock);
    if (kick)
        cpu_kick(&l->bus->kicker, l->cpu, KICK_INTR);
}

bool lapic_accept_locked(struct lapic *l, u8 vector, bool level)
{
    if (!lapic_hw_enabled(l) || !lapic_sw_enabled(l))
        return false;
    if (vector < 16) {
        lapic_error_locked(l, ESR_RECV_ILLEGAL);
        return false;
    }
    trace_device_lapic_accept(l->cpu, vector, level);
    set_bit(l->s.irr, vector);
    if (level)
        set_bit(l->s.tmr, vector);
    else
        clear_bit(l->s.tmr, vector);
    return true;
}

void lapic_error_locked(struct lapic *l, u32 esr_bit)
{
    u32 lvt = l->s.lvt[LVT_ERROR];

    l->s.esr_new |= esr_bit;
    /* An error interrupt with a vector below 16 would be an error again: it is recorded, not
     * repeated. */
    if (!(lvt & LVT_MASKED) && (lvt & LVT_VECTOR) >= 16)
        lapic_accept_locked(l, lvt & LVT_VECTOR, false);
}

int lapic_eoi_locked(struct lapic *l)
{
    int vector = highest_bit(l->s.isr);

    if (vector < 0)
        return -1;
    trace_device_lapic_eoi(l->cpu, (unsigned)vector);
    clear_bit(l->s.isr, (unsigned)vector);
    if (!test_bit(l->s.tmr, (unsigned)vector) || (l->s.svr & SVR_NO_EOI_BROADCAST))
        return -1;
    return vector;
}

void lapic_write_svr_locked(struct lapic *l, u32 value)
{
    l->s.svr = value & (0xff | SVR_ENABLE | SVR_NO_EOI_BROADCAST);
    if (l->s.svr & SVR_ENABLE)
        return;
    /* 10.4.7.2: while disabled, all LVT entries are masked */
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        l->s.lvt[i] |= LVT_MASKED;
}

void lapic_init_locked(struct lapic *l)
{
    struct lapic_state *s = &l->s;

    lapic_timer_stop_locked(l);
    s->icr = 0;
    s->tpr = s->ldr = s->esr = s->esr_new = 0;
    s->dfr = 0xffffffff;
    s->svr = 0xff;
    s->timer_count = s->timer_divide = 0;
    for (unsigned i = 0; i < LAPIC_LVTS; i++)
        s->lvt[i] = LVT_MASKED;
    memset(s->irr, 0, sizeof(s->irr));
    memset(s->isr, 0, sizeof(s->isr));
    memset(s->tmr, 0, sizeof(s->tmr));
    s->sipi = -1;
}

static void power_on(struct lapic *l)
{
    pthread_mutex_lock(&l->lock);
    lapic_init_locked(l);
    l->s.apic_base = LAPIC_BASE | APIC_BASE_EN | (l->cpu == 0 ? APIC_BASE_BSP : 0);
    l->s.tsc_offset = 0;
    l->s.extint = 0;
    lapic_update_locked(l);
    pthread_mutex_unlock(&l->lock);
}

int lapic_acknowledge(struct lapic_bus *bus, unsigned cpu)
{
    struct lapic *l = &bus->cpu[cpu];
    unsigned ready = atomic_load_explicit(&l->ready, memory_order_acquire);
    int vector = -1;

    if ((ready & LAPIC_READY_EXTINT) && bus->pic_ack)
        return bus->pic_ack(bus->pic_opaque);
    if (!(ready & LAPIC_READY_FIXED))
        return -1;
    pthread_mutex_lock(&l->lock);
    if (atomic_load_explicit(&l->ready, memory_order_relaxed) & LAPIC_READY_FIXED) {
        vector = highest_bit(l->s.irr);
        clear_bit(l->s.irr, (unsigned)vector);
        set_bit(l->s.isr, (unsigned)vector);
        lapic_update_locked(l);
    }
    pthread_mutex_unlock(&l->lock);
    if (vector >= 0)
        trace_device_lapic_ack(cpu, vector);
    return vector;
}

u64 lapic_get_cr8(struct lapic_bus *bus, unsigned cpu)
{
    struct lapic *l = &bus->cpu[cpu];
    u64 cr8;

    pthread_mutex_lock(&l->lock);
    cr8 = l->s.tpr >> 4 & 15;
    pthread_mutex_unlock(&l->lock);
    return cr8;
}

void lapic_set_cr8(struct lapic_bus *bus, unsigned cpu, u64 cr8)
{
    struct lapic *l = &bus->cpu[cpu];

    pthread_mutex_lock(&l->lock);
    l->s.tpr = (u32)(cr8 & 15) << 4;
    unlock_and_kick(l);
}

int lapic_take_sipi(struct lapic_bus *bus, unsigned cpu)
{
    struct lapic *l = &bus->cpu[cpu];
    int sipi;

    pthread_mutex_lock(&l->lock);
    sipi = l->s.sipi;
    l->s.sipi = -1;
    pthread_mutex_unlock(&l->lock);
    return sipi;
}

void lapic_set_tsc_offset(struct lapic_bus *bus, unsigned cpu, s64 offset)
{
    struct lapic *l = &bus->cpu[cpu];

    pthread_mutex_lock(&l->lock);
    l->s.tsc_offset = offset;
    lapic_timer_rearm_locked(l);
    unlock_and_kick(l);
}

void lapic_resume(struct lapic_bus *bus, unsigned cpu)
{
    struct lapic *l = &bus->cpu[cpu];

    pthread_mutex_lock(&l->lock);
    lapic_timer_rearm_locked(l);
    unlock_and_kick(l);
}

void lapic_bus_extint(struct lapic_bus *bus, bool level)
{
    struct lapic *l = &bus->cpu[0];

    pthread_mutex_lock(&l->lock);
    l->s.extint = level;
    unlock_and_kick(l);
}

void lapic_bus_nmi(struct lapic_bus *bus)
{
    for (unsigned i = 0; i < bus->cpus; i++) {
        struct lapic *l = &bus->cpu[i];
        u32 lvt;

        pthread_mutex_lock(&l->lock);
        lvt = l->s.lvt[LVT_LINT1];
        pthread_mutex_unlock(&l->lock);
        if (!(lvt & LVT_MASKED) && ((lvt >> LVT_MODE_SHIFT) & 7) == LAPIC_NMI)
            cpu_kick(&bus->kicker, i, KICK_NMI);
    }
}

static u64 mmio_read(void *opaque, u64 offset, unsigned size)
{
    struct lapic_bus *bus = opaque;
    struct lapic *l = &bus->cpu[thread_cpu < bus->cpus ? thread_cpu : 0];
    u64 value;

    /* 10.4.1: 32-bit accesses on 16-byte boundaries; the rest is undefined and reads as zero here
     */
    if (!lapic_hw_enabled(l) || lapic_x2(l))
        return ~0ull;
    if ((offset & 15) || size != 4 || !lapic_reg_read(l, (unsigned)(offset >> 4), &value))
        return 0;
    return (u32)value;
}

static void mmio_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct lapic_bus *bus = opaque;
    struct lapic *l = &bus->cpu[thread_cpu < bus->cpus ? thread_cpu : 0];

    if (!lapic_hw_enabled(l) || lapic_x2(l) || (offset & 15) || size != 4)
        return;
    lapic_reg_write(l, (unsigned)(offset >> 4), (u32)value);
}

static const struct io_ops mmio_ops = {.read = mmio_read, .write = mmio_write};

void lapic_bus_init(struct lapic_bus *bus, unsigned cpus, u32 tsc_khz)
{
    memset(bus, 0, sizeof(*bus));
    bus->cpus = MIN(cpus, (unsigned)LAPIC_CPUS);
    bus->tsc_khz = tsc_khz ? tsc_khz : 1000000;
    bus->mmio = (struct io_region){
        .name = "lapic", .base = LAPIC_BASE, .len = LAPIC_LEN, .ops = &mmio_ops, .opaque = bus};
    for (unsigned i = 0; i < bus->cpus; i++) {
        struct lapic *l = &bus->cpu[i];

        l->bus = bus;
        l->cpu = i;
        pthread_mutex_init(&l->lock, NULL);
        power_on(l);
    }
}

void lapic_bus_fini(struct lapic_bus *bus)
{
    for (unsigned i = 0; i < bus->cpus; i++) {
        if (bus->cpu[i].has_timer)
            timer_cancel(&bus->cpu[i].timer);
        pthread_mutex_destroy(&bus->cpu[i].lock);
    }
    bus->cpus = 0;
}

void lapic_bus_reset(struct lapic_bus *bus)
{
    for (unsigned i = 0; i < bus->cpus; i++)
        power_on(&bus->cpu[i]);
}

int lapic_bus_map(struct lapic_bus *bus, struct aspace *mmio, struct err *err)
{
    return aspace_map(mmio, &bus->mmio, err);
}

void lapic_set_timers(struct lapic_bus *bus, unsigned cpu, struct timerq *q)
{
    lapic_timer_init(&bus->cpu[cpu], q);
}
