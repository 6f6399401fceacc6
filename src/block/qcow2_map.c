/*
 * From the guest's offset to the cluster that holds it. qcow2.txt, "Cluster mapping".
 *
 * An entry that points to where no data can be is an error, never zeros: the user must learn that the image is damaged.
 * Any thread.
 */
#include "block/qcow2.h"
#include <errno.h>

struct qcow2_packed qcow2_packed(const struct qcow2_header *h, u64 entry)
{
    u32 host_bits = 62 - (h->cluster_bits - 8);
    u64 host = entry & (BIT(host_bits) - 1);
    u32 sectors = (u32)((entry & (BIT(62) - 1)) >> host_bits) + 1;

    return (struct qcow2_packed){.host = host, .len = sectors * 512 - (u32)(host & 511)};
}

int qcow2_l1_check(const struct qcow2 *q, u64 entry, struct err *err)
{
    u64 host = entry & QCOW2_HOST;

    if (entry & ~(QCOW2_COPIED | QCOW2_HOST))
        return err_set(err, EIO, "%s: qcow2 L1 entry 0x%llx has reserved bits set",
                       q->fmt.file->name, (unsigned long long)entry);
    if (host & (qcow2_cluster(q) - 1))
        return err_set(err, EIO, "%s: qcow2 L2 table at 0x%llx does not begin a cluster",
                       q->fmt.file->name, (unsigned long long)host);
    return 0;
}

int qcow2_entry_check(const struct qcow2 *q, u64 entry, struct err *err)
{
    u64 host = entry & QCOW2_HOST;

    if (entry & QCOW2_PACKED) {
        struct qcow2_packed p = qcow2_packed(&q->h, entry);

        if (q->fmt.data_external)
            return err_set(err, EIO, "%s: qcow2 compressed cluster, with an external data file",
                           q->fmt.file->name);
        if (p.host >= q->fmt.file->size)
            return err_set(err, EIO,
                           "%s: qcow2 compressed cluster at 0x%llx lies past the end of the file",
                           q->fmt.file->name, (unsigned long long)p.host);
        return 0;
    }
    if (entry & QCOW2_L2_RESERVED || (entry & QCOW2_ZERO && q->h.version < 3))
        return err_set(err, EIO, "%s: qcow2 L2 entry 0x%llx has reserved bits set",
                       q->fmt.file->name, (unsigned long long)entry);
    if (host & (qcow2_cluster(q) - 1))
        return err_set(err, EIO, "%s: qcow2 cluster at 0x%llx does not begin at a cluster's start",
                       q->fmt.file->name, (unsigned long long)host);
    if (host && !(entry & QCOW2_ZERO) && !q->fmt.data_external && host >= q->fmt.file->size)
        return err_set(err, EIO, "%s: qcow2 cluster at 0x%llx lies past the end of the file",
                       q->fmt.file->name, (unsigned long long)host);
    return 0;
}

/* With an external data file the offset may be 0, and COPIED says that it is there. */
static enum block_kind kind_of(const struct qcow2 *q, u64 entry)
{
    if (entry & QCOW2_PACKED)
        return BLOCK_KIND_PACKED;
    if (entry & QCOW2_ZERO)
        return BLOCK_KIND_ZERO;
    if (entry & QCOW2_HOST || (q->fmt.data_external && entry & QCOW2_COPIED))
        return BLOCK_KIND_DATA;
    return BLOCK_KIND_ABSENT;
}

/* May the guest write to that cluster where it is? Never where an entry leads it to metadata. */
static bool in_place(const struct qcow2 *q, u64 entry)
{
    return q->changed && !q->fmt.readonly && entry & QCOW2_COPIED &&
           !(q->h.incompat & QCOW2_CORRUPT) &&
           !qcow2_metadata_at(q, entry & QCOW2_HOST, qcow2_cluster(q));
}

static void describe(struct qcow2 *q, u64 entry, u64 offset, struct block_extent *e)
{
    u64 within = offset & (qcow2_cluster(q) - 1);

    e->kind = kind_of(q, entry);
    e->file = q->fmt.data;
    if (e->kind == BLOCK_KIND_PACKED) {
        struct qcow2_packed p = qcow2_packed(&q->h, entry);

        e->file = q->fmt.file;
        e->host = p.host;
        e->packed_len = (u32)MIN((u64)p.len, q->fmt.file->size - p.host);
        e->cluster = offset - within;
    } else {
        e->host = (entry & QCOW2_HOST) + within;
        e->in_place = e->kind == BLOCK_KIND_DATA && in_place(q, entry);
        e->room = e->kind == BLOCK_KIND_ZERO && entry & QCOW2_HOST;
    }
}

/* Does the cluster of `entry`, `distance` bytes behind the one of `e`, go on with the same mapping? */
static bool goes_on(const struct qcow2 *q, const struct block_extent *e, u64 entry, u64 distance)
{
    if (e->kind == BLOCK_KIND_PACKED || kind_of(q, entry) != e->kind)
        return false;
    if (e->kind == BLOCK_KIND_ABSENT)
        return true;
    if (e->kind == BLOCK_KIND_ZERO && !e->room)
        return !(entry & QCOW2_HOST);
    if (e->in_place && !in_place(q, entry))
        return false;
    return (entry & QCOW2_HOST) == ALIGN_DOWN(e->host, qcow2_cluster(q)) + distance;
}

static int map_locked(struct qcow2 *q, u64 offset, u64 len, struct block_extent *ret_extent,
                      struct err *err)
{
    u64 l1_index = offset / qcow2_l2_span(q), bytes = qcow2_cluster(q);
    u64 left = qcow2_l2_span(q) - offset % qcow2_l2_span(q), within = offset % bytes;
    u64 l1 = q->l1[l1_index], i = (offset >> q->h.cluster_bits) & (BIT(q->l2_bits) - 1), entry;
    struct block_extent e = {.kind = BLOCK_KIND_ABSENT, .len = MIN(len, left)};
    struct qcow2_table *t;
    int rc = qcow2_l1_check(q, l1, err);

    if (!rc && l1 & QCOW2_HOST)
        rc = qcow2_table_get(q, &q->l2s, (u32)l1_index, l1 & QCOW2_HOST, &t, err);
    if (rc)
        return rc;
    if (l1 & QCOW2_HOST) {
        u64 end = within + e.len, at = bytes;

        entry = be64toh(t->entries[i]);
        rc = qcow2_entry_check(q, entry, err);
        if (rc)
            return rc;
        describe(q, entry, offset, &e);
        for (; at < end; at += bytes) {
            entry = be64toh(t->entries[++i]);
            if (!goes_on(q, &e, entry, at) || qcow2_entry_check(q, entry, NULL))
                break;
        }
        e.len = MIN(end, at) - within;
    }
    *ret_extent = e;
    return 0;
}

int qcow2_map(struct block_format *f, u64 offset, u64 len, struct block_extent *ret_extent,
              struct err *err)
{
    struct qcow2 *q = qcow2_of(f);
    int rc;

    pthread_mutex_lock(&q->lock);
    rc = map_locked(q, offset, len, ret_extent, err);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

bool qcow2_ready(struct block_format *f, u64 offset)
{
    struct qcow2 *q = qcow2_of(f);
    u64 index = offset / qcow2_l2_span(q);
    bool ready;

    if (pthread_mutex_trylock(&q->lock))
        return false; /* whoever has it may be waiting for the disk */
    ready = !(q->l1[index] & QCOW2_HOST) || q->l2s.slots[index];
    pthread_mutex_unlock(&q->lock);
    return ready;
}
