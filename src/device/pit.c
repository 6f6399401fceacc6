/*
 * 8254 programmable interval timer. Intel 8254 data sheet (231164).
 *
 * Counters are not counted: a counter is the time since it was loaded. Counter 0's output drives
 * interrupt 0; its rising edges are made by one timer. Counters 0 and 1 have their gates tied high,
 * 2's is bit 0 of port 0x61.
 *
 * Threads: see pit.h.
 */
#include "device/pit.h"
#include <string.h>

/* Faster interrupts than this would keep the host busy with nothing else; a real guest wants 1 ms
 * or more. */
#define IRQ_MIN_NS 50000

enum {
    MODE_TERMINAL_COUNT,
    MODE_ONE_SHOT,
    MODE_RATE,
    MODE_SQUARE,
    MODE_SOFT_STROBE,
    MODE_HARD_STROBE
};

static u64 ns_to_ticks(s64 ns)
{
    return ns <= 0 ? 0 : (u64)((unsigned __int128)ns * PIT_HZ / NS_PER_S);
}

static s64 ticks_to_ns(u64 ticks)
{
    return (s64)(((unsigned __int128)ticks * NS_PER_S + PIT_HZ - 1) / PIT_HZ);
}

static u64 elapsed(const struct pit *p, const struct pit_channel *c)
{
    return ns_to_ticks(timerq_now(p->q) - c->start_ns);
}

static bool counting(const struct pit_channel *c)
{
    return c->count && c->gate;
}

/* The count as a read sees it now, binary. */
static u16 current(const struct pit *p, const struct pit_channel *c)
{
    u64 d, n = c->count;

    if (!n)
        return 0;
    d = elapsed(p, c);
    if (!c->gate && (c->mode == MODE_RATE || c->mode == MODE_SQUARE))
        return (u16)n;
    switch (c->mode) {
    case MODE_RATE:
        return (u16)(n - d % n);
    case MODE_SQUARE: /* counts by two, twice per period */
        return (u16)(n - (2 * d) % n);
    default: /* goes on through zero */
        return (u16)(n - d);
    }
}

static bool output(const struct pit *p, const struct pit_channel *c)
{
    u64 d, n = c->count;

    if (!n)
        return c->mode != MODE_TERMINAL_COUNT;
    d = elapsed(p, c);
    switch (c->mode) {
    case MODE_TERMINAL_COUNT:
    case MODE_ONE_SHOT:
        return d >= n;
    case MODE_RATE:
        return !c->gate || d % n != n - 1;
    case MODE_SQUARE:
        return !c->gate || d % n < (n + 1) / 2;
    default:
        return d != n;
    }
}

/* Arms the timer for counter 0's next rising edge, if there is one. */
static void arm_locked(struct pit *p)
{
    const struct pit_channel *c = &p->s.ch[0];
    u64 d, next;
    s64 at;

    timer_cancel(&p->timer);
    if (!counting(c))
        return;
    d = elapsed(p, c);
    switch (c->mode) {
    case MODE_RATE:
    case MODE_SQUARE:
        next = (d / c->count + 1) * c->count;
        break;
    case MODE_TERMINAL_COUNT:
    case MODE_SOFT_STROBE:
        if (d >= c->count)
            return;
        next = c->count;
        break;
    default: /* started by the gate, which never rises */
        return;
    }
    at = c->start_ns + ticks_to_ns(next);
    timer_arm(&p->timer, MAX(at, timerq_now(p->q) + IRQ_MIN_NS / 4));
}

static void fire(void *opaque)
{
    struct pit *p = opaque;
    const struct pit_channel *c = &p->s.ch[0];
    bool periodic;

    pthread_mutex_lock(&p->lock);
    periodic = c->mode == MODE_RATE || c->mode == MODE_SQUARE;
    if (!p->s.disabled && counting(c)) {
        if (c->mode != MODE_TERMINAL_COUNT)
            irq_set(&p->irq, false);
        irq_set(&p->irq, true);
    }
    arm_locked(p);
    if (periodic && c->count && ticks_to_ns(c->count) < IRQ_MIN_NS)
        timer_arm(&p->timer, timerq_now(p->q) + IRQ_MIN_NS);
    pthread_mutex_unlock(&p->lock);
}

static u32 from_bcd(u32 v)
{
    return (v & 15) + (v >> 4 & 15) * 10 + (v >> 8 & 15) * 100 + (v >> 12 & 15) * 1000;
}

static u16 to_bcd(u32 v)
{
    v %= 10000;
    return (u16)(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 << 12);
}

static void load_locked(struct pit *p, unsigned i, u16 value)
{
    struct pit_channel *c = &p->s.ch[i];

    c->count = c->bcd ? from_bcd(value) : value;
    if (!c->count)
        c->count = c->bcd ? 10000 : 65536;
    c->start_ns = timerq_now(p->q);
    if (i == 0) {
        if (!p->s.disabled && c->mode == MODE_TERMINAL_COUNT)
            irq_set(&p->irq, false);
        arm_locked(p);
    }
}

static void write_count_locked(struct pit *p, unsigned i, u8 value)
{
    struct pit_channel *c = &p->s.ch[i];

    switch (c->access) {
    case 1:
        load_locked(p, i, value);
        break;
    case 2:
        load_locked(p, i, (u16)(value << 8));
        break;
    case 3:
        if (c->write_high_next)
            load_locked(p, i, (u16)(value << 8 | c->write_low));
        else
            c->write_low = value;
        c->write_high_next ^= 1;
        break;
    }
}

static void latch_count(const struct pit *p, struct pit_channel *c)
{
    if (c->latched)
        return; /* the first latch holds until it is read */
    c->latch = c->bcd ? to_bcd(current(p, c)) : current(p, c);
    c->latched = c->access == 3 ? 2 : 1;
}

static void latch_status(const struct pit *p, struct pit_channel *c)
{
    if (c->status_latched)
        return;
    c->status =
        (u8)(output(p, c) << 7 | (c->count == 0) << 6 | c->access << 4 | c->mode << 1 | c->bcd);
    c->status_latched = 1;
}

static u8 read_count(const struct pit *p, struct pit_channel *c)
{
    u16 now;
    bool high;

    if (c->status_latched) {
        c->status_latched = 0;
        return c->status;
    }
    if (c->latched) {
        high = c->access == 2 || (c->access == 3 && c->latched == 1);
        c->latched--;
        return (u8)(high ? c->latch >> 8 : c->latch);
    }
    now = c->bcd ? to_bcd(current(p, c)) : current(p, c);
    high = c->access == 2 || (c->access == 3 && c->read_high_next);
    if (c->access == 3)
        c->read_high_next ^= 1;
    return (u8)(high ? now >> 8 : now);
}

static void write_control_locked(struct pit *p, u8 value)
{
    unsigned i = value >> 6;
    struct pit_channel *c;

    if (i == 3) { /* read-back */
        for (i = 0; i < 3; i++) {
            if (!(value & 2u << i))
                continue;
            if (!(value & 0x20))
                latch_count(p, &p->s.ch[i]);
            if (!(value & 0x10))
                latch_status(p, &p->s.ch[i]);
        }
        return;
    }
    c = &p->s.ch[i];
    if (!(value & 0x30)) {
        latch_count(p, c);
        return;
    }
    c->access = value >> 4 & 3;
    c->mode = value >> 1 & 7;
    if (c->mode > MODE_HARD_STROBE)
        c->mode &= 3; /* bit 2 does not matter in modes 2 and 3 */
    c->bcd = value & 1;
    c->count = 0;
    c->latched = c->status_latched = c->write_high_next = c->read_high_next = 0;
    if (i == 0) {
        timer_cancel(&p->timer);
        if (!p->s.disabled)
            irq_set(&p->irq, c->mode != MODE_TERMINAL_COUNT);
    }
}

static u64 pit_read(void *opaque, u64 offset, unsigned size)
{
    struct pit *p = opaque;
    u8 value;

    if (offset == 3 || size != 1)
        return ~0ull; /* the control word cannot be read */
    pthread_mutex_lock(&p->lock);
    value = read_count(p, &p->s.ch[offset]);
    pthread_mutex_unlock(&p->lock);
    return value;
}

static void pit_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct pit *p = opaque;

    if (size != 1)
        return;
    pthread_mutex_lock(&p->lock);
    if (offset == 3)
        write_control_locked(p, (u8)value);
    else
        write_count_locked(p, (unsigned)offset, (u8)value);
    pthread_mutex_unlock(&p->lock);
}

static u64 port61_read(void *opaque, u64 offset, unsigned size)
{
    struct pit *p = opaque;
    u8 value;

    pthread_mutex_lock(&p->lock);
    p->s.refresh ^= 1;
    value =
        (u8)(p->s.ch[2].gate | p->s.speaker << 1 | p->s.refresh << 4 | output(p, &p->s.ch[2]) << 5);
    pthread_mutex_unlock(&p->lock);
    return value;
}

static void port61_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct pit *p = opaque;
    struct pit_channel *c = &p->s.ch[2];
    bool gate = value & 1;

    pthread_mutex_lock(&p->lock);
    if (gate && !c->gate && c->mode != MODE_TERMINAL_COUNT && c->mode != MODE_SOFT_STROBE)
        c->start_ns = timerq_now(p->q); /* a rising gate starts these anew */
    c->gate = gate;
    p->s.speaker = value >> 1 & 1;
    pthread_mutex_unlock(&p->lock);
}

static const struct io_ops pit_ops = {.read = pit_read, .write = pit_write};
static const struct io_ops port61_ops = {.read = port61_read, .write = port61_write};

void pit_init(struct pit *p, struct timerq *q, struct irq irq)
{
    memset(p, 0, sizeof(*p));
    pthread_mutex_init(&p->lock, NULL);
    p->q = q;
    p->irq = irq;
    timer_init(&p->timer, q, fire, p);
    p->io = (struct io_region){.name = "pit", .base = 0x40, .len = 4, .ops = &pit_ops, .opaque = p};
    p->port61 = (struct io_region){
        .name = "port61", .base = 0x61, .len = 1, .ops = &port61_ops, .opaque = p};
    pit_reset(p);
}

void pit_fini(struct pit *p)
{
    if (!p->q)
        return;
    timer_cancel(&p->timer);
    pthread_mutex_destroy(&p->lock);
}

void pit_reset(struct pit *p)
{
    pthread_mutex_lock(&p->lock);
    timer_cancel(&p->timer);
    memset(&p->s, 0, sizeof(p->s));
    for (unsigned i = 0; i < 3; i++)
        p->s.ch[i] = (struct pit_channel){.access = 3, .mode = MODE_SQUARE, .gate = i != 2};
    irq_set(&p->irq, false);
    pthread_mutex_unlock(&p->lock);
}

int pit_map(struct pit *p, struct aspace *pio, struct err *err)
{
    int rc = aspace_map(pio, &p->io, err);

    return rc ? rc : aspace_map(pio, &p->port61, err);
}

void pit_enable_irq(struct pit *p, bool on)
{
    pthread_mutex_lock(&p->lock);
    p->s.disabled = !on;
    if (!on)
        irq_set(&p->irq, false);
    pthread_mutex_unlock(&p->lock);
}

void pit_resume(struct pit *p)
{
    pthread_mutex_lock(&p->lock);
    arm_locked(p);
    pthread_mutex_unlock(&p->lock);
}
