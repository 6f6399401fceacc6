/*
 * Interrupt lines and messages, as devices raise them. What is behind them is the board's choice: our own
 * controllers (bt) or the kernel's (kvm). Any thread may call; a device may hold its own lock while calling.
 */
#ifndef DEVICE_IRQ_H
#define DEVICE_IRQ_H

#include "base/types.h"

/* One input pin of a controller. Level is kept by the caller: set(1), later set(0). */
struct irq {
    void (*set)(void *opaque, unsigned pin, bool level);
    void *opaque;
    unsigned pin;
};

/* Where message-signalled interrupts go: a 32-bit data word written to a 64-bit address. */
struct msi_sink {
    void (*send)(void *opaque, u64 addr, u32 data);
    void *opaque;
};

static inline void irq_set(const struct irq *irq, bool level)
{
    if (irq->set)
        irq->set(irq->opaque, irq->pin, level);
}

static inline void msi_send(const struct msi_sink *sink, u64 addr, u32 data)
{
    if (sink->send)
        sink->send(sink->opaque, addr, data);
}

#endif
