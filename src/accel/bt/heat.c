/*
 * A guess at what a load is followed by, while there is a dirty log. Light, vCPU threads.
 *
 * After a collector took its notes, a page's first store must be noted again. If its table has no entry, that is a walk
 * (0.1 us); if an entry for reading is there, the store faults on the host (3 us and more). A program that looks at a
 * page before it writes to it would fault at every page in every round. So entries that led into gview were dropped, not
 * replaced, and the load that comes first gets one of three answers:
 *   HEAT_ONCE  it may read, but nothing is entered: the store that may follow is a walk again.
 *   HEAT_READ  too many loads without a store: entered for reading, a store will fault.
 *   HEAT_NOTE  its stores have faulted for that reason: it is noted at once for the next 3, later 7 rounds in which it is
 *              read. So are three pages behind one whose stores have faulted, because programs go through memory: where
 *              nothing was written before, that leaves a fault for every fourth page. A wrong guess costs that the page
 *              is copied once more; it is not passed on.
 *
 * A page's byte: bits 0-2 rounds that it is still trusted for, 3 whether it was before, 5-7 loads since the last store.
 * vCPUs may overwrite each other's: it is a guess.
 */
#include "accel/bt/vcpu.h"

#define LOADS_MAX 4
#define TRUST_MASK 7
#define TRUSTED_BEFORE 8
#define LOADS_SHIFT 5
#define BEHIND 3

static bool is_behind_trusted(const struct bt *bt, u64 page)
{
    for (u64 back = 1; back <= MIN((u64)BEHIND, page); back++)
        if (bt->heat[page - back] & TRUSTED_BEFORE)
            return true;
    return false;
}

enum heat_guess heat_load(struct bt *bt, u64 page)
{
    u8 h = bt->heat[page];

    if (h & TRUST_MASK) {
        bt->heat[page] = (u8)(h - 1);
        return HEAT_NOTE;
    }
    if (h >> LOADS_SHIFT == LOADS_MAX)
        return is_behind_trusted(bt, page) ? HEAT_NOTE : HEAT_READ;
    bt->heat[page] = (u8)(h + (1 << LOADS_SHIFT));
    return HEAT_ONCE;
}

void heat_store(struct bt *bt, u64 page)
{
    u8 h = bt->heat[page];

    if (h >> LOADS_SHIFT == LOADS_MAX)
        bt->heat[page] = TRUSTED_BEFORE | (h & TRUSTED_BEFORE ? 7 : 3);
    else
        bt->heat[page] = h & (TRUSTED_BEFORE | TRUST_MASK);
}
