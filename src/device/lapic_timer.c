/*
 * The local APIC's timer: one-shot, periodic and TSC-deadline. SDM 3A 10.5.4.
 *
 * The timer's input clock is 1 GHz, so a count is nanoseconds times the divisor; this is what
 * Linux' KVM does too, which keeps snapshots portable between accelerators.
 *
 * Threads: registers and the callback belong to the vCPU's thread; INIT may stop the timer from
 * another.
 */
#include "device/lapic_parts.h"
#include "device/lapic_regs.h"
#include "device/trace.h"
#include <x86intrin.h>

/* A guest that asks for a shorter period would keep its thread in the timer alone. */
#define PERIOD_MIN_NS 50000

static s64 period_ns(const struct lapic *l)
{
    return (s64)(l->s.timer_count * lapic_divisor(l->s.timer_divide));
}

static u64 guest_tsc(const struct lapic *l)
{
    const struct lapic_bus *bus = l->bus;
    u64 host = bus->host_tsc ? bus->host_tsc(bus->host_tsc_opaque) : __rdtsc();

    return host + (u64)l->s.tsc_offset;
}

/* Nanoseconds until the guest's TSC reaches `tsc`, rounded up; 0 when it has. */
static s64 ns_until(const struct lapic *l, u64 tsc)
{
    s64 ticks = (s64)(tsc - guest_tsc(l));
    unsigned __int128 ns;

    if (ticks <= 0)
        return 0;
    ns = ((unsigned __int128)ticks * 1000000 + l->bus->tsc_khz - 1) / l->bus->tsc_khz;
    /* a century is as good as never, and sums with the clock stay in range */
    return ns > (unsigned __int128)(INT64_MAX / 4) ? INT64_MAX / 4 : (s64)ns;
}

static void raise_locked(struct lapic *l)
{
    u32 lvt = l->s.lvt[LVT_TIMER];

    if (!(lvt & LVT_MASKED))
        lapic_accept_locked(l, lvt & LVT_VECTOR, false);
}

static void arm(struct lapic *l, s64 deadline_ns)
{
    if (!l->has_timer)
        return;
    if (deadline_ns == TIMER_NEVER)
        timer_cancel(&l->timer);
    else
        timer_arm(&l->timer, deadline_ns);
    trace_device_lapic_timer(
        l->cpu, deadline_ns == TIMER_NEVER ? -1 : deadline_ns - timerq_now(l->timer.q));
}

static s64 now_ns(struct lapic *l)
{
    return l->has_timer ? timerq_now(l->timer.q) : 0;
}

void lapic_timer_stop_locked(struct lapic *l)
{
    l->s.timer_ns = TIMER_NEVER;
    l->s.tsc_deadline = 0;
    arm(l, TIMER_NEVER);
}

void lapic_timer_start_locked(struct lapic *l)
{
    if (lapic_timer_mode(l->s.lvt[LVT_TIMER]) == TIMER_DEADLINE)
        return;
    l->s.timer_ns = l->s.timer_count ? now_ns(l) + period_ns(l) : TIMER_NEVER;
    arm(l, l->s.timer_ns);
}

void lapic_timer_lvt_locked(struct lapic *l, u32 old_lvt)
{
    enum lapic_timer_mode mode = lapic_timer_mode(l->s.lvt[LVT_TIMER]);

    /* 10.5.4.1: going to or from TSC-deadline mode disarms the timer */
    if (mode != lapic_timer_mode(old_lvt) &&
        (mode == TIMER_DEADLINE || lapic_timer_mode(old_lvt) == TIMER_DEADLINE))
        lapic_timer_stop_locked(l);
}

void lapic_timer_divide_locked(struct lapic *l, u32 old_divide)
{
    s64 left;

    if (l->s.timer_ns == TIMER_NEVER ||
        lapic_divisor(l->s.timer_divide) == lapic_divisor(old_divide))
        return;
    /* the count goes on from where it is, at the new speed */
    left = MAX(l->s.timer_ns - now_ns(l), 0) / (s64)lapic_divisor(old_divide);
    l->s.timer_ns = now_ns(l) + left * (s64)lapic_divisor(l->s.timer_divide);
    arm(l, l->s.timer_ns);
}

u32 lapic_timer_current_locked(struct lapic *l)
{
    s64 left;

    if (l->s.timer_ns == TIMER_NEVER || lapic_timer_mode(l->s.lvt[LVT_TIMER]) == TIMER_DEADLINE)
        return 0;
    left = l->s.timer_ns - now_ns(l);
    if (left < 0) {
        if (lapic_timer_mode(l->s.lvt[LVT_TIMER]) != TIMER_PERIODIC)
            return 0;
        left = period_ns(l) - (-left) % period_ns(l);
    }
    return (u32)((u64)left / lapic_divisor(l->s.timer_divide));
}

void lapic_timer_deadline_locked(struct lapic *l, u64 tsc)
{
    if (lapic_timer_mode(l->s.lvt[LVT_TIMER]) != TIMER_DEADLINE)
        return; /* 10.5.4.1: writes are ignored in the other modes */
    l->s.tsc_deadline = tsc;
    lapic_timer_rearm_locked(l);
}

void lapic_timer_rearm_locked(struct lapic *l)
{
    s64 left;

    if (lapic_timer_mode(l->s.lvt[LVT_TIMER]) != TIMER_DEADLINE) {
        arm(l, l->s.timer_ns);
        return;
    }
    if (!l->s.tsc_deadline) {
        arm(l, TIMER_NEVER);
        return;
    }
    left = ns_until(l, l->s.tsc_deadline);
    if (left == 0) {
        l->s.tsc_deadline = 0;
        arm(l, TIMER_NEVER);
        raise_locked(l);
        return;
    }
    arm(l, now_ns(l) + left);
}

static void fire_counter_locked(struct lapic *l, bool periodic)
{
    s64 now = now_ns(l), period = MAX(period_ns(l), PERIOD_MIN_NS);

    if (l->s.timer_ns == TIMER_NEVER)
        return;
    raise_locked(l);
    if (!periodic || !l->s.timer_count) {
        l->s.timer_ns = TIMER_NEVER;
        return;
    }
    /* late by whole periods: those ticks are lost as on a busy bus, the phase stays */
    l->s.timer_ns += period;
    if (l->s.timer_ns <= now)
        l->s.timer_ns = now + period - (now - l->s.timer_ns) % period;
    arm(l, l->s.timer_ns);
}

static void fire(void *opaque)
{
    struct lapic *l = opaque;
    bool kick;

    pthread_mutex_lock(&l->lock);
    switch (lapic_timer_mode(l->s.lvt[LVT_TIMER])) {
    case TIMER_ONE_SHOT:
        fire_counter_locked(l, false);
        break;
    case TIMER_PERIODIC:
        fire_counter_locked(l, true);
        break;
    case TIMER_DEADLINE:
        lapic_timer_rearm_locked(
            l); /* the clocks may disagree by a little: raises only when the TSC is there */
        break;
    }
    kick = lapic_update_locked(l);
    pthread_mutex_unlock(&l->lock);
    if (kick)
        cpu_kick(&l->bus->kicker, l->cpu, KICK_INTR);
}

void lapic_timer_init(struct lapic *l, struct timerq *q)
{
    pthread_mutex_lock(&l->lock);
    timer_init(&l->timer, q, fire, l);
    l->has_timer = true;
    lapic_timer_rearm_locked(l);
    lapic_update_locked(l);
    pthread_mutex_unlock(&l->lock);
}
