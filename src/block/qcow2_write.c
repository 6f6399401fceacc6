/*
 * Changes of the mapping: new clusters, ranges that become zero, and what is given back for them.
 *
 * Invariant: an L2 entry changes in memory only after what it will show is in the file (link) and is written by
 * qcow2_commit() alone. An L2 table that is shared with an internal snapshot is copied before its first change.
 *
 * Any thread.
 */
#include "block/qcow2.h"
#include <errno.h>

int qcow2_usable(struct qcow2 *q, struct err *err)
{
    if (q->fmt.readonly)
        return err_set(err, EROFS, "%s: opened read-only", q->fmt.file->name);
    if (q->h.incompat & QCOW2_CORRUPT)
        return err_set(err, EIO, "%s: qcow2 image is marked corrupt; see trapeze disk check",
                       q->fmt.file->name);
    return qcow2_begin(q, err);
}

static void l1_set(struct qcow2 *q, u32 index, u64 entry)
{
    bool clean = q->l1_dirty_from >= q->l1_dirty_to;

    q->l1[index] = entry;
    q->l1_dirty_from = clean ? index : MIN(q->l1_dirty_from, index);
    q->l1_dirty_to = clean ? index + 1 : MAX(q->l1_dirty_to, index + 1);
}

/* A new table at a cluster of its own, with the content of the old one if there is one. */
static int new_l2(struct qcow2 *q, u32 index, u64 old, struct qcow2_table **ret_table,
                  struct err *err)
{
    u64 host;
    int rc = qcow2_alloc(q, 1, &host, err);

    if (!rc)
        rc = qcow2_metadata_mark(q, host, qcow2_cluster(q), "L2 table", err);
    if (!rc)
        rc = qcow2_table_put(q, &q->l2s, index, host, ret_table, err);
    if (!rc && old) {
        rc = block_file_read(q->fmt.file, (*ret_table)->entries, qcow2_cluster(q), old);
        if (rc) {
            qcow2_table_drop(&q->l2s, index);
            err_sys(err, -rc, "%s: cannot read the qcow2 table at 0x%llx", q->fmt.file->name,
                    (unsigned long long)old);
        }
    }
    if (rc)
        return rc;
    (*ret_table)->fresh = true;
    l1_set(q, index, host | QCOW2_COPIED);
    if (!old)
        return 0;
    qcow2_metadata_unmark(q, old, qcow2_cluster(q));
    qcow2_release(q, old >> q->h.cluster_bits, 1);
    return 0;
}

/* The L2 table of an offset, which may be changed. */
static int l2_for_write(struct qcow2 *q, u64 offset, struct qcow2_table **ret_table,
                        struct err *err)
{
    u32 index = (u32)(offset / qcow2_l2_span(q));
    u64 entry = q->l1[index];
    int rc = qcow2_l1_check(q, entry, err);

    if (rc)
        return rc;
    if (!(entry & QCOW2_HOST) || !(entry & QCOW2_COPIED))
        return new_l2(q, index, entry & QCOW2_HOST, ret_table, err);
    return qcow2_table_get(q, &q->l2s, index, entry & QCOW2_HOST, ret_table, err);
}

static u32 l2_index(const struct qcow2 *q, u64 offset)
{
    return (u32)((offset >> q->h.cluster_bits) & (BIT(q->l2_bits) - 1));
}

static void l2_set(struct qcow2 *q, struct qcow2_table *t, u32 i, u64 entry)
{
    t->entries[i] = htobe64(entry);
    qcow2_table_dirty(&q->l2s, t, i * 8, i * 8 + 8);
}

static bool in_place(u64 entry)
{
    return entry & QCOW2_COPIED && entry & QCOW2_HOST && !(entry & (QCOW2_ZERO | QCOW2_PACKED));
}

/* The guest must not be led to metadata by an L2 entry: it could then write headers of its own. */
static int guard(struct qcow2 *q, u64 host, u64 bytes, struct err *err)
{
    if (host && !qcow2_metadata_at(q, host, bytes))
        return 0;
    qcow2_corrupt(q, NULL);
    return err_set(
        err, EIO,
        "%s: qcow2 L2 entry leads to metadata at 0x%llx; marked corrupt, see trapeze disk check",
        q->fmt.file->name, (unsigned long long)host);
}

static int room_locked(struct qcow2 *q, u64 offset, u64 len, struct block_room *r, struct err *err)
{
    u64 bytes = qcow2_cluster(q), start = ALIGN_DOWN(offset, bytes), entry, host, n = 1, most;
    u64 span_end = ALIGN_DOWN(offset, qcow2_l2_span(q)) + qcow2_l2_span(q);
    struct qcow2_table *t;
    u32 i = l2_index(q, offset);
    int rc = qcow2_usable(q, err);

    if (!rc)
        rc = l2_for_write(q, offset, &t, err);
    if (rc)
        return rc;
    most = (ALIGN_UP(MIN(offset + len, span_end), bytes) - start) / bytes;
    entry = be64toh(t->entries[i]);
    rc = qcow2_entry_check(q, entry, err);
    if (rc)
        return rc;
    *r = (struct block_room){.file = q->fmt.data, .start = start, .fresh = !in_place(entry)};
    if (!r->fresh) {
        for (r->host = entry & QCOW2_HOST; n < most; n++) {
            entry = be64toh(t->entries[i + n]);
            if (!in_place(entry) || (entry & QCOW2_HOST) != r->host + n * bytes)
                break;
        }
        r->len = n * bytes;
        if (!range_fits(r->host, r->len, q->fmt.file->size))
            return err_set(err, EIO, "%s: qcow2 cluster at 0x%llx lies past the end of the file",
                           q->fmt.file->name, (unsigned long long)r->host);
        return guard(q, r->host, r->len, err);
    }
    while (n < most && !in_place(be64toh(t->entries[i + n])))
        n++;
    rc = qcow2_alloc(q, n, &host, err);
    r->host = host;
    r->len = n * bytes;
    return rc;
}

int qcow2_room(struct block_format *f, u64 offset, u64 len, struct block_room *ret_room,
               struct err *err)
{
    struct qcow2 *q = qcow2_of(f);
    struct block_room r;
    int rc;

    pthread_mutex_lock(&q->lock);
    rc = room_locked(q, offset, len, &r, err);
    pthread_mutex_unlock(&q->lock);
    if (!rc)
        *ret_room = r;
    return rc;
}

int qcow2_entry_set(struct qcow2 *q, u64 offset, u64 entry, struct err *err)
{
    struct qcow2_table *t;
    int rc = l2_for_write(q, offset, &t, err);

    if (rc)
        return rc;
    qcow2_release_entry(q, be64toh(t->entries[l2_index(q, offset)]));
    l2_set(q, t, l2_index(q, offset), entry);
    return 0;
}

int qcow2_link(struct block_format *f, const struct block_room *r, struct err *err)
{
    struct qcow2 *q = qcow2_of(f);
    struct qcow2_table *t;
    int rc;

    pthread_mutex_lock(&q->lock);
    rc = l2_for_write(q, r->start, &t, err);
    for (u64 done = 0; !rc && done < r->len; done += qcow2_cluster(q)) {
        u32 i = l2_index(q, r->start + done);

        qcow2_release_entry(q, be64toh(t->entries[i]));
        l2_set(q, t, i, (r->host + done) | QCOW2_COPIED);
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

void qcow2_drop(struct block_format *f, const struct block_room *r)
{
    struct qcow2 *q = qcow2_of(f);

    pthread_mutex_lock(&q->lock);
    qcow2_unalloc(q, r->host, r->len >> q->h.cluster_bits);
    pthread_mutex_unlock(&q->lock);
}

/* What becomes of an entry that is to read as zeros. */
static u64 zero_entry(const struct qcow2 *q, u64 entry, bool unmap, bool full)
{
    bool behind = q->fmt.backing_name && !full;

    if (!behind && !(entry & (QCOW2_HOST | QCOW2_PACKED)))
        return full ? 0 : entry; /* zeros already, in whatever way */
    if (unmap || entry & QCOW2_PACKED || !(entry & QCOW2_COPIED) || q->h.version < 3)
        return behind ? QCOW2_ZERO : 0;
    return entry | QCOW2_ZERO;
}

static int zero_in_table(struct qcow2 *q, u64 offset, u64 clusters, bool unmap, bool full,
                         struct err *err)
{
    struct qcow2_table *t = NULL;
    u32 first = l2_index(q, offset);
    int rc;

    if (!(q->l1[offset / qcow2_l2_span(q)] & QCOW2_HOST) && (full || !q->fmt.backing_name))
        return 0;
    rc = l2_for_write(q, offset, &t, err);
    for (u64 n = 0; !rc && n < clusters; n++) {
        u64 old = be64toh(t->entries[first + n]), new = zero_entry(q, old, unmap, full);

        rc = qcow2_entry_check(q, old, err);
        if (rc || new == old)
            continue;
        if (!(new &QCOW2_HOST))
            qcow2_release_entry(q, old);
        l2_set(q, t, first + (u32)n, new);
    }
    return rc;
}

int qcow2_zero_locked(struct qcow2 *q, u64 offset, u64 len, bool unmap, bool full, struct err *err)
{
    u64 bytes = qcow2_cluster(q), span = qcow2_l2_span(q), end = ALIGN_UP(offset + len, bytes);
    int rc = qcow2_usable(q, err);

    if (!rc && q->h.version < 3 && q->fmt.backing_name && !full)
        return err_set(err, EOPNOTSUPP, "qcow2 version 2 has no zero clusters");
    while (!rc && offset < end) {
        u64 part = MIN(end, ALIGN_DOWN(offset, span) + span) - offset;

        rc = zero_in_table(q, offset, part / bytes, unmap, full, err);
        offset += part;
    }
    return rc;
}

int qcow2_zero(struct block_format *f, u64 offset, u64 len, bool unmap, struct err *err)
{
    struct qcow2 *q = qcow2_of(f);
    int rc;

    pthread_mutex_lock(&q->lock);
    rc = qcow2_zero_locked(q, offset, len, unmap, false, err);
    pthread_mutex_unlock(&q->lock);
    return rc;
}
