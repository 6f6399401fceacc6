/*
 * Reference counts of clusters: reading and changing them, finding free clusters, giving back used ones.
 * qcow2.txt, "Host cluster management".
 *
 * Invariants:
 * 1. A count rises in memory before anything refers to the cluster, and falls only after nothing on the medium does
 *    (qcow2_release, then qcow2_commit). A refcount block may therefore be written at any time: at worst it leaks.
 * 2. A cluster that holds metadata is never handed out again, whatever its count claims: an image whose counts are
 *    wrong is marked corrupt instead of being destroyed.
 *
 * With the lock of the image held.
 */
#include "block/qcow2.h"
#include <errno.h>
#include <stdlib.h>

u64 qcow2_count_get(const void *block, u32 order, u64 index)
{
    const u8 *b = block;

    switch (order) {
    case 4:
        return be16toh(((const u16 *)block)[index]);
    case 5:
        return be32toh(((const u32 *)block)[index]);
    case 6:
        return be64toh(((const u64 *)block)[index]);
    default: { /* 1 to 8 bits, the first in the lowest bits of a byte */
        u64 bit = index << order;

        return (b[bit >> 3] >> (bit & 7)) & ((1u << (1u << order)) - 1);
    }
    }
}

void qcow2_count_set(void *block, u32 order, u64 index, u64 value)
{
    u8 *b = block;

    switch (order) {
    case 4:
        ((u16 *)block)[index] = htobe16((u16)value);
        break;
    case 5:
        ((u32 *)block)[index] = htobe32((u32)value);
        break;
    case 6:
        ((u64 *)block)[index] = htobe64(value);
        break;
    default: {
        u64 bit = index << order;
        u8 mask = (u8)(((1u << (1u << order)) - 1) << (bit & 7));

        b[bit >> 3] = (u8)((b[bit >> 3] & ~mask) | (value << (bit & 7)));
        break;
    }
    }
}

/* --- metadata bits --- */

bool qcow2_metadata_at(const struct qcow2 *q, u64 host, u64 bytes)
{
    u64 first = host >> q->h.cluster_bits, end = (host + bytes - 1) >> q->h.cluster_bits;

    for (u64 c = first; c <= end && c < q->metadata_bits; c++)
        if (q->metadata[c / 8] & BIT(c % 8))
            return true;
    return false;
}

static int metadata_grow(struct qcow2 *q, u64 clusters)
{
    u64 bits = ALIGN_UP(clusters + clusters / 4, 64u);
    u8 *grown;

    if (clusters <= q->metadata_bits)
        return 0;
    grown = realloc(q->metadata, bits / 8);
    if (!grown)
        return -ENOMEM;
    memset(grown + q->metadata_bits / 8, 0, (bits - q->metadata_bits) / 8);
    q->metadata = grown;
    q->metadata_bits = bits;
    return 0;
}

int qcow2_metadata_mark(struct qcow2 *q, u64 host, u64 bytes, const char *what, struct err *err)
{
    u64 first = host >> q->h.cluster_bits, end = (host + bytes - 1) >> q->h.cluster_bits;

    if (!bytes || q->fmt.readonly)
        return 0;
    if (qcow2_metadata_at(q, host, bytes))
        return err_set(err, EIO,
                       "%s: qcow2 %s at 0x%llx overlaps other metadata; see trapeze disk check",
                       q->fmt.file->name, what, (unsigned long long)host);
    if (end >= QCOW2_CLUSTERS_MAX || metadata_grow(q, end + 1))
        return err_set(err, ENOMEM, "%s: no memory", q->fmt.file->name);
    for (u64 c = first; c <= end; c++)
        q->metadata[c / 8] |= (u8)BIT(c % 8);
    return 0;
}

void qcow2_metadata_unmark(struct qcow2 *q, u64 host, u64 bytes)
{
    u64 first = host >> q->h.cluster_bits, end = (host + bytes - 1) >> q->h.cluster_bits;

    for (u64 c = first; c <= end && c < q->metadata_bits; c++)
        q->metadata[c / 8] &= (u8)~BIT(c % 8);
}

/* --- counts --- */

static int block_at(struct qcow2 *q, u64 index, struct qcow2_table **ret_block, struct err *err)
{
    u64 host = q->reftable[index];

    if (host & (qcow2_cluster(q) - 1))
        return err_set(err, EIO, "%s: qcow2 refcount table entry %llu is damaged (0x%llx)",
                       q->fmt.file->name, (unsigned long long)index, (unsigned long long)host);
    return qcow2_table_get(q, &q->blocks, (u32)index, host, ret_block, err);
}

int qcow2_refcount(struct qcow2 *q, u64 cluster, u64 *ret_count, struct err *err)
{
    u64 index = cluster >> q->rb_bits;
    struct qcow2_table *block;
    int rc;

    if (index >= q->reftable_entries || !q->reftable[index]) {
        *ret_count = 0;
        return 0;
    }
    rc = block_at(q, index, &block, err);
    if (!rc)
        *ret_count =
            qcow2_count_get(block->entries, q->h.refcount_order, cluster & (BIT(q->rb_bits) - 1));
    return rc;
}

/* The first of n free clusters side by side; does not take them. */
static int find_free(struct qcow2 *q, u64 n, u64 *ret_cluster, struct err *err)
{
    u64 run = 0, c = q->first_free, count;

    for (bool only_used = true; run < n; c++) {
        int rc = qcow2_refcount(q, c, &count, err);

        if (rc)
            return rc;
        if (c >= QCOW2_CLUSTERS_MAX)
            return err_set(err, EFBIG, "%s: the image is full", q->fmt.file->name);
        only_used = only_used && count;
        if (only_used)
            q->first_free = c + 1;
        run = count ? 0 : run + 1;
    }
    *ret_cluster = c - n;
    if (!qcow2_metadata_at(q, (c - n) << q->h.cluster_bits, n << q->h.cluster_bits))
        return 0;
    qcow2_corrupt(q, NULL);
    return err_set(err, EIO,
                   "%s: qcow2 refcounts call metadata at 0x%llx free; marked corrupt, "
                   "mend it with trapeze disk check --repair all",
                   q->fmt.file->name, (unsigned long long)(c - n) << q->h.cluster_bits);
}

static int block_for(struct qcow2 *q, u64 index, struct err *err);

/* A larger refcount table: in memory at once, in the file with the next commit. */
static int grow_reftable(struct qcow2 *q, u64 index, struct err *err)
{
    u64 bytes = ALIGN_UP((index + 1 + index / 4) * 8, qcow2_cluster(q)), host;
    u32 entries = (u32)(bytes / 8);
    u64 *table;
    int rc;

    bytes = MIN(bytes, QCOW2_REFTABLE_BYTES_MAX);
    entries = (u32)(bytes / 8);
    if (index >= entries)
        return err_set(err, EFBIG, "%s: the image is full: its refcount table cannot grow",
                       q->fmt.file->name);
    if (q->reftable_moved) { /* the one in the file is still the one before; settle that first */
        rc = qcow2_commit(q, err);
        if (rc)
            return rc;
    }
    table = realloc(q->reftable, bytes);
    if (!table || qcow2_cache_grow(&q->blocks, entries)) {
        q->reftable = table ? table : q->reftable;
        return err_set(err, ENOMEM, "%s: no memory", q->fmt.file->name);
    }
    memset(table + q->reftable_entries, 0, bytes - q->reftable_entries * 8ull);
    q->reftable = table;
    q->reftable_entries = entries;
    rc = qcow2_alloc(q, bytes >> q->h.cluster_bits, &host, err);
    if (!rc)
        rc = qcow2_metadata_mark(q, host, bytes, "refcount table", err);
    if (rc) /* what lies beyond the old one must not be used: it is nowhere in the file */
        q->reftable_entries = q->h.reftable_clusters << (q->h.cluster_bits - 3);
    if (rc)
        return rc;
    q->old_reftable_offset = q->h.reftable_offset;
    q->old_reftable_clusters = q->h.reftable_clusters;
    q->h.reftable_offset = host;
    q->h.reftable_clusters = (u32)(bytes >> q->h.cluster_bits);
    q->reftable_moved = true;
    return 0;
}

/* A refcount block for an area that has none, at a free cluster. That one lies in the area itself, which is then the
 * first the block counts, or in one that has a block, or in another without: that gets its block first. */
static int new_block(struct qcow2 *q, u64 index, struct err *err)
{
    struct qcow2_table *block;
    u64 cluster, home;
    int rc;

    for (;;) {
        rc = find_free(q, 1, &cluster, err);
        home = cluster >> q->rb_bits;
        if (rc || home == index || (home < q->reftable_entries && q->reftable[home]))
            break;
        rc = block_for(q, home, err);
        if (rc || q->reftable[index]) /* it may have been made on the way */
            return rc;
    }
    if (!rc && home != index)
        rc = qcow2_refcount_add(q, cluster, 1, err);
    if (!rc)
        rc = qcow2_metadata_mark(q, cluster << q->h.cluster_bits, qcow2_cluster(q),
                                 "refcount block", err);
    if (!rc)
        rc = qcow2_table_put(q, &q->blocks, (u32)index, cluster << q->h.cluster_bits, &block, err);
    if (rc)
        return rc;
    if (home == index)
        qcow2_count_set(block->entries, q->h.refcount_order, cluster & (BIT(q->rb_bits) - 1), 1);
    q->reftable[index] = cluster << q->h.cluster_bits;
    if (q->reftable_dirty_from >= q->reftable_dirty_to) {
        q->reftable_dirty_from = (u32)index;
        q->reftable_dirty_to = (u32)index + 1;
    }
    q->reftable_dirty_from = MIN(q->reftable_dirty_from, (u32)index);
    q->reftable_dirty_to = MAX(q->reftable_dirty_to, (u32)index + 1);
    return 0;
}

static int block_for(struct qcow2 *q, u64 index, struct err *err)
{
    int rc = index < q->reftable_entries ? 0 : grow_reftable(q, index, err);

    if (rc || q->reftable[index])
        return rc;
    return new_block(q, index, err);
}

int qcow2_refcount_set(struct qcow2 *q, u64 cluster, u64 count, struct err *err)
{
    u64 index = cluster >> q->rb_bits, within = cluster & (BIT(q->rb_bits) - 1);
    u32 bit = (u32)within << q->h.refcount_order;
    struct qcow2_table *block;
    int rc = block_for(q, index, err);

    if (!rc)
        rc = block_at(q, index, &block, err);
    if (rc)
        return rc;
    qcow2_count_set(block->entries, q->h.refcount_order, within, count);
    qcow2_table_dirty(&q->blocks, block, bit / 8, (bit + (1u << q->h.refcount_order) - 1) / 8 + 1);
    if (!count && cluster < q->first_free)
        q->first_free = cluster;
    if (!count && cluster == q->packed_at >> q->h.cluster_bits)
        q->packed_at = 0;
    return 0;
}

int qcow2_refcount_add(struct qcow2 *q, u64 cluster, int delta, struct err *err)
{
    u64 max = q->h.refcount_order == 6 ? UINT64_MAX : BIT(1u << q->h.refcount_order) - 1, count;
    int rc = qcow2_refcount(q, cluster, &count, err);

    if (rc)
        return rc;
    if (delta < 0 ? count < (u64)-delta : count > max - (u64)delta)
        return err_set(err, EIO, "%s: qcow2 refcount of cluster 0x%llx is wrong (%llu)",
                       q->fmt.file->name, (unsigned long long)cluster << q->h.cluster_bits,
                       (unsigned long long)count);
    return qcow2_refcount_set(q, cluster, count + (u64)(s64)delta, err);
}

/* --- taking and giving back --- */

int qcow2_alloc(struct qcow2 *q, u64 n, u64 *ret_host, struct err *err)
{
    u64 first, taken = 0;
    int rc;

    /* Counting a cluster may need a new block, and that may take the very cluster: look again then. */
    do {
        rc = find_free(q, n, &first, err);
        for (u64 i = 0; !rc && i < n; i++)
            rc = block_for(q, (first + i) >> q->rb_bits, err);
        if (!rc)
            rc = find_free(q, n, &taken, err);
    } while (!rc && taken != first);
    for (u64 i = 0; !rc && i < n; i++) {
        rc = qcow2_refcount_add(q, first + i, 1, err);
        if (rc)
            qcow2_unalloc(q, first << q->h.cluster_bits, i);
    }
    if (!rc)
        *ret_host = first << q->h.cluster_bits;
    return rc;
}

void qcow2_unalloc(struct qcow2 *q, u64 host, u64 n)
{
    /* What cannot be counted down leaks, which a check mends. */
    for (u64 i = 0; i < n; i++)
        qcow2_refcount_add(q, (host >> q->h.cluster_bits) + i, -1, NULL);
}

void qcow2_release(struct qcow2 *q, u64 cluster, u64 n)
{
    struct qcow2_freed *last = q->nfreed ? &q->freed[q->nfreed - 1] : NULL;

    if (last && last->cluster + last->count == cluster) {
        last->count += n;
        return;
    }
    if (q->nfreed == q->freed_room) {
        u32 room = q->freed_room ? q->freed_room * 2 : 64;
        struct qcow2_freed *grown = realloc(q->freed, room * sizeof(*grown));

        if (!grown)
            return; /* it leaks */
        q->freed = grown;
        q->freed_room = room;
    }
    q->freed[q->nfreed++] = (struct qcow2_freed){cluster, n};
}

void qcow2_release_entry(struct qcow2 *q, u64 l2_entry)
{
    if (l2_entry & QCOW2_PACKED) {
        struct qcow2_packed p = qcow2_packed(&q->h, l2_entry);
        u64 first = p.host >> q->h.cluster_bits;

        qcow2_release(q, first, ((p.host + p.len - 1) >> q->h.cluster_bits) - first + 1);
    } else if (l2_entry & QCOW2_HOST && !q->fmt.data_external) {
        qcow2_release(q, (l2_entry & QCOW2_HOST) >> q->h.cluster_bits, 1);
    }
}
