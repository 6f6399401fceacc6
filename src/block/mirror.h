/*
 * What it takes to copy a disk while its guest uses it: which parts were written, which hold data at all, and requests
 * that are done in the caller's thread. The other end, an image that is being filled, is a disk like any other: open it,
 * block_now(), block_sync(), and only then hand it to a device.
 */
#ifndef BLOCK_MIRROR_H
#define BLOCK_MIRROR_H

#include "block/block.h"

/* Of one reader; a disk may have several. Zeroed by the caller. Its fields are mirror.c's. */
struct block_dirty_log {
    u32 shift; /* log2 of the bytes of a bit */
    u64 nbits, *bits;
    struct block_dirty_log *next;
};

/* From now on; nothing is dirty. granularity: bytes, a power of two from 4 KiB to 16 MiB. */
int block_dirty_start(struct block *b, struct block_dirty_log *log, u64 granularity,
                      struct err *err);
/* The u64s that collect fills; bit i of them all is the i-th range of the granularity. */
u64 block_dirty_words(const struct block_dirty_log *log);
/*
 * Moves what was written since start or the last collect into ret_bits (replaced). A change is noted after it happened and
 * before it is acknowledged: so copy ranges after this. What is written while they are copied is reported by the next one,
 * and once the guest stands still and block_drain() has returned, one more collect reports all that is left. Discarded and
 * zeroed ranges count as written. Any thread.
 */
void block_dirty_collect(struct block *b, struct block_dirty_log *log, u64 *ret_bits,
                         u64 *ret_count);
/* Fine for a log that was never started. */
void block_dirty_stop(struct block *b, struct block_dirty_log *log);

/* The first run of [offset, offset + len), over all layers: does it hold data, or does it read as zeros? Data may be zeros,
 * too. What is written meanwhile may or may not be in it. Any thread. */
int block_allocated(struct block *b, u64 offset, u64 len, bool *ret_data, u64 *ret_len,
                    struct err *err);

/* A request that is done in this thread, waiting as long as it takes. buf: of reads and writes. Any thread. */
int block_now(struct block *b, enum block_op op, void *buf, u64 len, u64 offset, struct err *err);

#endif
