/*
 * PCI: one host bridge, one bus of 32 devices with 8 functions, reached through ports 0xCF8/0xCFC
 * and through ECAM (PCI Local Bus 3.0, 3.2.2.3.2; PCI Express Base 3.0, 7.2.2). Functions have
 * memory BARs, capabilities, MSI-X and INTx. BARs are assigned when a function is added, so that a
 * guest without firmware finds them in place.
 *
 * Threads: configuration accesses come from vCPU threads under the host's lock. pci_msix_send(),
 * pci_intx() and pci_bus_master() may be called from any thread, with device locks held. Everything
 * else: before vCPUs run, or while they are stopped.
 */
#ifndef DEVICE_PCI_H
#define DEVICE_PCI_H

#include "base/err.h"
#include "device/event.h"
#include "device/irq.h"
#include "mem/aspace.h"
#include "state/set.h"
#include <pthread.h>
#include <stdatomic.h>

#define PCI_SLOTS 32
#define PCI_FNS 8
#define PCI_INTX_LINES 8
#define PCI_CONFIG_BYTES 256
#define PCI_BARS 6
#define PCI_MSIX_MAX 64
#define PCI_SLOT_ANY (-1)

/* Offsets in a type 0 header (PCI 3.0, 6.1). */
enum pci_reg {
    PCI_VENDOR = 0x00,
    PCI_DEVICE = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_CLASS = 0x09,
    PCI_HEADER = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBVENDOR = 0x2c,
    PCI_SUBDEVICE = 0x2e,
    PCI_CAP_PTR = 0x34,
    PCI_INT_LINE = 0x3c,
    PCI_INT_PIN = 0x3d,
};
#define PCI_COMMAND_MEM 0x0002u
#define PCI_COMMAND_MASTER 0x0004u
#define PCI_COMMAND_NO_INTX 0x0400u
#define PCI_STATUS_INTX 0x0008u
#define PCI_STATUS_CAPS 0x0010u

struct pci_host;
struct pci_func;

/* What the board gives the bus. All pointers outlive the host. */
struct pci_host_config {
    struct aspace *mmio, *pio;
    struct msi_sink msi;
    struct irq intx[PCI_INTX_LINES]; /* I/O APIC pins 16-23 on our board; see pci_intx_line() */
    u8 intx_gsi;                     /* of intx[0]; goes into the interrupt line registers */
    u64 ecam_base;                   /* 1 MiB for the one bus */
    u64 mmio32_base, mmio32_len;     /* windows: a BAR outside both is never mapped */
    u64 mmio64_base, mmio64_len;
    struct event_sink sink; /* hears of resets through port 0xCF9 */
};

/* What a function's owner provides. All may be NULL but `free`. reset, quiesce and resume are
 * called with vCPUs stopped; `wrote` after a guest changed configuration bytes [offset, offset +
 * size), with the host's lock held; `read` before the guest reads them. */
struct pci_func_ops {
    void (*reset)(struct pci_func *f);
    void (*quiesce)(struct pci_func *f); /* finish or park all work in flight: state is then
                                            complete and still */
    void (*resume)(struct pci_func *f);
    void (*free)(struct pci_func *f);
    /* Adds what the owner has to save, beyond the function's own registers. */
    int (*register_state)(struct pci_func *f, struct state_set *set, struct err *err);
    void (*wrote)(struct pci_func *f, unsigned offset, unsigned size);
    void (*read)(struct pci_func *f, unsigned offset, unsigned size);
};

struct pci_bar {
    struct io_region region; /* .len is the size; 0: no such BAR */
    bool is64;
    u64 assigned; /* our initial choice */
};

struct pci_msix_entry {
    u64 addr;
    u32 data, control; /* control bit 0: masked */
};

struct pci_msix {
    pthread_mutex_t lock; /* protects all below; leaf but for the MSI sink */
    struct pci_msix_entry entry[PCI_MSIX_MAX];
    u64 pending; /* PBA, bit per vector */
    u16 vectors;
    u8 cap;               /* offset of the capability, 0: none */
    bool enabled, masked; /* copies of message control */
};

struct pci_func_state {
    u8 config[PCI_CONFIG_BYTES];
    struct pci_msix_entry msix[PCI_MSIX_MAX];
    u64 msix_pending;
};

struct pci_func {
    struct pci_host *host;
    const struct pci_func_ops *ops;
    char name[24]; /* "virtio-blk 00:03.0", for messages */
    u8 slot, fn;
    u8 config[PCI_CONFIG_BYTES];   /* protected by the host's lock */
    u8 writable[PCI_CONFIG_BYTES]; /* mask of bits the guest may change */
    u8 cap_end;                    /* first free byte behind the capabilities */
    atomic_bool master, no_intx;   /* copies of command bits, readable without the lock */
    struct pci_bar bar[PCI_BARS];
    struct pci_msix msix;
    /* By the device; after masking. Protected by the host's intx lock. */
    bool intx_wanted, intx_level;
    struct state_entry state;
    struct pci_func_state saved;
};

struct pci_id {
    u16 vendor, device, subvendor, subdevice;
    u32 class_code; /* 24 bits */
    u8 revision;
};

int pci_host_new(const struct pci_host_config *config, struct pci_host **ret_host, struct err *err);
/* Frees the host and every function on it (through ops->free). NULL is fine. */
void pci_host_free(struct pci_host *h);
/* Machine reset: every function as after power-on, BARs back where we put them. */
void pci_host_reset(struct pci_host *h);
void pci_host_quiesce(struct pci_host *h);
void pci_host_resume(struct pci_host *h);
/* Registers the saved state of every function that is there now. Save and load between quiesce and resume. */
int pci_host_register(struct pci_host *h, struct state_set *set, struct err *err);
/* The function at slot.fn or NULL; for walking all functions. */
struct pci_func *pci_host_func(struct pci_host *h, unsigned slot, unsigned fn);

/* Prepares a function (storage is the caller's); then add BARs and capabilities, then
 * pci_func_add(). */
void pci_func_init(struct pci_func *f, const struct pci_id *id, const struct pci_func_ops *ops,
                   const char *name);
/* Releases what pci_func_init() and pci_func_add() took: unmaps BARs, leaves the bus. Zeroed is
 * fine. */
void pci_func_fini(struct pci_func *f);
/* size: a power of two, at least 16. The region's callbacks get `opaque`; `lock` may be NULL. is64
 * uses index and index + 1; it is still placed in the 32-bit window when it fits. */
void pci_bar_init(struct pci_func *f, unsigned index, u64 size, bool is64, const struct io_ops *ops,
                  void *opaque, pthread_mutex_t *lock);
/* Appends a capability of len bytes (with its two header bytes); returns its offset. Read-only
 * until the caller sets bits in f->writable. */
unsigned pci_cap_add(struct pci_func *f, u8 id, unsigned len_bytes);
/* Gives the function `vectors` MSI-X vectors: table and PBA lie in `bar` at the offsets. The BAR's
 * callbacks pass accesses in these ranges to pci_msix_read/write. */
void pci_msix_init(struct pci_func *f, unsigned vectors, unsigned bar, u32 table_offset,
                   u32 pba_offset);
/* Puts it on the bus at slot (PCI_SLOT_ANY: the first free one from 1 up), function fn, and assigns
 * its BARs. -EEXIST, -ENOSPC. From then on host owns the function: it is freed through ops->free.
 */
int pci_func_add(struct pci_host *h, struct pci_func *f, int slot, unsigned fn, struct err *err);

/* Interrupts. Masked vectors become pending and are sent when unmasked; nothing is sent without bus
 * mastering. */
void pci_msix_send(struct pci_func *f, unsigned vector);
bool pci_msix_enabled(struct pci_func *f);
u64 pci_msix_table_read(struct pci_func *f, u64 offset,
                        unsigned size); /* offset within the table */
void pci_msix_table_write(struct pci_func *f, u64 offset, unsigned size, u64 value);
u64 pci_msix_pba_read(struct pci_func *f, u64 offset, unsigned size);
/* Sets the level of INTA#; lines are shared, the controller sees the OR of all functions on it. */
void pci_intx(struct pci_func *f, bool level);
/* Which of the host's intx[] a device's INTA# uses; the board's _PRT and MP tables must say the
 * same. */
static inline unsigned pci_intx_line(unsigned slot)
{
    return slot % PCI_INTX_LINES;
}
/* May the function read and write guest memory? */
static inline bool pci_bus_master(struct pci_func *f)
{
    return atomic_load_explicit(&f->master, memory_order_relaxed);
}

/* Reads of the guest's view of a BAR (virtio's configuration access capability); nothing outside
 * the BAR is touched. */
u64 pci_bar_read(struct pci_func *f, unsigned bar, u64 offset, unsigned size);
extern const struct state_table pci_func_table;
void pci_bar_write(struct pci_func *f, unsigned bar, u64 offset, unsigned size, u64 value);

#endif
