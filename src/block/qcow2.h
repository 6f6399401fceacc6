/*
 * What the files of the qcow2 format share. The format: QEMU, docs/interop/qcow2.txt; its words are used here.
 *
 *   qcow2.c           opening and closing, the table of operations
 *   qcow2_header.c    header and extensions, read as hostile bytes, and written
 *   qcow2_table.c     the cache of L2 tables and refcount blocks
 *   qcow2_refcount.c  reference counts, finding and freeing clusters
 *   qcow2_commit.c    the order in which metadata reaches the medium
 *   qcow2_map.c       guest offset to cluster
 *   qcow2_write.c     new clusters, zero, discard
 *   qcow2_unpack.c    compressed clusters, read
 *   qcow2_pack.c      and made
 *   qcow2_resize.c    another size; names of the backing file
 *   qcow2_check.c     finding damage and mending it
 *   qcow2_counts.c    refcounts written anew as a whole
 *   qcow2_create.c    new images
 *   qcow2_snapshot.c  internal snapshots, to be shown
 */
#ifndef BLOCK_QCOW2_H
#define BLOCK_QCOW2_H

#include "block/format.h"
#include <endian.h>
#include <pthread.h>
#include <string.h>

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_V2_HEADER_BYTES 72
#define QCOW2_V3_HEADER_BYTES 104
#define QCOW2_L1_BYTES_MAX (32 * MiB)
#define QCOW2_REFTABLE_BYTES_MAX (8 * MiB)
#define QCOW2_SNAPSHOTS_MAX 65536
#define QCOW2_CLUSTERS_MAX BIT(36) /* of one file; what we keep a bit for must fit into memory */

/* incompatible_features */
#define QCOW2_DIRTY BIT(0)
#define QCOW2_CORRUPT BIT(1)
#define QCOW2_DATA_FILE BIT(2)
#define QCOW2_COMPRESSION BIT(3)
#define QCOW2_EXTENDED_L2 BIT(4)
#define QCOW2_INCOMPAT_KNOWN (QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_DATA_FILE | QCOW2_COMPRESSION)
/* compatible_features */
#define QCOW2_LAZY BIT(0)
/* autoclear_features */
#define QCOW2_BITMAPS BIT(0)
#define QCOW2_DATA_RAW BIT(1)

/* L1 and L2 entries */
#define QCOW2_COPIED BIT(63) /* refcount is exactly one: may be written in place */
#define QCOW2_PACKED BIT(62)
#define QCOW2_ZERO BIT(0)
#define QCOW2_HOST 0x00fffffffffffe00ull
#define QCOW2_L2_RESERVED (~(QCOW2_COPIED | QCOW2_PACKED | QCOW2_HOST | QCOW2_ZERO))

/* Where fields are in the header */
enum {
    QCOW2_AT_BACKING = 8,
    QCOW2_AT_SIZE = 24,
    QCOW2_AT_L1_ENTRIES = 36, /* u32; the L1 table's offset, u64, follows */
    QCOW2_AT_REFTABLE = 48,   /* u64; its clusters, u32, follow */
    QCOW2_AT_SNAPSHOTS = 60,  /* u32; the table's offset, u64, follows */
    QCOW2_AT_INCOMPAT = 72,
    QCOW2_AT_COMPAT = 80,
    QCOW2_AT_AUTOCLEAR = 88,
};

enum qcow2_compression { QCOW2_ZLIB, QCOW2_ZSTD };

/* The first four bytes of a file: is it an image, or a raw disk that looks like one? */
static inline bool qcow2_begins(const u8 start[4])
{
    return start[0] == 'Q' && start[1] == 'F' && start[2] == 'I' && start[3] == 0xfb;
}

struct qcow2_header {
    u32 version, cluster_bits, refcount_order, header_len;
    u64 size, incompat, compat, autoclear;
    u64 l1_offset, reftable_offset, snapshots_offset;
    u32 l1_entries, reftable_clusters, snapshots;
    enum qcow2_compression compression;
    /* Bitmaps extension, 0 without one */
    u32 bitmaps;
    u64 bitmaps_offset, bitmaps_bytes;
};

/* One L2 table or refcount block. */
struct qcow2_table {
    u64 host;
    u32 index;                /* in the L1 or the refcount table */
    bool fresh;               /* an L2 table that no L1 entry on the medium points to */
    u32 dirty_from, dirty_to; /* bytes that are newer than the file's; from >= to: none */
    struct qcow2_table *newer, *older;
    u64 entries[]; /* big endian, as in the file; a cluster of them */
};

struct qcow2_cache {
    struct qcow2_table **slots; /* by index */
    u32 nslots, count, limit;
    struct qcow2_table *newest, *oldest;
    u32 dirty; /* tables that are */
};

/* Clusters that nothing in memory refers to any more, but something on the medium may. */
struct qcow2_freed {
    u64 cluster, count;
};

struct qcow2 {
    struct block_format fmt;
    struct qcow2_header h;
    u32 l2_bits; /* log2 of the entries of an L2 table */
    u32 rb_bits; /* log2 of the counts of a refcount block */

    pthread_mutex_t lock; /* protects all below, and h once open */
    u64 *l1;              /* host order, h.l1_entries of them */
    u32 l1_dirty_from, l1_dirty_to;
    u64 *reftable; /* host order */
    u32 reftable_entries, reftable_dirty_from, reftable_dirty_to;
    bool reftable_moved; /* h says where it will be, the medium still says old_reftable_* */
    u64 old_reftable_offset;
    u32 old_reftable_clusters;
    struct qcow2_cache l2s, blocks;
    struct qcow2_freed *freed;
    u32 nfreed, freed_room;
    u64 first_free;    /* no cluster below is free */
    u64 packed_at;     /* the next compressed bytes go there, 0: into a new cluster */
    u8 *metadata;      /* a bit for each cluster that holds metadata: never the guest's */
    u64 metadata_bits; /* clusters it covers */
    bool changed;      /* the header says that we are writing */
};

static inline struct qcow2 *qcow2_of(struct block_format *f)
{
    return CONTAINER_OF(f, struct qcow2, fmt);
}

static inline u64 qcow2_cluster(const struct qcow2 *q)
{
    return 1ull << q->h.cluster_bits;
}

/* Guest bytes that one L2 table covers. */
static inline u64 qcow2_l2_span(const struct qcow2 *q)
{
    return 1ull << (q->h.cluster_bits + q->l2_bits);
}

/* --- qcow2_header.c --- */

/* Fills *h, and the names in *fmt, which stay to be freed also on failure. Fails on all that makes
 * the header or what it points to unusable. */
int qcow2_header_read(struct block_file *file, struct qcow2_header *h, struct block_format *fmt,
                      struct err *err);
/* The header with all its extensions as bytes of one cluster. Extensions we do not know are lost. */
int qcow2_header_make(const struct qcow2_header *h, const struct block_format *fmt, u8 *cluster,
                      struct err *err);
/* All but the name of the backing file, which is at name_at (or behind it, 0), in one sector: such a write arrives or does
 * not. Without what is only for people. */
int qcow2_header_sector(const struct qcow2_header *h, const struct block_format *fmt, u64 name_at,
                        u8 sector[512], struct err *err);
int qcow2_header_put64(struct qcow2 *q, u32 at, u64 value, struct err *err);
/* The u32 at `at` and the u64 behind it, or the other way round when wide_first, in one write. */
int qcow2_header_put96(struct qcow2 *q, u32 at, u64 wide, u32 narrow, bool wide_first,
                       struct err *err);

/* Not whole: the file has no magic number, so that nobody takes it for an image while it is written to. Whole: it has it
 * again, after everything else is there, and nothing can be written any more. */
int qcow2_header_whole(struct block_format *f, bool whole, struct err *err);

/* --- qcow2_table.c --- */

int qcow2_cache_init(struct qcow2_cache *c, u32 nslots, u64 cluster_bytes);
void qcow2_cache_fini(struct qcow2_cache *c);
/* Another number of slots, not fewer. */
int qcow2_cache_grow(struct qcow2_cache *c, u32 nslots);
/* The table at host, cached. Pointers stay good until the next get or put of the same cache. */
int qcow2_table_get(struct qcow2 *q, struct qcow2_cache *c, u32 index, u64 host,
                    struct qcow2_table **ret_table, struct err *err);
/* A table of zeros that is not in the file yet. */
int qcow2_table_put(struct qcow2 *q, struct qcow2_cache *c, u32 index, u64 host,
                    struct qcow2_table **ret_table, struct err *err);
void qcow2_table_drop(struct qcow2_cache *c, u32 index);
void qcow2_table_dirty(struct qcow2_cache *c, struct qcow2_table *t, u32 from, u32 to);
int qcow2_table_write(struct qcow2 *q, struct qcow2_cache *c, struct qcow2_table *t,
                      struct err *err);

/* --- qcow2_refcount.c --- */

u64 qcow2_count_get(const void *block, u32 order, u64 index);
void qcow2_count_set(void *block, u32 order, u64 index, u64 value);
int qcow2_refcount(struct qcow2 *q, u64 cluster, u64 *ret_count, struct err *err);
int qcow2_refcount_set(struct qcow2 *q, u64 cluster, u64 count, struct err *err);
int qcow2_refcount_add(struct qcow2 *q, u64 cluster, int delta, struct err *err);
/* n clusters side by side, each with refcount one. */
int qcow2_alloc(struct qcow2 *q, u64 n, u64 *ret_host, struct err *err);
/* For clusters that the medium never referred to. */
void qcow2_unalloc(struct qcow2 *q, u64 host, u64 n);
/* The clusters lose one reference once nothing on the medium can refer to them. */
void qcow2_release(struct qcow2 *q, u64 cluster, u64 n);
void qcow2_release_entry(struct qcow2 *q, u64 l2_entry);
/* Metadata bits. Marking what is marked already fails: two things share a cluster. */
int qcow2_metadata_mark(struct qcow2 *q, u64 host, u64 bytes, const char *what, struct err *err);
void qcow2_metadata_unmark(struct qcow2 *q, u64 host, u64 bytes);
bool qcow2_metadata_at(const struct qcow2 *q, u64 host, u64 bytes);

/* --- qcow2_commit.c --- */

/* Before the first change: features that a writer must clear or set. */
int qcow2_begin(struct qcow2 *q, struct err *err);
/* Everything in memory reaches the file, in an order that is safe; see there. */
int qcow2_commit(struct qcow2 *q, struct err *err);
/* Refcount blocks and table alone; safe at any time. */
int qcow2_write_counts(struct qcow2 *q, struct err *err);
int qcow2_flush_locked(struct qcow2 *q, struct err *err);
/* After a commit: counts reach the file too, and the dirty bit goes. */
int qcow2_settle(struct qcow2 *q, struct err *err);
/* Sets the corrupt bit, after which nobody writes to the image before it was checked. */
int qcow2_corrupt(struct qcow2 *q, struct err *err);
/* file_sync with a message */
int qcow2_sync(struct qcow2 *q, struct err *err);

/* --- qcow2_map.c --- */

struct qcow2_packed {
    u64 host;
    u32 len;
};
struct qcow2_packed qcow2_packed(const struct qcow2_header *h, u64 entry);
/* Checks an L2 entry; the message names what is wrong. */
int qcow2_entry_check(const struct qcow2 *q, u64 entry, struct err *err);
int qcow2_l1_check(const struct qcow2 *q, u64 entry, struct err *err);
int qcow2_map(struct block_format *f, u64 offset, u64 len, struct block_extent *ret_extent,
              struct err *err);

bool qcow2_ready(struct block_format *f, u64 offset);

/* --- qcow2_write.c --- */

/* May it be written to? The header says so then. */
int qcow2_usable(struct qcow2 *q, struct err *err);
/* With the lock held: another L2 entry; what it led to loses a reference. */
int qcow2_entry_set(struct qcow2 *q, u64 offset, u64 entry, struct err *err);
int qcow2_room(struct block_format *f, u64 offset, u64 len, struct block_room *ret_room,
               struct err *err);
int qcow2_link(struct block_format *f, const struct block_room *r, struct err *err);
void qcow2_drop(struct block_format *f, const struct block_room *r);
int qcow2_zero(struct block_format *f, u64 offset, u64 len, bool unmap, struct err *err);
/* With the lock held. full: also where that lets a backing image show through. */
int qcow2_zero_locked(struct qcow2 *q, u64 offset, u64 len, bool unmap, bool full, struct err *err);

/* --- qcow2_unpack.c --- */

int qcow2_unpack(struct block_format *f, const struct block_extent *e, void *buf, struct err *err);

/* --- qcow2_resize.c --- */

int qcow2_resize(struct block_format *f, u64 size, struct err *err);
/* Other names of the backing file, NULL: none. Flushes first. */
int qcow2_set_backing(struct block_format *f, const char *name, const char *format,
                      struct err *err);

/* The image itself holds nothing any more: what is below shows everywhere. */
int qcow2_empty(struct block_format *f, struct err *err);

/* --- qcow2_create.c --- */

struct qcow2_create {
    u64 size;
    u32 version;        /* 2 or 3 */
    u32 cluster_bits;   /* 9 to 21 */
    u32 refcount_order; /* 0 to 6; 4 in version 2 */
    bool lazy_refcounts;
    enum qcow2_compression compression; /* zstd: version 3 */
    const char *backing_name, *backing_format;
};
/* Can there be such an image? */
int qcow2_create_check(const struct qcow2_create *o, struct err *err);
/* Writes an empty image into the file, which is empty. */
int qcow2_create(struct block_file *file, const struct qcow2_create *o, struct err *err);

/* --- qcow2_snapshot.c --- */

struct qcow2_snapshot {
    char id[65536], name[65536]; /* foreign text */
    u32 seconds, nanoseconds;    /* when it was made, since 1970 */
    u64 clock_ns;                /* how long the guest had run */
    u64 state_bytes, icount;
    bool has_icount;
    bool has_size; /* it says how large the disk was */
};

int qcow2_snapshots(struct block_format *f,
                    void (*tell)(void *opaque, unsigned n, const struct qcow2_snapshot *s),
                    void *opaque, struct err *err);

/* --- qcow2_check.c --- */

enum qcow2_repair { QCOW2_REPAIR_NONE, QCOW2_REPAIR_LEAKS, QCOW2_REPAIR_ALL };

struct qcow2_check {
    u64 corruptions, leaks; /* found, and not mended */
    u64 corruptions_fixed, leaks_fixed;
    u64 clusters, allocated, packed; /* of the guest's disk */
    u64 fragmented;                  /* not behind the one before */
    u64 end;                         /* bytes of the file that are in use */
    /* Told of each fault; may be NULL. */
    void (*report)(struct qcow2_check *c, bool leak, const char *text);
    void *opaque;
};
/* Fails only when it cannot look, or cannot write what was asked. */
int qcow2_check(struct block_format *f, enum qcow2_repair repair, struct qcow2_check *c,
                struct err *err);

/* --- qcow2_counts.c --- */

struct qcow2_counts {
    struct block_file *file;
    u32 cluster_bits, order;
    const u16 *counts; /* of each of the first n clusters */
    u64 n;
};
/* Writes a refcount table and blocks from cluster n on, which count themselves too. */
int qcow2_counts_write(const struct qcow2_counts *s, u64 *ret_offset, u32 *ret_clusters,
                       struct err *err);
/* The same for an open image, whose header then points there. */
int qcow2_rebuild(struct qcow2 *q, const u16 *counts, u64 n, struct err *err);

#endif
