/* Compressed clusters for a qcow2 image: packing, and where they go in the file. */
#ifndef BLOCK_QCOW2_PACK_H
#define BLOCK_QCOW2_PACK_H

#include "block/format.h"

struct qcow2_packer;

/* For one thread; NULL: no memory. */
struct qcow2_packer *qcow2_packer_new(struct block_format *f);
void qcow2_packer_free(struct qcow2_packer *p); /* NULL is fine */
/* Compresses a whole cluster into `to`, which has room for one. Bytes, or 0: it does not become smaller. */
u32 qcow2_pack(struct qcow2_packer *p, const void *cluster, void *to);

/* A compressed cluster: the guest's offset it begins at, its bytes, where they are in the file. */
struct qcow2_piece {
    u64 offset, host;
    u32 len;
};

/* Gives each a place; the caller writes the bytes there, then links or drops them. Fails for all or none. */
int qcow2_pieces_place(struct block_format *f, struct qcow2_piece *list, unsigned n,
                       struct err *err);
/* They become what the guest sees. Those for which that failed are dropped. */
int qcow2_pieces_link(struct block_format *f, const struct qcow2_piece *list, unsigned n,
                      struct err *err);
void qcow2_pieces_drop(struct block_format *f, const struct qcow2_piece *list, unsigned n);

#endif
