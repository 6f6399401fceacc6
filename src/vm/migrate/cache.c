/*
 * The cache of sent pages. Invariant: a slot with page[] set holds exactly the bytes that the
 * destination has after everything sent so far on that page's connection.
 */
#include "vm/migrate/cache.h"

#include "vm/migrate/wire.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

int migrate_cache_init(struct migrate_cache *c, u64 bytes, u64 pages, unsigned senders,
                       struct err *err)
{
    /* Whole groups, as many as there are senders or a multiple, so that a group's slots are one
     * sender's: group g of pages is sender g % senders's, see queue.h. */
    u64 step = (u64)MIGRATE_BATCH * senders, want = MIN(bytes / MIGRATE_PAGE_BYTES, pages);

    *c = (struct migrate_cache){.senders = senders};
    u64 slots = want < pages ? want / step * step : (want + step - 1) / step * step;
    if (!slots)
        return 0;
    void *map = mmap(NULL, slots * MIGRATE_PAGE_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    c->page = calloc(slots, sizeof(*c->page));
    if (map == MAP_FAILED || !c->page) {
        if (map != MAP_FAILED)
            munmap(map, slots * MIGRATE_PAGE_BYTES);
        free(c->page);
        c->page = NULL;
        return err_set(err, ENOMEM, "no memory to remember what was sent");
    }
    c->bytes = map;
    c->slots = slots;
    return 0;
}

void migrate_cache_fini(struct migrate_cache *c)
{
    if (!c)
        return;
    if (c->slots)
        munmap(c->bytes, c->slots * MIGRATE_PAGE_BYTES);
    free(c->page);
    *c = (struct migrate_cache){0};
}

u8 *migrate_cache_find(struct migrate_cache *c, u64 page)
{
    if (!c->slots || c->page[page % c->slots] != page + 1)
        return NULL;
    return c->bytes + page % c->slots * MIGRATE_PAGE_BYTES;
}

u8 *migrate_cache_take(struct migrate_cache *c, u64 page, bool again)
{
    if (!c->slots)
        return NULL;
    u64 slot = page % c->slots;
    if (c->page[slot] && c->page[slot] != page + 1 && !again)
        return NULL;
    c->page[slot] = page + 1;
    return c->bytes + slot * MIGRATE_PAGE_BYTES;
}

void migrate_cache_drop(struct migrate_cache *c, u64 page)
{
    if (c->slots && c->page[page % c->slots] == page + 1)
        c->page[page % c->slots] = 0;
}
