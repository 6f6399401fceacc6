/*
 * Split virtqueues, device side: virtio 1.2, 2.7.
 *
 * Invariants:
 * 1. Ring addresses and size are checked once, in virtq_enable(), and do not change until reset.
 * 2. A descriptor is read from guest memory once, into a local copy, and only the copy is checked
 * and used.
 * 3. A chain has at most min(size, VIRTQ_SEGS) descriptors in all, readable ones first, each wholly
 * inside RAM, and at most 2^32 - 1 bytes in all.
 * 4. At most `size` chains are in flight, whatever the driver offers.
 * 5. After virtio_fail() the queue is not live: nothing is read from or written to its rings any
 * more.
 *
 * Threads: any, with q->lock held; the driver's side runs on other vCPUs at the same time.
 */
#include "device/virtio.h"
#include <errno.h>
#include <string.h>

#define DESC_BYTES 16
#define DESC_NEXT 1
#define DESC_WRITE 2
#define DESC_INDIRECT 4
#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY 1
#define CHAIN_BYTES_MAX UINT32_MAX /* 2.7.4 says 2^32; lengths of used elements have 32 bits */

struct desc {
    u64 addr;
    u32 len;
    u16 flags, next;
};

/* Ring words are shared with running vCPUs: one access each, in the order written. */
static u16 ring_load16(const u8 *p)
{
    return __atomic_load_n((const u16 *)p, __ATOMIC_ACQUIRE);
}

static void ring_store16(u8 *p, u16 value)
{
    __atomic_store_n((u16 *)p, value, __ATOMIC_RELEASE);
}

/* Indirect tables may have any alignment. The barrier keeps the compiler from reading guest memory
 * a second time. */
static struct desc desc_load(const u8 *p)
{
    struct desc d;

    memcpy(&d, p, sizeof(d));
    __asm__ volatile("" : : : "memory");
    return d;
}

static u16 avail_idx(const struct virtq *q)
{
    return ring_load16(q->avail + 2);
}

static u64 avail_len(const struct virtq *q)
{
    return 6 + 2ull * q->size;
}

static u64 used_len(const struct virtq *q)
{
    return 6 + 8ull * q->size;
}

int virtq_enable(struct virtq *q)
{
    struct gmem *ram = q->dev->env.ram;

    if (!q->size || q->size > q->max || (q->size & (q->size - 1)))
        return -EINVAL;
    if (q->desc_gpa % 16 || q->avail_gpa % 2 || q->used_gpa % 4)
        return -EINVAL;
    q->desc = gmem_ptr(ram, q->desc_gpa, (u64)q->size * DESC_BYTES);
    q->avail = gmem_ptr(ram, q->avail_gpa, avail_len(q));
    q->used = gmem_ptr(ram, q->used_gpa, used_len(q));
    if (!q->desc || !q->avail || !q->used)
        return -EINVAL;
    q->enabled = true;
    return 0;
}

void virtq_reset(struct virtq *q)
{
    atomic_store(&q->live, false);
    q->enabled = q->event_idx = q->indirect = false;
    q->size = q->max;
    atomic_store(&q->vector, VIRTQ_NO_VECTOR);
    q->desc_gpa = q->avail_gpa = q->used_gpa = 0;
    q->desc = q->avail = q->used = NULL;
    q->last_avail = q->seen_avail = q->used_idx = q->signalled = 0;
}

static int broken(struct virtq *q, const char *why)
{
    atomic_store(&q->live, false);
    virtio_fail(q->dev, why);
    return -EPROTO;
}

/* Adds one checked segment. Zero-length ones say nothing and are left out. */
static const char *chain_add(struct virtq *q, struct virtq_chain *c, const struct desc *d)
{
    unsigned n = c->nout + c->nin;
    bool writable = d->flags & DESC_WRITE;
    void *p;

    if (!writable && c->nin)
        return "a readable descriptor follows a writable one";
    if (!d->len)
        return NULL;
    if (writable)
        p = gmem_ptr(q->dev->env.ram, d->addr, d->len);
    else
        p = (void *)(uintptr_t)gmem_ptr_ro(q->dev->env.ram, d->addr, d->len);
    if (!p)
        return "a descriptor points outside of RAM";
    c->iov[n] = (struct iovec){.iov_base = p, .iov_len = d->len};
    c->gpa[n] = d->addr;
    if (writable) {
        c->nin++;
        c->in_len += d->len;
    } else {
        c->nout++;
        c->out_len += d->len;
    }
    return c->out_len + c->in_len > CHAIN_BYTES_MAX ? "a chain has 2^32 bytes or more" : NULL;
}

/* Walks descriptors from `head` in a table of n, at most `budget` of them; an indirect one ends the
 * walk and is returned in *ret_indirect. */
static const char *chain_walk(struct virtq *q, struct virtq_chain *c, const u8 *table, unsigned n,
                              unsigned head, unsigned *budget, struct desc *ret_indirect)
{
    unsigned i = head;

    for (;;) {
        struct desc d;
        const char *why;

        if (i >= n)
            return "a descriptor index is past the end of its table";
        if (!(*budget)--)
            return "a chain is longer than its queue";
        d = desc_load(table + (size_t)i * DESC_BYTES);
        if (d.flags & DESC_INDIRECT) {
            if (!ret_indirect || !q->indirect || (d.flags & DESC_NEXT))
                return "an indirect descriptor where none may be";
            *ret_indirect = d;
            return NULL;
        }
        why = chain_add(q, c, &d);
        if (why || !(d.flags & DESC_NEXT))
            return why;
        i = d.next;
    }
}

static const char *chain_read(struct virtq *q, struct virtq_chain *c)
{
    struct desc indirect = {.flags = 0};
    unsigned budget = MIN(q->size, VIRTQ_SEGS);
    const char *why = chain_walk(q, c, q->desc, q->size, c->head, &budget, &indirect);
    const u8 *table;

    if (why || !(indirect.flags & DESC_INDIRECT))
        return why;
    /* 2.7.5.3: the table's length is a multiple of 16; its own WRITE flag means nothing. */
    if (!indirect.len || indirect.len % DESC_BYTES || indirect.len > 65536u * DESC_BYTES)
        return "an indirect table has a bad length";
    table = gmem_ptr_ro(q->dev->env.ram, indirect.addr, indirect.len);
    if (!table)
        return "an indirect table lies outside of RAM";
    /* The descriptor that pointed here holds no data: the budget is the table's alone. */
    budget++;
    return chain_walk(q, c, table, indirect.len / DESC_BYTES, 0, &budget, NULL);
}

bool virtq_ready(struct virtq *q)
{
    return atomic_load(&q->live) && !q->paused && !atomic_load(&q->dev->resetting) &&
           pci_bus_master(&q->dev->pci);
}

static int take(struct virtq *q, u16 head, struct virtq_chain *c)
{
    const char *why;

    if (atomic_load(&q->inflight) >= q->size)
        return broken(q, "more chains in flight than the queue holds");
    c->head = head;
    c->nout = c->nin = 0;
    c->out_len = c->in_len = 0;
    why = c->head >= q->size ? "a chain's head is past the end of the table" : chain_read(q, c);
    if (why)
        return broken(q, why);
    atomic_fetch_add(&q->inflight, 1);
    return 1;
}

int virtq_pop(struct virtq *q, struct virtq_chain *c)
{
    u16 waiting;
    int rc;

    if (!virtq_ready(q))
        return 0;
    q->seen_avail = avail_idx(q);
    waiting = (u16)(q->seen_avail - q->last_avail);
    if (!waiting)
        return 0;
    if (waiting > q->size)
        return broken(q, "the available index jumped by more than the queue's size");
    rc = take(q, ring_load16(q->avail + 4 + 2 * (q->last_avail & (q->size - 1))), c);
    q->last_avail += rc == 1;
    return rc;
}

void virtq_hold(struct virtq *q)
{
    atomic_fetch_sub(&q->inflight, 1);
}

int virtq_again(struct virtq *q, u16 head, struct virtq_chain *c)
{
    return virtq_ready(q) ? take(q, head, c) : 0;
}

void virtq_unpop(struct virtq *q)
{
    q->last_avail--;
    atomic_fetch_sub(&q->inflight, 1);
}

void virtq_wrote(struct virtq *q, const struct virtq_chain *c, u32 written)
{
    for (unsigned i = c->nout; i < (unsigned)c->nout + c->nin && written; i++) {
        u32 len = MIN(written, (u32)MIN(c->iov[i].iov_len, UINT32_MAX));

        gmem_wrote(q->dev->env.ram, c->gpa[i], len);
        written -= len;
    }
}

void virtq_push_later(struct virtq *q, u16 head, u32 written, unsigned nth)
{
    u8 *elem;

    atomic_fetch_sub(&q->inflight, 1);
    if (!atomic_load(&q->live))
        return;
    elem = q->used + 4 + 8 * ((u16)(q->used_idx + nth) & (q->size - 1));
    __atomic_store_n((u32 *)elem, head, __ATOMIC_RELAXED);
    __atomic_store_n((u32 *)(elem + 4), written, __ATOMIC_RELAXED);
}

void virtq_publish(struct virtq *q, unsigned count)
{
    if (!atomic_load(&q->live) || !count)
        return;
    q->used_idx = (u16)(q->used_idx + count);
    ring_store16(q->used + 2, q->used_idx);
    gmem_wrote(q->dev->env.ram, q->used_gpa, used_len(q));
}

void virtq_push(struct virtq *q, u16 head, u32 written)
{
    virtq_push_later(q, head, written, 0);
    virtq_publish(q, 1);
}

/* 2.7.7.2 and 2.7.10: with an event index, when used_event lies in (old, new]. */
static bool signal_wanted(struct virtq *q)
{
    u16 event, old = q->signalled;

    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* our used index before their wish */
    q->signalled = q->used_idx;
    if (!q->event_idx)
        return !(ring_load16(q->avail) & AVAIL_NO_INTERRUPT);
    event = ring_load16(q->avail + 4 + 2 * q->size);
    return (u16)(q->used_idx - event - 1) < (u16)(q->used_idx - old);
}

void virtq_signal(struct virtq *q)
{
    if (!atomic_load(&q->live) || q->signalled == q->used_idx)
        return;
    if (signal_wanted(q))
        virtio_interrupt_queue(q->dev, q);
}

void virtq_hush(struct virtq *q)
{
    if (!atomic_load(&q->live) || q->event_idx)
        return; /* an avail_event that is not moved on says the same */
    ring_store16(q->used, USED_NO_NOTIFY);
    gmem_wrote(q->dev->env.ram, q->used_gpa, 2);
}

/* Asks to be notified when the driver's index moves on from idx; true: it already has. */
static bool ask_for(struct virtq *q, u16 idx)
{
    if (avail_idx(q) != idx)
        return true;
    if (q->event_idx) {
        u64 offset = 4 + 8ull * q->size;

        ring_store16(q->used + offset, idx);
        gmem_wrote(q->dev->env.ram, q->used_gpa + offset, 2);
    } else if (ring_load16(q->used) & USED_NO_NOTIFY) {
        ring_store16(q->used, 0);
        gmem_wrote(q->dev->env.ram, q->used_gpa, 2);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* our wish before their index */
    return avail_idx(q) != idx;
}

bool virtq_more(struct virtq *q)
{
    return virtq_ready(q) && ask_for(q, q->last_avail);
}

bool virtq_wait(struct virtq *q)
{
    return virtq_ready(q) && ask_for(q, q->seen_avail);
}

void virtq_complete(struct virtq *q, const struct virtq_chain *c, u32 written)
{
    pthread_mutex_lock(&q->lock);
    virtq_wrote(q, c, written);
    virtq_push(q, c->head, written);
    virtq_signal(q);
    pthread_mutex_unlock(&q->lock);
    virtio_idle(q->dev);
}
