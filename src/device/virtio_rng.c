/*
 * virtio-rng: virtio 1.2, 5.4. The host's random numbers, taken in the vCPU's thread.
 *
 * A token bucket bounds what a guest can take: getrandom() costs the host about 3 ns a byte, and
 * nothing needs a megabyte a second of it. A request that finds the bucket empty waits for a timer.
 */
#include "device/virtio_rng.h"
#include <errno.h>
#include <sys/random.h>

#define QUEUE_MAX 64
#define CHUNK_BYTES 4096u
#define BURST_BYTES (64u << 10)

struct rng {
    struct virtio v; /* first */
    struct timer refill;
    bool has_timer;
    u64 tokens;   /* bytes that may be taken now; protected by the queue's lock, as `since_ns` */
    s64 since_ns; /* when tokens were last added */
};

static void add_tokens(struct rng *r)
{
    s64 now = timerq_now(r->refill.q);
    u64 add = (u64)(MIN(now - r->since_ns, NS_PER_S)) * VIRTIO_RNG_BYTES_PER_S / NS_PER_S;

    if (!add)
        return;
    r->tokens = MIN(r->tokens + add, BURST_BYTES);
    r->since_ns = now;
}

/* A short answer is fine (5.4.6.1: the device may use less of the buffer than there is). */
static s64 rng_chain(struct virtio *v, struct virtq *q, struct virtq_chain *c)
{
    struct rng *r = CONTAINER_OF(v, struct rng, v);
    u64 want = MIN(c->in_len, CHUNK_BYTES);
    u8 bytes[CHUNK_BYTES];
    ssize_t n;

    if (c->nout || !want) {
        virtio_fail(v, "a request for random bytes without a writable buffer");
        return 0;
    }
    add_tokens(r);
    if (r->tokens < want) {
        timer_arm(&r->refill,
                  timerq_now(r->refill.q) + (s64)want * NS_PER_S / VIRTIO_RNG_BYTES_PER_S + 1);
        return VIRTIO_STOP;
    }
    n = getrandom(bytes, want, 0);
    if (n <= 0)
        return VIRTIO_STOP; /* cannot happen after boot; the driver's next kick tries again */
    r->tokens -= (u64)n;
    return (s64)iov_write(c->iov, c->nin, 0, bytes, (size_t)n);
}

static void rng_refill(void *opaque)
{
    struct rng *r = opaque;

    virtio_poll(&r->v, &r->v.queue[0]);
}

static int rng_init(struct virtio *v, const void *options, struct err *err)
{
    struct rng *r = CONTAINER_OF(v, struct rng, v);

    v->nqueues = 1;
    v->queue[0].max = QUEUE_MAX;
    timer_init(&r->refill, v->env.timers, rng_refill, r);
    r->has_timer = true;
    r->tokens = BURST_BYTES;
    r->since_ns = timerq_now(v->env.timers);
    return 0;
}

static void rng_stop(struct virtio *v)
{
    struct rng *r = CONTAINER_OF(v, struct rng, v);

    if (r->has_timer)
        timer_cancel(&r->refill);
}

const struct virtio_type virtio_rng_type = {
    .name = "virtio-rng",
    .id = VIRTIO_ID_RNG,
    .class_code = 0x00ff00,
    .size = sizeof(struct rng),
    .init = rng_init,
    .chain = rng_chain,
    .reset = rng_stop,
    .quiesce = rng_stop,
    .fini = rng_stop,
};
