/*
 * Virtio 1.2 devices over PCI (virtio 1.2, 2 and 4.1). The core owns queues, transport, locking and
 * state; a device is one `struct virtio_type` and one struct that begins with `struct virtio`.
 *
 * Life of a device: virtio_new() → (driver: features, queues, DRIVER_OK) → chain() for each chain →
 * reset() → … → fini(). A driver's mistake calls virtio_fail(): DEVICE_NEEDS_RESET on this device,
 * and nothing else.
 *
 * Lock order: virtio.lock → virtq.lock (tx before rx) → back end → msix.lock / intx. chain() runs
 * in the vCPU's thread with the queue's lock held. Completions from other threads go through
 * virtq_complete().
 */
#ifndef DEVICE_VIRTIO_H
#define DEVICE_VIRTIO_H

#include "device/pci.h"
#include "device/traffic.h"
#include "device/virtq.h"
#include "loop/loop.h"
#include "mem/gmem.h"

enum virtio_id { VIRTIO_ID_NET = 1, VIRTIO_ID_BLK = 2, VIRTIO_ID_CONSOLE = 3, VIRTIO_ID_RNG = 4 };

enum virtio_status {
    VIRTIO_ACKNOWLEDGE = 1,
    VIRTIO_DRIVER = 2,
    VIRTIO_DRIVER_OK = 4,
    VIRTIO_FEATURES_OK = 8,
    VIRTIO_NEEDS_RESET = 64,
    VIRTIO_FAILED = 128,
};

/* What a driver may set; it cannot clear single bits (2.1.1). */
#define VIRTIO_DRIVER_BITS \
    (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK | VIRTIO_FEATURES_OK | VIRTIO_FAILED)

#define VIRTIO_F_INDIRECT_DESC BIT(28)
#define VIRTIO_F_EVENT_IDX BIT(29)
#define VIRTIO_F_VERSION_1 BIT(32)
#define VIRTIO_QUEUES 16
#define VIRTIO_CONFIG_BYTES 64

struct virtio;

/* What devices need of their machine. Pointers outlive the devices. */
struct virtq_state {
    u64 desc, avail, used;
    u16 size, vector, last_avail, used_idx, signalled;
    u8 enabled;
};

struct virtio_state {
    u64 driver_features, acked;
    u32 device_feature_select, driver_feature_select;
    u16 queue_select, config_vector;
    u8 status, generation, generation_due, isr;
    u8 config[VIRTIO_CONFIG_BYTES];
    struct virtq_state queue[VIRTIO_QUEUES];
};

struct virtio_env {
    struct pci_host *pci;
    struct gmem *ram;
    struct loop *loop;     /* the main loop; NULL in tests that have none */
    struct timerq *timers; /* its timers, or a stepped clock */
    unsigned cpus;
};

enum virtio_chain {
    VIRTIO_LATER = -1, /* the device keeps a copy and calls virtq_complete() */
    VIRTIO_STOP = -2,  /* not now: the chain goes back, virtio_poll() will be called */
};

struct virtio_type {
    const char *name; /* "virtio-blk" */
    u16 id;           /* enum virtio_id */
    u32 class_code;   /* PCI class, 24 bits */
    size_t size;      /* of the device's struct */
    /* Sets v->features, v->nqueues, queue[i].max, config and config_len from its own options
     * struct. On failure the core calls fini. */
    int (*init)(struct virtio *v, const void *options, struct err *err);
    /* The driver accepted v->acked (already checked to be a subset of v->features): false refuses.
     * May be NULL. */
    bool (*accept)(struct virtio *v, u64 features);
    /* All queues are live: DRIVER_OK. May be NULL. */
    void (*start)(struct virtio *v);
    /* One chain from queue q, lock held. Returns how many bytes it wrote into the chain (the core
     * gives it back), or enum virtio_chain. */
    s64 (*chain)(struct virtio *v, struct virtq *q, struct virtq_chain *c);
    /* Queues that the device pops by itself (receive queues), as a mask; refilled() is called for
     * kicks of these, lock held. */
    u32 own_queues;
    void (*refilled)(struct virtio *v, struct virtq *q);
    /* The driver wrote v->config[offset, +size) (device lock held, the bytes are not yet stored).
     * May be NULL: read-only. */
    void (*config_write)(struct virtio *v, unsigned offset, unsigned size, u64 value);
    /* Back to power-on; no chain is in flight. May be NULL. */
    void (*reset)(struct virtio *v);
    /* Stop and restart sources of work of the device's own (timers, input). May be NULL. */
    void (*quiesce)(struct virtio *v);
    void (*resume)(struct virtio *v);
    /* The device's own state, if the core's is not all: a table over a struct that save() fills and load() takes over
     * after check() (0 or -EINVAL; may be NULL) found it possible. */
    const struct state_table *state;
    void (*save)(struct virtio *v, void *state);
    int (*check)(struct virtio *v, const void *state, struct err *err);
    void (*load)(struct virtio *v, const void *state);
    bool holds; /* it may keep chains while it is saved (virtq_hold()), and says in its own state which */
    bool
        config_varies; /* v->config changes by itself; otherwise it must be the same where a state is loaded */
    /* Releases what init took; the object may be half-built. */
    void (*fini)(struct virtio *v);
};

struct virtio {
    struct pci_func pci; /* first */
    const struct virtio_type *type;
    struct virtio_env env;

    pthread_mutex_t lock; /* protects the registers below and config */
    pthread_cond_t idle;  /* broadcast when the last chain in flight came back */
    atomic_uint status;   /* enum virtio_status; NEEDS_RESET may be set without the lock */
    u64 features;         /* offered */
    u64 driver_features;  /* as written so far */
    u64 acked;            /* after FEATURES_OK */
    u32 device_feature_select, driver_feature_select;
    u16 queue_select;
    atomic_ushort config_vector;
    atomic_bool generation_due; /* config changed since the driver last read it */
    u8 generation;
    atomic_bool
        resetting; /* a reset waits for chains in flight; status reads non-zero until it is done */
    atomic_bool draining; /* somebody waits on `idle` */
    u8 access_cap;        /* offset of the configuration access capability */

    pthread_mutex_t isr_lock; /* protects isr together with the INTx level */
    u8 isr;

    struct virtq queue[VIRTIO_QUEUES];
    unsigned nqueues;
    u8 config[VIRTIO_CONFIG_BYTES]; /* device-specific, little-endian */
    unsigned config_len;
    struct state_entry state, device_state;
    struct virtio_state saved;
    void *device_saved;     /* type->state->size bytes, or NULL */
    atomic_uint complaints; /* messages logged about this driver */
    struct traffic traffic; /* of devices that move data */
};

/* Creates a device of this type on the bus at `slot` (PCI_SLOT_ANY). The bus owns it. ret_v may be
 * NULL. */
int virtio_new(const struct virtio_env *env, const struct virtio_type *type, int slot,
               const void *options, struct virtio **ret_v, struct err *err);

/* The driver broke the rules. Any thread, any lock but isr_lock. */
void virtio_fail(struct virtio *v, const char *why);
/* Was this feature negotiated? Valid from accept() on. */
static inline bool virtio_has(const struct virtio *v, u64 feature)
{
    return (v->acked & feature) != 0;
}
/* Changes device configuration and tells the driver (VIRTIO_PCI_ISR_CONFIG). Takes v->lock. */
void virtio_config_set(struct virtio *v, unsigned offset, const void *data, unsigned len);
/* Looks at a queue again from outside its thread (more work, buffers came back): takes q->lock. */
void virtio_poll(struct virtio *v, struct virtq *q);

/* Runs a chain that was held, again: takes q->lock. */
void virtio_retry(struct virtio *v, struct virtq *q, u16 head);

/* Of the core's two halves: interrupts, life cycle. */
void virtio_interrupt_queue(struct virtio *v, struct virtq *q);
void virtio_interrupt_config(struct virtio *v);
void virtio_write_status(struct virtio *v, u8 value); /* v->lock held */
void virtio_start(struct virtio *v); /* DRIVER_OK: queues become live; v->lock held */
extern const struct state_table virtio_table;
int virtio_register_state(struct pci_func *f, struct state_set *set, struct err *err);
void virtio_idle(struct virtio *v);     /* a chain came back; no lock held */
void virtio_pci_init(struct virtio *v); /* BAR and capabilities; queues and config are known */
void virtio_pci_read(struct pci_func *f, unsigned offset, unsigned size);
void virtio_pci_wrote(struct pci_func *f, unsigned offset, unsigned size);

#endif
