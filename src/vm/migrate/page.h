/*
 * PAGES: up to MIGRATE_BATCH pages in one message.
 *
 *   u32 count, u32 bytes of data; count * u64 descriptor; data, compressed with flag MIGRATE_ZSTD
 *   descriptor: page number in bits 0-39, bytes of its data in 40-55, enum migrate_page_kind in 56-63
 */
#ifndef VM_MIGRATE_PAGE_H
#define VM_MIGRATE_PAGE_H

#include "vm/migrate/cache.h"
#include "vm/migrate/wire.h"
#include <stdatomic.h>
#include <sys/uio.h>

enum migrate_page_kind { MIGRATE_ZERO, MIGRATE_WHOLE, MIGRATE_DELTA, MIGRATE_SAME, MIGRATE_KINDS };

/* What went over, by kind; any thread may read it. SAME: nothing had to be sent. */
struct migrate_counts {
    atomic_ullong pages[MIGRATE_KINDS];
    atomic_ullong bytes;  /* on the line, heads included */
    atomic_ullong packed; /* bytes that compression saved */
};

/* --- the sender's; one for each sending thread --- */

/* AUTO: while the line is slower than packing, and only as long as it makes messages shorter. */
enum migrate_pack { MIGRATE_PACK_NONE, MIGRATE_PACK_ZSTD, MIGRATE_PACK_AUTO };

struct migrate_encoder {
    struct migrate_cache *cache; /* may be without slots */
    struct migrate_counts *counts;
    enum migrate_pack pack;
    u64 ns_per_kib; /* what a slow line takes: packing is worth it; 0: it is quick */
    u64 line_bytes, line_ns; /* of the line, until enough is known to judge it */
    u32 packed_page;         /* how long a page became in the message that was packed last */
    unsigned skip, idle;     /* AUTO: messages to send as they are; as many as the last time */
    bool zstd;               /* this message is to be packed */
    void *packer;            /* zstd's */
    unsigned count;
    u32 data_bytes;
    u8 meta[8 + 8 * MIGRATE_BATCH];
    u8 *stage, *packed;
    struct iovec iov[1 + MIGRATE_BATCH];
    unsigned niov;
};

int migrate_encoder_init(struct migrate_encoder *e, struct migrate_cache *cache,
                         struct migrate_counts *counts, enum migrate_pack pack, struct err *err);
void migrate_encoder_fini(struct migrate_encoder *e);
void migrate_encoder_begin(struct migrate_encoder *e);
/* The line may carry so much at most; 0: no limit. */
void migrate_encoder_limit(struct migrate_encoder *e, u64 bytes_per_s);
/* The line has taken so many bytes in so much time. */
void migrate_encoder_measure(struct migrate_encoder *e, u64 bytes, s64 took_ns);
/* `bytes` may be changing under us, and must stay mapped until the message is sent. At most
 * MIGRATE_BATCH times. again: the page was sent before. */
void migrate_encoder_add(struct migrate_encoder *e, u64 page, const u8 *bytes, bool again);
/* The message's body in e->iov[0..niov) and its flags; false: there is nothing to send. Valid until
 * the next begin. */
bool migrate_encoder_end(struct migrate_encoder *e, u8 *ret_flags, u32 *ret_len);

/* --- the receiver's; one for each receiving thread --- */

/* Where pages go. Shared by the threads. */
struct migrate_memory {
    u8 *ram;
    u64 pages;
    int memfd;           /* behind ram; -1: none */
    atomic_ullong *seen; /* bit per page: it has come once */
    /* Once the machine runs: pages go here instead, some in a row. 0 or -errno. */
    int (*supply)(void *opaque, u64 page, u64 count, const u8 *bytes);
    void *opaque;
};

struct migrate_decoder {
    void *unpacker; /* zstd's */
    u8 *stage;
};

int migrate_decoder_init(struct migrate_decoder *d, struct err *err);
void migrate_decoder_fini(struct migrate_decoder *d);
/* -EPROTO for what no sender of ours makes; memory holds part of the message then. */
int migrate_decoder_apply(struct migrate_decoder *d, const struct migrate_memory *m, u8 flags,
                          const u8 *body, u32 len, struct err *err);
/* Unpacks what packed `len` bytes to exactly want bytes. */
int migrate_unpack(struct migrate_decoder *d, const u8 *bytes, u32 len, u8 *ret, u32 want,
                   struct err *err);

bool migrate_is_zero(const u8 *page);

#endif
