/*
 * A 16550A serial port.
 *
 * Threads: registers are touched by vCPU threads, bytes from the host come in the main loop's
 * thread, as does the receive time-out. serial.lock protects the state; the line and the chardev's
 * write() are called with it held.
 */
#ifndef DEVICE_SERIAL_H
#define DEVICE_SERIAL_H

#include "device/chardev.h"
#include "device/irq.h"
#include "loop/timer.h"
#include "mem/aspace.h"

#define SERIAL_FIFO 16

struct serial_state {
    u8 ier, fcr, lcr, mcr, lsr, msr, scr;
    u8 dll, dlm;
    u8 thr_pending; /* "transmitter empty" is to be reported */
    u8 timeout;     /* bytes have waited below the trigger level for four character times */
    u8 rx_count, tx_count;
    u8 rx[SERIAL_FIFO], tx[SERIAL_FIFO]; /* oldest first */
};

struct serial {
    pthread_mutex_t lock;
    struct serial_state s;
    struct irq irq;
    struct chardev *dev;
    struct timerq *q;
    struct timer timer;
    struct io_region io;
};

/* dev may be NULL: bytes go nowhere. base: 0x3f8 for COM1. q: the main loop's timers. */
void serial_init(struct serial *s, u16 base, struct irq irq, struct timerq *q, struct chardev *dev);
void serial_fini(struct serial *s);
void serial_reset(struct serial *s);
int serial_map(struct serial *s, struct aspace *pio, struct err *err);
/* After the state was loaded: sets the line, arms the time-out. */
void serial_resume(struct serial *s);

#endif
