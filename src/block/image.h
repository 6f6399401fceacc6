/*
 * An open disk image with everything it stands on: its file, its format, its backing images. Reads and writes of the
 * guest's bytes in the caller's thread; any thread, but two that change the same range at a time are the caller's
 * mistake, and so are two writers of one cluster.
 */
#ifndef BLOCK_IMAGE_H
#define BLOCK_IMAGE_H

#include "block/format.h"
#include <pthread.h>

struct block_image {
    char *path;
    struct block_file *file, *data_file; /* data_file NULL: the image has none of its own */
    struct block_format *fmt;
    struct block_image *backing; /* NULL: none */
    unsigned depth;              /* 0: the image that was opened */
    atomic_bool
        unfinished; /* a backing image that was written to until it became one: see block_image_flush() */
    pthread_mutex_t lock; /* protects the two below */
    u8 *unpacked;         /* the compressed cluster read last, NULL: none yet */
    u64 unpacked_host;
};

struct block_image_options {
    const char *format; /* NULL: what name and content agree on, see block_format_guess() */
    bool readonly;
    bool shared; /* take no locks */
    bool
        given_up; /* somebody else writes to it: no locks, nothing is written before block_image_reopen() */
    bool no_backing; /* the image alone: what it lacks reads as zeros */
    bool trust;      /* it may name files outside its folder */
    bool repair;     /* as block_format_options.repair; implies no_backing */
    bool unsafe;     /* no syncs: the image is being made and worth nothing until it is done */
    const struct block_image *above; /* what shall not be below it; NULL: nothing */
};

int block_image_open(const char *path, const struct block_image_options *o,
                     struct block_image **ret_image, struct err *err);
/* The same for an image that `from` names, or could name: with the care of block_chain_open(). */
int block_image_open_named(const struct block_image *from, const char *name,
                           const struct block_image_options *o, struct block_image **ret_image,
                           struct err *err);
/* Takes the file, also when it fails; follows no names in it. */
int block_image_from(struct block_file *file, const struct block_image_options *o,
                     struct block_image **ret_image, struct err *err);
void block_image_close(struct block_image *i); /* NULL is fine; see block_image_flush() */
u64 block_image_size(const struct block_image *i);

/*
 * "raw" or "qcow2". A guest can write a qcow2 header into its raw disk, which must never be believed; so content alone
 * decides nothing. A file called *.qcow2 that has the magic is qcow2; one without the magic and not called so is raw;
 * else the user must say.
 */
int block_format_guess(struct block_file *file, const char **ret_format, struct err *err);

/* What one range is, over the whole chain: DATA, ZERO or PACKED, or ABSENT, which reads as zeros, where no image has
 * anything. *ret_owner: the image it is in. */
int block_image_map(struct block_image *i, u64 offset, u64 len, struct block_extent *ret_extent,
                    struct block_image **ret_owner, struct err *err);
/* The map needs no input or output now, in any image of the chain. */
bool block_image_ready(struct block_image *i, u64 offset);
int block_image_read(struct block_image *i, void *buf, size_t len, u64 offset, struct err *err);
int block_image_write(struct block_image *i, const void *buf, size_t len, u64 offset,
                      struct err *err);
/* Reads as zeros afterwards; unmap: and gives its space back if that can be. */
int block_image_zero(struct block_image *i, u64 offset, u64 len, bool unmap, struct err *err);
/* Advice: whole clusters are given back. */
int block_image_discard(struct block_image *i, u64 offset, u64 len, struct err *err);
/* Everything that was written is on the medium: also what went to images below before they were below. */
int block_image_flush(struct block_image *i, struct err *err);
/* What `top`, an overlay that was opened alone, does not hold is in `below` from now on, which belongs to it then. Fails
 * without a change. No names are followed. */
int block_image_stack(struct block_image *top, struct block_image *below, struct err *err);
/* Reads anew what the files say: another host may have written to them. Nobody else uses the image. */
int block_image_reopen(struct block_image *i, bool readonly, struct err *err);
int block_image_resize(struct block_image *i, u64 size, struct err *err);

/* --- chain.c --- */

/* Opens the file that `from` calls `name`: a plain path, relative to the folder of `from`, and beneath it unless
 * trusted. Not yet locked. */
int block_chain_open(const struct block_image *from, const char *name, bool trust, bool readonly,
                     struct block_file **ret_file, struct err *err);

#endif
