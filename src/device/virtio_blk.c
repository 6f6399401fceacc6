/*
 * virtio-blk: virtio 1.2, 5.2. A chain is a 16-byte header, data, and one status byte that the
 * device writes.
 *
 * What block_try() can finish is finished in the vCPU's thread, without memory or another thread;
 * the rest is copied to the heap and completed from the disk engine's thread.
 *
 * Invariants: a chain without room for header and status fails the device (there is nowhere to
 * report to); everything else a driver gets wrong is answered with IOERR or UNSUPP. Host errors are
 * IOERR, or, where the user wants it (a full host by default), the machine stops: the chain is held, which is a bit
 * for its head, and done again from the start when the machine goes on, here or where it was restored.
 */
#include "device/virtio_blk.h"
#include "block/throttle.h"
#include "device/pci_host.h"
#include "device/trace.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512u
#define QUEUE_MAX 256
#define QUEUES_MAX 4u
#define SEG_MAX (QUEUE_MAX - 2)
#define ID_BYTES 20
#define HELD_WORDS (QUEUE_MAX / 64)
#define RANGE_SECTORS_MAX (1u << 21) /* of discard and write-zeroes: 1 GiB a request */

#define F_SEG_MAX BIT(2)
#define F_RO BIT(5)
#define F_BLK_SIZE BIT(6)
#define F_FLUSH BIT(9)
#define F_MQ BIT(12)
#define F_DISCARD BIT(13)
#define F_WRITE_ZEROES BIT(14)

enum blk_type {
    T_IN = 0,
    T_OUT = 1,
    T_FLUSH = 4,
    T_GET_ID = 8,
    T_DISCARD = 11,
    T_WRITE_ZEROES = 13
};
enum blk_status { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };

/* 5.2.4: offsets in the configuration space. */
enum {
    CFG_CAPACITY = 0,
    CFG_SEG_MAX = 12,
    CFG_BLK_SIZE = 20,
    CFG_NUM_QUEUES = 34,
    CFG_DISCARD_SECTORS = 36,
    CFG_DISCARD_SEG = 40,
    CFG_DISCARD_ALIGN = 44,
    CFG_ZERO_SECTORS = 48,
    CFG_ZERO_SEG = 52,
    CFG_ZERO_UNMAP = 56,
    CFG_BYTES = 60
};

/* Heads of chains that are held. */
struct blk_held {
    u64 head[QUEUES_MAX * HELD_WORDS];
};

struct blk {
    struct virtio v; /* first */
    struct block *disk;
    char id[ID_BYTES];
    struct virtio_blk_options options;
    struct blk_held held; /* each queue's words are protected by the queue's lock */
    atomic_bool retrying; /* what was held is done again: it was counted */

    bool has_timer;
    struct timer refill;
    pthread_mutex_t throttle_lock; /* protects the two below; taken last */
    struct throttle throttle;
    unsigned turn; /* the queue that is looked at first next time */
};

/* A request that the engine has, with its own copy of the chain. */
struct blk_io {
    struct block_req req;
    struct virtq *q;
    u64 in_len; /* data bytes that the device writes for a read */
    struct virtq_chain chain;
    struct iovec iov[VIRTQ_SEGS];
};

struct blk_header {
    u32 type, reserved;
    u64 sector;
};

struct blk_range {
    u64 sector;
    u32 sectors, flags;
};

static void put_status(const struct virtq_chain *c, u8 status)
{
    iov_write(c->iov + c->nout, c->nin, c->in_len - 1, &status, 1);
}

static u8 status_of(int result)
{
    return result ? S_IOERR : S_OK;
}

/* The used length must cover what was written from the start on; after a failed read that is only
 * promised of the status byte, so everything counts as written (2.7.8.2 forbids to claim more than
 * was written: segments before the status byte are the driver's own RAM and unchanged at worst). */
static u32 used_len(const struct virtq_chain *c)
{
    return (u32)c->in_len;
}

static s64 answer(const struct virtq_chain *c, u8 status)
{
    put_status(c, status);
    return used_len(c);
}

/* --- requests that the host could not do, and the guest need not know --- */

static bool is_full(int result)
{
    return result == -ENOSPC || result == -EDQUOT;
}

static bool stops(const struct blk *b, enum block_op op, int result)
{
    const struct virtio_blk_options *o = &b->options;

    if (!result || !o->stopped)
        return false;
    if (op == BLOCK_READ)
        return o->on_read == VIRTIO_BLK_STOP;
    /* A failed flush fails for ever: to try again would be to lie. */
    return o->on_write != VIRTIO_BLK_REPORT &&
           (is_full(result) || (o->on_write == VIRTIO_BLK_STOP && op != BLOCK_FLUSH));
}

/* q->lock held. False: the device is being reset, or nobody could make the machine go on. */
static bool hold(struct blk *b, struct virtq *q, u16 head, int result)
{
    if (!atomic_load(&q->live) || atomic_load(&b->v.resetting) ||
        !b->options.stopped(b->options.opaque, b->disk, -result))
        return false;
    b->held.head[q->index * HELD_WORDS + head / 64] |= BIT(head % 64);
    virtq_hold(q);
    return true;
}

static void blk_resume(struct virtio *v)
{
    struct blk *b = CONTAINER_OF(v, struct blk, v);

    atomic_store(&b->retrying, true);
    for (unsigned i = 0; i < v->nqueues * HELD_WORDS; i++) {
        struct virtq *q = &v->queue[i / HELD_WORDS];
        u64 heads;

        pthread_mutex_lock(&q->lock);
        heads = b->held.head[i];
        b->held.head[i] = 0;
        pthread_mutex_unlock(&q->lock);
        for (; heads; heads &= heads - 1)
            virtio_retry(v, q, (u16)(i % HELD_WORDS * 64 + (unsigned)__builtin_ctzll(heads)));
    }
    atomic_store(&b->retrying, false);
}

static void blk_reset(struct virtio *v)
{
    struct blk *b = CONTAINER_OF(v, struct blk, v);

    b->held = (struct blk_held){0};
}

static const struct field held_fields[] = {STATE_HEXES(struct blk_held, head, 1)};
static STATE_TABLE(held_table, struct blk_held, 1, held_fields);

static void blk_save(struct virtio *v, void *state)
{
    *(struct blk_held *)state = CONTAINER_OF(v, struct blk, v)->held;
}

static int blk_check(struct virtio *v, const void *state, struct err *err)
{
    const struct blk_held *s = state;

    for (unsigned i = v->nqueues * HELD_WORDS; i < ARRAY_LEN(s->head); i++)
        if (s->head[i])
            return err_set(err, EINVAL, "%s: holds requests of a queue that it has not",
                           v->pci.name);
    return 0;
}

static void blk_load(struct virtio *v, const void *state)
{
    CONTAINER_OF(v, struct blk, v)->held = *(const struct blk_held *)state;
}

/* --- requests --- */

static void io_done(struct block_req *r, int result)
{
    struct blk_io *io = CONTAINER_OF(r, struct blk_io, req);
    struct blk *b = CONTAINER_OF(io->q->dev, struct blk, v);
    bool held = false;

    trace_device_blk_done(b->v.pci.name, result);
    if (stops(b, r->op, result)) {
        pthread_mutex_lock(&io->q->lock);
        held = hold(b, io->q, io->chain.head, result);
        pthread_mutex_unlock(&io->q->lock);
    }
    if (held) {
        free(io);
        virtio_idle(&b->v);
        return;
    }
    virtq_complete(io->q, &io->chain, (u32)answer(&io->chain, status_of(result)));
    free(io);
}

/* Copies chain and request to the heap and hands them to the engine. */
static s64 go_async(struct blk *b, struct virtq *q, const struct virtq_chain *c,
                    const struct block_req *r)
{
    struct blk_io *io = malloc(sizeof(*io));
    unsigned n = c->nout + c->nin;
    int rc;

    if (!io)
        return answer(c, S_IOERR);
    io->req = *r;
    io->req.done = io_done;
    io->q = q;
    io->chain.head = c->head;
    io->chain.nout = c->nout;
    io->chain.nin = c->nin;
    io->chain.out_len = c->out_len;
    io->chain.in_len = c->in_len;
    memcpy(io->chain.iov, c->iov, n * sizeof(c->iov[0]));
    memcpy(io->chain.gpa, c->gpa, n * sizeof(c->gpa[0]));
    if (r->niov)
        memcpy(io->iov, r->iov, r->niov * sizeof(r->iov[0]));
    io->req.iov = io->iov;
    rc = block_submit(b->disk, &io->req);
    if (rc == -EINPROGRESS)
        return VIRTIO_LATER;
    free(io);
    if (stops(b, r->op, rc) && hold(b, q, c->head, rc))
        return VIRTIO_LATER;
    return answer(c, status_of(rc));
}

/* --- limits --- */

/* The queue is looked at again when there is something left. */
static bool has_to_wait(struct blk *b, u64 bytes)
{
    s64 now, wait;

    if (!b->has_timer || atomic_load(&b->retrying))
        return false;
    now = timerq_now(b->refill.q);
    pthread_mutex_lock(&b->throttle_lock);
    wait = throttle_take(&b->throttle, now, bytes);
    pthread_mutex_unlock(&b->throttle_lock);
    if (wait)
        timer_arm(&b->refill, now + wait);
    return wait != 0;
}

/* Each time another queue comes first, or one could take everything. */
static void refilled(void *opaque)
{
    struct blk *b = opaque;
    unsigned first;

    pthread_mutex_lock(&b->throttle_lock);
    first = b->turn++;
    pthread_mutex_unlock(&b->throttle_lock);
    for (unsigned i = 0; i < b->v.nqueues; i++)
        virtio_poll(&b->v, &b->v.queue[(first + i) % b->v.nqueues]);
}

static s64 run(struct blk *b, struct virtq *q, const struct virtq_chain *c, struct block_req *r)
{
    int rc;

    if (has_to_wait(b, r->op == BLOCK_READ || r->op == BLOCK_WRITE ? r->len : 0))
        return VIRTIO_STOP;
    rc = block_try(b->disk, r);
    if (rc == -EAGAIN)
        return go_async(b, q, c, r);
    return answer(c, status_of(rc));
}

/* Drops what lies past `len` bytes of the segments. */
static unsigned iov_cut(struct iovec *iov, unsigned n, u64 len)
{
    for (unsigned i = 0; i < n; i++) {
        if (iov[i].iov_len >= len) {
            iov[i].iov_len = len;
            return len ? i + 1 : i;
        }
        len -= iov[i].iov_len;
    }
    return n;
}

static s64 read_write(struct blk *b, struct virtq *q, const struct virtq_chain *c,
                      const struct blk_header *h)
{
    bool out = h->type == T_OUT;
    struct iovec copy[VIRTQ_SEGS], *iov = copy;
    unsigned n = out ? c->nout : c->nin;
    struct block_req r = {.op = out ? BLOCK_WRITE : BLOCK_READ};

    r.len = out ? c->out_len - sizeof(*h) : c->in_len - 1;
    if (r.len % SECTOR || h->sector > block_size(b->disk) / SECTOR)
        return answer(c, S_IOERR);
    memcpy(copy, c->iov + (out ? 0 : c->nout), n * sizeof(copy[0]));
    if (out)
        iov_drop(&iov, &n, sizeof(*h));
    else
        n = iov_cut(iov, n, r.len);
    r.offset = h->sector * SECTOR;
    if (out)
        traffic_out(&b->v.traffic, r.len);
    else
        traffic_in(&b->v.traffic, r.len);
    r.iov = iov;
    r.niov = n;
    return run(b, q, c, &r);
}

/* 5.2.6.2: one segment of 16 bytes, since we offer max_*_seg = 1. */
static s64 range_request(struct blk *b, struct virtq *q, const struct virtq_chain *c,
                         const struct blk_header *h)
{
    bool zero = h->type == T_WRITE_ZEROES;
    struct block_req r = {.op = zero ? BLOCK_ZERO : BLOCK_DISCARD};
    struct blk_range range;

    if (!(b->v.acked & (zero ? F_WRITE_ZEROES : F_DISCARD)))
        return answer(c, S_UNSUPP);
    if (c->out_len != sizeof(*h) + sizeof(range))
        return answer(c, S_IOERR);
    iov_read(c->iov, c->nout, sizeof(*h), &range, sizeof(range));
    if (range.flags & (zero ? ~1u : ~0u))
        return answer(c, S_UNSUPP);
    if (range.sectors > RANGE_SECTORS_MAX || range.sector > block_size(b->disk) / SECTOR)
        return answer(c, S_IOERR);
    r.offset = range.sector * SECTOR;
    r.len = (u64)range.sectors * SECTOR;
    r.unmap = range.flags & 1;
    return run(b, q, c, &r);
}

static s64 get_id(struct blk *b, const struct virtq_chain *c)
{
    iov_write(c->iov + c->nout, c->nin, 0, b->id, MIN(c->in_len - 1, sizeof(b->id)));
    return answer(c, S_OK);
}

static s64 blk_chain(struct virtio *v, struct virtq *q, struct virtq_chain *c)
{
    struct blk *b = CONTAINER_OF(v, struct blk, v);
    struct block_req flush = {.op = BLOCK_FLUSH};
    struct blk_header h;

    if (iov_read(c->iov, c->nout, 0, &h, sizeof(h)) != sizeof(h) || !c->in_len) {
        virtio_fail(v, "a disk request without room for its header or status");
        return 0;
    }
    trace_device_blk_request(v->pci.name, h.type, h.sector, (u64)c->out_len + c->in_len - sizeof(h) - 1);
    switch (h.type) {
    case T_IN:
    case T_OUT:
        return read_write(b, q, c, &h);
    case T_FLUSH:
        return run(b, q, c, &flush);
    case T_GET_ID:
        return get_id(b, c);
    case T_DISCARD:
    case T_WRITE_ZEROES:
        return range_request(b, q, c, &h);
    }
    return answer(c, S_UNSUPP);
}

static int blk_init(struct virtio *v, const void *options, struct err *err)
{
    struct blk *b = CONTAINER_OF(v, struct blk, v);
    const struct virtio_blk_options *o = options;
    unsigned queues = o->queues ? o->queues : v->env.cpus;
    u64 sectors = block_size(o->disk) / SECTOR;

    b->disk = o->disk;
    b->options = *o;
    b->throttle =
        (struct throttle){.bytes_per_s = o->bytes_per_s, .requests_per_s = o->requests_per_s};
    pthread_mutex_init(&b->throttle_lock, NULL);
    if (throttle_is_on(&b->throttle)) {
        timer_init(&b->refill, v->env.timers, refilled, b);
        b->has_timer = true;
    }
    if (o->serial && strlen(o->serial) > ID_BYTES)
        return err_set(err, EINVAL, "disk serial \"%s\" is longer than %d bytes", o->serial,
                       ID_BYTES);
    if (o->serial)
        memcpy(b->id, o->serial, strlen(o->serial));
    v->nqueues = MIN(MAX(queues, 1u), QUEUES_MAX);
    for (unsigned i = 0; i < v->nqueues; i++)
        v->queue[i].max = QUEUE_MAX;
    v->features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_MQ;
    if (block_readonly(o->disk))
        v->features |= F_RO;
    else
        v->features |= F_WRITE_ZEROES | (block_can_discard(o->disk) ? F_DISCARD : 0);
    v->config_len = CFG_BYTES;
    store32(v->config + CFG_CAPACITY, (u32)sectors);
    store32(v->config + CFG_CAPACITY + 4, (u32)(sectors >> 32));
    store32(v->config + CFG_SEG_MAX, SEG_MAX);
    store32(v->config + CFG_BLK_SIZE, SECTOR);
    store16(v->config + CFG_NUM_QUEUES, (u16)v->nqueues);
    store32(v->config + CFG_DISCARD_SECTORS, RANGE_SECTORS_MAX);
    store32(v->config + CFG_DISCARD_SEG, 1);
    store32(v->config + CFG_DISCARD_ALIGN, 8);
    store32(v->config + CFG_ZERO_SECTORS, RANGE_SECTORS_MAX);
    store32(v->config + CFG_ZERO_SEG, 1);
    v->config[CFG_ZERO_UNMAP] = 1;
    return 0;
}

static void blk_drain(struct virtio *v)
{
    struct blk *b = CONTAINER_OF(v, struct blk, v);

    if (b->disk)
        block_drain(b->disk);
}

static void blk_fini(struct virtio *v)
{
    struct blk *b = CONTAINER_OF(v, struct blk, v);

    if (b->has_timer)
        timer_cancel(&b->refill);
    blk_drain(v);
}

const struct virtio_type virtio_blk_type = {
    .name = "virtio-blk",
    .id = VIRTIO_ID_BLK,
    .class_code = 0x018000,
    .size = sizeof(struct blk),
    .init = blk_init,
    .chain = blk_chain,
    .reset = blk_reset,
    .resume = blk_resume,
    .state = &held_table,
    .save = blk_save,
    .check = blk_check,
    .load = blk_load,
    .holds = true,
    .quiesce = blk_drain,
    .fini = blk_fini,
};
