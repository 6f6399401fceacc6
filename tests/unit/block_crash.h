/* What a power failure leaves of an image in memory whose changes were recorded. */
#ifndef UNIT_BLOCK_CRASH_H
#define UNIT_BLOCK_CRASH_H

#include "block_memory.h"

#define SECTOR 512

static inline u64 next_random(u64 *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

static inline void apply_sector(struct memory_file *m, const struct memory_event *e, u64 at,
                                u64 len)
{
    memory_reserve(m, at + len);
    if (e->data)
        memcpy(m->bytes + at, e->data + (at - e->offset), len);
    else
        memset(m->bytes + at, 0, len);
    m->file.size = MAX(m->file.size, at + len);
}

/* lossy: each sector arrives or not. */
static inline void apply(struct memory_file *m, const struct memory_event *e, bool lossy, u64 *seed)
{
    if (e->op == MEMORY_TRUNCATE) {
        memory_reserve(m, e->offset);
        if (e->offset < m->file.size)
            memset(m->bytes + e->offset, 0, m->file.size - e->offset);
        m->file.size = e->offset;
    }
    if (e->op != MEMORY_WRITE && e->op != MEMORY_ZERO)
        return;
    for (u64 at = e->offset; at < e->offset + e->len;) {
        u64 end = MIN(ALIGN_DOWN(at, (u64)SECTOR) + SECTOR, e->offset + e->len);

        if (!lossy || next_random(seed) % 2)
            apply_sector(m, e, at, end - at);
        at = end;
    }
}

static inline unsigned last_sync(const struct memory_file *m, unsigned before)
{
    while (before && m->events[before - 1].op != MEMORY_SYNC)
        before--;
    return before;
}

#endif
