/*
 * Virtio over PCI, the modern transport: virtio 1.2, 4.1. One BAR of 32 KiB holds everything:
 *
 *   0x0000 common configuration   0x1000 ISR   0x2000 device configuration   0x3000 notifications,
 * 4 bytes a queue 0x4000 MSI-X table            0x4800 MSI-X pending bits
 *
 * Invariants:
 * 1. Any access of any width at any offset has a defined effect: reads see the registers' bytes,
 * writes that are not exactly one register (or a half of a 64-bit one) are dropped.
 * 2. A queue's registers are frozen once it is enabled, features once FEATURES_OK is set; both
 * until reset.
 *
 * Threads: vCPU threads. Registers are under v->lock; notifications take the queue's lock only, so
 * that queues work in parallel.
 */
#include "device/pci_host.h"
#include "device/trace.h"
#include "device/virtio.h"
#include <string.h>

#define BAR_BYTES 0x8000u
#define BAR_PART 0x1000u
#define NOTIFY_STRIDE 4u
#define PBA_OFFSET 0x4800u

enum bar_part { PART_COMMON, PART_ISR, PART_DEVICE, PART_NOTIFY, PART_MSIX };

/* 4.1.4: capability types. */
enum { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_ISR = 3, CAP_DEVICE = 4, CAP_PCI = 5 };

/* 4.1.4.3: offsets of common configuration fields. */
enum common_reg {
    DEVICE_FEATURE_SELECT = 0,
    DEVICE_FEATURE = 4,
    DRIVER_FEATURE_SELECT = 8,
    DRIVER_FEATURE = 12,
    CONFIG_VECTOR = 16,
    NUM_QUEUES = 18,
    DEVICE_STATUS = 20,
    CONFIG_GENERATION = 21,
    QUEUE_SELECT = 22,
    QUEUE_SIZE = 24,
    QUEUE_VECTOR = 26,
    QUEUE_ENABLE = 28,
    QUEUE_NOTIFY_OFF = 30,
    QUEUE_DESC = 32,
    QUEUE_DRIVER = 40,
    QUEUE_DEVICE = 48,
    COMMON_BYTES = 56,
};

static struct virtq *selected(struct virtio *v)
{
    return v->queue_select < v->nqueues ? &v->queue[v->queue_select] : NULL;
}

static u32 feature_word(u64 features, u32 select)
{
    return select < 2 ? (u32)(features >> (select * 32)) : 0;
}

/* The registers as bytes; cheap enough, since drivers touch them only while they set up. v->lock
 * held. */
static void common_image(struct virtio *v, u8 image[COMMON_BYTES])
{
    const struct virtq *q = selected(v);

    memset(image, 0, COMMON_BYTES);
    store32(image + DEVICE_FEATURE_SELECT, v->device_feature_select);
    store32(image + DEVICE_FEATURE, feature_word(v->features, v->device_feature_select));
    store32(image + DRIVER_FEATURE_SELECT, v->driver_feature_select);
    store32(image + DRIVER_FEATURE, feature_word(v->driver_features, v->driver_feature_select));
    store16(image + CONFIG_VECTOR, atomic_load(&v->config_vector));
    store16(image + NUM_QUEUES, (u16)v->nqueues);
    image[DEVICE_STATUS] = (u8)atomic_load(&v->status);
    image[CONFIG_GENERATION] = v->generation;
    store16(image + QUEUE_SELECT, v->queue_select);
    store16(image + QUEUE_VECTOR, VIRTQ_NO_VECTOR);
    if (!q)
        return;
    store16(image + QUEUE_SIZE, q->size);
    store16(image + QUEUE_VECTOR, atomic_load(&q->vector));
    store16(image + QUEUE_ENABLE, q->enabled);
    store16(image + QUEUE_NOTIFY_OFF, q->index);
    store32(image + QUEUE_DESC, (u32)q->desc_gpa);
    store32(image + QUEUE_DESC + 4, (u32)(q->desc_gpa >> 32));
    store32(image + QUEUE_DRIVER, (u32)q->avail_gpa);
    store32(image + QUEUE_DRIVER + 4, (u32)(q->avail_gpa >> 32));
    store32(image + QUEUE_DEVICE, (u32)q->used_gpa);
    store32(image + QUEUE_DEVICE + 4, (u32)(q->used_gpa >> 32));
}

static u64 bytes_at(const u8 *image, u64 image_len, u64 offset, unsigned size)
{
    u64 value = 0;

    for (unsigned i = 0; i < size && offset + i < image_len; i++)
        value |= (u64)image[offset + i] << (i * 8);
    return value;
}

static u64 common_read(struct virtio *v, u64 offset, unsigned size)
{
    u8 image[COMMON_BYTES];

    pthread_mutex_lock(&v->lock);
    /* 4.1.4.3.1: the generation moves between a change and the driver's next look at it. */
    if (offset <= CONFIG_GENERATION && offset + size > CONFIG_GENERATION &&
        atomic_exchange(&v->generation_due, false))
        v->generation++;
    common_image(v, image);
    pthread_mutex_unlock(&v->lock);
    return bytes_at(image, COMMON_BYTES, offset, size);
}

/* 4.1.5.1.2.1: a vector that does not exist reads back as NO_VECTOR. */
static u16 checked_vector(struct virtio *v, u64 value)
{
    return value < v->pci.msix.vectors ? (u16)value : VIRTQ_NO_VECTOR;
}

static void write_driver_feature(struct virtio *v, u32 value)
{
    unsigned shift = v->driver_feature_select * 32;

    if (v->driver_feature_select >= 2 || (atomic_load(&v->status) & VIRTIO_FEATURES_OK))
        return;
    v->driver_features &= ~(0xffffffffull << shift);
    v->driver_features |= (u64)value << shift;
}

static void set_half(u64 *reg, bool high, unsigned size, u64 value)
{
    if (size == 8)
        *reg = value;
    else if (high)
        *reg = (u32)*reg | value << 32;
    else
        *reg = (*reg & ~0xffffffffull) | (u32)value;
}

static void write_queue_size(struct virtio *v, struct virtq *q, u64 value)
{
    if (!value || value > q->max || (value & (value - 1)))
        virtio_fail(v, "a queue's size is not a power of two, or larger than offered");
    else
        q->size = (u16)value;
}

static void write_queue_enable(struct virtio *v, struct virtq *q, u64 value)
{
    if (value != 1) /* 4.1.4.3.2: the driver must not write 0 */
        return;
    if (!(atomic_load(&v->status) & VIRTIO_FEATURES_OK))
        virtio_fail(v, "a queue was enabled before FEATURES_OK");
    else if (virtq_enable(q))
        virtio_fail(v, "a queue's rings are misaligned or outside of RAM");
    trace_device_virtio_queue(v->pci.name, q->index, q->size, q->desc_gpa, q->avail_gpa, q->used_gpa);
}

static void write_queue_reg(struct virtio *v, u64 offset, unsigned size, u64 value)
{
    struct virtq *q = selected(v);
    bool address =
        offset >= QUEUE_DESC && offset % 4 == 0 && (size == 4 || (size == 8 && offset % 8 == 0));

    if (!q)
        return;
    if (offset == QUEUE_VECTOR && size == 2)
        atomic_store(&q->vector, checked_vector(v, value));
    else if (q->enabled || (atomic_load(&v->status) & VIRTIO_DRIVER_OK))
        return; /* invariant 2 */
    else if (offset == QUEUE_SIZE && size == 2)
        write_queue_size(v, q, value);
    else if (offset == QUEUE_ENABLE && size == 2)
        write_queue_enable(v, q, value);
    else if (address && offset < QUEUE_DRIVER)
        set_half(&q->desc_gpa, offset & 4, size, value);
    else if (address && offset < QUEUE_DEVICE)
        set_half(&q->avail_gpa, offset & 4, size, value);
    else if (address)
        set_half(&q->used_gpa, offset & 4, size, value);
}

static void common_write(struct virtio *v, u64 offset, unsigned size, u64 value)
{
    if (offset >= COMMON_BYTES)
        return;
    pthread_mutex_lock(&v->lock);
    if (offset == DEVICE_STATUS && size == 1)
        virtio_write_status(v, (u8)value);
    else if (atomic_load(&v->resetting))
        ; /* nothing else until that is done */
    else if (offset == DEVICE_FEATURE_SELECT && size == 4)
        v->device_feature_select = (u32)value;
    else if (offset == DRIVER_FEATURE_SELECT && size == 4)
        v->driver_feature_select = (u32)value;
    else if (offset == DRIVER_FEATURE && size == 4)
        write_driver_feature(v, (u32)value);
    else if (offset == CONFIG_VECTOR && size == 2)
        atomic_store(&v->config_vector, checked_vector(v, value));
    else if (offset == QUEUE_SELECT && size == 2)
        v->queue_select = (u16)value;
    else if (offset >= QUEUE_SIZE)
        write_queue_reg(v, offset, size, value);
    pthread_mutex_unlock(&v->lock);
}

/* 4.1.4.5: reading clears, and lowers the line. */
static u64 isr_read(struct virtio *v, u64 offset)
{
    u8 isr;

    if (offset)
        return 0;
    pthread_mutex_lock(&v->isr_lock);
    isr = v->isr;
    v->isr = 0;
    pci_intx(&v->pci, false);
    pthread_mutex_unlock(&v->isr_lock);
    return isr;
}

static u64 device_read(struct virtio *v, u64 offset, unsigned size)
{
    u64 value;

    pthread_mutex_lock(&v->lock);
    value = bytes_at(v->config, v->config_len, offset, size);
    pthread_mutex_unlock(&v->lock);
    return value;
}

static void device_write(struct virtio *v, u64 offset, unsigned size, u64 value)
{
    if (!v->type->config_write || !range_fits(offset, size, v->config_len))
        return;
    pthread_mutex_lock(&v->lock);
    v->type->config_write(v, (unsigned)offset, size, value);
    pthread_mutex_unlock(&v->lock);
}

static u64 bar_read(void *opaque, u64 offset, unsigned size)
{
    struct virtio *v = opaque;
    u64 rel = offset % BAR_PART;

    switch (offset / BAR_PART) {
    case PART_COMMON:
        return common_read(v, rel, size);
    case PART_ISR:
        return isr_read(v, rel);
    case PART_DEVICE:
        return device_read(v, rel, size);
    case PART_MSIX:
        if (offset >= PBA_OFFSET)
            return pci_msix_pba_read(&v->pci, offset - PBA_OFFSET, size);
        return pci_msix_table_read(&v->pci, rel, size);
    }
    return 0;
}

static void bar_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct virtio *v = opaque;
    u64 rel = offset % BAR_PART;

    switch (offset / BAR_PART) {
    case PART_COMMON:
        common_write(v, rel, size, value);
        break;
    case PART_DEVICE:
        device_write(v, rel, size, value);
        break;
    case PART_NOTIFY:
        trace_device_virtio_kick(v->pci.name, (unsigned)(rel / NOTIFY_STRIDE));
        if (rel / NOTIFY_STRIDE < v->nqueues)
            virtio_poll(v, &v->queue[rel / NOTIFY_STRIDE]);
        break;
    case PART_MSIX:
        if (offset < PBA_OFFSET)
            pci_msix_table_write(&v->pci, rel, size, value);
        break;
    }
}

static const struct io_ops bar_ops = {bar_read, bar_write};

/* 4.1.4: struct virtio_pci_cap. Returns its offset. */
static unsigned cap_add(struct virtio *v, u8 type, u32 offset, u32 length, unsigned extra)
{
    unsigned cap = pci_cap_add(&v->pci, 0x09, 16 + extra);

    v->pci.config[cap + 2] = (u8)(16 + extra);
    v->pci.config[cap + 3] = type;
    store32(v->pci.config + cap + 8, offset);
    store32(v->pci.config + cap + 12, length);
    return cap;
}

void virtio_pci_init(struct virtio *v)
{
    unsigned cap;

    pci_bar_init(&v->pci, 0, BAR_BYTES, false, &bar_ops, v, NULL);
    v->pci.config[PCI_INT_PIN] = 1;
    pci_msix_init(&v->pci, v->nqueues + 1, 0, PART_MSIX * BAR_PART, PBA_OFFSET);
    cap_add(v, CAP_COMMON, PART_COMMON * BAR_PART, COMMON_BYTES, 0);
    cap_add(v, CAP_ISR, PART_ISR * BAR_PART, 1, 0);
    if (v->config_len)
        cap_add(v, CAP_DEVICE, PART_DEVICE * BAR_PART, v->config_len, 0);
    cap = cap_add(v, CAP_NOTIFY, PART_NOTIFY * BAR_PART, v->nqueues * NOTIFY_STRIDE, 4);
    store32(v->pci.config + cap + 16, NOTIFY_STRIDE);

    /* 4.1.4.9: bar, offset, length and data of this one are the driver's to write. */
    cap = cap_add(v, CAP_PCI, 0, 0, 4);
    v->access_cap = (u8)cap;
    v->pci.writable[cap + 4] = 0xff;
    memset(v->pci.writable + cap + 8, 0xff, 12);
}

/* The window of the configuration access capability; host's lock held. */
static bool access_window(struct virtio *v, unsigned offset, unsigned size, u8 *ret_bar,
                          u32 *ret_offset, u32 *ret_len)
{
    const u8 *cap = v->pci.config + v->access_cap;

    if (!v->access_cap || offset >= v->access_cap + 20u || offset + size <= v->access_cap + 16u)
        return false;
    *ret_bar = cap[4];
    *ret_offset = load32(cap + 8);
    *ret_len = load32(cap + 12);
    return *ret_len == 1 || *ret_len == 2 || *ret_len == 4;
}

void virtio_pci_read(struct pci_func *f, unsigned offset, unsigned size)
{
    struct virtio *v = CONTAINER_OF(f, struct virtio, pci);
    u32 window, len;
    u8 bar;

    if (access_window(v, offset, size, &bar, &window, &len))
        store32(f->config + v->access_cap + 16, (u32)pci_bar_read(f, bar, window, len));
}

void virtio_pci_wrote(struct pci_func *f, unsigned offset, unsigned size)
{
    struct virtio *v = CONTAINER_OF(f, struct virtio, pci);
    u32 window, len, value;
    u8 bar;

    if (!access_window(v, offset, size, &bar, &window, &len))
        return;
    value = load32(f->config + v->access_cap + 16);
    pci_bar_write(f, bar, window, len, len == 4 ? value : value & ((1u << (len * 8)) - 1));
}
