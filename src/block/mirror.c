/*
 * Copying a disk while its guest uses it: see mirror.h.
 *
 * Invariant: a bit is set after the change is in the file and before anybody is told that it is done. A reader who
 * collects first and copies then has either copied the change or will be told of it. The other way round, a bit that is
 * set first could be collected, and its range copied, before the change.
 *
 * Threads: any. `dirty_lock` protects the list of logs and their bits; without logs nobody takes it.
 */
#include "block/mirror.h"
#include "block/disk.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- what was written --- */

u64 block_dirty_words(const struct block_dirty_log *log)
{
    return (log->nbits + 63) / 64;
}

int block_dirty_start(struct block *b, struct block_dirty_log *log, u64 granularity,
                      struct err *err)
{
    if (granularity & (granularity - 1) || granularity < 4 * KiB || granularity > 16 * MiB)
        return err_set(err, EINVAL, "%s: no granularity for a dirty log: %llu", b->path,
                       (unsigned long long)granularity);
    log->shift = (u32)__builtin_ctzll(granularity);
    log->nbits = (b->size + granularity - 1) >> log->shift;
    log->bits = calloc(block_dirty_words(log), sizeof(u64));
    if (!log->bits)
        return err_set(err, ENOMEM, "%s: no memory for a dirty log", b->path);
    pthread_mutex_lock(&b->dirty_lock);
    log->next = b->dirty;
    b->dirty = log;
    atomic_fetch_add(&b->dirty_logs, 1);
    pthread_mutex_unlock(&b->dirty_lock);
    return 0;
}

void block_dirty_collect(struct block *b, struct block_dirty_log *log, u64 *ret_bits,
                         u64 *ret_count)
{
    u64 words = block_dirty_words(log), count = 0;

    pthread_mutex_lock(&b->dirty_lock);
    memcpy(ret_bits, log->bits, words * sizeof(u64));
    memset(log->bits, 0, words * sizeof(u64));
    pthread_mutex_unlock(&b->dirty_lock);
    for (u64 i = 0; i < words; i++)
        count += (u64)__builtin_popcountll(ret_bits[i]);
    *ret_count = count;
}

void block_dirty_stop(struct block *b, struct block_dirty_log *log)
{
    pthread_mutex_lock(&b->dirty_lock);
    for (struct block_dirty_log **at = &b->dirty; *at; at = &(*at)->next) {
        if (*at != log)
            continue;
        *at = log->next;
        atomic_fetch_sub(&b->dirty_logs, 1);
        break;
    }
    pthread_mutex_unlock(&b->dirty_lock);
    free(log->bits);
    *log = (struct block_dirty_log){0};
}

void block_dirty_note(struct block *b, u64 offset, u64 len)
{
    if (!len || !atomic_load(&b->dirty_logs))
        return;
    pthread_mutex_lock(&b->dirty_lock);
    for (struct block_dirty_log *log = b->dirty; log; log = log->next)
        for (u64 bit = offset >> log->shift; bit <= (offset + len - 1) >> log->shift; bit++)
            log->bits[bit / 64] |= BIT(bit % 64);
    pthread_mutex_unlock(&b->dirty_lock);
}

/* --- what is there --- */

int block_allocated(struct block *b, u64 offset, u64 len, bool *ret_data, u64 *ret_len,
                    struct err *err)
{
    struct block_image *owner;
    struct block_extent e;
    int rc;

    if (!len || !range_fits(offset, len, b->size))
        return err_set(err, EINVAL, "%s: a range past its end", b->path);
    formatted_lean(b);
    rc = block_image_map(b->image, offset, len, &e, &owner, err);
    formatted_let_go(b);
    if (rc)
        return rc;
    *ret_data = e.kind == BLOCK_KIND_DATA || e.kind == BLOCK_KIND_PACKED;
    *ret_len = e.len;
    return 0;
}

int block_now(struct block *b, enum block_op op, void *buf, u64 len, u64 offset, struct err *err)
{
    struct iovec iov = {buf, len};
    struct block_req r = {
        .op = op, .offset = offset, .len = len, .iov = &iov, .niov = 1, .unmap = true, .disk = b};
    int rc = block_request_check(b, &r);

    if (!rc && b->direct) {
        r.fd = b->fd;
        r.host = offset;
    }
    if (!rc && len) {
        rc = block_execute(&r);
        block_changed(&r);
    }
    return rc ? err_sys(err, -rc, "%s: at 0x%llx", b->path, (unsigned long long)offset) : 0;
}
