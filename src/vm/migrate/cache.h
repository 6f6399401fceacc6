/*
 * Pages as they were sent last, so that the next time only the difference goes over the line. Each
 * page has one slot (its number modulo their count): pages near each other never fight for one.
 *
 * Pages belong to one sender each, and so do slots (MIGRATE_BATCH divides their count): no lock.
 */
#ifndef VM_MIGRATE_CACHE_H
#define VM_MIGRATE_CACHE_H

#include "base/err.h"

struct migrate_cache {
    u8 *bytes;   /* slots * MIGRATE_PAGE_BYTES */
    u64 *page;   /* which page a slot holds, + 1; 0: none */
    u64 slots;   /* 0: there is no cache */
    u64 senders; /* who shares it */
};

/* At most `bytes` of memory, for a machine of `pages` pages; touched only as it is used. */
int migrate_cache_init(struct migrate_cache *c, u64 bytes, u64 pages, unsigned senders,
                       struct err *err);
void migrate_cache_fini(struct migrate_cache *c);
/* What was sent last of this page, or NULL. May be written, for the next time. */
u8 *migrate_cache_find(struct migrate_cache *c, u64 page);
/* The slot for a page that is sent whole, to be filled by the caller; NULL: it stays without. Takes a
 * slot from another page only if `again`: this one was sent before, it is worth it. */
u8 *migrate_cache_take(struct migrate_cache *c, u64 page, bool again);
/* The page is sent in another way: what we have of it is stale. */
void migrate_cache_drop(struct migrate_cache *c, u64 page);

#endif
