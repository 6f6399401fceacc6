/*
 * MSI-X: PCI Local Bus 3.0, 6.8.2. The table and the pending bit array lie in a BAR of the
 * function.
 *
 * Invariants: a vector is pending only while it is masked (by itself, by the function, or because
 * bus mastering is off); unmasking sends it. Vectors past the table's end do not exist: sending one
 * is dropped.
 *
 * Threads: any. msix.lock is a leaf but for the sink behind msi_send().
 */
#include "device/pci_host.h"
#include "device/trace.h"
#include <string.h>

#define MSIX_CAP_ID 0x11
#define MSIX_CAP_BYTES 12
#define MSIX_CONTROL_ENABLE 0x8000u
#define MSIX_CONTROL_MASKALL 0x4000u
#define MSIX_ENTRY_BYTES 16
#define MSIX_ENTRY_MASKED 1u

void pci_msix_init(struct pci_func *f, unsigned vectors, unsigned bar, u32 table_offset,
                   u32 pba_offset)
{
    unsigned cap = pci_cap_add(f, MSIX_CAP_ID, MSIX_CAP_BYTES);

    if (!cap)
        return;
    f->msix.cap = (u8)cap;
    f->msix.vectors = (u16)vectors;
    store16(f->config + cap + 2, (u16)(vectors - 1));
    store16(f->writable + cap + 2, MSIX_CONTROL_ENABLE | MSIX_CONTROL_MASKALL);
    store32(f->config + cap + 4, table_offset | bar);
    store32(f->config + cap + 8, pba_offset | bar);
    pci_msix_reset(f);
}

void pci_msix_reset(struct pci_func *f)
{
    struct pci_msix *m = &f->msix;

    if (!m->cap)
        return;
    pthread_mutex_lock(&m->lock);
    for (unsigned i = 0; i < m->vectors; i++)
        m->entry[i] = (struct pci_msix_entry){.control = MSIX_ENTRY_MASKED};
    m->pending = 0;
    m->enabled = m->masked = false;
    f->config[m->cap + 3] &= 0x3f;
    pthread_mutex_unlock(&m->lock);
}

static bool vector_open(struct pci_func *f, unsigned vector)
{
    const struct pci_msix *m = &f->msix;

    return m->enabled && !m->masked && !(m->entry[vector].control & MSIX_ENTRY_MASKED) &&
           pci_bus_master(f);
}

/* Lock held. Sends pending vectors that may go out now. */
static void send_pending(struct pci_func *f)
{
    struct pci_msix *m = &f->msix;
    u64 left = m->pending;

    while (left) {
        unsigned vector = (unsigned)__builtin_ctzll(left);

        left &= left - 1;
        if (!vector_open(f, vector))
            continue;
        m->pending &= ~BIT(vector);
        msi_send(&f->host->config.msi, m->entry[vector].addr, m->entry[vector].data);
    }
}

void pci_msix_update(struct pci_func *f)
{
    struct pci_msix *m = &f->msix;
    u16 control;

    if (!m->cap)
        return;
    control = load16(f->config + m->cap + 2);
    pthread_mutex_lock(&m->lock);
    m->enabled = (control & MSIX_CONTROL_ENABLE) != 0;
    m->masked = (control & MSIX_CONTROL_MASKALL) != 0;
    send_pending(f);
    pthread_mutex_unlock(&m->lock);
}

void pci_msix_send(struct pci_func *f, unsigned vector)
{
    struct pci_msix *m = &f->msix;

    pthread_mutex_lock(&m->lock);
    if (m->enabled && vector < m->vectors) {
        trace_device_msix(f->name, vector);
        m->pending |= BIT(vector);
        send_pending(f);
    }
    pthread_mutex_unlock(&m->lock);
}

bool pci_msix_enabled(struct pci_func *f)
{
    bool enabled;

    pthread_mutex_lock(&f->msix.lock);
    enabled = f->msix.enabled;
    pthread_mutex_unlock(&f->msix.lock);
    return enabled;
}

/* A table access is 4 or 8 bytes, aligned (6.8.2); anything else is undefined by the specification:
 * we drop it. */
static bool table_access_ok(const struct pci_msix *m, u64 offset, unsigned size)
{
    return (size == 4 || size == 8) && offset % size == 0 &&
           range_fits(offset, size, m->vectors * MSIX_ENTRY_BYTES);
}

static u32 entry_get(const struct pci_msix_entry *e, unsigned word)
{
    switch (word) {
    case 0:
        return (u32)e->addr;
    case 1:
        return (u32)(e->addr >> 32);
    case 2:
        return e->data;
    }
    return e->control;
}

static void entry_set(struct pci_msix_entry *e, unsigned word, u32 value)
{
    switch (word) {
    case 0:
        e->addr = (e->addr & ~0xffffffffull) | (value & ~3u);
        break;
    case 1:
        e->addr = (u32)e->addr | (u64)value << 32;
        break;
    case 2:
        e->data = value;
        break;
    case 3:
        e->control = value & MSIX_ENTRY_MASKED;
        break;
    }
}

u64 pci_msix_table_read(struct pci_func *f, u64 offset, unsigned size)
{
    struct pci_msix *m = &f->msix;
    const struct pci_msix_entry *e;
    unsigned word = (unsigned)(offset % MSIX_ENTRY_BYTES) / 4;
    u64 value;

    if (!table_access_ok(m, offset, size))
        return 0;
    e = &m->entry[offset / MSIX_ENTRY_BYTES];
    pthread_mutex_lock(&m->lock);
    value = entry_get(e, word);
    if (size == 8)
        value |= (u64)entry_get(e, word + 1) << 32;
    pthread_mutex_unlock(&m->lock);
    return value;
}

void pci_msix_table_write(struct pci_func *f, u64 offset, unsigned size, u64 value)
{
    struct pci_msix *m = &f->msix;
    struct pci_msix_entry *e;
    unsigned word = (unsigned)(offset % MSIX_ENTRY_BYTES) / 4;

    if (!table_access_ok(m, offset, size))
        return;
    e = &m->entry[offset / MSIX_ENTRY_BYTES];
    pthread_mutex_lock(&m->lock);
    entry_set(e, word, (u32)value);
    if (size == 8)
        entry_set(e, word + 1, (u32)(value >> 32));
    send_pending(f);
    pthread_mutex_unlock(&m->lock);
}

u64 pci_msix_pba_read(struct pci_func *f, u64 offset, unsigned size)
{
    struct pci_msix *m = &f->msix;
    u64 value;

    if (offset >= 8 || size > 8 - offset)
        return 0;
    pthread_mutex_lock(&m->lock);
    value = m->pending >> (offset * 8);
    pthread_mutex_unlock(&m->lock);
    return size == 8 ? value : value & (BIT(size * 8) - 1);
}
