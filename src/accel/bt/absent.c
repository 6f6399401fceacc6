/*
 * Absent pages (mem/lazy.h), met by a vCPU. Light.
 *
 * The vCPU gives up what it is doing, as for a fault (nothing is committed before), goes back to its run loop, fetches the
 * page there, and does the same again. So it waits outside: nobody waits for it who wants all vCPUs outside, it can be
 * stopped, and its state is at an instruction's boundary. What it has already taken (an interrupt, an exception) is kept
 * in vcpu.held.
 * The translator cannot be given up in the middle, since it holds the cache's lock: it gets an error instead, makes no
 * block, and is given up by its caller. And a task switch in the middle can neither be given up nor done again: there the
 * vCPU waits on the spot.
 */
#include <errno.h>
#include "accel/bt/vcpu.h"
#include "mem/lazy.h"

static u64 heavy_fetch(u64 ram, u64 page, u64 unused)
{
    (void)unused;
    return (u64)(s64)lazy_fetch((const struct gmem *)ram, page, 1);
}

int absent_need(void *opaque, u64 page)
{
    struct bt *bt = opaque;
    struct vcpu *v = this_vcpu;

    if (!v || v->bt != bt || (v->c->vec_saved && !v->translating))
        return lazy_fetch(bt->m->ram, page, 1); /* a device's access, or no vCPU's at all */
    if (v->c->pinned) {
        int rc = (int)(s64)heavy_call(v->c, heavy_fetch, (u64)bt->m->ram, page, 0);

        if (!rc || rc == -EINTR)
            return rc; /* EINTR: we are called again */
    }
    v->want_page = page + 1;
    if (v->translating)
        return -EAGAIN;
    bt_unwind(v->c);
}
