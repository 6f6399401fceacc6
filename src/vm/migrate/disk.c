/*
 * Disks that go over with their machine: see disk.h.
 *
 * Invariants:
 * 1. A range's bit is cleared before the range is read, and bits are collected from the dirty log after the change they
 *    tell of (block/mirror.h): what is written while a range is read is sent again.
 * 2. Ranges that the source does not send read as zeros over there: the images are emptied first.
 * 3. The destination syncs as it goes, and before it answers a fence, so that little is left to sync while the guest stands
 *    still.
 */
#include "vm/migrate/disk.h"

#include "block/copy.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RANGE_BYTES (64 * KiB)
#define MESSAGE_BYTES (1 * MiB)
#define HEAD_BYTES 24
#define SYNC_BYTES (64 * MiB)

/* --- source --- */

static bool bit_at(const u64 *bits, u64 i)
{
    return bits[i / 64] & BIT(i % 64);
}

/* What the disk holds, over all its layers. */
static int list_all(struct migrate_disk *one, struct err *err)
{
    u64 size = block_size(one->disk), len;
    int rc = 0;

    for (u64 at = 0; at < size && !rc; at += len) {
        bool data;

        rc = block_allocated(one->disk, at, size - at, &data, &len, err);
        if (rc || !data)
            continue;
        for (u64 i = at / RANGE_BYTES; i <= (at + len - 1) / RANGE_BYTES; i++)
            one->todo[i / 64] |= BIT(i % 64);
    }
    return rc;
}

static int start_one(struct migrate_disk *one, struct block *disk, struct err *err)
{
    u64 words;
    int rc;

    one->disk = disk;
    if (block_readonly(disk))
        return 0;
    rc = block_dirty_start(disk, &one->log, RANGE_BYTES, err);
    if (rc)
        return rc;
    words = block_dirty_words(&one->log);
    one->todo = calloc(words, sizeof(u64));
    one->fresh = calloc(words, sizeof(u64));
    if (!one->todo || !one->fresh)
        return err_set(err, ENOMEM, "no memory for a list of a disk's blocks");
    return list_all(one, err);
}

int migrate_disks_start(struct migrate_disks *d, struct block *const *disks, unsigned n,
                        struct err *err)
{
    int rc = 0;

    if (n > MIGRATE_DISKS)
        return err_set(err, E2BIG, "more than %d disks", MIGRATE_DISKS);
    d->n = n;
    d->started = true;
    d->buf = malloc(MESSAGE_BYTES);
    if (!d->buf)
        rc = err_set(err, ENOMEM, "no memory to copy disks");
    for (unsigned i = 0; i < n && !rc; i++)
        rc = start_one(&d->disk[i], disks[i], err);
    return rc;
}

void migrate_disks_stop(struct migrate_disks *d)
{
    for (unsigned i = 0; i < d->n; i++) {
        struct migrate_disk *one = &d->disk[i];

        if (one->log.bits)
            block_dirty_stop(one->disk, &one->log);
        free(one->todo);
        free(one->fresh);
    }
    free(d->buf);
    *d = (struct migrate_disks){0};
}

static void collect(struct migrate_disk *one)
{
    u64 count;

    block_dirty_collect(one->disk, &one->log, one->fresh, &count);
    for (u64 w = 0; count && w < block_dirty_words(&one->log); w++)
        one->todo[w] |= one->fresh[w];
}

/* The next range on the list from `next` on, or the number of ranges. */
static u64 find_next(const struct migrate_disk *one)
{
    u64 i = one->next, end = one->log.nbits;

    while (i < end && !bit_at(one->todo, i))
        i = i % 64 || one->todo[i / 64] ? i + 1 : i + 64;
    return MIN(i, end);
}

/* Ranges side by side from i on, taken off the list, in one message. */
static int send_run(struct migrate_disks *d, unsigned disk, struct migrate_line *line, u64 i,
                    u64 *ret_sent, struct err *err)
{
    struct migrate_disk *one = &d->disk[disk];
    u64 offset = i * RANGE_BYTES, len = 0, size = block_size(one->disk);
    u8 head[HEAD_BYTES] = {0};
    int rc;

    for (; i < one->log.nbits && bit_at(one->todo, i) && len < MESSAGE_BYTES; i++) {
        one->todo[i / 64] &= ~BIT(i % 64);
        len += RANGE_BYTES;
    }
    one->next = i;
    len = MIN(len, size - offset);
    rc = block_now(one->disk, BLOCK_READ, d->buf, len, offset, err);
    if (rc)
        return rc;
    bool zeros = block_is_zero(d->buf, len);
    struct iovec iov[] = {{head, sizeof(head)}, {d->buf, len}};
    migrate_put(head, disk, 4);
    migrate_put(head + 8, offset, 8);
    migrate_put(head + 16, len, 8);
    *ret_sent += HEAD_BYTES + (zeros ? 0 : len);
    return migrate_line_send(line, MIGRATE_BLOCKS, 0, iov, zeros ? 1 : 2, err);
}

static u64 left_of(const struct migrate_disk *one)
{
    u64 n = 0;

    for (u64 w = 0; w < block_dirty_words(&one->log); w++)
        n += (u64)__builtin_popcountll(one->todo[w]);
    return n * RANGE_BYTES;
}

int migrate_disks_send(struct migrate_disks *d, struct migrate_line *line, u64 budget,
                       u64 *ret_sent, u64 *ret_left, struct err *err)
{
    u64 sent = 0, left = 0;
    int rc = 0;

    for (unsigned i = 0; i < d->n && !rc; i++) {
        struct migrate_disk *one = &d->disk[i];

        if (!one->log.bits)
            continue;
        collect(one);
        /* Twice, since the first pass begins where the last call stopped. */
        for (unsigned pass = 0; pass < 2 && !rc; pass++) {
            for (u64 at; !rc && sent < budget && (at = find_next(one)) < one->log.nbits;)
                rc = send_run(d, i, line, at, &sent, err);
            if (sent < budget)
                one->next = 0;
        }
        left += left_of(one);
    }
    *ret_sent = sent;
    *ret_left = left;
    return rc;
}

/* --- destination --- */

void migrate_disks_take(struct migrate_disks *d, struct block *const *disks, unsigned n)
{
    *d = (struct migrate_disks){.n = MIN(n, (unsigned)MIGRATE_DISKS)};
    for (unsigned i = 0; i < d->n; i++)
        d->disk[i].disk = disks[i];
}

static int empty(struct migrate_disks *d, struct migrate_disk *one, struct err *err)
{
    if (one->emptied || block_readonly(one->disk))
        return 0;
    one->emptied = true;
    d->unsynced++;
    return block_now(one->disk, BLOCK_ZERO, NULL, block_size(one->disk), 0, err);
}

static int sync_all(struct migrate_disks *d, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < d->n && !rc; i++)
        if (!block_readonly(d->disk[i].disk))
            rc = block_sync(d->disk[i].disk, err);
    d->unsynced = 0;
    return rc;
}

int migrate_disks_write(struct migrate_disks *d, u32 disk, u64 offset, u64 len, const u8 *bytes,
                        struct err *err)
{
    struct migrate_disk *one = disk < d->n ? &d->disk[disk] : NULL;
    int rc;

    if (!one || offset % 512 || len % 512)
        return err_set(err, EPROTO, "blocks of disk %u that cannot be", disk);
    if (!range_fits(offset, len, block_size(one->disk)))
        return err_set(err, EFBIG, "disk %u is smaller here than where the machine comes from",
                       disk);
    rc = empty(d, one, err);
    if (!rc)
        rc = block_now(one->disk, bytes ? BLOCK_WRITE : BLOCK_ZERO, (void *)(uintptr_t)bytes, len,
                       offset, err);
    if (rc == -ENOSPC)
        err_wrap(err, "disk %u has %llu MiB, and there is no room for all of what it holds", disk,
                 (unsigned long long)(block_size(one->disk) / MiB));
    d->unsynced += bytes ? len : 1;
    return rc || d->unsynced < SYNC_BYTES ? rc : sync_all(d, err);
}

int migrate_disks_finish(struct migrate_disks *d, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < d->n && !rc; i++)
        rc = empty(d, &d->disk[i], err);
    return rc || !d->unsynced ? rc : sync_all(d, err);
}
