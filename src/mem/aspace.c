/*
 * Address spaces of devices: a sorted array of regions.
 *
 * Invariants:
 *  1. region[0..nregions) is sorted by base, without overlap, and lies within `limit`.
 *  2. The space's lock is never held while a callback runs, so a callback may map and unmap. What a
 * callback gets is the offset that was true at the lookup, even if the region has moved since.
 *
 * Lock order: a region's lock, then the space's. Any thread may call.
 */
#include "mem/aspace.h"

#include "mem/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

void aspace_init(struct aspace *as, u64 limit)
{
    memset(as, 0, sizeof(*as));
    pthread_rwlock_init(&as->lock, NULL);
    as->limit = limit;
}

void aspace_fini(struct aspace *as)
{
    if (!as)
        return;
    for (unsigned i = 0; i < as->nregions; i++)
        as->region[i]->mapped = false;
    as->nregions = 0;
    pthread_rwlock_destroy(&as->lock);
}

/* The index of the first region that ends after addr. Called with the lock. */
static unsigned first_after(const struct aspace *as, u64 addr)
{
    unsigned low = 0, high = as->nregions;

    while (low < high) {
        unsigned mid = (low + high) / 2;

        if (as->region[mid]->base + (as->region[mid]->len - 1) < addr)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static int map_locked(struct aspace *as, struct io_region *r, struct err *err)
{
    unsigned at = first_after(as, r->base);
    struct io_region *next = at < as->nregions ? as->region[at] : NULL;

    if (r->mapped)
        return err_set(err, EEXIST, "%s: is mapped already", r->name);
    if (next && next->base <= r->base + (r->len - 1))
        return err_set(err, EEXIST, "%s: 0x%" PRIx64 " overlaps %s at 0x%" PRIx64, r->name, r->base,
                       next->name, next->base);
    if (as->nregions == ASPACE_REGIONS)
        return err_set(err, ENOSPC, "%s: more than %d regions", r->name, ASPACE_REGIONS);
    memmove(&as->region[at + 1], &as->region[at], (as->nregions - at) * sizeof(as->region[0]));
    as->region[at] = r;
    as->nregions++;
    r->mapped = true;
    trace_mem_map(r->name, r->base, r->len);
    return 0;
}

int aspace_map(struct aspace *as, struct io_region *r, struct err *err)
{
    int rc;

    if (!r->len || !range_fits(r->base, r->len, as->limit))
        return err_set(err, ERANGE, "%s: [0x%" PRIx64 ", +0x%" PRIx64 ") is not within 0x%" PRIx64,
                       r->name, r->base, r->len, as->limit);
    pthread_rwlock_wrlock(&as->lock);
    rc = map_locked(as, r, err);
    pthread_rwlock_unlock(&as->lock);
    return rc;
}

void aspace_unmap(struct aspace *as, struct io_region *r)
{
    unsigned at = 0;

    pthread_rwlock_wrlock(&as->lock);
    while (at < as->nregions && as->region[at] != r)
        at++;
    if (at < as->nregions) {
        as->nregions--;
        memmove(&as->region[at], &as->region[at + 1], (as->nregions - at) * sizeof(as->region[0]));
        r->mapped = false;
        trace_mem_unmap(r->name, r->base);
    }
    pthread_rwlock_unlock(&as->lock);
}

/* What an access of `size` bytes at addr meets. */
enum target { TARGET_NONE, TARGET_REGION, TARGET_SPLIT };

/* With TARGET_REGION only: the region and the offset in it. */
static enum target lookup(struct aspace *as, u64 addr, unsigned size, struct io_region **ret_region,
                          u64 *ret_offset)
{
    enum target target = TARGET_NONE;
    struct io_region *r;
    unsigned at;
    u64 last;

    if (ADD_OVERFLOWS(addr, size - 1, &last))
        return TARGET_SPLIT;
    pthread_rwlock_rdlock(&as->lock);
    at = first_after(as, addr);
    if (at < as->nregions && as->region[at]->base <= last) {
        r = as->region[at];
        target = TARGET_SPLIT;
        if (r->base <= addr && range_fits(addr - r->base, size, r->len)) {
            target = TARGET_REGION;
            *ret_region = r;
            *ret_offset = addr - r->base;
        }
    }
    pthread_rwlock_unlock(&as->lock);
    return target;
}

static u64 size_mask(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (1ull << (size * 8)) - 1;
}

static u64 read_region(struct io_region *r, u64 offset, unsigned size)
{
    u64 value;

    if (r->lock)
        pthread_mutex_lock(r->lock);
    value = r->ops->read(r->opaque, offset, size);
    if (r->lock)
        pthread_mutex_unlock(r->lock);
    trace_mem_read(r->name, offset, size, value & size_mask(size));
    return value & size_mask(size);
}

static void write_region(struct io_region *r, u64 offset, unsigned size, u64 value)
{
    trace_mem_write(r->name, offset, size, value & size_mask(size));
    if (r->lock)
        pthread_mutex_lock(r->lock);
    r->ops->write(r->opaque, offset, size, value & size_mask(size));
    if (r->lock)
        pthread_mutex_unlock(r->lock);
}

u64 aspace_read(struct aspace *as, u64 addr, unsigned size)
{
    struct io_region *r;
    u64 offset, value = 0;

    switch (lookup(as, addr, size, &r, &offset)) {
    case TARGET_NONE:
        trace_mem_lost_read(addr, size);
        return size_mask(size);
    case TARGET_REGION:
        return read_region(r, offset, size);
    case TARGET_SPLIT:
        break;
    }
    /* An access that runs over the end of the address space does not come round at its start. */
    for (unsigned i = 0; i < size; i++) {
        u64 byte = addr + i < addr ? 0xff : aspace_read(as, addr + i, 1);

        value |= byte << (i * 8);
    }
    return value;
}

void aspace_write(struct aspace *as, u64 addr, unsigned size, u64 value)
{
    struct io_region *r;
    u64 offset;

    switch (lookup(as, addr, size, &r, &offset)) {
    case TARGET_NONE:
        trace_mem_lost_write(addr, size, value);
        return;
    case TARGET_REGION:
        write_region(r, offset, size, value);
        return;
    case TARGET_SPLIT:
        break;
    }
    for (unsigned i = 0; i < size && addr + i >= addr; i++)
        aspace_write(as, addr + i, 1, value >> (i * 8));
}
