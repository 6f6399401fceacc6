/*
 * The 8254 programmable interval timer, and port 0x61 (gate and output of counter 2: speaker and
 * calibrations).
 *
 * Threads: ports are touched by vCPU threads; counter 0's interrupt comes from the thread of the
 * timer queue. pit.lock protects the state; the line is called with it held.
 */
#ifndef DEVICE_PIT_H
#define DEVICE_PIT_H

#include "device/irq.h"
#include "loop/timer.h"
#include "mem/aspace.h"

#define PIT_HZ 1193182ll

struct pit_channel {
    s64 start_ns; /* when counting began (machine's monotonic clock) */
    u32 count;    /* 1..65536, 0: not loaded yet */
    u16 latch;    /* latched count */
    u8 latched;   /* bytes of it still to be read */
    u8 status, status_latched;
    u8 mode, bcd;
    u8 access;    /* 1: low byte, 2: high, 3: low then high */
    u8 write_low; /* the low byte, when access 3 has seen it */
    u8 write_high_next, read_high_next;
    u8 gate;
};

struct pit_state {
    struct pit_channel ch[3];
    s64 saved_ns; /* when it was saved (machine's monotonic clock): times move along on loading */
    u8 speaker;   /* bit 1 of port 0x61 */
    u8 refresh;   /* bit 4 of port 0x61 toggles at each read */
    u8 disabled;  /* another timer has taken interrupt 0 (HPET, legacy replacement) */
};

struct pit {
    pthread_mutex_t lock;
    struct pit_state s;
    struct irq irq;
    struct timerq *q;
    struct timer timer;
    struct io_region io, port61;
};

void pit_init(struct pit *p, struct timerq *q, struct irq irq);
void pit_fini(struct pit *p);
void pit_reset(struct pit *p);
int pit_map(struct pit *p, struct aspace *pio, struct err *err);
/* Off: counter 0 counts but does not interrupt. */
void pit_enable_irq(struct pit *p, bool on);
/* After the state was loaded: arms the timer. */
void pit_resume(struct pit *p);

#endif
