/*
 * The messages of a migration: a fixed head, then a body whose length the head says and the type
 * bounds.
 *
 *   head   u16 magic, u8 type, u8 flags, u32 body length, u32 sequence number, u32 0
 *
 * All numbers are little-endian. Sequence numbers count the messages of one direction of one
 * connection, so what was lost or doubled by whoever carries the bytes is noticed. Everything read
 * is hostile until its reader has looked at it; a head that its type does not allow ends the
 * connection before a byte of its body is read.
 */
#ifndef VM_MIGRATE_WIRE_H
#define VM_MIGRATE_WIRE_H

#include "base/err.h"

#define MIGRATE_VERSION 1
#define MIGRATE_HEAD_BYTES 16
#define MIGRATE_TOKEN_BYTES 16
#define MIGRATE_BATCH 64 /* pages, or descriptors, in one message */
#define MIGRATE_PAGE_BYTES 4096u
/* The longest body; a reader has one buffer of this size for each connection. */
#define MIGRATE_BODY_MAX (MiB + 64 * KiB)

enum migrate_type {
    /* to the destination */
    MIGRATE_HELLO = 1, /* struct migrate_hello, the machine's description (vm/identity.h), sizes.h */
    MIGRATE_JOIN,      /* struct migrate_join: one more connection of a migration */
    MIGRATE_QUERY,     /* a token: did that machine ever run here? It will not, once we said no */
    MIGRATE_PAGES,     /* page.h */
    MIGRATE_BLOCKS,    /* u32 disk, u32 flags, u64 offset, u64 len, bytes (none: zeros) */
    MIGRATE_FENCE,     /* u32 number: all before it has been sent */
    MIGRATE_STATE,     /* a piece of the saved state; flag MIGRATE_LAST: it ends here */
    MIGRATE_ABSENT,    /* u64 first word, words: bits of pages that will come after GO */
    MIGRATE_GO,        /* the machine is the destination's from now on */
    MIGRATE_CANCEL,    /* text: why; the source keeps the machine */
    /* to the source */
    MIGRATE_FIT,      /* text: what the destination lacks, a line each; empty: nothing */
    MIGRATE_FENCED,   /* u32 number: every connection has come past that fence */
    MIGRATE_READY,    /* the state is loaded; waits for GO */
    MIGRATE_RUNNING,  /* it runs here */
    MIGRATE_NEED,     /* u64 page, up to MIGRATE_BATCH of them: somebody waits for these */
    MIGRATE_COMPLETE, /* every page has come */
    MIGRATE_FAILED,   /* text: why it will never run here */
    MIGRATE_ANSWER,   /* u8: 1 it ran here, 0 it never did and never will, 2 unknown token */
    MIGRATE_LACK,     /* u64 first word, words: after a reconnect, pages still missing */
    /* to the destination */
    MIGRATE_BYE,    /* the source has heard COMPLETE: it will ask nothing more */
    MIGRATE_FRAMES, /* frames.h: what came for the machine at its old place, after GO */
    MIGRATE_TYPES
};

enum migrate_side { MIGRATE_TO_DESTINATION = 1, MIGRATE_TO_SOURCE = 2 };

enum {
    MIGRATE_LAST = 1, /* of STATE, ABSENT, LACK: nothing more follows */
    MIGRATE_ZSTD = 2, /* of PAGES, BLOCKS, STATE: the bytes are compressed */
};

struct migrate_head {
    enum migrate_type type;
    u8 flags;
    u32 len, sequence;
};

const char *migrate_type_name(enum migrate_type type);
void migrate_head_put(const struct migrate_head *head, u8 ret_bytes[MIGRATE_HEAD_BYTES]);
/* -EPROTO says what is wrong: not ours, no such type, wrong direction, too long, out of sequence. */
int migrate_head_get(const u8 bytes[MIGRATE_HEAD_BYTES], enum migrate_side side, u32 sequence,
                     struct migrate_head *ret_head, struct err *err);

/* The fixed part of HELLO. */
struct migrate_hello {
    u32 version;
    u8 token[MIGRATE_TOKEN_BYTES]; /* random: names this migration for JOIN and QUERY */
    u32 connections;               /* this one included */
    u32 flags;                     /* MIGRATE_HELLO_* */
    u64 ram_bytes;
    u32 config_bytes; /* of description and sizes, behind it */
};

enum {
    MIGRATE_HELLO_DRY = 1,    /* say what is lacking, and end */
    MIGRATE_HELLO_DISKS = 2,  /* disks come along; else both sides see the same */
    MIGRATE_HELLO_RESUME = 4, /* of a post-copy whose line broke */
    MIGRATE_HELLO_FRAMES =
        8, /* FRAMES may come; who does not know them must not take the machine */
};

#define MIGRATE_HELLO_BYTES (4 + MIGRATE_TOKEN_BYTES + 4 + 4 + 8 + 4)
#define MIGRATE_JOIN_BYTES (MIGRATE_TOKEN_BYTES + 4)
#define MIGRATE_CONFIG_MAX (320u * KiB)
#define MIGRATE_CONNECTIONS 16

void migrate_hello_put(const struct migrate_hello *h, u8 ret_bytes[MIGRATE_HELLO_BYTES]);
/* body, len: the whole message; ret_config points into it, ret_hello->config_bytes long. */
int migrate_hello_get(const u8 *body, u32 len, struct migrate_hello *ret_hello,
                      const u8 **ret_config, struct err *err);

/* Little-endian numbers in messages. */
static inline void migrate_put(u8 *to, u64 value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (u8)(value >> (8 * i));
}

static inline u64 migrate_get(const u8 *from, unsigned bytes)
{
    u64 value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value |= (u64)from[i] << (8 * i);
    return value;
}

#endif
