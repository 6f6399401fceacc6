/*
 * Absent pages: pages of RAM whose bytes are still elsewhere (a snapshot's file, the host a guest was migrated from) and
 * come when they are first touched. For lazy restore and for post-copy alike.
 *
 * Any access makes the page present first: gmem_ptr(), gmem_read() and gmem_write() in the VMM, page walks and every
 * access of a vCPU in the accelerator. Who reads RAM by other means (gmem.base, for copying it) must ask lazy_fetch()
 * before. A page that has come never becomes absent again. Making a page present does not count as writing it.
 */
#ifndef MEM_LAZY_H
#define MEM_LAZY_H

#include "mem/gmem.h"
#include <errno.h>

struct lazy_source {
    /*
     * Fills the 4096 bytes of a page (memfd offset >> 12) that was absent a moment ago. Any thread, several at once,
     * maybe for the same page; may wait. It may be called with a device's lock held (so it may not wait for the main
     * loop, if that takes such locks) and may call lazy_supply() for this page or others. Returns
     *   0       the bytes are in dst4096
     *   1       lazy_supply() has brought the page meanwhile
     *   -EINTR  asked to let go. A vCPU's own access is given up: the vCPU goes back to its run loop, sees
     *           VCPU_EV_STOP if that is why, else tries again. A device's access is tried again at once. So: whoever
     *           stops vCPUs while fetches may wait, calls vcpu_event(VCPU_EV_STOP) for all, then makes those fetches
     *           that wait at that moment (not later ones) return -EINTR.
     *   other   the page is lost: the guest cannot go on. vcpu_run() returns VCPU_FAILED, gmem_ptr() NULL.
     */
    int (*fetch)(void *opaque, u64 page, void *dst4096);
    void *opaque;
};

/*
 * Makes the pages in absent_bits (dirty_words() words, copied) absent. Their present contents are lost and read as
 * zeros until lazy_supply() (with KVM they are given back to the host). vCPUs and devices are stopped; nothing is
 * absent yet. -ENOTSUP: this accelerator cannot wait for pages on this host, so load all of RAM before running.
 */
int lazy_begin(struct gmem *m, const struct lazy_source *s, const u64 *absent_bits,
               struct err *err);
/* The page's bytes have come, asked for or not. false: it was present already, so bytes are older and were dropped (or
 * the host failed to place them, see lazy_end()). Any thread. */
bool lazy_supply(struct gmem *m, u64 page, const void *bytes4096);
/* The same for `count` pages in a row: cheaper than one by one. Returns how many of them were absent. */
u64 lazy_supply_run(struct gmem *m, u64 page, u64 count, const void *bytes);
/* How many pages are absent. Any thread; 0 when nothing ever was. */
u64 lazy_missing(const struct gmem *m);
/* Makes `count` pages from `page` on present, by fetching what is absent. 0, -EINTR or what fetch returned. */
int lazy_fetch(const struct gmem *m, u64 page, u64 count);
/* Fetches all that is missing and forgets the source; then nothing is absent. Any thread but a vCPU's; not at once from
 * two threads. On failure the source stays. */
int lazy_end(struct gmem *m, struct err *err);

/* For gmem_fini(). */
void lazy_free(struct gmem *m);

/* Light. offset: in the memfd. */
static inline bool lazy_absent(const struct gmem *m, u64 offset)
{
    const u64 *bits = __atomic_load_n(&m->absent, __ATOMIC_ACQUIRE);
    u64 page = offset >> 12;

    return bits && offset < m->size &&
           (__atomic_load_n(&bits[page / 64], __ATOMIC_ACQUIRE) >> (page % 64) & 1);
}

/* Light: makes the page of offset present, through the accelerator if that must know. false: it cannot be had. */
static inline bool lazy_need(const struct gmem *m, u64 offset)
{
    int rc;

    if (!lazy_absent(m, offset))
        return true;
    do
        rc = m->accel && m->accel->need ? m->accel->need(m->accel_opaque, offset >> 12)
                                        : lazy_fetch(m, offset >> 12, 1);
    while (rc == -EINTR);
    return rc == 0;
}

#endif
