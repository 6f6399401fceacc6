/*
 * The order in which the metadata of a qcow2 image reaches the medium.
 *
 * A commit writes, and `|` is a sync, done only where something stands on both its sides:
 *
 *   A  refcount blocks; new L2 tables, which no L1 entry on the medium points to
 *   |
 *   B  refcount table entries for new blocks (a table that grew: written elsewhere | the header's pointer)
 *   |
 *   C  L2 tables, L1 entries
 *   |
 *   D  clusters given back: their counts fall, in memory; they may be used again
 *
 * The guest's data is written by others before the L2 entry that shows it exists in memory. So at any moment:
 *
 * 1. Whatever on the medium is referred to, is there and counted. Power may fail between any two writes, and any of the
 *    writes since the last sync may be lost: clusters may leak, nothing is damaged.
 * 2. A cluster is not used for something new while anything on the medium refers to it.
 *
 * With lazy refcounts the dirty bit stands in the header while we write: counts are then not ordered at all, and who
 * opens the image after a crash counts anew. With the lock of the image held.
 */
#include "block/qcow2.h"
#include <errno.h>
#include <stdlib.h>

int qcow2_sync(struct qcow2 *q, struct err *err)
{
    int rc = block_file_sync(q->fmt.file);

    return rc ? err_sys(err, -rc, "%s: cannot sync", q->fmt.file->name) : 0;
}

static bool lazy(const struct qcow2 *q)
{
    return q->h.incompat & QCOW2_DIRTY;
}

int qcow2_begin(struct qcow2 *q, struct err *err)
{
    u64 autoclear = 0, incompat = q->h.incompat;
    int rc = 0;

    if (q->changed || q->h.version < 3) {
        q->changed = true;
        return 0;
    }
    if (q->h.autoclear != autoclear)
        rc = qcow2_header_put64(q, QCOW2_AT_AUTOCLEAR, autoclear, err);
    if (!rc && q->h.compat & QCOW2_LAZY && !lazy(q)) {
        incompat |= QCOW2_DIRTY;
        rc = qcow2_header_put64(q, QCOW2_AT_INCOMPAT, incompat, err);
    }
    if (!rc && (incompat != q->h.incompat || autoclear != q->h.autoclear))
        rc = qcow2_sync(q, err);
    if (rc)
        return rc;
    q->h.incompat = incompat;
    q->h.autoclear = autoclear;
    q->changed = true;
    return 0;
}

int qcow2_corrupt(struct qcow2 *q, struct err *err)
{
    if (q->h.version < 3 || q->fmt.readonly || q->h.incompat & QCOW2_CORRUPT)
        return 0;
    q->h.incompat |= QCOW2_CORRUPT;
    int rc = qcow2_header_put64(q, QCOW2_AT_INCOMPAT, q->h.incompat, err);
    return rc ? rc : qcow2_sync(q, err);
}

static int write_blocks(struct qcow2 *q, struct err *err)
{
    int rc = 0;

    for (struct qcow2_table *t = q->blocks.dirty ? q->blocks.newest : NULL; t && !rc; t = t->older)
        rc = qcow2_table_write(q, &q->blocks, t, err);
    return rc;
}

static int write_l2s(struct qcow2 *q, bool fresh, struct err *err)
{
    int rc = 0;

    for (struct qcow2_table *t = q->l2s.dirty ? q->l2s.newest : NULL; t && !rc; t = t->older)
        if (t->fresh || !fresh)
            rc = qcow2_table_write(q, &q->l2s, t, err);
    return rc;
}

/* Entries [from, to) of a table in host order, to its place at `host`. */
static int write_entries(struct qcow2 *q, const u64 *table, u32 from, u32 to, u64 host,
                         struct err *err)
{
    auto_free u64 *copy = malloc((to - from) * sizeof(u64));
    int rc;

    if (!copy)
        return err_set(err, ENOMEM, "%s: no memory", q->fmt.file->name);
    for (u32 i = from; i < to; i++)
        copy[i - from] = htobe64(table[i]);
    rc = block_file_write(q->fmt.file, copy, (to - from) * sizeof(u64), host + from * 8ull);
    return rc ? err_sys(err, -rc, "%s: cannot write the table at 0x%llx", q->fmt.file->name,
                        (unsigned long long)host)
              : 0;
}

static int write_reftable(struct qcow2 *q, struct err *err)
{
    bool moved = q->reftable_moved;
    u32 from = moved ? 0 : q->reftable_dirty_from,
        to = moved ? q->reftable_entries : q->reftable_dirty_to;
    int rc;

    if (from >= to)
        return 0;
    rc = qcow2_sync(q, err);
    if (!rc)
        rc = write_entries(q, q->reftable, from, to, q->h.reftable_offset, err);
    if (!rc && moved)
        rc = qcow2_sync(q, err);
    if (!rc && moved)
        rc = qcow2_header_put96(q, QCOW2_AT_REFTABLE, q->h.reftable_offset, q->h.reftable_clusters,
                                true, err);
    if (rc)
        return rc;
    q->reftable_dirty_from = q->reftable_dirty_to = 0;
    if (!moved)
        return 0;
    q->reftable_moved = false;
    qcow2_metadata_unmark(q, q->old_reftable_offset,
                          (u64)q->old_reftable_clusters << q->h.cluster_bits);
    qcow2_release(q, q->old_reftable_offset >> q->h.cluster_bits, q->old_reftable_clusters);
    return 0;
}

static int write_mappings(struct qcow2 *q, struct err *err)
{
    bool l1 = q->l1_dirty_from < q->l1_dirty_to;
    int rc;

    if (!q->l2s.dirty && !l1)
        return 0;
    rc = qcow2_sync(q, err);
    if (!rc)
        rc = write_l2s(q, false, err);
    if (!rc && l1)
        rc = write_entries(q, q->l1, q->l1_dirty_from, q->l1_dirty_to, q->h.l1_offset, err);
    if (rc || !l1)
        return rc;
    q->l1_dirty_from = q->l1_dirty_to = 0;
    for (struct qcow2_table *t = q->l2s.newest; t; t = t->older)
        t->fresh = false;
    return 0;
}

/* Free clusters keep no data: that saves space, and what was there is nobody's business any more. */
static void punch(struct qcow2 *q, u64 from, u64 to)
{
    u64 end = MIN(to << q->h.cluster_bits, q->fmt.file->size);

    from <<= q->h.cluster_bits;
    if (from < end)
        block_file_zero(q->fmt.file, from, end - from, true);
}

static int give_back(struct qcow2 *q, struct err *err)
{
    u64 count;
    int rc;

    if (!q->nfreed)
        return 0;
    rc = qcow2_sync(q, err);
    if (rc)
        return rc;
    for (u32 i = 0; i < q->nfreed; i++) {
        u64 c = q->freed[i].cluster, end = c + q->freed[i].count, hole = c;

        for (; c < end; c++) {
            if (!qcow2_refcount_add(q, c, -1, NULL) && !qcow2_refcount(q, c, &count, NULL) &&
                !count)
                continue;
            punch(q, hole, c);
            hole = c + 1;
        }
        punch(q, hole, end);
    }
    q->nfreed = 0;
    return 0;
}

int qcow2_write_counts(struct qcow2 *q, struct err *err)
{
    int rc = write_blocks(q, err);

    return rc ? rc : write_reftable(q, err);
}

int qcow2_commit(struct qcow2 *q, struct err *err)
{
    bool counts = !lazy(q) || q->reftable_moved;
    int rc = counts ? write_blocks(q, err) : 0;

    if (!rc)
        rc = write_l2s(q, true, err);
    if (!rc && counts)
        rc = write_reftable(q, err);
    if (!rc)
        rc = write_mappings(q, err);
    return rc ? rc : give_back(q, err);
}

int qcow2_flush_locked(struct qcow2 *q, struct err *err)
{
    int rc = qcow2_commit(q, err);

    if (!rc && q->fmt.data_external)
        rc = block_file_sync(q->fmt.data);
    return rc ? rc : qcow2_sync(q, err);
}

int qcow2_settle(struct qcow2 *q, struct err *err)
{
    int rc = qcow2_write_counts(q, err);

    if (rc || !lazy(q))
        return rc;
    /* A table that moved has given back its old place, and that is counted in yet another block. */
    rc = qcow2_sync(q, err);
    if (!rc)
        rc = give_back(q, err);
    if (!rc)
        rc = qcow2_write_counts(q, err);
    if (!rc)
        rc = qcow2_sync(q, err);
    if (rc)
        return rc;
    q->h.incompat &= ~QCOW2_DIRTY;
    return qcow2_header_put64(q, QCOW2_AT_INCOMPAT, q->h.incompat, err);
}
