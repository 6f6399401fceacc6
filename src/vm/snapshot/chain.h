/*
 * The memory of a snapshot and of those it was taken on, as one: where each page is, and its bytes. The source of absent
 * pages (mem/lazy.h) of a machine that is restored.
 */
#ifndef VM_SNAPSHOT_CHAIN_H
#define VM_SNAPSHOT_CHAIN_H

#include "mem/lazy.h"
#include "vm/snapshot/map.h"

#define SNAPCHAIN_MAX 64

struct snapchain_layer {
    int memory, map_fd; /* the files; owned by the chain */
    struct snapmap map;
};

struct snapchain {
    char name[64];                               /* for messages */
    struct snapchain_layer layer[SNAPCHAIN_MAX]; /* the snapshot itself first */
    unsigned nlayers;
    struct gmem *ram; /* whose pages these are; NULL: nobody's */
    /* Told of each page that is fetched, in the thread that fetches it; atomic, NULL: nobody is. */
    void (*fetched)(void *opaque, u64 page);
    void *fetched_opaque;
};

struct snapchain *snapchain_new(const char *name, struct err *err);
void snapchain_free(struct snapchain *c); /* NULL is fine */
/* Adds the next older snapshot: its memory file and its map, from the beginning of map_fd. Both are taken, on failure too. */
int snapchain_add(struct snapchain *c, int memory_fd, int map_fd, u64 ram_bytes, struct err *err);
/* All are added: finds out where each page is. -EBADMSG: the oldest is no full one, or another is. */
int snapchain_ready(struct snapchain *c, struct err *err);
/* Bits of pages that are not zero, for lazy_begin(): pages / 8 bytes, zeroed. */
void snapchain_bits(const struct snapchain *c, u64 *ret_bits);
/* Who has the page: 0 nobody (it is zero), else layer + 1. */
unsigned snapchain_who(const struct snapchain *c, u64 page);
/* The checksums of the 64 pages from 64 * word on, 0 of those that nobody has. -EIO, -errno */
int snapchain_sums(const struct snapchain *c, u64 word, u32 ret_sums[64]);
/* The bytes of a page; -EBADMSG when its checksum is wrong, -EIO when they cannot be read. Any thread. */
int snapchain_page(struct snapchain *c, u64 page, void *dst4096);
/* struct lazy_source.fetch; opaque is the chain. */
int snapchain_fetch(void *opaque, u64 page, void *dst4096);

#endif
