/*
 * An address space of devices: the guest's memory-mapped I/O, or its 64 Ki ports.
 *
 * Regions may not overlap. An access is 1, 2, 4 or 8 bytes (ports: 1, 2, 4), lies within one region
 * or is split into bytes; what hits no region reads as all ones and is dropped on write. A region
 * with a lock has it held around its callbacks. Regions may be moved or switched on and off while
 * vCPUs run, also from within a callback. An access that another thread began before aspace_unmap()
 * may still reach the region after it.
 */
#ifndef MEM_ASPACE_H
#define MEM_ASPACE_H

#include "base/err.h"
#include <pthread.h>

struct io_ops {
    /* offset is relative to the region; size is 1, 2, 4 or 8, offset + size <= len; not necessarily
     * aligned. */
    u64 (*read)(void *opaque, u64 offset, unsigned size);
    void (*write)(void *opaque, u64 offset, unsigned size, u64 value);
};

struct io_region {
    const char *name; /* for messages and traces */
    u64 base, len;
    const struct io_ops *ops;
    void *opaque;
    pthread_mutex_t *lock; /* taken around callbacks; NULL: the callbacks need none */
    bool mapped;           /* set by aspace_map/aspace_unmap only */
};

#define ASPACE_REGIONS 512

struct aspace {
    pthread_rwlock_t lock;                    /* protects region[] and nregions */
    struct io_region *region[ASPACE_REGIONS]; /* sorted by base */
    unsigned nregions;
    u64 limit; /* first address past the space: 65536 for ports */
};

void aspace_init(struct aspace *as, u64 limit);
void aspace_fini(struct aspace *as);
/* The region stays the caller's and must outlive the mapping. -EEXIST if it would overlap, -ERANGE
 * past the end. */
int aspace_map(struct aspace *as, struct io_region *r, struct err *err);
void aspace_unmap(struct aspace *as, struct io_region *r);
u64 aspace_read(struct aspace *as, u64 addr, unsigned size);
void aspace_write(struct aspace *as, u64 addr, unsigned size, u64 value);

#endif
