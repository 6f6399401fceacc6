/*
 * One PCI function: configuration space, BARs, capabilities. PCI Local Bus 3.0, chapter 6.
 *
 * Invariants:
 * 1. A guest changes only bits that `writable` allows; sizing a BAR (6.2.5.1) falls out of that,
 * because the address bits below the BAR's size are not writable.
 * 2. A BAR is mapped only when memory decoding is on, its address is aligned (by 1), it lies wholly
 * inside one of the host's windows, and nothing else is there. Otherwise it is just not mapped:
 * that hurts nobody but the guest.
 *
 * Threads: vCPU threads with the host's lock held.
 */
#include "device/pci_host.h"
#include "device/trace.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define BAR_IS64 0x4u
#define COMMAND_WRITABLE (PCI_COMMAND_MEM | PCI_COMMAND_MASTER | PCI_COMMAND_NO_INTX | 0x0140u)

void pci_func_init(struct pci_func *f, const struct pci_id *id, const struct pci_func_ops *ops,
                   const char *name)
{
    pthread_mutex_init(&f->msix.lock, NULL);
    f->ops = ops;
    snprintf(f->name, sizeof(f->name), "%s", name);
    store16(f->config + PCI_VENDOR, id->vendor);
    store16(f->config + PCI_DEVICE, id->device);
    store32(f->config + PCI_REVISION, id->class_code << 8 | id->revision);
    store16(f->config + PCI_SUBVENDOR, id->subvendor);
    store16(f->config + PCI_SUBDEVICE, id->subdevice);
    store16(f->writable + PCI_COMMAND, COMMAND_WRITABLE);
    f->writable[0x0c] = 0xff; /* cache line size: of no effect, but writable */
    f->writable[PCI_INT_LINE] = 0xff;
    f->cap_end = 0x40;
}

void pci_func_fini(struct pci_func *f)
{
    if (!f->ops)
        return;
    if (f->host) {
        pci_intx(f, false);
        pthread_mutex_lock(&f->host->lock);
        pci_bars_unmap(f);
        f->host->func[f->slot * PCI_FNS + f->fn] = NULL;
        pthread_mutex_unlock(&f->host->lock);
    }
    pthread_mutex_destroy(&f->msix.lock);
    f->ops = NULL;
    f->host = NULL;
}

void pci_bar_init(struct pci_func *f, unsigned index, u64 size, bool is64, const struct io_ops *ops,
                  void *opaque, pthread_mutex_t *lock)
{
    struct pci_bar *bar = &f->bar[index];
    u8 *reg = f->writable + PCI_BAR0 + index * 4;

    bar->is64 = is64;
    bar->region = (struct io_region){
        .name = f->name, .len = size, .ops = ops, .opaque = opaque, .lock = lock};
    store32(reg, (u32) ~(size - 1));
    if (is64)
        store32(reg + 4, (u32)(~(size - 1) >> 32));
}

unsigned pci_cap_add(struct pci_func *f, u8 id, unsigned len_bytes)
{
    unsigned offset = f->cap_end;

    if (offset + len_bytes > PCI_CONFIG_BYTES)
        return 0;
    f->config[offset] = id;
    f->config[offset + 1] = f->config[PCI_CAP_PTR];
    f->config[PCI_CAP_PTR] = (u8)offset;
    f->config[PCI_STATUS] |= PCI_STATUS_CAPS;
    f->cap_end = (u8)MIN(ALIGN_UP(offset + len_bytes, 4), 255u);
    return offset;
}

static u64 bar_address(const struct pci_func *f, unsigned index)
{
    const u8 *reg = f->config + PCI_BAR0 + index * 4;
    u64 addr = load32(reg) & ~0xfu;

    return f->bar[index].is64 ? addr | (u64)load32(reg + 4) << 32 : addr;
}

static void bar_set_address(struct pci_func *f, unsigned index, u64 addr)
{
    u8 *reg = f->config + PCI_BAR0 + index * 4;

    store32(reg, (u32)addr | (f->bar[index].is64 ? BAR_IS64 : 0));
    if (f->bar[index].is64)
        store32(reg + 4, (u32)(addr >> 32));
}

static bool in_window(u64 addr, u64 len, u64 base, u64 window_len)
{
    return addr >= base && range_fits(addr - base, len, window_len);
}

/* Takes [ALIGN_UP(next, size), +size) from a window. */
static bool window_take(u64 *next, u64 base, u64 window_len, u64 size, u64 *ret_addr)
{
    u64 addr = ALIGN_UP(*next, size);

    if (!in_window(addr, size, base, window_len))
        return false;
    *next = addr + size;
    *ret_addr = addr;
    return true;
}

int pci_bars_assign(struct pci_func *f, struct err *err)
{
    struct pci_host *h = f->host;
    const struct pci_host_config *c = &h->config;

    for (unsigned i = 0; i < PCI_BARS; i++) {
        struct pci_bar *bar = &f->bar[i];
        u64 size = bar->region.len;

        if (!size)
            continue;
        if (!window_take(&h->next32, c->mmio32_base, c->mmio32_len, size, &bar->assigned) &&
            !(bar->is64 &&
              window_take(&h->next64, c->mmio64_base, c->mmio64_len, size, &bar->assigned)))
            return err_set(err, ENOSPC, "%s: no room for BAR %u of %llu bytes in the PCI windows",
                           f->name, i, (unsigned long long)size);
    }
    return 0;
}

static bool bar_allowed(const struct pci_func *f, u64 addr, u64 len)
{
    const struct pci_host_config *c = &f->host->config;

    return (load16(f->config + PCI_COMMAND) & PCI_COMMAND_MEM) &&
           (in_window(addr, len, c->mmio32_base, c->mmio32_len) ||
            in_window(addr, len, c->mmio64_base, c->mmio64_len));
}

static void bar_unmap(struct pci_func *f, struct pci_bar *bar)
{
    if (bar->region.mapped)
        aspace_unmap(f->host->config.mmio, &bar->region);
}

static void bar_update(struct pci_func *f, unsigned index)
{
    struct pci_bar *bar = &f->bar[index];
    u64 addr = bar_address(f, index);
    bool allowed = bar_allowed(f, addr, bar->region.len);

    if (bar->region.mapped && (!allowed || bar->region.base != addr))
        bar_unmap(f, bar);
    if (bar->region.mapped || !allowed)
        return;
    bar->region.base = addr;
    aspace_map(f->host->config.mmio, &bar->region, NULL); /* refused: invariant 2 */
}

void pci_bars_update(struct pci_func *f)
{
    for (unsigned i = 0; i < PCI_BARS; i++)
        if (f->bar[i].region.len)
            bar_update(f, i);
}

void pci_bars_unmap(struct pci_func *f)
{
    for (unsigned i = 0; i < PCI_BARS; i++)
        bar_unmap(f, &f->bar[i]);
}

static void command_update(struct pci_func *f)
{
    u16 command = load16(f->config + PCI_COMMAND);

    atomic_store(&f->master, (command & PCI_COMMAND_MASTER) != 0);
    atomic_store(&f->no_intx, (command & PCI_COMMAND_NO_INTX) != 0);
    pci_intx(f, f->intx_wanted);
    pci_msix_update(f); /* what waited for bus mastering goes out */
}

void pci_config_changed(struct pci_func *f)
{
    command_update(f);
    pci_bars_unmap(f);
    pci_bars_update(f);
}

/* Decoding is on after reset: without firmware there is nobody else who would have turned it on. */
void pci_config_reset(struct pci_func *f)
{
    bool decodes = false;

    for (unsigned i = 0; i < PCI_BARS; i++) {
        if (!f->bar[i].region.len)
            continue;
        bar_set_address(f, i, f->bar[i].assigned);
        decodes = true;
    }
    store16(f->config + PCI_COMMAND, decodes ? PCI_COMMAND_MEM : 0);
    f->config[0x0c] = 0;
    if (f->config[PCI_INT_PIN])
        f->config[PCI_INT_LINE] = (u8)(f->host->config.intx_gsi + pci_intx_line(f->slot));
    command_update(f);
    pci_bars_update(f);
}

u64 pci_config_read(struct pci_func *f, unsigned offset, unsigned size)
{
    u64 value = 0;

    if (f->ops->read)
        f->ops->read(f, offset, size);
    for (unsigned i = 0; i < size; i++) {
        u8 byte = f->config[offset + i];

        if (offset + i == PCI_STATUS && f->intx_wanted)
            byte |= PCI_STATUS_INTX;
        value |= (u64)byte << (i * 8);
    }
    return value;
}

static bool touches(unsigned offset, unsigned size, unsigned reg, unsigned reg_len)
{
    return offset < reg + reg_len && reg < offset + size;
}

void pci_config_write(struct pci_func *f, unsigned offset, unsigned size, u64 value)
{
    trace_device_pci_write(f->name, offset, size, value);
    for (unsigned i = 0; i < size; i++) {
        u8 mask = f->writable[offset + i];
        u8 *byte = &f->config[offset + i];

        *byte = (u8)((*byte & ~mask) | ((value >> (i * 8)) & mask));
    }
    if (touches(offset, size, PCI_COMMAND, 2))
        command_update(f);
    if (touches(offset, size, PCI_COMMAND, 2) || touches(offset, size, PCI_BAR0, PCI_BARS * 4))
        pci_bars_update(f);
    if (f->msix.cap && touches(offset, size, f->msix.cap, 4))
        pci_msix_update(f);
    if (f->ops->wrote)
        f->ops->wrote(f, offset, size);
}

static bool bar_access_ok(struct pci_func *f, unsigned bar, u64 offset, unsigned size)
{
    return bar < PCI_BARS && (size == 1 || size == 2 || size == 4) && offset % size == 0 &&
           range_fits(offset, size, f->bar[bar].region.len);
}

u64 pci_bar_read(struct pci_func *f, unsigned bar, u64 offset, unsigned size)
{
    const struct io_region *r;

    if (!bar_access_ok(f, bar, offset, size))
        return ~0ull;
    r = &f->bar[bar].region;
    return r->ops->read(r->opaque, offset, size);
}

void pci_bar_write(struct pci_func *f, unsigned bar, u64 offset, unsigned size, u64 value)
{
    const struct io_region *r;

    if (!bar_access_ok(f, bar, offset, size))
        return;
    r = &f->bar[bar].region;
    r->ops->write(r->opaque, offset, size, value);
}
