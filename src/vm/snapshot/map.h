/*
 * The map of a snapshot's memory: which pages its memory file holds, with a checksum of each. Without compression the file
 * is RAM with holes: a page lies at its own offset. Compressed it is a row of chunks: what is there of 16 neighbour pages,
 * packed with zstd.
 *
 * In a full snapshot a page that is not there is zero. In an incremental one it is as in the parent, unless it is marked as
 * zero.
 *
 * As a stream (state/stream.h): "memory" (numbers), "present", "zero" (incremental only), "sums", "chunks" (compressed only).
 */
#ifndef VM_SNAPSHOT_MAP_H
#define VM_SNAPSHOT_MAP_H

#include "state/stream.h"

#define SNAPMAP_PAGE 4096ull
#define SNAPMAP_CHUNK 16 /* pages */

struct snapmap_chunk {
    u64 at; /* in the memory file */
    u32 len;
};

struct snapmap {
    u64 pages; /* of RAM; a multiple of 512 */
    bool incremental, compressed;
    u64 *present, *zero;         /* bits by page */
    struct snapmap_chunk *chunk; /* by page / SNAPMAP_CHUNK; compressed only */
    u32 *sum;                    /* by page, of those present; NULL in a loaded map, whose sums stay in the file: */
    u64 sums_at;                 /* where they lie, in the order of the pages present, u32 little-endian */
    u32 *before;                 /* by page / 64: how many are present before it */
};

/* Nothing is present; to be filled and saved. -ENOMEM */
int snapmap_init(struct snapmap *m, u64 ram_bytes, bool incremental, bool compressed,
                 struct err *err);
void snapmap_fini(struct snapmap *m); /* zeroed is fine */
int snapmap_save(const struct snapmap *m, const struct state_sink *to, struct err *err);
/* Hostile input. The sums are checked, but not kept: they are a thousandth of the memory's size, and a restore that made
 * room for them would take the longer the larger the machine is. ram_bytes: what the machine has; file_bytes: how long the memory file is. A file that ends before its last
 * page is refused by that page's offset. */
int snapmap_load(struct snapmap *ret_map, const struct state_source *from, u64 ram_bytes,
                 u64 file_bytes, struct err *err);

static inline bool snapmap_has(const u64 *bits, u64 page)
{
    return bits[page / 64] >> (page % 64) & 1;
}
static inline void snapmap_set(u64 *bits, u64 page, bool value)
{
    bits[page / 64] = (bits[page / 64] & ~BIT(page % 64)) | (value ? BIT(page % 64) : 0);
}
u64 snapmap_count(const u64 *bits, u64 pages);

/* The checksum of a page: CRC-32C over the CRC-32Cs of its four quarters, which a processor computes side by side. */
u32 snapmap_sum(const void *page);
bool snapmap_is_zero(const void *page);

#endif
