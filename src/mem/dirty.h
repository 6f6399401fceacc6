/*
 * The dirty log: which pages of RAM were written since a consumer last asked. Consumers (incremental snapshots, a
 * migration, a stream of both) are independent: each has a bitmap of its own.
 *
 * Pages are 4 KiB, numbered by their place in RAM's memfd (not by gpa): page = offset >> 12. ROMs are not in it.
 *
 * Everybody who writes guest memory takes part: vCPUs through the accelerator (gmem_accel.dirty_sync), the VMM through
 * gmem_wrote(), page walks through dirty_note(). What is noted may be more than what was written, never less.
 */
#ifndef MEM_DIRTY_H
#define MEM_DIRTY_H

#include "mem/gmem.h"

/* Storage is the caller's, zeroed before dirty_start(); its members are this module's. */
struct dirty_log {
    u64 *bits; /* written, but not yet collected */
    struct dirty_log *next;
    bool on;
};

/* How many pages RAM has, and how many words a bitmap of them takes. */
static inline u64 dirty_pages(const struct gmem *m)
{
    return m->size >> 12;
}

static inline u64 dirty_words(const struct gmem *m)
{
    return dirty_pages(m) / 64; /* RAM is a multiple of 2 MiB */
}

/* All three: any thread but a vCPU's, which holds no lock that a vCPU's thread or a device may take (they wait until
 * every vCPU has left guest code for a moment); vCPUs may run or be stopped; several threads may call at once. */

/* Begins a log: from now on, nothing is dirty yet. -ENOMEM, or what the accelerator could not do. */
int dirty_start(struct gmem *m, struct dirty_log *log, struct err *err);
/*
 * Moves what was written since dirty_start() or the last dirty_collect() into ret_bits (dirty_words() words, replaced)
 * and says how many pages these are. When it returns, no vCPU can write one of those pages without its being reported
 * by the next dirty_collect(); a device's write that was under way is reported by the next one, too. So copy the pages
 * after it; and collect once more when vCPUs are stopped and devices quiet. On failure nothing is lost or changed.
 */
int dirty_collect(struct gmem *m, struct dirty_log *log, u64 *ret_bits, u64 *ret_count,
                  struct err *err);
/* Takes a log that is zeroed or was never started, too. */
void dirty_stop(struct gmem *m, struct dirty_log *log);

/* --- for who writes guest memory; light code, any thread --- */

/* Has every write to be noted? */
static inline bool dirty_on(const struct gmem *m)
{
    return __atomic_load_n(&m->dirty_on, __ATOMIC_RELAXED);
}

static inline bool dirty_noted(const struct gmem *m, u64 page)
{
    return __atomic_load_n(&m->dirty[page / 64], __ATOMIC_RELAXED) >> (page % 64) & 1;
}

/* Only while dirty_on(). A vCPU may note before or after it writes (no collect comes between, as long as it is within
 * guest code); everybody else after. offset: in the memfd; ROMs are ignored. */
static inline void dirty_note(const struct gmem *m, u64 offset)
{
    u64 page = offset >> 12;

    if (offset < m->size && !dirty_noted(m, page))
        __atomic_fetch_or(&m->dirty[page / 64], BIT(page % 64), __ATOMIC_SEQ_CST);
}

/* For gmem_accel.dirty_sync: moves all that is noted to the logs. */
void dirty_flip(struct gmem *m);

#endif
