/*
 * Pages of guest memory into a snapshot's memory file: runs of them in one write each, zeros as holes. Any thread; the
 * guest may write meanwhile, then the page is copied again in a later round.
 */
#include "vm/snapshot/parts.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define RUN_PAGES 256

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

/* In the first round the medium begins at once with what there is, so that syncing finds little left to do. Later ones are
 * short, and nothing that may wait belongs into the stop. */
static void start_writing(struct snapshot_job *job, u64 at, u64 len)
{
    if (!job->round)
        sync_file_range(job->memory, (off_t)at, (off_t)len, SYNC_FILE_RANGE_WRITE);
}

static int write_run(struct snapshot_job *job, const struct gmem *ram, u64 page, u64 count)
{
    const u8 *from = ram->base + page * SNAPMAP_PAGE;
    u64 at = page * SNAPMAP_PAGE, len = count * SNAPMAP_PAGE;

    while (len) {
        ssize_t n = pwrite(job->memory, from, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENOSPC;
        from += n;
        at += (u64)n;
        len -= (u64)n;
    }
    start_writing(job, page * SNAPMAP_PAGE, count * SNAPMAP_PAGE);
    return 0;
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

int snapshot_copy(struct vm_snapshots *s, struct snapshot_job *job, const u64 *bits)
{
    const struct gmem *ram = &s->vm->ram;
    u64 pages = dirty_pages(ram), first = 0, count = 0, copied = 0;
    s64 begin = vm_now_ns();
    int rc = 0;

    for (u64 page = 0; page <= pages && !rc; page++) {
        bool wanted = page < pages && snapmap_has(bits, page) && note_page(job, ram, page);

        if (wanted && count && count < RUN_PAGES && first + count == page) {
            count++;
            continue;
        }
        if (count) {
            rc = atomic_load(&job->cancelled) ? -ECANCELED : write_run(job, ram, first, count);
            copied += count;
        }
        first = page;
        count = wanted;
        if (!(page % 64) && page < pages && !bits[page / 64] && !count)
            page += 63;
    }
    job->copied += copied;
    if (copied >= RUN_PAGES)
        job->page_ns = MAX((u64)(vm_now_ns() - begin) / copied, 1ull);
    return rc;
}
