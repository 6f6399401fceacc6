/*
 * The pair of 8259A interrupt controllers, slave on input 2 of the master.
 *
 * Threads: any. pic.lock protects the state; the output line is called with it held (lock order:
 * pic, then lapic).
 */
#ifndef DEVICE_PIC_H
#define DEVICE_PIC_H

#include "device/irq.h"
#include "mem/aspace.h"

/* Guest-visible state of one chip. */
struct pic_chip {
    u8 irr, isr, imr;
    u8 lines; /* levels of the inputs */
    u8 elcr;  /* inputs that are level-triggered */
    u8 base;  /* vector of input 0 */
    u8 top;   /* input with the highest priority (rotation): 0 after reset */
    u8 init;  /* which initialization word comes next: 2, 3, 4; 0 = operating */
    u8 icw1;  /* as written: bit 0 = a fourth word follows, bit 1 = single */
    u8 auto_eoi, rotate_auto_eoi, special_mask, fully_nested;
    u8 read_isr; /* a read of the command port gives ISR, else IRR */
    u8 poll;     /* the next read is a poll */
};

struct pic_state {
    struct pic_chip chip[2]; /* master, slave */
};

struct pic {
    pthread_mutex_t lock;
    struct pic_state s;
    struct irq out; /* to the processor */
    bool out_level;
    struct io_region io[2], elcr;
};

/* out: the INTR output; called from any thread. */
void pic_init(struct pic *p, struct irq out);
void pic_fini(struct pic *p);
void pic_reset(struct pic *p);
/* After the state was loaded: sets the output. */
void pic_resume(struct pic *p);
int pic_map(struct pic *p, struct aspace *pio, struct err *err);
/* Input 0..15, for struct irq. opaque is the struct pic. */
void pic_set(void *opaque, unsigned input, bool level);
/* The processor's acknowledge cycle: a vector, also when the interrupt has gone (then it is input
 * 7's). */
int pic_acknowledge(void *opaque);

#endif
