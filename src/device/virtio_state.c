/*
 * Saved state of a virtio device: the transport's registers and where each queue stands. Devices add a section of
 * their own if they have more (struct virtio_type).
 *
 * A device is saved only when it is quiet: no chain is in flight, so everything popped has been pushed, and the one
 * index is the other, unless the device holds chains and says so in a section of its own. Rings and buffers are guest memory and not saved here.
 */
#include "device/virtio.h"
#include <errno.h>
#include <string.h>

static const struct field fields[] = {
    STATE_HEX(struct virtio_state, status, 1),
    STATE_HEX(struct virtio_state, driver_features, 1),
    STATE_HEX(struct virtio_state, acked, 1),
    STATE_UINT(struct virtio_state, device_feature_select, 1),
    STATE_UINT(struct virtio_state, driver_feature_select, 1),
    STATE_UINT(struct virtio_state, queue_select, 1),
    STATE_HEX(struct virtio_state, config_vector, 1),
    STATE_UINT(struct virtio_state, generation, 1),
    STATE_BOOL(struct virtio_state, generation_due, 1),
    STATE_HEX(struct virtio_state, isr, 1),
    STATE_BYTES(struct virtio_state, config, 1),
    STATE_EACH(struct virtio_state, queue, size, 1, FIELD_UINT),
    STATE_EACH(struct virtio_state, queue, vector, 1, FIELD_HEX),
    STATE_EACH(struct virtio_state, queue, enabled, 1, FIELD_BOOL),
    STATE_EACH(struct virtio_state, queue, desc, 1, FIELD_HEX),
    STATE_EACH(struct virtio_state, queue, avail, 1, FIELD_HEX),
    STATE_EACH(struct virtio_state, queue, used, 1, FIELD_HEX),
    STATE_EACH(struct virtio_state, queue, last_avail, 1, FIELD_UINT),
    STATE_EACH(struct virtio_state, queue, used_idx, 1, FIELD_UINT),
    STATE_EACH(struct virtio_state, queue, signalled, 1, FIELD_UINT),
};
STATE_TABLE(virtio_table, struct virtio_state, 1, fields);

static void pre_save(void *opaque)
{
    struct virtio *v = opaque;
    struct virtio_state *s = &v->saved;

    memset(s, 0, sizeof(*s));
    s->status = (u8)atomic_load(&v->status);
    s->driver_features = v->driver_features;
    s->acked = v->acked;
    s->device_feature_select = v->device_feature_select;
    s->driver_feature_select = v->driver_feature_select;
    s->queue_select = v->queue_select;
    s->config_vector = atomic_load(&v->config_vector);
    s->generation = v->generation;
    s->generation_due = atomic_load(&v->generation_due);
    s->isr = v->isr;
    memcpy(s->config, v->config, sizeof(s->config));
    for (unsigned i = 0; i < v->nqueues; i++) {
        const struct virtq *q = &v->queue[i];

        s->queue[i] = (struct virtq_state){.size = q->size,
                                           .vector = atomic_load(&q->vector),
                                           .enabled = q->enabled,
                                           .desc = q->desc_gpa,
                                           .avail = q->avail_gpa,
                                           .used = q->used_gpa,
                                           .last_avail = q->last_avail,
                                           .used_idx = q->used_idx,
                                           .signalled = q->signalled};
    }
}

/* After a failure the indices mean nothing any more. */
static const char *wrong_queue(const struct virtio *v, unsigned i, const struct virtq_state *s,
                               bool failed)
{
    struct virtq probe = {.dev = (struct virtio *)(uintptr_t)v, .max = v->queue[i].max};

    if (!s->size || s->size > v->queue[i].max || (s->size & (s->size - 1)))
        return "its size";
    if (s->vector != VIRTQ_NO_VECTOR && s->vector >= v->pci.msix.vectors)
        return "its vector";
    if (!s->enabled)
        return s->last_avail || s->used_idx ? "an index before it was enabled" : NULL;
    probe.size = s->size;
    probe.desc_gpa = s->desc;
    probe.avail_gpa = s->avail;
    probe.used_gpa = s->used;
    if (virtq_enable(&probe))
        return "its addresses";
    if (failed)
        return NULL;
    if ((u16)(s->last_avail - s->used_idx) > (v->type->holds ? s->size : 0) ||
        (u16)(s->used_idx - s->signalled) > s->size)
        return "its indices";
    return NULL;
}

static int check(void *opaque, const void *scratch, struct err *err)
{
    const struct virtio *v = opaque;
    const struct virtio_state *s = scratch;
    bool features_ok = s->status & VIRTIO_FEATURES_OK;

    if (s->status & ~(VIRTIO_DRIVER_BITS | VIRTIO_NEEDS_RESET))
        return err_set(err, EINVAL, "%s: status 0x%x", v->pci.name, s->status);
    if ((s->acked & ~v->features) || (features_ok != (s->acked != 0)) ||
        (features_ok && s->acked != s->driver_features))
        return err_set(err, EINVAL, "%s: features 0x%llx were negotiated, 0x%llx are offered here",
                       v->pci.name, (unsigned long long)s->acked, (unsigned long long)v->features);
    if ((s->status & VIRTIO_DRIVER_OK) && !features_ok)
        return err_set(err, EINVAL, "%s: DRIVER_OK without FEATURES_OK", v->pci.name);
    if (!v->type->config_varies && memcmp(s->config, v->config, sizeof(s->config)))
        return err_set(err, EINVAL, "%s: had another size or configuration", v->pci.name);
    if (s->isr > 3 ||
        (s->config_vector != VIRTQ_NO_VECTOR && s->config_vector >= v->pci.msix.vectors))
        return err_set(err, EINVAL, "%s: interrupt state", v->pci.name);
    for (unsigned i = 0; i < v->nqueues; i++) {
        const char *what = wrong_queue(v, i, &s->queue[i], s->status & VIRTIO_NEEDS_RESET);

        if (what)
            return err_set(err, EINVAL, "%s: queue %u cannot have been so: %s", v->pci.name, i,
                           what);
    }
    return 0;
}

static void load_queue(struct virtq *q, const struct virtq_state *s)
{
    virtq_reset(q);
    q->size = s->size;
    atomic_store(&q->vector, s->vector);
    q->desc_gpa = s->desc;
    q->avail_gpa = s->avail;
    q->used_gpa = s->used;
    q->last_avail = q->seen_avail = s->last_avail;
    q->used_idx = s->used_idx;
    q->signalled = s->signalled;
    if (s->enabled)
        virtq_enable(q); /* checked */
}

/* The device stays quiet until pci_host_resume() looks at the queues. */
static int post_load(void *opaque, struct err *err)
{
    struct virtio *v = opaque;
    const struct virtio_state *s = &v->saved;

    pthread_mutex_lock(&v->lock);
    v->driver_features = s->driver_features;
    v->acked = s->acked;
    v->device_feature_select = s->device_feature_select;
    v->driver_feature_select = s->driver_feature_select;
    v->queue_select = s->queue_select;
    atomic_store(&v->config_vector, s->config_vector);
    v->generation = s->generation;
    atomic_store(&v->generation_due, s->generation_due);
    memcpy(v->config, s->config, sizeof(v->config));
    for (unsigned i = 0; i < v->nqueues; i++) {
        pthread_mutex_lock(&v->queue[i].lock);
        load_queue(&v->queue[i], &s->queue[i]);
        pthread_mutex_unlock(&v->queue[i].lock);
    }
    atomic_store(&v->status, s->status);
    if ((s->status & VIRTIO_DRIVER_OK) && !(s->status & VIRTIO_NEEDS_RESET))
        virtio_start(v);
    v->isr = s->isr;
    pci_intx(&v->pci, s->isr != 0);
    pthread_mutex_unlock(&v->lock);
    return 0;
}

static void device_pre_save(void *opaque)
{
    struct virtio *v = opaque;

    v->type->save(v, v->device_saved);
}

static int device_check(void *opaque, const void *scratch, struct err *err)
{
    struct virtio *v = opaque;

    return v->type->check ? v->type->check(v, scratch, err) : 0;
}

static int device_post_load(void *opaque, struct err *err)
{
    struct virtio *v = opaque;

    v->type->load(v, v->device_saved);
    return 0;
}

int virtio_register_state(struct pci_func *f, struct state_set *set, struct err *err)
{
    struct virtio *v = CONTAINER_OF(f, struct virtio, pci);
    u32 devfn = f->slot * PCI_FNS + f->fn;
    int rc;

    v->state = (struct state_entry){.name = "virtio",
                                    .instance = devfn,
                                    .table = &virtio_table,
                                    .object = &v->saved,
                                    .opaque = v,
                                    .check = check,
                                    .pre_save = pre_save,
                                    .post_load = post_load};
    rc = state_set_add(set, &v->state, err);
    if (rc || !v->type->state)
        return rc;
    v->device_state = (struct state_entry){.name = v->type->name,
                                           .instance = devfn,
                                           .table = v->type->state,
                                           .object = v->device_saved,
                                           .opaque = v,
                                           .check = device_check,
                                           .pre_save = device_pre_save,
                                           .post_load = device_post_load};
    return state_set_add(set, &v->device_state, err);
}
