/*
 * i8042 keyboard controller. IBM PC AT Technical Reference, "Keyboard controller"; commands as in
 * the PS/2 Hardware Interface Technical Reference.
 *
 * The A20 gate is remembered and read back, but has no effect: addresses always have all their
 * bits.
 *
 * Invariant: count <= I8042_QUEUE; the interrupt line is high while a byte waits and the guest
 * wants interrupts.
 *
 * Threads: see i8042.h.
 */
#include "device/i8042.h"
#include <string.h>

#define STATUS_FULL 0x01
#define STATUS_SYSTEM 0x04
#define STATUS_COMMAND 0x08
#define STATUS_UNLOCKED 0x10
#define CONTROL_IRQ 0x01
#define CONTROL_SYSTEM 0x04
#define CONTROL_KBD_OFF 0x10
#define CONTROL_AUX_OFF 0x20
#define OUTPUT_NO_RESET 0x01
#define OUTPUT_A20 0x02
#define KBD_ACK 0xfa
#define KBD_RESEND 0xfe
#define KBD_PASSED 0xaa

static void update_irq(struct i8042 *k)
{
    irq_set(&k->irq, k->s.count && (k->s.control & CONTROL_IRQ));
}

static void push(struct i8042 *k, u8 byte)
{
    if (k->s.count < I8042_QUEUE)
        k->s.queue[k->s.count++] = byte;
}

static void set_output_port(struct i8042 *k, u8 value)
{
    k->s.output_port = value | OUTPUT_NO_RESET;
    if (!(value & OUTPUT_NO_RESET))
        event_send(&k->sink, MACHINE_RESET, 0);
}

static void keyboard_command(struct i8042 *k, u8 value)
{
    if (k->s.keyboard_arg) { /* rates, lights, scan code sets: taken and ignored */
        k->s.keyboard_arg = 0;
        push(k, KBD_ACK);
        return;
    }
    switch (value) {
    case 0xff: /* reset */
        push(k, KBD_ACK);
        push(k, KBD_PASSED);
        break;
    case 0xf2: /* identify: a keyboard with translation */
        push(k, KBD_ACK);
        push(k, 0xab);
        push(k, 0x83);
        break;
    case 0xee: /* echo */
        push(k, 0xee);
        break;
    case 0xed:
    case 0xf0:
    case 0xf3:
        k->s.keyboard_arg = value;
        push(k, KBD_ACK);
        break;
    case 0xf4 ... 0xf6: /* enable, disable, defaults */
        push(k, KBD_ACK);
        break;
    default:
        push(k, KBD_RESEND);
    }
}

static void write_data(struct i8042 *k, u8 value)
{
    u8 command = k->s.command;

    k->s.command = 0;
    switch (command) {
    case 0x60:
        k->s.control = value;
        break;
    case 0xd1:
        set_output_port(k, value);
        break;
    case 0xd2: /* as if the keyboard had sent it */
        push(k, value);
        break;
    case 0xd3: /* as if a mouse had: there is no mouse port */
    case 0xd4:
        break;
    default:
        keyboard_command(k, value);
    }
}

static void write_command(struct i8042 *k, u8 value)
{
    k->s.command = 0;
    switch (value) {
    case 0x20:
        push(k, k->s.control);
        break;
    case 0x60:
    case 0xd1 ... 0xd4:
        k->s.command = value;
        break;
    case 0xa7:
        k->s.control |= CONTROL_AUX_OFF;
        break;
    case 0xa8: /* the mouse port cannot be switched on, which tells the guest that there is none */
        break;
    case 0xa9:
        push(k, 0xff);
        break;
    case 0xaa:
        k->s.control |= CONTROL_SYSTEM;
        push(k, 0x55);
        break;
    case 0xab:
        push(k, 0x00);
        break;
    case 0xad:
        k->s.control |= CONTROL_KBD_OFF;
        break;
    case 0xae:
        k->s.control &= (u8)~CONTROL_KBD_OFF;
        break;
    case 0xc0:
        push(k, 0xa0);
        break;
    case 0xd0:
        push(k, k->s.output_port);
        break;
    case 0xf0 ... 0xff: /* pulse output lines: bit 0 low is the reset line */
        if (!(value & 1))
            event_send(&k->sink, MACHINE_RESET, 0);
        break;
    }
}

static u64 data_read(void *opaque, u64 offset, unsigned size)
{
    struct i8042 *k = opaque;
    u8 byte;

    pthread_mutex_lock(&k->lock);
    byte = k->s.queue[0];
    if (k->s.count) {
        memmove(k->s.queue, k->s.queue + 1, --k->s.count);
        irq_set(&k->irq, false); /* the next byte is a new edge */
    }
    update_irq(k);
    pthread_mutex_unlock(&k->lock);
    return byte;
}

static void data_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct i8042 *k = opaque;

    pthread_mutex_lock(&k->lock);
    write_data(k, (u8)value);
    update_irq(k);
    pthread_mutex_unlock(&k->lock);
}

static u64 status_read(void *opaque, u64 offset, unsigned size)
{
    struct i8042 *k = opaque;
    u8 status = STATUS_UNLOCKED;

    pthread_mutex_lock(&k->lock);
    status |= k->s.count ? STATUS_FULL : 0;
    status |= k->s.control & CONTROL_SYSTEM ? STATUS_SYSTEM : 0;
    status |= k->s.command ? STATUS_COMMAND : 0;
    pthread_mutex_unlock(&k->lock);
    return status;
}

static void status_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct i8042 *k = opaque;

    pthread_mutex_lock(&k->lock);
    write_command(k, (u8)value);
    update_irq(k);
    pthread_mutex_unlock(&k->lock);
}

static u64 port92_read(void *opaque, u64 offset, unsigned size)
{
    struct i8042 *k = opaque;

    return k->s.port92;
}

static void port92_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct i8042 *k = opaque;
    bool reset = (value & 1) && !(k->s.port92 & 1);

    pthread_mutex_lock(&k->lock);
    k->s.port92 = value & 0x02;
    k->s.output_port = (k->s.output_port & ~OUTPUT_A20) | (value & 0x02);
    if (reset)
        event_send(&k->sink, MACHINE_RESET, 0);
    pthread_mutex_unlock(&k->lock);
}

static const struct io_ops data_ops = {.read = data_read, .write = data_write};
static const struct io_ops status_ops = {.read = status_read, .write = status_write};
static const struct io_ops port92_ops = {.read = port92_read, .write = port92_write};

void i8042_init(struct i8042 *k, struct irq irq, struct event_sink sink)
{
    memset(k, 0, sizeof(*k));
    pthread_mutex_init(&k->lock, NULL);
    k->irq = irq;
    k->sink = sink;
    k->data = (struct io_region){
        .name = "i8042-data", .base = 0x60, .len = 1, .ops = &data_ops, .opaque = k};
    k->status = (struct io_region){
        .name = "i8042", .base = 0x64, .len = 1, .ops = &status_ops, .opaque = k};
    k->port92 = (struct io_region){
        .name = "port92", .base = 0x92, .len = 1, .ops = &port92_ops, .opaque = k};
    i8042_reset(k);
}

void i8042_fini(struct i8042 *k)
{
    if (k->data.ops)
        pthread_mutex_destroy(&k->lock);
}

void i8042_reset(struct i8042 *k)
{
    pthread_mutex_lock(&k->lock);
    memset(&k->s, 0, sizeof(k->s));
    k->s.control = CONTROL_AUX_OFF;
    k->s.output_port = OUTPUT_NO_RESET | OUTPUT_A20;
    k->s.port92 = 0x02;
    update_irq(k);
    pthread_mutex_unlock(&k->lock);
}

int i8042_map(struct i8042 *k, struct aspace *pio, struct err *err)
{
    int rc = aspace_map(pio, &k->data, err);

    rc = rc ? rc : aspace_map(pio, &k->status, err);
    return rc ? rc : aspace_map(pio, &k->port92, err);
}
