/*
 * The core of virtio devices: life cycle, running queues, interrupts. virtio 1.2, 2.1 (status), 2.3
 * (notifications), 3.1 (initialization).
 *
 *   (reset) --ACKNOWLEDGE, DRIVER--> features --FEATURES_OK--> queues --DRIVER_OK--> live
 *   any state --a driver's mistake--> NEEDS_RESET: no queue is live, only a reset helps
 *   any state --status := 0--> resetting --last chain in flight came back--> (reset)
 *
 * Invariants:
 * 1. While `resetting`, status reads non-zero (4.1.4.3.2), no chain is handed out, and nothing in
 * flight touches the rings; guest memory is left alone once the status reads 0.
 * 2. One look at a queue takes a bounded number of chains, so that another vCPU that keeps adding
 * cannot hold this one in the device; the rest is done from the main loop.
 */
#include "device/virtio.h"
#include "base/log.h"
#include "device/trace.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ISR_QUEUE 1
#define ISR_CONFIG 2
#define COMPLAINTS_MAX 8
#define PUBLISH_BATCH 16

static void set_isr(struct virtio *v, u8 bit)
{
    pthread_mutex_lock(&v->isr_lock);
    v->isr |= bit;
    pci_intx(&v->pci, true);
    pthread_mutex_unlock(&v->isr_lock);
}

static void interrupt(struct virtio *v, u16 vector, u8 isr_bit)
{
    if (!pci_msix_enabled(&v->pci))
        set_isr(v, isr_bit);
    else if (vector != VIRTQ_NO_VECTOR)
        pci_msix_send(&v->pci, vector);
}

void virtio_interrupt_queue(struct virtio *v, struct virtq *q)
{
    trace_device_virtio_interrupt(v->pci.name, q->index, q->used_idx);
    interrupt(v, atomic_load(&q->vector), ISR_QUEUE);
}

void virtio_interrupt_config(struct virtio *v)
{
    atomic_store(&v->generation_due, true);
    if (atomic_load(&v->status) & VIRTIO_DRIVER_OK)
        interrupt(v, atomic_load(&v->config_vector), ISR_CONFIG);
}

void virtio_fail(struct virtio *v, const char *why)
{
    if (atomic_fetch_or(&v->status, VIRTIO_NEEDS_RESET) & VIRTIO_NEEDS_RESET)
        return;
    trace_device_virtio_fail(v->pci.name, why);
    for (unsigned i = 0; i < v->nqueues; i++)
        atomic_store(&v->queue[i].live, false);
    if (atomic_fetch_add(&v->complaints, 1) < COMPLAINTS_MAX)
        log_warn("%s: the guest's driver is wrong, the device needs a reset: %s", v->pci.name, why);
    virtio_interrupt_config(v);
}

void virtio_config_set(struct virtio *v, unsigned offset, const void *data, unsigned len)
{
    pthread_mutex_lock(&v->lock);
    memcpy(v->config + offset, data, len);
    pthread_mutex_unlock(&v->lock);
    virtio_interrupt_config(v);
}

/* --- queues --- */

static void poll_again(void *opaque)
{
    struct virtq *q = opaque;

    pthread_mutex_lock(&q->lock);
    q->again = false;
    pthread_mutex_unlock(&q->lock);
    virtio_poll(q->dev, q);
}

/* Returns how many chains it may still take; 0: there may be more for another time. */
static unsigned run_chains(struct virtio *v, struct virtq *q, unsigned budget)
{
    unsigned unpublished = 0;
    bool stop = false;

    do {
        while (budget && virtq_pop(q, q->chain) == 1) {
            s64 written = v->type->chain(v, q, q->chain);

            budget--;
            if (written == VIRTIO_STOP) {
                virtq_unpop(q);
                stop = true;
                break;
            }
            if (written >= 0) {
                virtq_wrote(q, q->chain, (u32)written);
                virtq_push_later(q, q->chain->head, (u32)written, unpublished++);
            }
            if (unpublished == PUBLISH_BATCH) {
                virtq_publish(q, unpublished);
                unpublished = 0;
            }
        }
    } while (!stop && budget && virtq_more(q));
    virtq_publish(q, unpublished);
    virtq_signal(q);
    return stop ? 1 : budget;
}

static void run_queue(struct virtio *v, struct virtq *q)
{
    if (!virtq_ready(q))
        return;
    if (v->type->own_queues & BIT(q->index)) {
        if (v->type->refilled)
            v->type->refilled(v, q);
        return;
    }
    virtq_hush(q);
    if (run_chains(v, q, 2u * q->size) || q->again)
        return;
    q->again = v->env.loop && loop_call(v->env.loop, poll_again, q) == 0;
    if (!q->again)
        virtq_more(q); /* cannot come back by ourselves: the driver's next kick will */
}

void virtio_poll(struct virtio *v, struct virtq *q)
{
    pthread_mutex_lock(&q->lock);
    run_queue(v, q);
    pthread_mutex_unlock(&q->lock);
}

void virtio_retry(struct virtio *v, struct virtq *q, u16 head)
{
    pthread_mutex_lock(&q->lock);
    if (virtq_again(q, head, q->chain) == 1) {
        s64 written = v->type->chain(v, q, q->chain);

        if (written >= 0) {
            virtq_wrote(q, q->chain, (u32)written);
            virtq_push(q, head, (u32)written);
            virtq_signal(q);
        }
    }
    pthread_mutex_unlock(&q->lock);
}

/* --- status and reset --- */

static bool chains_in_flight(struct virtio *v)
{
    for (unsigned i = 0; i < v->nqueues; i++)
        if (atomic_load(&v->queue[i].inflight))
            return true;
    return false;
}

/* v->lock held, nothing in flight. */
static void reset_now(struct virtio *v)
{
    for (unsigned i = 0; i < v->nqueues; i++) {
        pthread_mutex_lock(&v->queue[i].lock);
        virtq_reset(&v->queue[i]);
        pthread_mutex_unlock(&v->queue[i].lock);
    }
    if (v->type->reset)
        v->type->reset(v);
    v->driver_features = v->acked = 0;
    v->device_feature_select = v->driver_feature_select = 0;
    v->queue_select = 0;
    atomic_store(&v->config_vector, VIRTQ_NO_VECTOR);
    pthread_mutex_lock(&v->isr_lock);
    v->isr = 0;
    pci_intx(&v->pci, false);
    pthread_mutex_unlock(&v->isr_lock);
    atomic_store(&v->status, 0);
    atomic_store(&v->resetting, false);
}

/* v->lock held. */
static void reset_start(struct virtio *v)
{
    atomic_store(&v->resetting, true);
    for (unsigned i = 0; i < v->nqueues; i++) {
        pthread_mutex_lock(&v->queue[i].lock); /* waits for a look at the queue that is under way */
        atomic_store(&v->queue[i].live, false);
        pthread_mutex_unlock(&v->queue[i].lock);
    }
    if (!chains_in_flight(v))
        reset_now(v);
}

void virtio_idle(struct virtio *v)
{
    if (!atomic_load(&v->resetting) && !atomic_load(&v->draining))
        return;
    pthread_mutex_lock(&v->lock);
    if (atomic_load(&v->resetting) && !chains_in_flight(v))
        reset_now(v);
    pthread_cond_broadcast(&v->idle);
    pthread_mutex_unlock(&v->lock);
}

/* v->lock held. 3.1.1: FEATURES_OK stays off when we cannot work with what the driver chose. */
static bool features_fit(struct virtio *v)
{
    u64 f = v->driver_features;

    return !(f & ~v->features) && (f & VIRTIO_F_VERSION_1) &&
           (!v->type->accept || v->type->accept(v, f));
}

void virtio_start(struct virtio *v)
{
    for (unsigned i = 0; i < v->nqueues; i++) {
        struct virtq *q = &v->queue[i];

        pthread_mutex_lock(&q->lock);
        q->event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX);
        q->indirect = virtio_has(v, VIRTIO_F_INDIRECT_DESC);
        atomic_store(&q->live, q->enabled);
        pthread_mutex_unlock(&q->lock);
    }
    if (v->type->start)
        v->type->start(v);
}

void virtio_write_status(struct virtio *v, u8 value)
{
    unsigned old = atomic_load(&v->status);
    unsigned added = value & VIRTIO_DRIVER_BITS & ~old;

    trace_device_virtio_status(v->pci.name, value);
    if (atomic_load(&v->resetting))
        return;
    if (!value) {
        reset_start(v);
        return;
    }
    if (added & VIRTIO_FEATURES_OK) {
        trace_device_virtio_features(v->pci.name, v->features, v->driver_features);
        if (features_fit(v))
            v->acked = v->driver_features;
        else
            added &= ~(unsigned)VIRTIO_FEATURES_OK;
    }
    if ((added & VIRTIO_DRIVER_OK) &&
        (!((old | added) & VIRTIO_FEATURES_OK) || (old & (VIRTIO_NEEDS_RESET | VIRTIO_FAILED))))
        added &= ~(unsigned)VIRTIO_DRIVER_OK;
    atomic_fetch_or(&v->status, added);
    if (added & VIRTIO_DRIVER_OK)
        virtio_start(v);
}

/* --- the bus's side --- */

/* v->lock held. */
static void wait_idle(struct virtio *v)
{
    atomic_store(&v->draining, true);
    while (chains_in_flight(v))
        pthread_cond_wait(&v->idle, &v->lock);
    atomic_store(&v->draining, false);
}

static void func_reset(struct pci_func *f)
{
    struct virtio *v = CONTAINER_OF(f, struct virtio, pci);

    pthread_mutex_lock(&v->lock);
    if (!atomic_load(&v->resetting))
        reset_start(v);
    wait_idle(v);
    if (atomic_load(&v->resetting))
        reset_now(v);
    pthread_mutex_unlock(&v->lock);
}

static void set_paused(struct virtio *v, bool paused)
{
    for (unsigned i = 0; i < v->nqueues; i++) {
        pthread_mutex_lock(&v->queue[i].lock);
        v->queue[i].paused = paused;
        pthread_mutex_unlock(&v->queue[i].lock);
    }
}

static void func_quiesce(struct pci_func *f)
{
    struct virtio *v = CONTAINER_OF(f, struct virtio, pci);

    set_paused(v, true);
    if (v->type->quiesce)
        v->type->quiesce(v);
    pthread_mutex_lock(&v->lock);
    wait_idle(v);
    pthread_mutex_unlock(&v->lock);
}

static void func_resume(struct pci_func *f)
{
    struct virtio *v = CONTAINER_OF(f, struct virtio, pci);

    set_paused(v, false);
    if (v->type->resume)
        v->type->resume(v);
    for (unsigned i = 0; i < v->nqueues; i++)
        virtio_poll(v, &v->queue[i]);
}

static void func_free(struct pci_func *f)
{
    struct virtio *v = CONTAINER_OF(f, struct virtio, pci);

    func_reset(f);
    if (v->type->fini)
        v->type->fini(v);
    pci_func_fini(f);
    for (unsigned i = 0; i < VIRTIO_QUEUES; i++) {
        pthread_mutex_destroy(&v->queue[i].lock);
        free(v->queue[i].chain);
    }
    free(v->device_saved);
    pthread_cond_destroy(&v->idle);
    pthread_mutex_destroy(&v->isr_lock);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

static const struct pci_func_ops func_ops = {
    .reset = func_reset,
    .quiesce = func_quiesce,
    .resume = func_resume,
    .free = func_free,
    .register_state = virtio_register_state,
    .wrote = virtio_pci_wrote,
    .read = virtio_pci_read,
};

static struct virtio *alloc(const struct virtio_env *env, const struct virtio_type *type)
{
    const struct pci_id id = {.vendor = 0x1af4,
                              .device = 0x1040 + type->id,
                              .subvendor = 0x1af4,
                              .subdevice = 0x1100,
                              .class_code = type->class_code,
                              .revision = 1};
    struct virtio *v = calloc(1, type->size);

    if (!v)
        return NULL;
    v->type = type;
    v->env = *env;
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->idle, NULL);
    pthread_mutex_init(&v->isr_lock, NULL);
    for (unsigned i = 0; i < VIRTIO_QUEUES; i++) {
        v->queue[i].dev = v;
        v->queue[i].index = (u16)i;
        pthread_mutex_init(&v->queue[i].lock, NULL);
    }
    atomic_store(&v->config_vector, VIRTQ_NO_VECTOR);
    pci_func_init(&v->pci, &id, &func_ops, type->name);
    return v;
}

static int alloc_rest(struct virtio *v, struct err *err)
{
    if (v->type->state) {
        v->device_saved = calloc(1, v->type->state->size);
        if (!v->device_saved)
            return err_set(err, ENOMEM, "%s: no memory for its state", v->type->name);
    }
    for (unsigned i = 0; i < v->nqueues; i++) {
        v->queue[i].chain = calloc(1, sizeof(struct virtq_chain));
        if (!v->queue[i].chain)
            return err_set(err, ENOMEM, "%s: no memory for its queues", v->type->name);
        virtq_reset(&v->queue[i]);
    }
    return 0;
}

int virtio_new(const struct virtio_env *env, const struct virtio_type *type, int slot,
               const void *options, struct virtio **ret_v, struct err *err)
{
    struct virtio *v = alloc(env, type);
    int rc;

    if (!v)
        return err_set(err, ENOMEM, "%s: no memory", type->name);
    rc = type->init(v, options, err);
    v->features |= VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX;
    if (!rc)
        rc = alloc_rest(v, err);
    if (!rc) {
        virtio_pci_init(v);
        rc = pci_func_add(env->pci, &v->pci, slot, 0, err);
    }
    if (rc) {
        func_free(&v->pci);
        return rc;
    }
    snprintf(v->pci.name, sizeof(v->pci.name), "%s %02x.%u", type->name, v->pci.slot, v->pci.fn);
    if (ret_v)
        *ret_v = v;
    return 0;
}
