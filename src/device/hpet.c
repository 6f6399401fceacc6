/*
 * High precision event timer. IA-PC HPET specification 1.0a, chapter 2.
 *
 * The counter is not counted: it is the machine's monotonic clock in units of 10 ns since it was started. A comparator
 * matches when the counter becomes equal to it; a value that has passed matches after the counter has wrapped.
 *
 * Threads: see hpet.h.
 */
#include "device/hpet.h"

#include <string.h>

#define REG_ID 0x00
#define REG_CONFIG 0x10
#define REG_STATUS 0x20
#define REG_COUNTER 0xf0
#define REG_TIMER 0x100
#define CONFIG_ENABLE BIT(0)
#define CONFIG_LEGACY BIT(1)
#define TIMER_LEVEL BIT(1)
#define TIMER_ENABLE BIT(2)
#define TIMER_PERIODIC BIT(3)
#define TIMER_PERIODIC_CAP BIT(4)
#define TIMER_SIZE_CAP BIT(5)
#define TIMER_VALUE_SET BIT(6)
#define TIMER_32BIT BIT(8)
#define TIMER_ROUTE_SHIFT 9
#define TIMER_WRITABLE \
    (TIMER_LEVEL | TIMER_ENABLE | TIMER_PERIODIC | TIMER_VALUE_SET | TIMER_32BIT | 0x3e00)
/* Pins that nothing else drives: 10 and 11. */
#define TIMER_ROUTES (0xc00ull << 32)
#define PERIOD_FS (HPET_TICK_NS * 1000000ull)
/* A guest that asks for more interrupts than this would keep the main loop busy with nothing else. */
#define PERIOD_MIN_TICKS (50000 / HPET_TICK_NS)

static u64 counter(const struct hpet *h)
{
    if (!(h->s.config & CONFIG_ENABLE))
        return h->s.counter;
    return h->s.counter + (u64)(timerq_now(h->q) - h->s.start_ns) / HPET_TICK_NS;
}

static u64 width(const struct hpet *h, unsigned i)
{
    return h->s.timer_config[i] & TIMER_32BIT ? UINT32_MAX : UINT64_MAX;
}

static void arm(struct hpet *h, unsigned i)
{
    u64 now = counter(h), left = (h->s.comparator[i] - now) & width(h, i);

    timer_cancel(&h->timer[i].timer);
    if (!(h->s.config & CONFIG_ENABLE) || !(h->s.timer_config[i] & TIMER_ENABLE))
        return;
    if (!left)
        left = width(h, i); /* equal now: that match is over */
    if (left > INT64_MAX / (4 * HPET_TICK_NS))
        return; /* in some centuries */
    timer_arm(&h->timer[i].timer, timerq_now(h->q) + (s64)left * HPET_TICK_NS);
}

static void arm_all(struct hpet *h)
{
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        arm(h, i);
}

/* The line that timer i drives, as a pin of h->irq. */
static struct irq line(const struct hpet *h, unsigned i)
{
    static const unsigned legacy[2] = {0, 8};
    struct irq irq = h->irq;

    if ((h->s.config & CONFIG_LEGACY) && i < 2)
        irq.pin = legacy[i];
    else
        irq.pin = h->s.timer_config[i] >> TIMER_ROUTE_SHIFT & 31;
    return irq;
}

/* Only pins that are ours are ever driven: others belong to somebody else. */
static bool may_drive(const struct hpet *h, unsigned i)
{
    unsigned route = h->s.timer_config[i] >> TIMER_ROUTE_SHIFT & 31;

    return ((h->s.config & CONFIG_LEGACY) && i < 2) || (TIMER_ROUTES >> 32 & 1u << route);
}

static void raise(struct hpet *h, unsigned i)
{
    struct irq irq = line(h, i);

    if (!may_drive(h, i))
        return;
    if (h->s.timer_config[i] & TIMER_LEVEL) {
        h->s.status |= BIT(i);
        irq_set(&irq, true);
    } else {
        irq_set(&irq, false);
        irq_set(&irq, true);
        irq_set(&irq, false);
    }
}

static void lower(struct hpet *h, unsigned i)
{
    struct irq irq = line(h, i);

    h->s.status &= ~BIT(i);
    if (may_drive(h, i))
        irq_set(&irq, false);
}

static void fire(void *opaque)
{
    struct hpet_timer *t = opaque;
    struct hpet *h = t->h;
    unsigned i = (unsigned)(t - h->timer);
    u64 period, mask, behind;

    pthread_mutex_lock(&h->lock);
    if (!(h->s.config & CONFIG_ENABLE) || !(h->s.timer_config[i] & TIMER_ENABLE)) {
        pthread_mutex_unlock(&h->lock); /* stopped while this was on its way */
        return;
    }
    raise(h, i);
    if (h->s.timer_config[i] & TIMER_PERIODIC) {
        mask = width(h, i);
        period = MAX(h->s.period[i] & mask, PERIOD_MIN_TICKS);
        behind = (counter(h) - h->s.comparator[i]) & mask;
        h->s.comparator[i] = (h->s.comparator[i] + (behind / period + 1) * period) & mask;
    }
    arm(h, i);
    pthread_mutex_unlock(&h->lock);
}

static u64 read_register(const struct hpet *h, u64 reg)
{
    unsigned i = (unsigned)((reg - REG_TIMER) / 0x20);

    switch (reg) {
    case REG_ID:
        return PERIOD_FS << 32 | HPET_ID;
    case REG_CONFIG:
        return h->s.config;
    case REG_STATUS:
        return h->s.status;
    case REG_COUNTER:
        return counter(h);
    }
    if (reg < REG_TIMER || i >= HPET_TIMERS)
        return 0;
    switch (reg & 0x1f) {
    case 0x00:
        return h->s.timer_config[i] | TIMER_PERIODIC_CAP | TIMER_SIZE_CAP | TIMER_ROUTES;
    case 0x08:
        return h->s.comparator[i];
    }
    return 0;
}

static void write_config(struct hpet *h, u64 value)
{
    u64 now = counter(h), old = h->s.config;

    for (unsigned i = 0; i < HPET_TIMERS; i++)
        lower(h, i); /* lines may move */
    h->s.config = value & (CONFIG_ENABLE | CONFIG_LEGACY);
    h->s.counter = now;
    h->s.start_ns = timerq_now(h->q);
    if (((value ^ old) & CONFIG_LEGACY) && h->legacy)
        h->legacy(h->legacy_opaque, value & CONFIG_LEGACY);
    arm_all(h);
}

static void write_timer_config(struct hpet *h, unsigned i, u64 value)
{
    lower(h, i);
    h->s.timer_config[i] = value & TIMER_WRITABLE;
    if (value & TIMER_32BIT) {
        h->s.comparator[i] &= UINT32_MAX;
        h->s.period[i] &= UINT32_MAX;
    }
    arm(h, i);
}

/* 2.3.9.2.2: in periodic mode a write sets the period, and the comparator too if the guest has announced it. */
static void write_comparator(struct hpet *h, unsigned i, u64 value)
{
    value &= width(h, i);
    if (!(h->s.timer_config[i] & TIMER_PERIODIC) || (h->s.timer_config[i] & TIMER_VALUE_SET))
        h->s.comparator[i] = value;
    else
        h->s.period[i] = value;
    h->s.timer_config[i] &= ~TIMER_VALUE_SET;
    arm(h, i);
}

static void write_counter(struct hpet *h, u64 value)
{
    h->s.counter = value;
    h->s.start_ns = timerq_now(h->q);
    arm_all(h);
}

static void write_register(struct hpet *h, u64 reg, u64 value)
{
    unsigned i = (unsigned)((reg - REG_TIMER) / 0x20);

    switch (reg) {
    case REG_CONFIG:
        write_config(h, value);
        return;
    case REG_STATUS: /* write one to clear */
        for (i = 0; i < HPET_TIMERS; i++) {
            if (value & h->s.status & BIT(i))
                lower(h, i);
        }
        return;
    case REG_COUNTER:
        write_counter(h, value);
        return;
    }
    if (reg < REG_TIMER || i >= HPET_TIMERS)
        return;
    switch (reg & 0x1f) {
    case 0x00:
        write_timer_config(h, i, value);
        return;
    case 0x08:
        write_comparator(h, i, value);
        return;
    }
}

/* Registers have 64 bits and are reached whole or by halves, 2.3.1. */
static u64 mmio_read(void *opaque, u64 offset, unsigned size)
{
    struct hpet *h = opaque;
    u64 value;

    if (offset % 4 || size < 4 || offset % size)
        return 0;
    pthread_mutex_lock(&h->lock);
    value = read_register(h, ALIGN_DOWN(offset, 8));
    pthread_mutex_unlock(&h->lock);
    return offset & 4 ? value >> 32 : value;
}

static void mmio_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct hpet *h = opaque;
    u64 reg = ALIGN_DOWN(offset, 8), old;

    if (offset % 4 || size < 4 || offset % size)
        return;
    pthread_mutex_lock(&h->lock);
    if (size == 4) {
        old = reg == REG_STATUS ? 0 : read_register(h, reg);
        value = offset & 4 ? value << 32 | (u32)old : (old & 0xffffffff00000000ull) | (u32)value;
    }
    write_register(h, reg, value);
    pthread_mutex_unlock(&h->lock);
}

static const struct io_ops mmio_ops = {.read = mmio_read, .write = mmio_write};

void hpet_init(struct hpet *h, u64 gpa, struct timerq *q, struct irq irq)
{
    memset(h, 0, sizeof(*h));
    pthread_mutex_init(&h->lock, NULL);
    h->q = q;
    h->irq = irq;
    h->mmio = (struct io_region){
        .name = "hpet", .base = gpa, .len = HPET_LEN, .ops = &mmio_ops, .opaque = h};
    for (unsigned i = 0; i < HPET_TIMERS; i++) {
        h->timer[i].h = h;
        timer_init(&h->timer[i].timer, q, fire, &h->timer[i]);
    }
}

void hpet_fini(struct hpet *h)
{
    if (!h->q)
        return;
    for (unsigned i = 0; i < HPET_TIMERS; i++)
        timer_cancel(&h->timer[i].timer);
    pthread_mutex_destroy(&h->lock);
}

void hpet_reset(struct hpet *h)
{
    pthread_mutex_lock(&h->lock);
    write_config(h, 0);
    memset(&h->s, 0, sizeof(h->s));
    arm_all(h);
    pthread_mutex_unlock(&h->lock);
}

int hpet_map(struct hpet *h, struct aspace *mmio, struct err *err)
{
    return aspace_map(mmio, &h->mmio, err);
}

void hpet_resume(struct hpet *h)
{
    pthread_mutex_lock(&h->lock);
    arm_all(h);
    pthread_mutex_unlock(&h->lock);
}
