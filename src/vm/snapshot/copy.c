/*
 * Pages of guest memory for a snapshot's memory file: runs of them go to the writer, zeros become holes. Any thread; the
 * guest may write meanwhile, then the page is copied again in a later round.
 */
#include "vm/snapshot/parts.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define RUN_PAGES 2048   /* the writer begins while the next ones are looked at */
#define MEASURE_PAGES 64 /* fewer tell nothing about the speed */

int snapshot_find_pages(const struct gmem *ram, u64 *ret_bits)
{
    u64 words = dirty_words(ram);
    off_t at = 0, end;

    memset(ret_bits, 0, words * sizeof(u64));
    while ((at = lseek(ram->memfd, at, SEEK_DATA)) >= 0 && (u64)at < ram->size) {
        end = lseek(ram->memfd, at, SEEK_HOLE);
        if (end < 0)
            return -errno;
        for (u64 page = (u64)at / SNAPMAP_PAGE; page < MIN((u64)end, ram->size) / SNAPMAP_PAGE;
             page++)
            ret_bits[page / 64] |= BIT(page % 64);
        at = end;
    }
    return at < 0 && errno != ENXIO ? -errno : 0;
}

/* Notes a page down in the map; true: its bytes are to be written. */
static bool note_page(struct snapshot_job *job, const struct gmem *ram, u64 page)
{
    const u8 *bytes = ram->base + page * SNAPMAP_PAGE;
    bool zero = snapmap_is_zero(bytes);

    snapmap_set(job->map.present, page, !zero);
    snapmap_set(job->map.zero, page, zero && job->incremental);
    if (!zero)
        job->map.sum[page] = snapmap_sum(bytes);
    return !zero;
}

/* The first round is most of memory, and only needs to be written before the stop. Later ones are copied, so their length
 * depends on memory's speed and not on the disk's, and the stop waits for no disk. */
static void give_run(struct snapshot_job *job, const struct gmem *ram, u64 page, u64 count)
{
    const u8 *from = ram->base + page * SNAPMAP_PAGE;

    if (job->round)
        snapwriter_copy(job->writer, page, count, from);
    else
        snapwriter_lend(job->writer, page, count, from);
}

int snapshot_copy(struct vm_snapshots *s, struct snapshot_job *job, const u64 *bits)
{
    const struct gmem *ram = &s->vm->ram;
    u64 pages = dirty_pages(ram), first = 0, count = 0, copied = 0;
    s64 begin = vm_now_ns();

    for (u64 page = 0; page <= pages; page++) {
        bool wanted = page < pages && snapmap_has(bits, page) && note_page(job, ram, page);

        if (wanted && count && count < RUN_PAGES && first + count == page) {
            count++;
            continue;
        }
        if (count) {
            if (atomic_load(&job->cancelled))
                return -ECANCELED;
            give_run(job, ram, first, count);
            copied += count;
        }
        first = page;
        count = wanted;
        if (!(page % 64) && page < pages && !bits[page / 64] && !count)
            page += 63;
    }
    job->copied += copied;
    if (job->round && copied >= MEASURE_PAGES)
        job->page_ns = MAX((u64)(vm_now_ns() - begin) / copied, 1ull);
    return 0;
}
