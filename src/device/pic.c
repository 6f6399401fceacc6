/*
 * 8259A programmable interrupt controllers. Intel 8259A data sheet (231468), "Programming the
 * 8259A".
 *
 * Invariants: the output equals "the master has a request above what is in service" whenever the
 * lock is free; the slave's output is input 2 of the master.
 *
 * Threads: see pic.h. Ports are touched by vCPU threads, inputs by any.
 */
#include "device/pic.h"
#include <string.h>

#define ICW1_INIT 0x10
#define ICW1_NEEDS_ICW4 0x01
#define ICW1_SINGLE 0x02
#define ICW1_LEVEL 0x08
#define OCW3 0x08
#define CASCADE 2

/* Priority of the highest set bit, 0 = highest, 8 = none; the chip's rotation decides who is
 * highest. */
static unsigned priority(const struct pic_chip *c, u8 mask)
{
    unsigned p = 0;

    if (!mask)
        return 8;
    while (!(mask & 1u << ((p + c->top) & 7)))
        p++;
    return p;
}

/* The input that asks for service now, or -1. */
static int chip_request(const struct pic_chip *c, bool master)
{
    unsigned request = priority(c, c->irr & (u8)~c->imr), current;
    u8 in_service = c->isr;

    if (request == 8)
        return -1;
    if (c->special_mask)
        in_service &= (u8)~c->imr;
    if (c->fully_nested && master)
        in_service &= (u8) ~(1u << CASCADE); /* the slave may interrupt its own service */
    current = priority(c, in_service);
    return request < current ? (int)((request + c->top) & 7) : -1;
}

static void chip_set(struct pic_chip *c, unsigned input, bool level)
{
    u8 bit = (u8)(1u << input);

    if (c->elcr & bit || c->icw1 & ICW1_LEVEL) {
        c->irr = level ? c->irr | bit : c->irr & (u8)~bit;
    } else if (level && !(c->lines & bit)) {
        c->irr |= bit;
    } else if (!level) {
        c->irr &= (u8)~bit; /* an edge that goes away before the acknowledge is lost: it becomes
                               spurious */
    }
    c->lines = level ? c->lines | bit : c->lines & (u8)~bit;
}

static void update_locked(struct pic *p)
{
    bool level;

    chip_set(&p->s.chip[0], CASCADE, chip_request(&p->s.chip[1], false) >= 0);
    level = chip_request(&p->s.chip[0], true) >= 0;
    if (level != p->out_level) {
        p->out_level = level;
        irq_set(&p->out, level);
    }
}

void pic_set(void *opaque, unsigned input, bool level)
{
    struct pic *p = opaque;

    if (input >= 16 || input == CASCADE)
        return;
    pthread_mutex_lock(&p->lock);
    chip_set(&p->s.chip[input >> 3], input & 7, level);
    update_locked(p);
    pthread_mutex_unlock(&p->lock);
}

static void acknowledge_chip(struct pic_chip *c, unsigned input)
{
    u8 bit = (u8)(1u << input);

    if (c->auto_eoi) {
        if (c->rotate_auto_eoi)
            c->top = (input + 1) & 7;
    } else {
        c->isr |= bit;
    }
    if (!(c->elcr & bit) && !(c->icw1 & ICW1_LEVEL))
        c->irr &= (u8)~bit;
}

/* Takes the chip's request; its input, 7 when it has gone. */
static unsigned take(struct pic_chip *c, bool master)
{
    int input = chip_request(c, master);

    if (input < 0)
        return 7;
    acknowledge_chip(c, (unsigned)input);
    return (unsigned)input;
}

int pic_acknowledge(void *opaque)
{
    struct pic *p = opaque;
    struct pic_chip *master = &p->s.chip[0], *slave = &p->s.chip[1];
    unsigned input;
    int vector;

    pthread_mutex_lock(&p->lock);
    input = take(master, true);
    vector = input == CASCADE ? slave->base + (int)take(slave, false) : master->base + (int)input;
    update_locked(p);
    pthread_mutex_unlock(&p->lock);
    return vector;
}

static void write_icw1(struct pic_chip *c, u8 value)
{
    u8 lines = c->lines, elcr = c->elcr;

    memset(c, 0, sizeof(*c));
    c->lines = lines;
    c->elcr = elcr;
    c->irr = lines & elcr;
    c->icw1 = value;
    c->init = 2;
}

static void write_ocw2(struct pic_chip *c, u8 value)
{
    unsigned level = value & 7, p;

    switch (value >> 5) {
    case 0: /* rotate in automatic EOI mode: clear */
    case 4: /* set */
        c->rotate_auto_eoi = value >> 7;
        break;
    case 1: /* end of interrupt */
    case 5: /* ... and rotate */
        p = priority(c, c->isr);
        if (p == 8)
            break;
        c->isr &= (u8) ~(1u << ((p + c->top) & 7));
        if (value >> 5 == 5)
            c->top = (p + c->top + 1) & 7;
        break;
    case 3: /* specific */
        c->isr &= (u8) ~(1u << level);
        break;
    case 7: /* specific, and rotate */
        c->isr &= (u8) ~(1u << level);
        c->top = (level + 1) & 7;
        break;
    case 6: /* set priority */
        c->top = (level + 1) & 7;
        break;
    }
}

static void write_ocw3(struct pic_chip *c, u8 value)
{
    if (value & 0x04)
        c->poll = 1;
    if (value & 0x02)
        c->read_isr = value & 1;
    if (value & 0x40)
        c->special_mask = value >> 5 & 1;
}

static void write_command(struct pic_chip *c, u8 value)
{
    if (value & ICW1_INIT)
        write_icw1(c, value);
    else if (value & OCW3)
        write_ocw3(c, value);
    else
        write_ocw2(c, value);
}

static void write_data(struct pic_chip *c, u8 value)
{
    switch (c->init) {
    case 0:
        c->imr = value;
        break;
    case 2:
        c->base = value & 0xf8;
        if (c->icw1 & ICW1_SINGLE)
            c->init = c->icw1 & ICW1_NEEDS_ICW4 ? 4 : 0;
        else
            c->init = 3;
        break;
    case 3: /* the wiring of the cascade is fixed */
        c->init = c->icw1 & ICW1_NEEDS_ICW4 ? 4 : 0;
        break;
    case 4:
        c->fully_nested = value >> 4 & 1;
        c->auto_eoi = value >> 1 & 1;
        c->init = 0;
        break;
    }
}

static struct pic_chip *region_chip(struct pic *p, u64 base)
{
    return &p->s.chip[base >= 0xa0];
}

static u8 read_poll(struct pic_chip *c, bool master)
{
    int input = chip_request(c, master);

    c->poll = 0;
    if (input < 0)
        return 0;
    acknowledge_chip(c, (unsigned)input);
    return (u8)(0x80 | input);
}

static u64 port_read(struct pic *p, struct pic_chip *c, u64 offset)
{
    u8 value;

    pthread_mutex_lock(&p->lock);
    if (c->poll)
        value = read_poll(c, c == &p->s.chip[0]);
    else if (offset == 1)
        value = c->imr;
    else
        value = c->read_isr ? c->isr : c->irr;
    update_locked(p);
    pthread_mutex_unlock(&p->lock);
    return value;
}

static void port_write(struct pic *p, struct pic_chip *c, u64 offset, u8 value)
{
    pthread_mutex_lock(&p->lock);
    if (offset == 0)
        write_command(c, value);
    else
        write_data(c, value);
    update_locked(p);
    pthread_mutex_unlock(&p->lock);
}

/* Two bytes wide accesses reach the command port only, as the chip has an 8-bit bus. */
static u64 master_read(void *opaque, u64 offset, unsigned size)
{
    return port_read(opaque, region_chip(opaque, 0x20), offset);
}

static void master_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    port_write(opaque, region_chip(opaque, 0x20), offset, (u8)value);
}

static u64 slave_read(void *opaque, u64 offset, unsigned size)
{
    return port_read(opaque, region_chip(opaque, 0xa0), offset);
}

static void slave_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    port_write(opaque, region_chip(opaque, 0xa0), offset, (u8)value);
}

static u64 elcr_read(void *opaque, u64 offset, unsigned size)
{
    struct pic *p = opaque;

    return offset == 0 && size == 2 ? (u64)(p->s.chip[0].elcr | p->s.chip[1].elcr << 8)
                                    : p->s.chip[offset & 1].elcr;
}

static void elcr_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct pic *p = opaque;

    pthread_mutex_lock(&p->lock);
    for (unsigned i = 0; i < size; i++, value >>= 8) {
        struct pic_chip *c = &p->s.chip[(offset + i) & 1];

        /* inputs 0, 1, 2, 8 and 13 are always edges */
        c->elcr = (u8)value & (((offset + i) & 1) ? 0xde : 0xf8);
    }
    update_locked(p);
    pthread_mutex_unlock(&p->lock);
}

static const struct io_ops master_ops = {.read = master_read, .write = master_write};
static const struct io_ops slave_ops = {.read = slave_read, .write = slave_write};
static const struct io_ops elcr_ops = {.read = elcr_read, .write = elcr_write};

void pic_init(struct pic *p, struct irq out)
{
    memset(p, 0, sizeof(*p));
    pthread_mutex_init(&p->lock, NULL);
    p->out = out;
    p->io[0] =
        (struct io_region){.name = "pic0", .base = 0x20, .len = 2, .ops = &master_ops, .opaque = p};
    p->io[1] =
        (struct io_region){.name = "pic1", .base = 0xa0, .len = 2, .ops = &slave_ops, .opaque = p};
    p->elcr =
        (struct io_region){.name = "elcr", .base = 0x4d0, .len = 2, .ops = &elcr_ops, .opaque = p};
}

void pic_fini(struct pic *p)
{
    if (p->io[0].ops)
        pthread_mutex_destroy(&p->lock);
}

void pic_reset(struct pic *p)
{
    pthread_mutex_lock(&p->lock);
    for (unsigned i = 0; i < 2; i++) {
        u8 lines = p->s.chip[i].lines;

        p->s.chip[i] = (struct pic_chip){.lines = lines};
    }
    update_locked(p);
    pthread_mutex_unlock(&p->lock);
}

void pic_resume(struct pic *p)
{
    pthread_mutex_lock(&p->lock);
    update_locked(p);
    pthread_mutex_unlock(&p->lock);
}

int pic_map(struct pic *p, struct aspace *pio, struct err *err)
{
    int rc = aspace_map(pio, &p->io[0], err);

    rc = rc ? rc : aspace_map(pio, &p->io[1], err);
    return rc ? rc : aspace_map(pio, &p->elcr, err);
}
