/* Copying and comparing whole images: what is a hole stays one, several threads at a time. */
#ifndef BLOCK_COPY_H
#define BLOCK_COPY_H

#include "block/image.h"

/* Told now and then how much of a disk is done, by one thread at a time. NULL: nobody. */
struct block_progress {
    void (*tell)(struct block_progress *p, u64 done, u64 size);
    unsigned percent; /* the caller's */
};

struct block_copy {
    struct block_image *from, *to; /* `to` is at least as large */
    bool to_is_zero;               /* `to` reads as zeros now: zeros need no writing */
    /* Only what `from` and those below it, down to this one, hold themselves. NULL: everything. */
    const struct block_image *last;
    bool
        compress; /* into compressed clusters of `to`, which is qcow2; with neither of the two below */
    bool full;    /* zeros are written as data */
    u32 sparse_bytes; /* shorter runs of zeros are written as data, 0: 4 KiB */
    unsigned threads; /* at most, 0: what the host has and is of use */
    struct block_progress *progress;
};

/* The contents; does not flush. */
int block_copy(const struct block_copy *c, struct err *err);

/* What one range is, as far as the copy is concerned. */
int block_copy_map(const struct block_copy *c, u64 offset, u64 len, struct block_extent *ret_extent,
                   struct err *err);

/* 0: the same, 1: not, and *ret_offset is the first byte that differs; or -errno. What one lacks counts as zeros. */
int block_compare(struct block_image *a, struct block_image *b, struct block_progress *progress,
                  u64 *ret_offset, struct err *err);

/* Reads len bytes; what lies past the image's end is zeros. */
int block_read_padded(struct block_image *i, void *buf, size_t len, u64 offset, struct err *err);
bool block_is_zero(const void *buf, size_t len);

#endif
