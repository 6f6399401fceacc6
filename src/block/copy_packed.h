/* Copying into compressed clusters, a piece of the disk at a time. */
#ifndef BLOCK_COPY_PACKED_H
#define BLOCK_COPY_PACKED_H

#include "block/copy.h"

#define COPY_PIECE_BYTES (2 * MiB) /* the largest cluster, and no thread works on less */

struct copy_packed;

/* For one thread; `turn` is held to write. NULL: no memory. */
struct copy_packed *copy_packed_new(const struct block_copy *c, pthread_mutex_t *turn);
void copy_packed_free(struct copy_packed *p); /* NULL is fine */
/* [offset, end): at most a piece, from the start of a cluster on. buf: room for a piece. */
int copy_packed_piece(struct copy_packed *p, u64 offset, u64 end, u8 *buf, struct err *err);

#endif
