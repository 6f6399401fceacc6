/*
 * What the machine's memory asks of the translator: the dirty log and absent pages (gmem_accel). Heavy.
 *
 * A store is at full speed once its table entry leads into gview, so taking the notes means dropping those entries, on
 * every vCPU, while all are outside: no vCPU is then between its check and its store, and none has an entry for a page
 * whose note was taken. Only then may the caller copy pages. tests/payload/moving.c fails if entries stay, if vCPUs are
 * not waited for, or if some way to write forgets its note.
 */
#include <errno.h>
#include <sys/mman.h>
#include "accel/bt/cache.h"
#include "mem/dirty.h"
#include "mem/lazy.h"

static int dirty_sync(void *opaque, bool on, struct err *err)
{
    struct bt *bt = opaque;

    (void)err;
    cache_stop_all(bt);
    for (unsigned i = 0; i < bt->nvcpus; i++)
        if (bt->vcpu[i])
            mmu_forget(bt->vcpu[i], !on);
    dirty_flip(bt->m->ram);
    cache_let_go(bt);
    return 0;
}

/* Nothing may lead to a page that is absent: no table entry, no block made from its bytes. */
static int lazy_became_absent(void *opaque, struct err *err)
{
    struct bt *bt = opaque;
    const struct gmem *ram = bt->m->ram;

    (void)err;
    for (unsigned i = 0; i < bt->nvcpus; i++)
        if (bt->vcpu[i])
            mmu_forget(bt->vcpu[i], true);
    if (!bt->cache->npages)
        return 0; /* nothing is translated yet: a restore need not ask a million pages */
    for (unsigned i = 0; i < ram->nslots; i++) {
        const struct gmem_slot *s = &ram->slot[i];

        for (u64 at = 0; at < s->len; at += 4096)
            if ((bt->cache->page_map[(s->offset + at) >> 12] & PAGE_IS_CODE) && lazy_absent(ram, s->offset + at))
                code_invalidate(bt, s->gpa + at, 4096);
    }
    return 0;
}

/*
 * Pages that come so far ahead of where a vCPU is are mapped for it, or it would have a host fault at every sixteenth of them.
 * Nearer ones it waits for, or soon will: there only their coming counts. What is farther away it may never need, and less
 * than a fault brings is not worth a call.
 * By reading: with MADV_POPULATE_WRITE each page is a fault of its own, which takes twice as long.
 */
#define MAP_FROM_PAGES (8 * MiB / 4096)
#define MAP_PAGES (128 * MiB / 4096)
#define MAP_RUN 16

static void pages_came(void *opaque, u64 page, u64 count)
{
    const struct bt *bt = opaque;
    u64 ahead = page - __atomic_load_n(&bt->reached, __ATOMIC_RELAXED);

    if (count >= MAP_RUN && ahead - MAP_FROM_PAGES < MAP_PAGES)
        madvise(bt->gview + (page << 12), count << 12, MADV_POPULATE_READ);
}

int wanted_page(struct vcpu *v, struct err *err)
{
    u64 page = v->want_page - 1;
    int rc = lazy_fetch(v->bt->m->ram, page, 1);

    v->want_page = 0;
    if (!rc || rc == -EINTR)
        return 0; /* EINTR: the run loop looks why */
    return err_sys(err, -rc, "guest memory at offset 0x%llx cannot be had", (unsigned long long)page << 12);
}

const struct gmem_accel bt_gmem_accel = {
    .dirty_sync = dirty_sync,
    .lazy_begin = lazy_became_absent,
    .need = absent_need,
    .came = pages_came,
};
