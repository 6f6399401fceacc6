/*
 * Guest-physical memory: RAM (one memfd) and ROM, as the VMM sees it.
 *
 * RAM is one memfd, sparse, mapped read-write at `hva` (the VMM's view; accelerators may map the
 * same memfd again for the guest's view). It appears to the guest as [0, min(size, 3 GiB)) and, if
 * larger, the rest from 4 GiB on; the hole between holds PCI and fixed devices. Everything taken
 * from a guest is (gpa, len) and goes through the checks here: a range that is not wholly inside
 * one slot is refused.
 *
 * Any thread may call; slots do not change once vCPUs run.
 */
#ifndef MEM_GMEM_H
#define MEM_GMEM_H

#include "base/err.h"
#include <pthread.h>

#define GMEM_LOW_MAX (3ull * GiB) /* RAM below this, PCI hole above it */
#define GMEM_HIGH_BASE (4ull * GiB)
#define GMEM_SLOTS 8
#define GMEM_ROM_BYTES (32ull * MiB) /* room for all ROMs together, behind RAM in the memfd */

struct gmem_slot {
    u64 gpa, len;  /* bytes, multiples of 4 KiB */
    u64 offset;    /* of the slot's first byte in the memfd */
    u8 *hva;       /* VMM's view of it */
    bool readonly; /* ROM: guest writes are dropped */
};

/* Called after the VMM (a device) wrote guest RAM, so that an accelerator can drop what it derived
 * from it. */
typedef void gmem_wrote_fn(void *opaque, u64 gpa, u64 len);

/* What an accelerator does for the dirty log and for absent pages. Members may be NULL: nothing to do. */
struct gmem_accel {
    /*
     * Sees to it that each vCPU's first write to any page from now on is noted (on), or need not be (off), and moves
     * what was noted by dirty_flip(), at a moment at which no vCPU can write. On failure all is as before, or more is
     * noted than must be. Called with the log's lock held.
     */
    int (*dirty_sync)(void *opaque, bool on, struct err *err);
    /* Pages became absent: forget what was derived from them, and take notice when vCPUs touch them. vCPUs are stopped. */
    int (*lazy_begin)(void *opaque, struct err *err);
    /* All pages are present. */
    void (*lazy_end)(void *opaque);
    /* lazy_fetch() for page walks and the like, in whatever state a vCPU's thread is in there. Light; may not return. */
    int (*need)(void *opaque, u64 page);
    /* Puts 4096 bytes in place of an absent page, all at once for the guest. 0 or -errno. NULL: memcpy() does. */
    int (*place)(void *opaque, u64 page, const void *bytes4096);
    /* Pages that were absent are in place. Any thread; may make their use cheaper, but who brings their neighbours waits. */
    void (*came)(void *opaque, u64 page, u64 count);
};

struct dirty_log;
struct lazy;

struct gmem {
    int memfd;
    u64 size;   /* RAM in bytes */
    u8 *base;   /* mapping of the whole memfd (RAM, then ROMs) */
    u64 mapped; /* its length */
    struct gmem_slot slot[GMEM_SLOTS];
    unsigned nslots;
    gmem_wrote_fn *wrote;
    void *wrote_opaque;
    const struct gmem_accel *accel; /* set by the accelerator before vCPUs run */
    void *accel_opaque;
    /* dirty.h */
    pthread_mutex_t dirty_lock; /* protects logs; the first of all locks */
    struct dirty_log *logs;
    u64 *dirty; /* pages noted and not yet moved to the logs; atomic; made by the first log, freed at the end */
    bool dirty_on;
    /* lazy.h */
    const u64 *absent; /* NULL: all pages are present; atomic */
    struct lazy *lazy;
};

/* size: bytes, a multiple of 2 MiB, up to 1 TiB. Memory is reserved, not touched. */
int gmem_init(struct gmem *m, u64 size, struct err *err);
void gmem_fini(struct gmem *m);
/* Adds a ROM of len bytes at gpa, copied from data (padded with zeros to 4 KiB). Before vCPUs run.
 */
int gmem_add_rom(struct gmem *m, u64 gpa, const void *data, u64 len, struct err *err);

/* The slot that holds gpa, or NULL. */
const struct gmem_slot *gmem_find(const struct gmem *m, u64 gpa);
/* Host pointer to [gpa, gpa+len), or NULL if any byte of it is not RAM (or ROM, for gmem_ptr_ro), or is
 * lost (lazy.h). Pages that are absent come first, which may take its time.
 * Bytes behind it may change at any time under the reader: copy once, check, use. */
void *gmem_ptr(struct gmem *m, u64 gpa, u64 len);
const void *gmem_ptr_ro(const struct gmem *m, u64 gpa, u64 len);
/* Copies; 0 or -EFAULT with nothing copied. gmem_write reports to `wrote`. */
int gmem_read(const struct gmem *m, u64 gpa, void *buf, u64 len);
int gmem_write(struct gmem *m, u64 gpa, const void *buf, u64 len);
/* To be called by whoever wrote through gmem_ptr, after the write: for what is derived from those bytes, and for the
 * dirty log. */
void gmem_wrote(struct gmem *m, u64 gpa, u64 len);

#endif
