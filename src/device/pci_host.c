/*
 * The host bridge: how configuration accesses find a function, and what happens to all functions at
 * once. PCI Local Bus 3.0, 3.2.2.3.2 (configuration mechanism #1); PCI Express Base 3.0, 7.2.2
 * (ECAM).
 *
 * Accesses run in vCPU threads with h->lock held. A function that is not there reads as all ones.
 */
#include "device/pci_host.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CF8_ENABLE 0x80000000u
#define CF9_OFFSET 1
#define CF9_RESET 0x04
#define ECAM_FN_SHIFT 12
#define ECAM_BUS_BYTES (1 * MiB)

static u64 all_ones(unsigned size)
{
    return size >= 8 ? ~0ull : BIT(size * 8) - 1;
}

/* Offset is within the function's 4 KiB; what lies past the 256 bytes that we have does not exist.
 */
static u64 devfn_read(struct pci_host *h, unsigned devfn, unsigned offset, unsigned size)
{
    struct pci_func *f = h->func[devfn];

    if (!f || !range_fits(offset, size, PCI_CONFIG_BYTES))
        return all_ones(size);
    return pci_config_read(f, offset, size);
}

static void devfn_write(struct pci_host *h, unsigned devfn, unsigned offset, unsigned size,
                        u64 value)
{
    struct pci_func *f = h->func[devfn];

    if (f && range_fits(offset, size, PCI_CONFIG_BYTES))
        pci_config_write(f, offset, size, value);
}

/* Port 0xCF8 is one 32-bit register; narrower accesses are not for it (PCI 3.0, 3.2.2.3.2). */
static u64 cf8_read(void *opaque, u64 offset, unsigned size)
{
    struct pci_host *h = opaque;

    if (offset == CF9_OFFSET && size == 1)
        return h->reset_control;
    return offset == 0 && size == 4 ? h->cf8 : all_ones(size);
}

/* Reset control register: setting bit 2 resets the machine. Intel ICH9 data sheet, 13.7.5. */
static void cf9_write(struct pci_host *h, u8 value)
{
    bool reset = (value & CF9_RESET) && !(h->reset_control & CF9_RESET);

    h->reset_control = value & 0x0e;
    if (reset)
        event_send(&h->config.sink, MACHINE_RESET, 0);
}

static void cf8_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct pci_host *h = opaque;

    if (offset == 0 && size == 4)
        h->cf8 = (u32)value & (CF8_ENABLE | 0xfffffc);
    else if (offset == CF9_OFFSET && size == 1)
        cf9_write(h, (u8)value);
}

static bool cf8_target(struct pci_host *h, unsigned *ret_devfn)
{
    *ret_devfn = (h->cf8 >> 8) & 0xff;
    return (h->cf8 & CF8_ENABLE) && ((h->cf8 >> 16) & 0xff) == 0;
}

static u64 cfc_read(void *opaque, u64 offset, unsigned size)
{
    struct pci_host *h = opaque;
    unsigned devfn;

    if (!cf8_target(h, &devfn))
        return all_ones(size);
    return devfn_read(h, devfn, (h->cf8 & 0xfc) + (unsigned)offset, size);
}

static void cfc_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct pci_host *h = opaque;
    unsigned devfn;

    if (cf8_target(h, &devfn))
        devfn_write(h, devfn, (h->cf8 & 0xfc) + (unsigned)offset, size, value);
}

static u64 ecam_read(void *opaque, u64 offset, unsigned size)
{
    return devfn_read(opaque, (unsigned)(offset >> ECAM_FN_SHIFT), offset & 0xfff, size);
}

static void ecam_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    devfn_write(opaque, (unsigned)(offset >> ECAM_FN_SHIFT), offset & 0xfff, size, value);
}

static const struct io_ops cf8_ops = {cf8_read, cf8_write};
static const struct io_ops cfc_ops = {cfc_read, cfc_write};
static const struct io_ops ecam_ops = {ecam_read, ecam_write};

static const struct pci_func_ops bridge_ops = {0}; /* lives inside the host */

static int host_map(struct pci_host *h, struct err *err)
{
    int rc;

    h->cf8_region = (struct io_region){.name = "pci-address",
                                       .base = 0xcf8,
                                       .len = 4,
                                       .ops = &cf8_ops,
                                       .opaque = h,
                                       .lock = &h->lock};
    h->cfc_region = (struct io_region){.name = "pci-data",
                                       .base = 0xcfc,
                                       .len = 4,
                                       .ops = &cfc_ops,
                                       .opaque = h,
                                       .lock = &h->lock};
    h->ecam_region = (struct io_region){.name = "pci-ecam",
                                        .base = h->config.ecam_base,
                                        .len = ECAM_BUS_BYTES,
                                        .ops = &ecam_ops,
                                        .opaque = h,
                                        .lock = &h->lock};
    rc = aspace_map(h->config.pio, &h->cf8_region, err);
    if (!rc)
        rc = aspace_map(h->config.pio, &h->cfc_region, err);
    if (!rc && h->config.ecam_base)
        rc = aspace_map(h->config.mmio, &h->ecam_region, err);
    return rc;
}

int pci_host_new(const struct pci_host_config *config, struct pci_host **ret_host, struct err *err)
{
    /* The ID that generic PCI Express hosts of virtual machines use; no guest needs a driver for
     * it. */
    static const struct pci_id id = {.vendor = 0x1b36,
                                     .device = 0x0008,
                                     .subvendor = 0x1af4,
                                     .subdevice = 0x1100,
                                     .class_code = 0x060000};
    struct pci_host *h = calloc(1, sizeof(*h));
    int rc;

    if (!h)
        return err_set(err, ENOMEM, "pci: no memory");
    h->config = *config;
    h->next32 = config->mmio32_base;
    h->next64 = config->mmio64_base;
    pthread_mutex_init(&h->lock, NULL);
    pthread_mutex_init(&h->intx_lock, NULL);
    pci_func_init(&h->bridge, &id, &bridge_ops, "pci-host");
    rc = host_map(h, err);
    if (!rc)
        rc = pci_func_add(h, &h->bridge, 0, 0, err);
    if (rc) {
        pci_host_free(h);
        return rc;
    }
    *ret_host = h;
    return 0;
}

static void host_unmap(struct aspace *as, struct io_region *r)
{
    if (r->mapped)
        aspace_unmap(as, r);
}

void pci_host_free(struct pci_host *h)
{
    if (!h)
        return;
    host_unmap(h->config.pio, &h->cf8_region);
    host_unmap(h->config.pio, &h->cfc_region);
    host_unmap(h->config.mmio, &h->ecam_region);
    for (unsigned i = 0; i < ARRAY_LEN(h->func); i++)
        if (h->func[i] && h->func[i]->ops->free)
            h->func[i]->ops->free(h->func[i]);
    pci_func_fini(&h->bridge);
    pthread_mutex_destroy(&h->lock);
    pthread_mutex_destroy(&h->intx_lock);
    free(h);
}

struct pci_func *pci_host_func(struct pci_host *h, unsigned slot, unsigned fn)
{
    return slot < PCI_SLOTS && fn < PCI_FNS ? h->func[slot * PCI_FNS + fn] : NULL;
}

void pci_host_reset(struct pci_host *h)
{
    for (unsigned i = 0; i < ARRAY_LEN(h->func); i++) {
        struct pci_func *f = h->func[i];

        if (!f)
            continue;
        if (f->ops->reset)
            f->ops->reset(f);
        pci_msix_reset(f);
        pci_intx(f, false);
    }
    /* All off before any comes back: a guest may have put one BAR where another one belongs. */
    pthread_mutex_lock(&h->lock);
    h->cf8 = 0;
    h->reset_control = 0;
    for (unsigned i = 0; i < ARRAY_LEN(h->func); i++)
        if (h->func[i])
            pci_bars_unmap(h->func[i]);
    for (unsigned i = 0; i < ARRAY_LEN(h->func); i++)
        if (h->func[i])
            pci_config_reset(h->func[i]);
    pthread_mutex_unlock(&h->lock);
}

void pci_host_quiesce(struct pci_host *h)
{
    for (unsigned i = 0; i < ARRAY_LEN(h->func); i++)
        if (h->func[i] && h->func[i]->ops->quiesce)
            h->func[i]->ops->quiesce(h->func[i]);
}

void pci_host_resume(struct pci_host *h)
{
    for (unsigned i = 0; i < ARRAY_LEN(h->func); i++)
        if (h->func[i] && h->func[i]->ops->resume)
            h->func[i]->ops->resume(h->func[i]);
}

static int find_slot(struct pci_host *h)
{
    for (int slot = 1; slot < PCI_SLOTS; slot++)
        if (!h->func[slot * PCI_FNS])
            return slot;
    return -1;
}

int pci_func_add(struct pci_host *h, struct pci_func *f, int slot, unsigned fn, struct err *err)
{
    unsigned devfn;
    int rc;

    if (slot == PCI_SLOT_ANY)
        slot = find_slot(h);
    if (slot < 0)
        return err_set(err, ENOSPC, "%s: all %d slots of the PCI bus are taken", f->name,
                       PCI_SLOTS);
    if (slot >= PCI_SLOTS || fn >= PCI_FNS)
        return err_set(err, EINVAL, "%s: PCI slot %d.%u does not exist", f->name, slot, fn);
    devfn = (unsigned)slot * PCI_FNS + fn;
    if (h->func[devfn])
        return err_set(err, EEXIST, "%s: PCI slot %d.%u is taken by %s", f->name, slot, fn,
                       h->func[devfn]->name);
    f->host = h;
    f->slot = (u8)slot;
    f->fn = (u8)fn;
    if (f->config[PCI_INT_PIN])
        f->config[PCI_INT_LINE] = (u8)(h->config.intx_gsi + pci_intx_line((unsigned)slot));
    rc = pci_bars_assign(f, err);
    if (rc) {
        f->host = NULL;
        return rc;
    }
    pthread_mutex_lock(&h->lock);
    h->func[devfn] = f;
    /* PCI 3.0, 6.2.1: bit 7 of function 0's header type says that there are more functions. */
    if (fn && h->func[devfn - fn])
        h->func[devfn - fn]->config[PCI_HEADER] |= 0x80;
    pci_config_reset(f);
    pthread_mutex_unlock(&h->lock);
    return 0;
}

void pci_intx(struct pci_func *f, bool level)
{
    struct pci_host *h = f->host;
    unsigned line;

    if (!h)
        return;
    line = pci_intx_line(f->slot);
    pthread_mutex_lock(&h->intx_lock);
    f->intx_wanted = level;
    level = level && !atomic_load(&f->no_intx);
    if (f->intx_level != level) {
        f->intx_level = level;
        h->intx_count[line] += level ? 1 : -1u;
        if (h->intx_count[line] == (level ? 1 : 0))
            irq_set(&h->config.intx[line], level);
    }
    pthread_mutex_unlock(&h->intx_lock);
}
