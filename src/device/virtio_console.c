/*
 * virtio-console: virtio 1.2, 5.3, without the multiport feature: one port, one pair of queues.
 *
 * Output goes to the chardev from the vCPU's thread; when that is full, the rest of a chain waits,
 * and the queue with it. Input comes from the main loop and is refused while the guest gives no
 * buffers, so that it waits at its source.
 */
#include "device/virtio_console.h"
#include "device/pci_host.h"
#include <string.h>

#define QUEUE_MAX 64
#define PIECE_BYTES 4096u
#define F_SIZE BIT(0)

enum { QUEUE_RX, QUEUE_TX, QUEUES };
enum { CFG_COLS = 0, CFG_ROWS = 2, CFG_BYTES = 4 };

struct console {
    struct virtio v; /* first */
    struct chardev *port;
    u64 sent;     /* bytes of the first waiting tx chain that are out already; tx lock */
    bool starved; /* input was refused for want of buffers; rx lock */
};

static s64 console_tx(struct virtio *v, struct virtq *q, struct virtq_chain *c)
{
    struct console *con = CONTAINER_OF(v, struct console, v);
    u8 piece[PIECE_BYTES];

    while (con->port && con->sent < c->out_len) {
        size_t n = iov_read(c->iov, c->nout, con->sent, piece, sizeof(piece));
        size_t took = con->port->write(con->port, piece, n);

        con->sent += took;
        if (took < n)
            return VIRTIO_STOP; /* console_writable() comes back to it */
    }
    con->sent = 0;
    return 0;
}

static void console_writable(void *opaque)
{
    struct console *con = opaque;

    virtio_poll(&con->v, &con->v.queue[QUEUE_TX]);
}

static size_t console_receive(void *opaque, const u8 *buf, size_t len)
{
    struct console *con = opaque;
    struct virtq *q = &con->v.queue[QUEUE_RX];
    size_t done = 0;

    pthread_mutex_lock(&q->lock);
    con->starved = false;
    while (done < len && !con->starved) {
        struct virtq_chain *c = q->chain;
        size_t n;

        if (virtq_pop(q, c) != 1) {
            con->starved = !virtq_more(q);
            continue;
        }
        n = iov_write(c->iov + c->nout, c->nin, 0, buf + done, len - done);
        if (!n)
            virtio_fail(&con->v, "a console input buffer without writable bytes");
        virtq_wrote(q, c, (u32)n);
        virtq_push(q, c->head, (u32)n);
        done += n;
    }
    virtq_signal(q);
    pthread_mutex_unlock(&q->lock);
    return done;
}

static void console_refilled(struct virtio *v, struct virtq *q)
{
    struct console *con = CONTAINER_OF(v, struct console, v);

    if (con->starved && con->port && con->port->accept_input)
        con->port->accept_input(con->port);
    con->starved = false;
}

void virtio_console_resize(struct virtio *v, u16 cols, u16 rows)
{
    u8 size[4];

    store16(size + CFG_COLS, cols);
    store16(size + CFG_ROWS, rows);
    virtio_config_set(v, CFG_COLS, size, sizeof(size));
}

/* The terminal may have waited since before the driver was there. */
static void console_start(struct virtio *v)
{
    struct console *con = CONTAINER_OF(v, struct console, v);

    if (con->port && con->port->accept_input)
        con->port->accept_input(con->port);
}

static void console_reset(struct virtio *v)
{
    CONTAINER_OF(v, struct console, v)->sent = 0;
}

struct console_state {
    u64 sent;
};

static const struct field console_fields[] = {STATE_UINT(struct console_state, sent, 1)};
static STATE_TABLE(console_table, struct console_state, 1, console_fields);

static void console_save(struct virtio *v, void *state)
{
    ((struct console_state *)state)->sent = CONTAINER_OF(v, struct console, v)->sent;
}

/* Any value is possible: one past the waiting chain's end only loses that chain's bytes. */
static void console_load(struct virtio *v, const void *state)
{
    CONTAINER_OF(v, struct console, v)->sent = ((const struct console_state *)state)->sent;
}

static int console_init(struct virtio *v, const void *options, struct err *err)
{
    struct console *con = CONTAINER_OF(v, struct console, v);
    const struct virtio_console_options *o = options;

    con->port = o->port;
    v->nqueues = QUEUES;
    v->queue[QUEUE_RX].max = v->queue[QUEUE_TX].max = QUEUE_MAX;
    v->features = F_SIZE;
    v->config_len = CFG_BYTES;
    store16(v->config + CFG_COLS, o->cols);
    store16(v->config + CFG_ROWS, o->rows);
    if (con->port) {
        struct chardev_front front = {console_receive, console_writable, con};

        chardev_connect(con->port, &front);
    }
    return 0;
}

static void console_fini(struct virtio *v)
{
    struct console *con = CONTAINER_OF(v, struct console, v);
    struct chardev_front nobody = {0};

    if (con->port)
        chardev_connect(con->port, &nobody);
}

const struct virtio_type virtio_console_type = {
    .name = "virtio-console",
    .id = VIRTIO_ID_CONSOLE,
    .class_code = 0x078000,
    .size = sizeof(struct console),
    .own_queues = 1u << QUEUE_RX,
    .init = console_init,
    .start = console_start,
    .chain = console_tx,
    .refilled = console_refilled,
    .reset = console_reset,
    .config_varies = true,
    .state = &console_table,
    .save = console_save,
    .load = console_load,
    .fini = console_fini,
};
