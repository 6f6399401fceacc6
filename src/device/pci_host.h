/* What the files of PCI share with each other; devices and boards use pci.h. */
#ifndef DEVICE_PCI_HOST_H
#define DEVICE_PCI_HOST_H

#include "device/pci.h"

struct pci_host {
    struct pci_host_config config;
    pthread_mutex_t lock; /* protects cf8, func[] and every function's configuration and BARs */
    u32 cf8;
    u8 reset_control; /* port 0xCF9 */
    struct pci_func *func[PCI_SLOTS * PCI_FNS];
    struct io_region cf8_region, cfc_region, ecam_region;
    struct pci_func bridge;

    pthread_mutex_t intx_lock; /* protects the line counts and each function's intx_level */
    unsigned intx_count[PCI_INTX_LINES];

    u64 next32, next64; /* where the next BAR is assigned */
};

/* Guest accesses to one function's configuration; any offset and size, the host's lock held. */
u64 pci_config_read(struct pci_func *f, unsigned offset, unsigned size);
void pci_config_write(struct pci_func *f, unsigned offset, unsigned size, u64 value);

/* Assigns addresses to BARs that have none yet. -ENOSPC. */
int pci_bars_assign(struct pci_func *f, struct err *err);
/* Maps and unmaps BARs as the registers say now. */
void pci_bars_update(struct pci_func *f);
void pci_bars_unmap(struct pci_func *f);
/* Power-on values of what the guest may change; BARs as assigned. */
void pci_config_reset(struct pci_func *f);
/* All of f->config is new: makes BARs, interrupts and MSI-X follow. */
void pci_config_changed(struct pci_func *f);
void pci_msix_reset(struct pci_func *f);
/* Message control may have changed: send what became unmasked. */
void pci_msix_update(struct pci_func *f);

static inline u16 load16(const u8 *p)
{
    return (u16)(p[0] | p[1] << 8);
}
static inline u32 load32(const u8 *p)
{
    return p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24;
}
static inline void store16(u8 *p, u16 v)
{
    p[0] = (u8)v;
    p[1] = (u8)(v >> 8);
}
static inline void store32(u8 *p, u32 v)
{
    store16(p, (u16)v);
    store16(p + 2, (u16)(v >> 16));
}

#endif
