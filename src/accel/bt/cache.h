/*
 * The code cache: translated blocks, how they are found, linked to each other and dropped when their bytes change.
 * Light code. One lock (cache->lock) protects everything but the machine code itself, which other vCPUs may be running:
 * it is only patched with aligned stores of 4 or 8 bytes and never reused before all vCPUs have left it (cache_flush).
 */
#ifndef BT_CACHE_H
#define BT_CACHE_H

#include "accel/bt/vcpu.h"

struct link;

/* There are as many records of blocks and links as a guest's code has jumps: they name each other by where they are in the
 * arena, and host code by where it is in the cache, in 4 bytes each. 0 is nothing, in both. */
typedef u32 arena_ref;
typedef u32 code_ref;

/* Where a jump to a block comes from. What must be checked there is in front of the block, or, if it turned out to be
 * needed when the block was there already, in a piece of code of its own. */
enum entry_kind {
    ENTRY_NEAR,     /* a direct jump within the page: nothing; backward: events */
    ENTRY_FAR,      /* a direct jump from another page: the mapping */
    ENTRY_INDIRECT, /* from the jump table, host R14 = address: address, mode, mapping */
};

struct block {
    u64 vpc, gpa, gpa2;     /* guest address; where its bytes are (gpa2: page of the bytes past the page end, if crosses) */
    u32 mode;
    u16 dep_from, dep_to;   /* offsets in the first page: the bytes that its translation depends on */
    u16 bytes;
    u8 ninsns;
    bool crosses : 1, dead : 1;
    bool flags_dead : 1;    /* the flags need not survive its first instruction */
    bool relative : 1;      /* vpc is in a frame: the guest's address is vpc + P_SLIDE, see relative.c */
    code_ref indirect, far; /* entries, or 0: not made yet */
    code_ref poll, entry;   /* from a backward jump; from within the page */
    code_ref start, code_end; /* its host code but for entries that were made later */
    arena_ref hash_next, page_next[2]; /* blocks */
    arena_ref incoming, outgoing;      /* links */
    u32 map[];              /* per insn: host offset from start << 12 | guest offset from vpc */
};

/* A direct jump between blocks. */
struct link {
    u64 target;             /* guest address, or in the frame of `from` */
    code_ref jmp;           /* the rel32, 4-byte aligned */
    code_ref stub;          /* where it goes while not linked */
    arena_ref from, to;     /* blocks */
    arena_ref next_in, next_out;
};

/* What a stub needs to know of a special or careful instruction. */
struct site {
    struct insn in;
    u64 vpc;                /* linear address, or in its block's frame */
    u8 *next;               /* host code behind it in its block */
    sys_fn *fn;
    bool ends;              /* its block ends here */
    bool watched, tf;       /* look for debug traps behind it; it is being single-stepped */
    bool relative;          /* its block is */
};

/* The guest's address, of what runs now, for one in a block's or record's terms. */
static inline u64 guest_address(const struct cpu *c, u64 vpc, bool relative)
{
    return relative ? c->priv[P_SLIDE] + vpc : vpc;
}

/* Addresses whose code is made relative: where programs and libraries are placed at random. */
static inline bool relative_address(u64 vpc)
{
    return vpc >> 32 && !(vpc >> 47);
}

struct code_page {
    u64 gpn;
    arena_ref blocks[2];    /* [0]: blocks that start here, linked by page_next[0]; [1]: that end here (crosses) */
    u64 lines;              /* bit n: bytes 64n.. are translated */
    u32 data_writes;        /* stores that hit the page but no translated line, since it became code */
    u32 frame;              /* what relative blocks call this page's address; 0: has none yet */
    struct code_page *hash_next;
};

#define PAGE_IS_CODE 0x80
#define BLOCK_BUCKETS 65536
#define PAGE_BUCKETS 4096
#define CAREFUL_BUCKETS 4096
#define ARENA_FIRST 8 /* 0 is no record */

struct code_cache {
    u32 lock;
    u32 exclusive;          /* somebody wants all vCPUs outside */
    int fd;
    u8 *rw, *rx;            /* the same memory twice: never writable and executable through one mapping */
    u64 size, used, fixed;  /* bytes; fixed: trampolines at the start */
    u64 supplied;           /* by cache_supply(), of both mappings */
    u8 *arena;
    u64 arena_size, arena_used, arena_supplied;
    arena_ref *bucket;
    struct code_page **page;
    u8 *page_map;           /* per page of the memfd: PAGE_IS_CODE: has translations and is write-protected in gview;
                             * the rest counts how often its code was dropped for being written beside */
    u8 *lines;              /* per 64 bytes of the memfd: not 0: holds translated code, or is being translated */
    arena_ref *order;       /* blocks by host address */
    u32 norder, max_order;
    u32 npages;             /* that are marked */
    u8 *faults;             /* small counters by hash of the instruction's address */
    u64 *careful;           /* set of gpa of instructions that often miss: translated with slow accesses in line */
    u8 *tramp[STUBS];       /* RX addresses of jumps to the stubs */
    u64 stat_flushes, stat_invalidated;
};

/* A record from its reference and back; an executable address from its reference and back. */
static inline void *arena_at(const struct code_cache *k, u64 ref)
{
    return ref ? k->arena + ref : NULL;
}

static inline struct block *block_at_ref(const struct code_cache *k, arena_ref ref)
{
    return arena_at(k, ref);
}

static inline arena_ref arena_ref_of(const struct code_cache *k, const void *record)
{
    return (arena_ref)((const u8 *)record - k->arena);
}

static inline u8 *code_at(const struct code_cache *k, code_ref ref)
{
    return k->rx + ref;
}

static inline code_ref code_ref_of(const struct code_cache *k, const u8 *rx)
{
    return (code_ref)(rx - k->rx);
}

int cache_init(struct bt *bt, u64 size, struct err *err);
void cache_fini(struct bt *bt);
/* Has the host supply the memory that the next blocks take, many pages at a time: in faults, one for each page and each
 * mapping of it, they cost a multiple. With the lock, or before guest code. cache_warm(): of what is looked up in, too. */
void cache_supply(struct bt *bt);
void cache_warm(struct bt *bt);

static inline s64 memfd_page(const struct bt *bt, u64 gpa)
{
    const struct gmem_slot *s = ram_slot(bt->m->ram, gpa);
    return s ? (s64)((s->offset + gpa - s->gpa) >> 12) : -1;
}

static inline bool code_page(const struct bt *bt, u64 gpa)
{
    s64 n = memfd_page(bt, gpa);
    return n >= 0 && (((volatile u8 *)bt->cache->page_map)[n] & PAGE_IS_CODE);
}

void cache_lock(struct bt *bt); /* any thread, and signal handlers; held for short */
void cache_unlock(struct bt *bt);
/* vCPU enters or leaves translated code and all that serves it. Blocks, links and sites that it has found stay as long as
 * it is inside. */
void cache_enter(struct bt *bt, struct vcpu *v);
void cache_leave(struct bt *bt, struct vcpu *v);
/* Any thread but a vCPU's that is inside: returns when all vCPUs are outside, where they stay until cache_let_go(). The
 * caller holds no lock that a vCPU may wait for. */
void cache_stop_all(struct bt *bt);
void cache_let_go(struct bt *bt);

/* All below: with the lock held. */
#define ANY_GPA (~0ull)
/* gpa2: where the second page of a block that crosses must be, or ANY_GPA. */
struct block *block_find(struct bt *bt, u64 gpa, u64 gpa2, u64 vpc, u32 mode);
struct block *block_of_host(struct bt *bt, const u8 *rx);  /* the block whose code holds rx, or NULL */
void block_add(struct bt *bt, struct block *b);
/* Patches l to jump to `to`, which has the entry that link_kind() asks for; indirect: by way of `bridge`. */
void link_set(struct bt *bt, struct link *l, struct block *to, code_ref bridge);
/* The jump out of one of its block's windows, which goes to `stub` while it is not linked, leads to the twin `to` if the
 * two lie in one page. */
void link_twin(struct bt *bt, code_ref jmp, code_ref stub, struct block *to);
enum entry_kind link_kind(const struct code_cache *k, const struct link *l, const struct block *to);

static inline struct block *link_from(const struct code_cache *k, const struct link *l)
{
    return arena_at(k, l->from);
}

static inline bool link_in_page(const struct code_cache *k, const struct link *l)
{
    return (l->target >> 12) == (link_from(k, l)->vpc >> 12);
}

static inline bool block_has_entry(const struct block *b, enum entry_kind kind)
{
    return kind == ENTRY_NEAR || (kind == ENTRY_FAR ? b->far : b->indirect);
}
void *arena_alloc(struct bt *bt, u64 bytes);               /* zeroed, 8-byte aligned; never fails: callers make room first */
bool cache_has_room(struct bt *bt);
/* Marks the page of gpa as code, write-protecting it, before its bytes are read. */
struct code_page *page_mark(struct bt *bt, u64 gpa);
/* The lines of the page hold code, all of them while it is translated from (false), then those that do (true). */
void page_lines(struct bt *bt, u64 gpa, bool known);
bool careful_get(struct bt *bt, u64 gpa);
void careful_add(struct bt *bt, u64 gpa);

/* Without the lock. [gpa, gpa+len) was written: drop what was translated from it. Any thread, whatever it holds. */
void code_invalidate(struct bt *bt, u64 gpa, u64 len);
static inline void code_written(struct cpu *c, u64 gpa, u64 len)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (code_page(c->vcpu->bt, gpa))
        code_invalidate(c->vcpu->bt, gpa, len);
}

/* Without the lock, by a vCPU that is outside: drops all code if there is no room, once all vCPUs are outside. */
void cache_flush(struct bt *bt);

/* A host fault in block b at the guest instruction `offset`: after some of them its accesses become careful ones. */
void cache_note_fault(struct bt *bt, struct block *b, unsigned offset);

/* translate.c (heavy): translates the block at vpc, whose first byte is at gpa, for a jump from `kind`. Lock held, and there is room.
 * Returns NULL when the fetch of the block's very first instruction crosses into a page that is not mapped: then
 * c->exc is set up and the caller raises it. */
struct block *translate(struct cpu *c, u64 vpc, u64 gpa, enum entry_kind kind);
/* Adds an entry that b does not have. Heavy, lock held, and there is room. */
void translate_entry(struct cpu *c, struct block *b, enum entry_kind kind);
/* Code for a link to the indirect entry of `to`. Heavy, lock held, and there is room. */
code_ref translate_bridge(struct cpu *c, const struct link *l, struct block *to);
/* relative.c: no slide; the frame's page for a block at vpc, and what must be set before a relative block at vpc is entered. */
void relative_reset(struct cpu *c);
u32 relative_frame(struct cpu *c, struct code_page *p, u64 vpc);
void relative_enter(struct cpu *c, const struct block *b, u64 vpc);

/* device.c: physical addresses that are not RAM */
u64 mem_device_read(struct cpu *c, u64 gpa, unsigned size);
void mem_device_write(struct cpu *c, u64 gpa, unsigned size, u64 value);

#endif
