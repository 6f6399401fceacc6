/*
 * The i8042 keyboard controller, as little of it as probing guests need: reset line, A20, self
 * tests, a keyboard that answers its commands and is never typed on, no mouse. Also port 0x92 (fast
 * A20 and reset).
 *
 * Threads: ports are touched by vCPU threads; i8042.lock protects the state, the sink is called
 * with it held.
 */
#ifndef DEVICE_I8042_H
#define DEVICE_I8042_H

#include "device/event.h"
#include "device/irq.h"
#include "mem/aspace.h"

#define I8042_QUEUE 16

struct i8042_state {
    u8 control;      /* the command byte */
    u8 output_port;  /* bit 0: not reset, bit 1: A20 */
    u8 command;      /* controller command that waits for its data byte, 0: none */
    u8 keyboard_arg; /* keyboard command that waits for its argument, 0: none */
    u8 count;
    u8 queue[I8042_QUEUE]; /* bytes for the guest, oldest first */
    u8 port92;
};

struct i8042 {
    pthread_mutex_t lock;
    struct i8042_state s;
    struct irq irq;
    struct event_sink sink;
    struct io_region data, status, port92;
};

void i8042_init(struct i8042 *k, struct irq irq, struct event_sink sink);
void i8042_fini(struct i8042 *k);
void i8042_reset(struct i8042 *k);
int i8042_map(struct i8042 *k, struct aspace *pio, struct err *err);

#endif
