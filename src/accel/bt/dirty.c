/*
 * What the machine's memory asks of the translator: the dirty log and absent pages (gmem_accel). Heavy.
 *
 * A store is at full speed once its table entry leads into gview, so taking the notes means dropping those entries, on
 * every vCPU, while all are outside: no vCPU is then between its check and its store, and none has an entry for a page
 * whose note was taken. Only then may the caller copy pages. tests/payload/moving.c fails if entries stay, if vCPUs are
 * not waited for, or if some way to write forgets its note.
 */
#include "accel/bt/cache.h"
#include "mem/dirty.h"

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

const struct gmem_accel bt_gmem_accel = {
    .dirty_sync = dirty_sync,
};
