/*
 * qcow2 images, versions 2 and 3 (QEMU, docs/interop/qcow2.txt): opening, closing, the table of operations.
 *
 * Read: everything but encryption and extended L2 entries. Written: everything but images with an external data file;
 * what a guest writes is never compressed, a copy can be. Internal snapshots are left as they are: what they share is copied before it
 * changes. Persistent bitmaps become invalid by a write, as the format says for programs that do not keep them.
 *
 * Threads: any; q->lock makes one operation at a time.
 */
#include "block/qcow2.h"
#include <errno.h>
#include <stdlib.h>

static void qcow2_free(struct qcow2 *q)
{
    qcow2_cache_fini(&q->l2s);
    qcow2_cache_fini(&q->blocks);
    pthread_mutex_destroy(&q->lock);
    free(q->l1);
    free(q->reftable);
    free(q->freed);
    free(q->metadata);
    free(q->fmt.backing_name);
    free(q->fmt.backing_format);
    free(q->fmt.data_name);
    free(q);
}

/* Who must know that all arrived has flushed before; what fails here leaks clusters, or leaves the dirty bit. */
static void qcow2_close(struct block_format *f)
{
    struct qcow2 *q = qcow2_of(f);

    if (q->changed && !(q->h.incompat & QCOW2_CORRUPT) && !qcow2_commit(q, NULL))
        qcow2_settle(q, NULL);
    qcow2_free(q);
}

static int qcow2_flush(struct block_format *f, struct err *err)
{
    struct qcow2 *q = qcow2_of(f);
    int rc;

    if (f->readonly)
        return 0;
    pthread_mutex_lock(&q->lock);
    rc = qcow2_commit(q, err);
    pthread_mutex_unlock(&q->lock);
    /* Without the lock: others go on while the disk works, at least when no metadata had changed. */
    if (!rc && f->data_external)
        rc = block_file_sync(f->data);
    return rc ? rc : qcow2_sync(q, err);
}

static int qcow2_freeze(struct block_format *f, struct err *err)
{
    struct qcow2 *q = qcow2_of(f);
    /* Most of the work is done here, while others can still read. */
    int rc = f->readonly ? 0 : qcow2_sync(q, err);

    if (rc)
        return rc;
    pthread_mutex_lock(&q->lock);
    if (!f->readonly) {
        rc = qcow2_flush_locked(q, err);
        if (!rc && q->changed && !(q->h.incompat & QCOW2_CORRUPT))
            rc = qcow2_settle(q, err);
        if (!rc)
            rc = qcow2_sync(q, err);
        f->readonly = !rc;
        q->changed = q->changed && rc;
    }
    pthread_mutex_unlock(&q->lock);
    return rc;
}

static const struct block_format_ops qcow2_ops = {
    .name = "qcow2",
    .close = qcow2_close,
    .map = qcow2_map,
    .ready = qcow2_ready,
    .unpack = qcow2_unpack,
    .room = qcow2_room,
    .link = qcow2_link,
    .drop = qcow2_drop,
    .zero = qcow2_zero,
    .flush = qcow2_flush,
    .freeze = qcow2_freeze,
    .resize = qcow2_resize,
};

static int load_table(struct qcow2 *q, u64 host, u64 entries, u64 **ret_table, struct err *err)
{
    u64 *table = calloc(MAX(entries, 1ull), sizeof(u64));
    int rc;

    if (!table)
        return err_set(err, ENOMEM, "%s: no memory", q->fmt.file->name);
    rc = block_file_read(q->fmt.file, table, entries * sizeof(u64), host);
    if (rc) {
        free(table);
        return err_sys(err, -rc, "%s: cannot read the table at 0x%llx", q->fmt.file->name,
                       (unsigned long long)host);
    }
    for (u64 i = 0; i < entries; i++)
        table[i] = be64toh(table[i]);
    *ret_table = table;
    return 0;
}

static int load_tables(struct qcow2 *q, struct err *err)
{
    u64 reftable_bytes = (u64)q->h.reftable_clusters << q->h.cluster_bits;
    int rc;

    q->l2_bits = q->h.cluster_bits - 3;
    q->rb_bits = q->h.cluster_bits + 3 - q->h.refcount_order;
    rc = load_table(q, q->h.l1_offset, q->h.l1_entries, &q->l1, err);
    if (!rc)
        rc = load_table(q, q->h.reftable_offset, reftable_bytes / 8, &q->reftable, err);
    if (rc)
        return rc;
    q->reftable_entries = (u32)(reftable_bytes / 8);
    if (qcow2_cache_init(&q->l2s, q->h.l1_entries, qcow2_cluster(q)) ||
        qcow2_cache_init(&q->blocks, q->reftable_entries, qcow2_cluster(q)))
        return err_set(err, ENOMEM, "%s: no memory", q->fmt.file->name);
    return 0;
}

/* Finds out which clusters hold metadata; two things in one cluster forbid writing. */
static int mark_metadata(struct qcow2 *q, struct err *err)
{
    u64 bytes = qcow2_cluster(q);
    int rc = qcow2_metadata_mark(q, 0, bytes, "header", err);

    if (!rc)
        rc = qcow2_metadata_mark(q, q->h.l1_offset, q->h.l1_entries * 8ull, "L1 table", err);
    if (!rc)
        rc = qcow2_metadata_mark(q, q->h.reftable_offset, q->reftable_entries * 8ull,
                                 "refcount table", err);
    if (!rc && q->h.snapshots)
        rc = qcow2_metadata_mark(q, q->h.snapshots_offset, q->h.snapshots * 40ull, "snapshot table",
                                 err);
    for (u32 i = 0; !rc && i < q->reftable_entries; i++) {
        if (q->reftable[i] & (bytes - 1) || q->reftable[i] > q->fmt.file->size)
            rc = err_set(err, EIO, "%s: qcow2 refcount table entry %u is damaged (0x%llx)",
                         q->fmt.file->name, i, (unsigned long long)q->reftable[i]);
        else if (q->reftable[i])
            rc = qcow2_metadata_mark(q, q->reftable[i], bytes, "refcount block", err);
    }
    for (u32 i = 0; !rc && i < q->h.l1_entries; i++) {
        rc = qcow2_l1_check(q, q->l1[i], err);
        if (!rc && (q->l1[i] & QCOW2_HOST) > q->fmt.file->size)
            rc = err_set(err, EIO, "%s: qcow2 L2 table at 0x%llx lies past the end of the file",
                         q->fmt.file->name, (unsigned long long)(q->l1[i] & QCOW2_HOST));
        if (!rc && q->l1[i] & QCOW2_HOST)
            rc = qcow2_metadata_mark(q, q->l1[i] & QCOW2_HOST, bytes, "L2 table", err);
    }
    return rc;
}

/* After a crash with lazy refcounts: they are counted anew before anything else. */
static int mend_dirty(struct qcow2 *q, struct err *err)
{
    struct qcow2_check c = {0};
    int rc = qcow2_check(&q->fmt, QCOW2_REPAIR_ALL, &c, err);

    if (rc)
        return err_wrap(err, "%s: was not closed properly and cannot be mended", q->fmt.file->name);
    if (c.corruptions)
        return err_set(err, EIO,
                       "%s: was not closed properly and is damaged; see trapeze disk check",
                       q->fmt.file->name);
    return 0;
}

static int prepare(struct qcow2 *q, const struct block_format_options *o, struct err *err)
{
    int rc = load_tables(q, err);

    if (rc || o->readonly || o->repair)
        return rc;
    if (q->fmt.data_external)
        return err_set(err, ENOTSUP, "%s: images with an external data file can only be read",
                       q->fmt.file->name);
    if (q->h.incompat & QCOW2_CORRUPT)
        return err_set(err, EIO, "%s: marked corrupt; mend it with trapeze disk check --repair all",
                       q->fmt.file->name);
    if (q->h.incompat & QCOW2_DIRTY)
        rc = mend_dirty(q, err);
    return rc ? rc : mark_metadata(q, err);
}

int block_qcow2_open(struct block_file *file, const struct block_format_options *o,
                     struct block_format **ret_format, struct err *err)
{
    struct qcow2 *q = calloc(1, sizeof(*q));
    int rc;

    if (!q)
        return err_set(err, ENOMEM, "%s: no memory", file->name);
    pthread_mutex_init(&q->lock, NULL);
    q->fmt = (struct block_format){
        .ops = &qcow2_ops, .file = file, .data = file, .readonly = o->readonly};
    rc = qcow2_header_read(file, &q->h, &q->fmt, err);
    if (!rc) {
        q->fmt.size = q->h.size;
        q->fmt.cluster_bytes = (u32)BIT(q->h.cluster_bits);
        rc = prepare(q, o, err);
    }
    if (rc) {
        qcow2_free(q);
        return rc;
    }
    *ret_format = &q->fmt;
    return 0;
}
