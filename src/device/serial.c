/*
 * 16550A serial port. National Semiconductor PC16550D data sheet; table and section names are its.
 *
 * Transmission takes no time: a byte goes to the chardev at once. When that is full, bytes wait in
 * the transmitter FIFO, "holding register empty" stays clear and the guest waits: nothing is
 * dropped.
 *
 * Invariants: rx_count, tx_count <= SERIAL_FIFO; the line equals interrupt_id() != none whenever
 * the lock is free.
 *
 * Threads: see serial.h.
 */
#include "device/serial.h"
#include <string.h>

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define IER_RX 0x01
#define IER_TX 0x02
#define IER_LINE 0x04
#define IER_MODEM 0x08
#define IIR_NONE 0x01
#define IIR_MODEM 0x00
#define IIR_TX 0x02
#define IIR_RX 0x04
#define IIR_LINE 0x06
#define IIR_TIMEOUT 0x0c
#define IIR_FIFO 0xc0
#define FCR_ENABLE 0x01
#define FCR_CLEAR_RX 0x02
#define FCR_CLEAR_TX 0x04
#define LCR_DLAB 0x80
#define LCR_BREAK 0x40
#define MCR_DTR 0x01
#define MCR_RTS 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10
#define LSR_READY 0x01
#define LSR_OVERRUN 0x02
#define LSR_BREAK 0x10
#define LSR_ERRORS 0x1e
#define LSR_THRE 0x20
#define LSR_TEMT 0x40
#define MSR_DELTA_CTS 0x01
#define MSR_TRAIL_RI 0x04
#define MSR_DCD 0x80
#define MSR_RI 0x40
#define MSR_DSR 0x20
#define MSR_CTS 0x10
#define CLOCK_HZ 1843200 /* the usual crystal; one baud is 1/16 of it over the divisor */

static unsigned rx_capacity(const struct serial *s)
{
    return s->s.fcr & FCR_ENABLE ? SERIAL_FIFO : 1;
}

static unsigned trigger_level(const struct serial *s)
{
    static const u8 level[4] = {1, 4, 8, 14};

    return s->s.fcr & FCR_ENABLE ? level[s->s.fcr >> 6] : 1;
}

/* Table III, by priority. */
static u8 interrupt_id(const struct serial *s)
{
    const struct serial_state *st = &s->s;

    if ((st->ier & IER_LINE) && (st->lsr & LSR_ERRORS))
        return IIR_LINE;
    if ((st->ier & IER_RX) && st->rx_count >= trigger_level(s))
        return IIR_RX;
    if ((st->ier & IER_RX) && st->rx_count && st->timeout)
        return IIR_TIMEOUT;
    if ((st->ier & IER_TX) && st->thr_pending)
        return IIR_TX;
    if ((st->ier & IER_MODEM) && (st->msr & 0x0f))
        return IIR_MODEM;
    return IIR_NONE;
}

static void update_irq(struct serial *s)
{
    irq_set(&s->irq, interrupt_id(s) != IIR_NONE);
}

/* Four characters of the longest kind: 12 bits each. */
static s64 timeout_ns(const struct serial *s)
{
    s64 divisor = MAX(s->s.dll | s->s.dlm << 8, 1);

    return 4 * 12 * 16 * divisor * NS_PER_S / CLOCK_HZ;
}

static void arm_timeout(struct serial *s)
{
    s->s.timeout = 0;
    if (s->q && (s->s.fcr & FCR_ENABLE) && s->s.rx_count && s->s.rx_count < trigger_level(s))
        timer_arm(&s->timer, timerq_now(s->q) + timeout_ns(s));
    else if (s->q)
        timer_cancel(&s->timer);
}

static void fire(void *opaque)
{
    struct serial *s = opaque;

    pthread_mutex_lock(&s->lock);
    s->s.timeout = s->s.rx_count != 0;
    update_irq(s);
    pthread_mutex_unlock(&s->lock);
}

static void rx_push(struct serial *s, u8 byte)
{
    struct serial_state *st = &s->s;

    if (st->rx_count >= rx_capacity(s)) {
        st->lsr |= LSR_OVERRUN;
        if (!(st->fcr & FCR_ENABLE))
            st->rx[0] = byte; /* without FIFOs the newer byte replaces the older */
        return;
    }
    st->rx[st->rx_count++] = byte;
    st->lsr |= LSR_READY;
}

/* Gives the chardev what waits. */
static void tx_flush(struct serial *s)
{
    struct serial_state *st = &s->s;
    size_t sent = st->tx_count;

    if (!sent)
        return;
    if (s->dev)
        sent = MIN(s->dev->write(s->dev, st->tx, sent), sent);
    memmove(st->tx, st->tx + sent, st->tx_count - sent);
    st->tx_count = (u8)(st->tx_count - sent);
    if (st->tx_count)
        return;
    st->lsr |= LSR_THRE | LSR_TEMT;
    st->thr_pending = 1;
}

static void write_thr(struct serial *s, u8 byte)
{
    struct serial_state *st = &s->s;

    st->thr_pending = 0;
    if (st->mcr & MCR_LOOP) {
        rx_push(s, byte);
        arm_timeout(s);
        st->thr_pending = 1;
        return;
    }
    if (st->tx_count == SERIAL_FIFO)
        return; /* the guest did not wait for "empty": as on the wire, the byte is lost */
    st->lsr &= (u8) ~(LSR_THRE | LSR_TEMT);
    st->tx[st->tx_count++] = byte;
    tx_flush(s);
}

static u8 read_rbr(struct serial *s)
{
    struct serial_state *st = &s->s;
    u8 byte = st->rx[0];

    if (!st->rx_count)
        return 0;
    memmove(st->rx, st->rx + 1, --st->rx_count);
    if (!st->rx_count)
        st->lsr &= (u8)~LSR_READY;
    arm_timeout(s);
    return byte;
}

/* The modem lines as inputs: looped back from our outputs, else those of a peer that is always
 * there. */
static u8 modem_lines(const struct serial *s)
{
    u8 mcr = s->s.mcr, lines = 0;

    if (!(mcr & MCR_LOOP))
        return MSR_DCD | MSR_DSR | MSR_CTS;
    lines |= mcr & MCR_RTS ? MSR_CTS : 0;
    lines |= mcr & MCR_DTR ? MSR_DSR : 0;
    lines |= mcr & MCR_OUT1 ? MSR_RI : 0;
    lines |= mcr & MCR_OUT2 ? MSR_DCD : 0;
    return lines;
}

static void write_mcr(struct serial *s, u8 value)
{
    u8 old = s->s.msr & 0xf0, lines, changed;

    s->s.mcr = value & 0x1f;
    lines = modem_lines(s);
    changed = old ^ lines;
    s->s.msr = (s->s.msr & 0x0f) | lines;
    s->s.msr |= changed >> 4 & (0x0f & ~MSR_TRAIL_RI);
    if ((old & MSR_RI) && !(lines & MSR_RI))
        s->s.msr |= MSR_TRAIL_RI;
}

static void write_fcr(struct serial *s, u8 value)
{
    struct serial_state *st = &s->s;

    if ((value ^ st->fcr) & FCR_ENABLE)
        value |= FCR_CLEAR_RX | FCR_CLEAR_TX; /* switching the FIFOs empties them */
    st->fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
    if (value & FCR_CLEAR_RX) {
        st->rx_count = 0;
        st->lsr &= (u8)~LSR_READY;
    }
    if (value & FCR_CLEAR_TX) {
        st->tx_count = 0;
        st->lsr |= LSR_THRE | LSR_TEMT;
        st->thr_pending = 1;
    }
    arm_timeout(s);
}

static void write_ier(struct serial *s, u8 value)
{
    u8 rising = (u8)(value & ~s->s.ier);

    s->s.ier = value & 0x0f;
    if ((rising & IER_TX) && (s->s.lsr & LSR_THRE))
        s->s.thr_pending = 1; /* enabling it reports an empty transmitter at once */
}

static void write_lcr(struct serial *s, u8 value)
{
    bool starts = (value & LCR_BREAK) && !(s->s.lcr & LCR_BREAK);

    s->s.lcr = value;
    if (starts && (s->s.mcr & MCR_LOOP)) {
        rx_push(s, 0);
        s->s.lsr |= LSR_BREAK;
    }
}

static u8 read_locked(struct serial *s, unsigned reg)
{
    struct serial_state *st = &s->s;
    u8 value;

    switch (reg) {
    case REG_DATA:
        return st->lcr & LCR_DLAB ? st->dll : read_rbr(s);
    case REG_IER:
        return st->lcr & LCR_DLAB ? st->dlm : st->ier;
    case REG_IIR_FCR:
        value = interrupt_id(s);
        if (value == IIR_TX)
            st->thr_pending = 0; /* reading the cause resets it */
        return value | (st->fcr & FCR_ENABLE ? IIR_FIFO : 0);
    case REG_LCR:
        return st->lcr;
    case REG_MCR:
        return st->mcr;
    case REG_LSR:
        value = st->lsr;
        st->lsr &= (u8)~LSR_ERRORS;
        return value;
    case REG_MSR:
        value = st->msr;
        st->msr &= 0xf0;
        return value;
    case REG_SCR:
        return st->scr;
    }
    return 0xff;
}

static void write_locked(struct serial *s, unsigned reg, u8 value)
{
    struct serial_state *st = &s->s;

    switch (reg) {
    case REG_DATA:
        if (st->lcr & LCR_DLAB)
            st->dll = value;
        else
            write_thr(s, value);
        break;
    case REG_IER:
        if (st->lcr & LCR_DLAB)
            st->dlm = value;
        else
            write_ier(s, value);
        break;
    case REG_IIR_FCR:
        write_fcr(s, value);
        break;
    case REG_LCR:
        write_lcr(s, value);
        break;
    case REG_MCR:
        write_mcr(s, value);
        break;
    case REG_SCR:
        st->scr = value;
        break;
    }
}

/* An 8-bit device on the bus: a wider access is one access per byte, which the port space makes of
 * it. */
static u64 serial_read(void *opaque, u64 offset, unsigned size)
{
    struct serial *s = opaque;
    bool was_full;
    u64 value = 0;

    pthread_mutex_lock(&s->lock);
    was_full = s->s.rx_count >= rx_capacity(s);
    for (unsigned i = 0; i < size; i++)
        value |= (u64)read_locked(s, (unsigned)offset + i) << 8 * i;
    update_irq(s);
    was_full = was_full && s->s.rx_count < rx_capacity(s);
    pthread_mutex_unlock(&s->lock);
    if (was_full && s->dev && s->dev->accept_input)
        s->dev->accept_input(s->dev);
    return value;
}

static void serial_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct serial *s = opaque;
    unsigned before, after;

    pthread_mutex_lock(&s->lock);
    before = rx_capacity(s) - s->s.rx_count;
    for (unsigned i = 0; i < size; i++)
        write_locked(s, (unsigned)offset + i, (u8)(value >> 8 * i));
    update_irq(s);
    after = s->s.mcr & MCR_LOOP ? 0 : rx_capacity(s) - s->s.rx_count;
    pthread_mutex_unlock(&s->lock);
    if (after > before && s->dev && s->dev->accept_input)
        s->dev->accept_input(s->dev);
}

static size_t receive(void *opaque, const u8 *buf, size_t len)
{
    struct serial *s = opaque;
    size_t n = 0;

    pthread_mutex_lock(&s->lock);
    while (!(s->s.mcr & MCR_LOOP) && n < len && s->s.rx_count < rx_capacity(s))
        rx_push(s, buf[n++]);
    if (n)
        arm_timeout(s);
    update_irq(s);
    pthread_mutex_unlock(&s->lock);
    return n;
}

static void writable(void *opaque)
{
    struct serial *s = opaque;

    pthread_mutex_lock(&s->lock);
    tx_flush(s);
    update_irq(s);
    pthread_mutex_unlock(&s->lock);
}

static const struct io_ops serial_ops = {.read = serial_read, .write = serial_write};

void serial_init(struct serial *s, u16 base, struct irq irq, struct timerq *q, struct chardev *dev)
{
    memset(s, 0, sizeof(*s));
    pthread_mutex_init(&s->lock, NULL);
    s->irq = irq;
    s->q = q;
    s->dev = dev;
    if (q)
        timer_init(&s->timer, q, fire, s);
    s->io = (struct io_region){
        .name = "serial", .base = base, .len = 8, .ops = &serial_ops, .opaque = s};
    serial_reset(s);
    if (dev)
        chardev_connect(
            dev, &(struct chardev_front){.receive = receive, .writable = writable, .opaque = s});
}

void serial_fini(struct serial *s)
{
    if (!s->io.ops)
        return;
    if (s->dev)
        chardev_connect(s->dev, &(struct chardev_front){0});
    if (s->q)
        timer_cancel(&s->timer);
    pthread_mutex_destroy(&s->lock);
}

void serial_reset(struct serial *s)
{
    pthread_mutex_lock(&s->lock);
    if (s->q)
        timer_cancel(&s->timer);
    s->s = (struct serial_state){
        .lsr = LSR_THRE | LSR_TEMT, .msr = MSR_DCD | MSR_DSR | MSR_CTS, .dll = 1};
    update_irq(s);
    pthread_mutex_unlock(&s->lock);
}

int serial_map(struct serial *s, struct aspace *pio, struct err *err)
{
    return aspace_map(pio, &s->io, err);
}

void serial_resume(struct serial *s)
{
    pthread_mutex_lock(&s->lock);
    arm_timeout(s);
    update_irq(s);
    pthread_mutex_unlock(&s->lock);
}
