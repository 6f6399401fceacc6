/*
 * Refcounts as a whole: a refcount table and its blocks made from an array of counts, for new images and for those
 * whose own cannot be trusted. What is there is not touched before the header points to the new.
 */
#include "block/qcow2.h"
#include <errno.h>
#include <stdlib.h>

/* How many blocks and table clusters `used` clusters need, counting themselves. */
static void plan(u32 cluster_bits, u32 order, u64 used, u64 *ret_blocks, u64 *ret_tables)
{
    u64 per_block = 1ull << (cluster_bits + 3 - order), per_table = 1ull << (cluster_bits - 3);
    u64 blocks = 0, tables = 0, before;

    do {
        before = blocks + tables;
        blocks = (used + before + per_block - 1) / per_block;
        tables = (blocks + per_table - 1) / per_table;
    } while (blocks + tables != before);
    *ret_blocks = blocks;
    *ret_tables = tables;
}

/* One block of counts, or nothing at all when it would be empty: then *ret_host is 0. */
static int write_block(const struct qcow2_counts *s, u64 index, u64 new_end, u8 *block, u64 host,
                       u64 *ret_host, struct err *err)
{
    u64 per_block = 1ull << (s->cluster_bits + 3 - s->order);
    u64 max = s->order >= 4 ? UINT16_MAX : BIT(1u << s->order) - 1;
    bool any = false;
    int rc;

    memset(block, 0, BIT(s->cluster_bits));
    for (u64 i = 0; i < per_block && index * per_block + i < new_end; i++) {
        u64 c = index * per_block + i, count = c < s->n ? s->counts[c] : 1;

        if (count > max)
            return err_set(err, EOVERFLOW,
                           "%s: cluster %llu has %llu references, which refcounts of %u bits "
                           "cannot hold",
                           s->file->name, (unsigned long long)c, (unsigned long long)count,
                           1u << s->order);
        qcow2_count_set(block, s->order, i, count);
        any = any || count;
    }
    *ret_host = any ? host : 0;
    rc = any ? block_file_write(s->file, block, BIT(s->cluster_bits), host) : 0;
    return rc ? err_sys(err, -rc, "%s: cannot write refcounts", s->file->name) : 0;
}

int qcow2_counts_write(const struct qcow2_counts *s, u64 *ret_offset, u32 *ret_clusters,
                       struct err *err)
{
    u64 blocks, tables, host = s->n << s->cluster_bits, bytes = BIT(s->cluster_bits);
    auto_free u64 *table = NULL;
    auto_free u8 *block = NULL;
    int rc = 0;

    plan(s->cluster_bits, s->order, s->n, &blocks, &tables);
    if (tables << s->cluster_bits > QCOW2_REFTABLE_BYTES_MAX)
        return err_set(err, EFBIG, "%s: too large for clusters of %llu bytes", s->file->name,
                       (unsigned long long)bytes);
    table = calloc(tables, bytes);
    block = aligned_alloc(8, bytes);
    if (!table || !block)
        return err_set(err, ENOMEM, "%s: no memory", s->file->name);
    for (u64 i = 0; !rc && i < blocks; i++) {
        u64 at = host + (tables + i) * bytes;

        rc = write_block(s, i, s->n + tables + blocks, block, at, &table[i], err);
        table[i] = htobe64(table[i]);
    }
    if (rc)
        return rc;
    rc = block_file_write(s->file, table, tables * bytes, host);
    if (rc)
        return err_sys(err, -rc, "%s: cannot write the refcount table", s->file->name);
    *ret_offset = host;
    *ret_clusters = (u32)tables;
    return 0;
}

/* The image takes over what was written. */
static int adopt(struct qcow2 *q, u64 offset, u32 clusters, struct err *err)
{
    u64 entries = ((u64)clusters << q->h.cluster_bits) / 8;
    struct qcow2_cache cache;
    u64 *table = malloc(entries * sizeof(u64));
    int rc = table ? block_file_read(q->fmt.file, table, entries * sizeof(u64), offset) : -ENOMEM;

    if (!rc)
        rc = qcow2_cache_init(&cache, (u32)entries, qcow2_cluster(q));
    if (rc) {
        free(table);
        return err_sys(err, -rc, "%s: refcount table", q->fmt.file->name);
    }
    for (u64 i = 0; i < entries; i++)
        table[i] = be64toh(table[i]);
    qcow2_cache_fini(&q->blocks);
    q->blocks = cache;
    free(q->reftable);
    q->reftable = table;
    q->reftable_entries = (u32)entries;
    q->h.reftable_offset = offset;
    q->h.reftable_clusters = clusters;
    q->first_free = 0;
    return 0;
}

int qcow2_rebuild(struct qcow2 *q, const u16 *counts, u64 n, struct err *err)
{
    struct qcow2_counts s = {q->fmt.file, q->h.cluster_bits, q->h.refcount_order, counts, n};
    u64 offset;
    u32 clusters;
    int rc = qcow2_counts_write(&s, &offset, &clusters, err);

    if (!rc)
        rc = qcow2_sync(q, err);
    if (!rc)
        rc = qcow2_header_put96(q, QCOW2_AT_REFTABLE, offset, clusters, true, err);
    if (!rc)
        rc = qcow2_sync(q, err);
    return rc ? rc : adopt(q, offset, clusters, err);
}
