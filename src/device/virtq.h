/*
 * Split virtqueues, device side (virtio 1.2, 2.7), with indirect descriptors and event index.
 *
 * Everything in the rings is hostile. virtq_pop() copies each descriptor once, checks it, and hands
 * out host pointers into RAM only; a chain is at most VIRTQ_SEGS long and never longer than the
 * queue. A broken ring calls virtio_fail() for its device and hands out nothing from then on.
 *
 * All calls are made with q->lock held, except where it says otherwise.
 */
#ifndef DEVICE_VIRTQ_H
#define DEVICE_VIRTQ_H

#include "base/types.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#define VIRTQ_SEGS 256 /* also the largest queue */
#define VIRTQ_NO_VECTOR 0xffff

struct virtio;

/* A chain: nout readable segments, then nin writable ones. Zero-length descriptors do not appear.
 */
struct virtq_chain {
    u16 head;
    u16 nout, nin;
    u64 out_len, in_len; /* bytes */
    struct iovec iov[VIRTQ_SEGS];
    u64 gpa[VIRTQ_SEGS];
};

struct virtq {
    pthread_mutex_t lock;
    struct virtio *dev;
    u16 index;
    u16 max; /* size offered */

    /* Set by the driver; frozen while `enabled`. Protected by the device's lock and, once live, by
     * both. */
    u16 size;
    atomic_ushort vector; /* MSI-X */
    u64 desc_gpa, avail_gpa, used_gpa;
    bool enabled;

    /* Derived when enabled; RAM does not move while vCPUs run. */
    const u8 *desc, *avail;
    u8 *used;

    atomic_bool live; /* between DRIVER_OK and reset, and not broken; changes under lock */
    bool paused;      /* the machine is being saved */
    bool event_idx;   /* VIRTIO_F_EVENT_IDX was negotiated */
    bool indirect;    /* VIRTIO_F_INDIRECT_DESC was negotiated */
    u16 last_avail;   /* next entry of the available ring to look at */
    u16 seen_avail;   /* the driver's index when we last looked */
    u16 used_idx;
    u16 signalled;             /* used_idx when the driver was last told */
    bool again;                /* the main loop will look at the queue */
    atomic_uint inflight;      /* chains popped and not pushed; changes under lock */
    struct virtq_chain *chain; /* scratch for one chain */
};

/* May the device take chains now? */
bool virtq_ready(struct virtq *q);
/* Takes the next chain. 1: *c is filled; 0: nothing there; -EPROTO: the driver broke the ring, the
 * device has failed. */
int virtq_pop(struct virtq *q, struct virtq_chain *c);
/* Undoes the last virtq_pop(): the chain will be handed out again. May be repeated for the ones
 * before. */
void virtq_unpop(struct virtq *q);
/* A chain that waits for the machine to be resumed: not in flight, but the driver's to get back later. */
void virtq_hold(struct virtq *q);
/* Takes a chain that was held, as virtq_pop(); its descriptors are read anew. */
int virtq_again(struct virtq *q, u16 head, struct virtq_chain *c);
/* To be called after the first `written` bytes of a chain's writable segments were written, before
 * it is pushed: accelerators must learn of it. */
void virtq_wrote(struct virtq *q, const struct virtq_chain *c, u32 written);
/* Returns a chain of which `written` bytes were written. The driver sees it at once but is
 * interrupted only by virtq_signal(). */
void virtq_push(struct virtq *q, u16 head, u32 written);
/* As virtq_push(), but the driver sees it only with the next virtq_publish(); `nth` counts from 0.
 */
void virtq_push_later(struct virtq *q, u16 head, u32 written, unsigned nth);
void virtq_publish(struct virtq *q, unsigned count);
/* Interrupts the driver if it wants to know about what was pushed since the last call. */
void virtq_signal(struct virtq *q);
/* Can virtq_pop() take more? If not, asks the driver to notify us of the next chain (and looks
 * again). */
bool virtq_more(struct virtq *q);
/* After chains were popped and put back: as virtq_more(), but for more chains than there were at
 * the last virtq_pop(). */
bool virtq_wait(struct virtq *q);
/* The driver need not notify us while we look at the queue anyway. */
void virtq_hush(struct virtq *q);

/* For devices that complete from another thread; without q->lock: virtq_wrote, push, signal, and
 * let a waiting reset go on. */
void virtq_complete(struct virtq *q, const struct virtq_chain *c, u32 written);

/* Of the transport. Enable: checks size and addresses; -EINVAL when the driver gave nonsense. */
int virtq_enable(struct virtq *q);
void virtq_reset(struct virtq *q);

/* Copies between a flat buffer and segments; return the bytes copied (less than len when the
 * segments end). */
size_t iov_read(const struct iovec *iov, unsigned n, size_t offset, void *buf, size_t len);
size_t iov_write(const struct iovec *iov, unsigned n, size_t offset, const void *buf, size_t len);
/* Drops the first `len` bytes of the segments *iov, *n; returns false when they are shorter. */
bool iov_drop(struct iovec **iov, unsigned *n, size_t len);

#endif
