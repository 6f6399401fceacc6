/*
 * The I/O APIC: 24 pins, each with a redirection entry that turns a line into a message to the
 * local APICs.
 *
 * Threads: any. ioapic.lock protects the state; messages are sent with it held (lock order: ioapic,
 * then lapic).
 */
#ifndef DEVICE_IOAPIC_H
#define DEVICE_IOAPIC_H

#include "device/lapic.h"

#define IOAPIC_PINS 24

struct ioapic_state {
    u64 entry[IOAPIC_PINS];
    u32 lines; /* levels of the pins */
    u32 id, select;
};

struct ioapic {
    pthread_mutex_t lock;
    struct ioapic_state s;
    struct lapic_bus *bus;
    struct io_region mmio;
};

void ioapic_init(struct ioapic *a, u64 gpa, struct lapic_bus *bus);
void ioapic_fini(struct ioapic *a);
void ioapic_reset(struct ioapic *a);
int ioapic_map(struct ioapic *a, struct aspace *mmio, struct err *err);
/* Pin 0..23, for struct irq. opaque is the struct ioapic. */
void ioapic_set(void *opaque, unsigned pin, bool level);
/* A local APIC ended a level-triggered interrupt. opaque is the struct ioapic. */
void ioapic_eoi(void *opaque, u8 vector);

#endif
