/*
 * I/O APIC. Intel 82093AA data sheet (290566), version register and EOI register as in the ICH's
 * (version 0x20).
 *
 * Invariants:
 *  1. Remote IRR is set only in level-triggered entries, from an accepted message until its EOI.
 *  2. A level-triggered pin that is high, unmasked and without remote IRR has been sent: whoever
 * changes one of these calls send_locked().
 *
 * Threads: see ioapic.h.
 */
#include "device/ioapic.h"
#include "device/trace.h"
#include <string.h>

#define ENTRY_STATUS BIT(12)
#define ENTRY_LOW_ACTIVE BIT(13)
#define ENTRY_REMOTE_IRR BIT(14)
#define ENTRY_LEVEL BIT(15)
#define ENTRY_MASKED BIT(16)
#define ENTRY_READONLY (ENTRY_STATUS | ENTRY_REMOTE_IRR)
#define ENTRY_VALID 0xff0000000001ffffull

enum { REG_ID = 0, REG_VERSION = 1, REG_ARBITRATION = 2, REG_ENTRY = 0x10 };
enum { MMIO_SELECT = 0x00, MMIO_WINDOW = 0x10, MMIO_EOI = 0x40 };

static void send_locked(struct ioapic *a, unsigned pin)
{
    u64 e = a->s.entry[pin];
    struct lapic_msg m = {
        .dest = (u32)(e >> 56),
        .vector = (u8)e,
        .mode = e >> 8 & 7,
        .logical = e & BIT(11),
        .level = e & ENTRY_LEVEL,
    };
    bool accepted;

    if ((e & ENTRY_MASKED) || ((e & ENTRY_LEVEL) && (e & ENTRY_REMOTE_IRR)))
        return;
    if (m.mode == LAPIC_SIPI || m.mode == LAPIC_EXTINT)
        return;
    accepted = lapic_bus_deliver(a->bus, &m);
    if (accepted && m.level && (m.mode == LAPIC_FIXED || m.mode == LAPIC_LOWEST))
        a->s.entry[pin] |= ENTRY_REMOTE_IRR;
}

/* Lines arrive as "asserted or not"; the entry's polarity says how the wire is pulled, which nobody
 * sees here. */
void ioapic_set(void *opaque, unsigned pin, bool level)
{
    struct ioapic *a = opaque;
    u32 bit;

    if (pin >= IOAPIC_PINS)
        return;
    trace_device_ioapic_pin(pin, level);
    bit = 1u << pin;
    pthread_mutex_lock(&a->lock);
    if (!level) {
        a->s.lines &= ~bit;
    } else {
        bool rising = !(a->s.lines & bit);

        a->s.lines |= bit;
        if (rising || (a->s.entry[pin] & ENTRY_LEVEL))
            send_locked(a, pin);
    }
    pthread_mutex_unlock(&a->lock);
}

static void end_locked(struct ioapic *a, u8 vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        u64 *e = &a->s.entry[pin];

        if (!(*e & ENTRY_REMOTE_IRR) || (u8)*e != vector)
            continue;
        *e &= ~ENTRY_REMOTE_IRR;
        if (a->s.lines & 1u << pin)
            send_locked(a, pin);
    }
}

void ioapic_eoi(void *opaque, u8 vector)
{
    struct ioapic *a = opaque;

    pthread_mutex_lock(&a->lock);
    end_locked(a, vector);
    pthread_mutex_unlock(&a->lock);
}

static u32 read_register(const struct ioapic *a)
{
    u32 index = a->s.select;

    if (index == REG_ID || index == REG_ARBITRATION)
        return a->s.id << 24;
    if (index == REG_VERSION)
        return 0x20 | (IOAPIC_PINS - 1) << 16;
    if (index >= REG_ENTRY && index < REG_ENTRY + 2 * IOAPIC_PINS)
        return (u32)(a->s.entry[(index - REG_ENTRY) / 2] >> (index & 1 ? 32 : 0));
    return 0xffffffff;
}

static void write_entry_locked(struct ioapic *a, unsigned pin, bool high, u32 value)
{
    u64 old = a->s.entry[pin], e;

    if (high)
        e = (u64)value << 32 | (u32)old;
    else
        e = (old & 0xffffffff00000000ull) | (value & ~(u32)ENTRY_READONLY) | (old & ENTRY_READONLY);
    if (!(e & ENTRY_LEVEL))
        e &= ~ENTRY_REMOTE_IRR;
    a->s.entry[pin] = e & ENTRY_VALID;
    if ((e & ENTRY_LEVEL) && (a->s.lines & 1u << pin))
        send_locked(a, pin);
}

static void write_register_locked(struct ioapic *a, u32 value)
{
    u32 index = a->s.select;

    if (index == REG_ID)
        a->s.id = value >> 24 & 0xf;
    else if (index >= REG_ENTRY && index < REG_ENTRY + 2 * IOAPIC_PINS)
        write_entry_locked(a, (index - REG_ENTRY) / 2, index & 1, value);
}

static u64 mmio_read(void *opaque, u64 offset, unsigned size)
{
    struct ioapic *a = opaque;
    u32 value = 0;

    pthread_mutex_lock(&a->lock);
    if (offset == MMIO_SELECT)
        value = a->s.select;
    else if (offset == MMIO_WINDOW)
        value = read_register(a);
    pthread_mutex_unlock(&a->lock);
    return value;
}

static void mmio_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct ioapic *a = opaque;

    pthread_mutex_lock(&a->lock);
    if (offset == MMIO_SELECT)
        a->s.select = value & 0xff;
    else if (offset == MMIO_WINDOW && size == 4)
        write_register_locked(a, (u32)value);
    else if (offset == MMIO_EOI)
        end_locked(a, (u8)value);
    pthread_mutex_unlock(&a->lock);
}

static const struct io_ops mmio_ops = {.read = mmio_read, .write = mmio_write};

void ioapic_init(struct ioapic *a, u64 gpa, struct lapic_bus *bus)
{
    memset(a, 0, sizeof(*a));
    pthread_mutex_init(&a->lock, NULL);
    a->bus = bus;
    a->mmio = (struct io_region){
        .name = "ioapic", .base = gpa, .len = 0x1000, .ops = &mmio_ops, .opaque = a};
    ioapic_reset(a);
}

void ioapic_fini(struct ioapic *a)
{
    if (a->mmio.ops)
        pthread_mutex_destroy(&a->lock);
}

void ioapic_reset(struct ioapic *a)
{
    pthread_mutex_lock(&a->lock);
    a->s.id = a->s.select = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        a->s.entry[pin] = ENTRY_MASKED;
    pthread_mutex_unlock(&a->lock);
}

int ioapic_map(struct ioapic *a, struct aspace *mmio, struct err *err)
{
    return aspace_map(mmio, &a->mmio, err);
}
