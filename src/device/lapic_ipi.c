/*
 * The bus between local APICs: who a message is for, and what it does there. SDM 3A 10.6
 * (IPIs), 10.11 (MSIs), 10.12.9 and 10.12.10 (x2APIC).
 *
 * Each local APIC is locked alone, one after the other; no two at once.
 *
 * Threads: any.
 */
#include "device/lapic_parts.h"
#include "device/trace.h"

#define ICR_LOGICAL BIT(11)
#define ICR_BUSY BIT(12)
#define ICR_ASSERT BIT(14)
#define ICR_LEVEL BIT(15)

enum shorthand { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS };

/* 10.6.2.2; called with l->lock held */
static bool logical_match(const struct lapic *l, u32 dest)
{
    u32 ldr = lapic_ldr(l), id;

    if (lapic_x2(l))
        return ldr >> 16 == dest >> 16 && (ldr & dest & 0xffff);
    id = ldr >> 24;
    if (l->s.dfr >> 28 == 0xf) /* flat model: one bit each */
        return (id & dest) != 0;
    return id >> 4 == dest >> 4 && (id & dest & 0xf);
}

static bool is_dest_locked(const struct lapic *l, const struct lapic_msg *m)
{
    if (!lapic_hw_enabled(l))
        return m->mode == LAPIC_INIT && !m->logical && m->dest == l->cpu;
    if (m->dest == (m->wide ? 0xffffffff : 0xff))
        return true;
    return m->logical ? logical_match(l, m->dest) : m->dest == l->cpu;
}

/* Does the message's work at one destination. false: not accepted. */
static bool receive_locked(struct lapic *l, const struct lapic_msg *m, u32 *ret_kick)
{
    switch ((enum lapic_mode)m->mode) {
    case LAPIC_FIXED:
    case LAPIC_LOWEST:
        if (!lapic_accept_locked(l, m->vector, m->level))
            return false;
        if (lapic_update_locked(l))
            *ret_kick = KICK_INTR;
        return true;
    case LAPIC_NMI:
        *ret_kick = KICK_NMI;
        return true;
    case LAPIC_INIT:
        lapic_init_locked(l);
        lapic_update_locked(l);
        *ret_kick = KICK_INIT;
        return true;
    case LAPIC_SIPI:
        l->s.sipi = m->vector;
        *ret_kick = KICK_SIPI;
        return true;
    case LAPIC_SMI: /* there is no system management mode here */
    case LAPIC_EXTINT:
        return false;
    }
    return false;
}

static bool send_to(struct lapic *l, const struct lapic_msg *m)
{
    u32 kick = 0;
    bool accepted;

    pthread_mutex_lock(&l->lock);
    accepted = receive_locked(l, m, &kick);
    pthread_mutex_unlock(&l->lock);
    if (kick)
        cpu_kick(&l->bus->kicker, l->cpu, kick);
    return accepted;
}

static bool is_dest(struct lapic *l, const struct lapic_msg *m)
{
    bool match;

    pthread_mutex_lock(&l->lock);
    match = is_dest_locked(l, m);
    pthread_mutex_unlock(&l->lock);
    return match;
}

/* 10.6.2.4: to the one among the destinations that runs at the lowest priority; equals take turns.
 */
static bool deliver_lowest(struct lapic_bus *bus, const struct lapic_msg *m)
{
    unsigned start = atomic_fetch_add_explicit(&bus->rotate, 1, memory_order_relaxed);
    struct lapic *best = NULL;
    u32 best_ppr = 0x100;

    for (unsigned i = 0; i < bus->cpus; i++) {
        struct lapic *l = &bus->cpu[(start + i) % bus->cpus];
        u32 ppr;

        pthread_mutex_lock(&l->lock);
        ppr = is_dest_locked(l, m) && lapic_sw_enabled(l) ? lapic_ppr(l) & 0xff : 0x100;
        pthread_mutex_unlock(&l->lock);
        if (ppr < best_ppr) {
            best_ppr = ppr;
            best = l;
        }
    }
    return best && send_to(best, m);
}

bool lapic_bus_deliver(struct lapic_bus *bus, const struct lapic_msg *m)
{
    bool accepted = false;

    if (m->mode == LAPIC_LOWEST)
        return deliver_lowest(bus, m);
    /* the usual case, without a look at the others: one processor by its id */
    if (!m->logical && m->dest < bus->cpus)
        return is_dest(&bus->cpu[m->dest], m) && send_to(&bus->cpu[m->dest], m);
    for (unsigned i = 0; i < bus->cpus; i++) {
        if (is_dest(&bus->cpu[i], m))
            accepted |= send_to(&bus->cpu[i], m);
    }
    return accepted;
}

void lapic_bus_msi(struct lapic_bus *bus, u64 addr, u32 data)
{
    bool redirect = addr & BIT(3), logical = addr & BIT(2);
    struct lapic_msg m = {
        .dest = addr >> 12 & 0xff,
        .logical = logical,
        .mode = data >> 8 & 7,
        .vector = data & 0xff,
        .level = data & BIT(15),
    };

    trace_device_msi(addr, data);
    if (addr < LAPIC_BASE || addr >= LAPIC_BASE + MiB)
        return;
    if (m.mode == LAPIC_FIXED && redirect && logical) /* 10.11.1: redirection hint */
        m.mode = LAPIC_LOWEST;
    if (m.mode == LAPIC_SIPI)
        return;
    lapic_bus_deliver(bus, &m);
}

/* All hardware-enabled ones are meant, except that INIT and start-up reach every processor on the bus. */
static bool reached(struct lapic *l, const struct lapic_msg *m)
{
    bool enabled;

    if (m->mode == LAPIC_INIT || m->mode == LAPIC_SIPI)
        return true;
    pthread_mutex_lock(&l->lock);
    enabled = lapic_hw_enabled(l);
    pthread_mutex_unlock(&l->lock);
    return enabled;
}

static void send_shorthand(struct lapic *l, const struct lapic_msg *m, enum shorthand to)
{
    struct lapic_bus *bus = l->bus;

    for (unsigned i = 0; i < bus->cpus; i++) {
        struct lapic *target = &bus->cpu[i];

        if (target == l ? to == TO_OTHERS : to == TO_SELF)
            continue;
        if (reached(target, m))
            send_to(target, m);
    }
}

/* Writes l's ICR and says whether a message goes out. */
static bool take_icr(struct lapic *l, u64 icr)
{
    u8 mode = icr >> 8 & 7;
    bool send = lapic_hw_enabled(l), kick;

    pthread_mutex_lock(&l->lock);
    l->s.icr = icr & ~ICR_BUSY;
    if ((mode == LAPIC_FIXED || mode == LAPIC_LOWEST) && (icr & 0xff) < 16) {
        lapic_error_locked(l, ESR_SEND_ILLEGAL);
        send = false;
    }
    /* 10.6.1: "INIT level de-assert" only synchronized arbitration ids long ago; modes 3 and 7 are
     * reserved */
    if ((mode == LAPIC_INIT && (icr & ICR_LEVEL) && !(icr & ICR_ASSERT)) || mode == 3 ||
        mode == LAPIC_EXTINT)
        send = false;
    kick = lapic_update_locked(l);
    pthread_mutex_unlock(&l->lock);
    if (kick)
        cpu_kick(&l->bus->kicker, l->cpu, KICK_INTR);
    return send;
}

void lapic_send_icr(struct lapic *l, u64 icr)
{
    enum shorthand to = icr >> 18 & 3;
    struct lapic_msg m = {
        .dest = lapic_x2(l) ? (u32)(icr >> 32) : (u32)(icr >> 56),
        .wide = lapic_x2(l),
        .logical = icr & ICR_LOGICAL,
        .mode = icr >> 8 & 7,
        .vector = icr & 0xff,
    };

    trace_device_lapic_ipi(l->cpu, icr);
    if (!take_icr(l, icr))
        return;
    if (to == TO_DEST)
        lapic_bus_deliver(l->bus, &m);
    else
        send_shorthand(l, &m, to);
}

void lapic_send_self(struct lapic *l, u8 vector)
{
    if (take_icr(l, (u64)TO_SELF << 18 | vector))
        send_to(l, &(struct lapic_msg){.mode = LAPIC_FIXED, .vector = vector});
}
