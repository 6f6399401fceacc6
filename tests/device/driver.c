/* A virtio driver for tests. */
#include "driver.h"

u64 drv_reg(struct drv *d, unsigned reg, unsigned size)
{
    return bench_read(d->b, d->common + reg, size);
}

void drv_set_reg(struct drv *d, unsigned reg, unsigned size, u64 value)
{
    bench_write(d->b, d->common + reg, size, value);
}

u8 drv_status(struct drv *d)
{
    return (u8)drv_reg(d, REG_STATUS, 1);
}

void drv_put(struct drv *d, u64 gpa, const void *bytes, size_t len)
{
    assert_int_equal(gmem_write(&d->b->ram, gpa, bytes, len), 0);
}

void drv_get(struct drv *d, u64 gpa, void *bytes, size_t len)
{
    assert_int_equal(gmem_read(&d->b->ram, gpa, bytes, len), 0);
}

static void take_cap(struct drv *d, unsigned cap)
{
    u64 at = d->bar + bench_config_read(d->b, d->slot, cap + 8, 4);

    switch (bench_config_read(d->b, d->slot, cap + 3, 1)) {
    case 1:
        d->common = at;
        break;
    case 2:
        d->notify = at;
        d->notify_stride = bench_config_read(d->b, d->slot, cap + 16, 4);
        break;
    case 3:
        d->isr = at;
        break;
    case 4:
        d->config = at;
        break;
    }
}

void drv_find(struct drv *d, struct bench *b, unsigned slot)
{
    unsigned cap;

    memset(d, 0, sizeof(*d));
    d->b = b;
    d->slot = slot;
    d->bar = bench_config_read(b, slot, PCI_BAR0, 4) & ~0xfu;
    bench_config_write(b, slot, PCI_COMMAND, 2, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
    for (cap = bench_config_read(b, slot, PCI_CAP_PTR, 1); cap;
         cap = bench_config_read(b, slot, cap + 1, 1)) {
        u32 id = bench_config_read(b, slot, cap, 1);

        if (id == 0x09)
            take_cap(d, cap);
        if (id == 0x11) {
            d->msix = d->bar + (bench_config_read(b, slot, cap + 4, 4) & ~7u);
            bench_config_write(b, slot, cap + 2, 2, 0x8000);
        }
    }
    assert_true(d->common && d->notify && d->isr && d->msix);
    d->nqueues = (unsigned)drv_reg(d, REG_NUM_QUEUES, 2);
    assert_in_range(d->nqueues, 1, VIRTIO_QUEUES);
}

static void set_vector(struct drv *d, unsigned vector, u32 data)
{
    u64 entry = d->msix + vector * 16;

    bench_write(d->b, entry, 4, DRIVER_MSI_ADDR);
    bench_write(d->b, entry + 4, 4, 0);
    bench_write(d->b, entry + 8, 4, data);
    bench_write(d->b, entry + 12, 4, 0);
}

void drv_features(struct drv *d, u64 features)
{
    d->features = features;
    drv_set_reg(d, REG_STATUS, 1, VIRTIO_ACKNOWLEDGE);
    drv_set_reg(d, REG_STATUS, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    for (unsigned i = 0; i < 2; i++) {
        drv_set_reg(d, REG_GFSELECT, 4, i);
        drv_set_reg(d, REG_GF, 4, (u32)(features >> (i * 32)));
    }
    drv_set_reg(d, REG_STATUS, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
}

static u64 offered(struct drv *d)
{
    u64 features;

    drv_set_reg(d, REG_DFSELECT, 4, 0);
    features = drv_reg(d, REG_DF, 4);
    drv_set_reg(d, REG_DFSELECT, 4, 1);
    return features | drv_reg(d, REG_DF, 4) << 32;
}

void drv_queue_setup(struct drv *d, unsigned i, u16 size)
{
    struct drv_queue *q = &d->q[i];

    memset(q, 0, sizeof(*q));
    drv_set_reg(d, REG_QSELECT, 2, i);
    q->size = size ? size : (u16)drv_reg(d, REG_QSIZE, 2);
    q->desc = bench_alloc(d->b, q->size * 16u, 16);
    q->avail = bench_alloc(d->b, q->size * 2u + 6, 2);
    q->used = bench_alloc(d->b, q->size * 8u + 6, 4);
    drv_set_reg(d, REG_QSIZE, 2, q->size);
    drv_set_reg(d, REG_QDESC, 4, (u32)q->desc);
    drv_set_reg(d, REG_QDESC + 4, 4, q->desc >> 32);
    drv_set_reg(d, REG_QDRIVER, 8, q->avail);
    drv_set_reg(d, REG_QDEVICE, 8, q->used);
    set_vector(d, i + 1, DRIVER_MSI_DATA + i);
    drv_set_reg(d, REG_QVECTOR, 2, i + 1);
    drv_set_reg(d, REG_QENABLE, 2, 1);
}

void drv_start(struct drv *d, u64 without)
{
    drv_features(d, offered(d) & ~without);
    assert_int_equal(drv_status(d), 11);
    set_vector(d, 0, DRIVER_MSI_CONFIG);
    drv_set_reg(d, REG_CONFIG_VECTOR, 2, 0);
    for (unsigned i = 0; i < d->nqueues; i++)
        drv_queue_setup(d, i, 0);
    drv_set_reg(d, REG_STATUS, 1, 15);
    assert_healthy(d);
}

void drv_reset(struct drv *d)
{
    drv_set_reg(d, REG_STATUS, 1, 0);
}

void drv_desc(struct drv *d, u64 table, unsigned i, struct seg s)
{
    drv_put(d, table + i * 16u, &s, sizeof(s));
}

void drv_offer(struct drv *d, unsigned i, u16 head)
{
    struct drv_queue *q = &d->q[i];

    drv_put(d, q->avail + 4 + 2u * (q->avail_idx % q->size), &head, 2);
    q->avail_idx++;
    drv_put(d, q->avail + 2, &q->avail_idx, 2);
}

u16 drv_add(struct drv *d, unsigned i, const struct seg *s, unsigned n)
{
    struct drv_queue *q = &d->q[i];
    u16 head = (u16)(q->next_desc % q->size);

    for (unsigned k = 0; k < n; k++) {
        struct seg copy = s[k];
        unsigned at = q->next_desc++ % q->size;

        if (k + 1 < n) {
            copy.flags |= SEG_NEXT;
            copy.next = (u16)(q->next_desc % q->size);
        }
        drv_desc(d, q->desc, at, copy);
    }
    drv_offer(d, i, head);
    return head;
}

void drv_kick(struct drv *d, unsigned i)
{
    bench_write(d->b, d->notify + (u64)i * d->notify_stride, 2, i);
}

bool drv_used(struct drv *d, unsigned i, u32 *ret_id, u32 *ret_len)
{
    struct drv_queue *q = &d->q[i];
    u32 elem[2];
    u16 idx;

    drv_get(d, q->used + 2, &idx, 2);
    if (idx == q->used_idx)
        return false;
    drv_get(d, q->used + 4 + 8u * (q->used_idx % q->size), elem, 8);
    q->used_idx++;
    *ret_id = elem[0];
    *ret_len = elem[1];
    return true;
}
