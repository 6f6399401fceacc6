/*
 * Changes of an image as a whole, while it is in use: its size, with a longer L1 table where that is needed, and the names
 * of its backing file. The new table is on the medium before the header points to it. Any thread.
 */
#include "block/qcow2.h"
#include <errno.h>
#include <stdlib.h>

static int write_l1(struct qcow2 *q, const u64 *l1, u32 entries, u64 host, struct err *err)
{
    u64 bytes = ALIGN_UP(entries * 8ull, qcow2_cluster(q));
    auto_free u64 *copy = calloc(1, bytes);
    int rc;

    if (!copy)
        return err_set(err, ENOMEM, "%s: no memory", q->fmt.file->name);
    for (u32 i = 0; i < entries; i++)
        copy[i] = htobe64(l1[i]);
    rc = block_file_write(q->fmt.file, copy, bytes, host);
    if (rc)
        return err_sys(err, -rc, "%s: cannot write the L1 table", q->fmt.file->name);
    return qcow2_sync(q, err);
}

static int move_l1(struct qcow2 *q, u64 *l1, u32 entries, struct err *err)
{
    u64 bytes = ALIGN_UP(entries * 8ull, qcow2_cluster(q)), host;
    u64 old_host = q->h.l1_offset, old_bytes = ALIGN_UP(q->h.l1_entries * 8ull, qcow2_cluster(q));
    int rc = qcow2_alloc(q, bytes >> q->h.cluster_bits, &host, err);

    if (!rc)
        rc = qcow2_metadata_mark(q, host, bytes, "L1 table", err);
    if (!rc)
        rc = qcow2_flush_locked(q, err); /* its count, and all that it will point to */
    if (!rc)
        rc = write_l1(q, l1, entries, host, err);
    if (!rc)
        rc = qcow2_header_put96(q, QCOW2_AT_L1_ENTRIES, host, entries, false, err);
    if (rc)
        return rc;
    q->h.l1_offset = host;
    q->h.l1_entries = entries;
    if (old_bytes) {
        qcow2_metadata_unmark(q, old_host, old_bytes);
        qcow2_release(q, old_host >> q->h.cluster_bits, old_bytes >> q->h.cluster_bits);
    }
    return 0;
}

static int grow_l1(struct qcow2 *q, u64 entries, struct err *err)
{
    u64 *l1;
    int rc;

    if (entries > QCOW2_L1_BYTES_MAX / 8)
        return err_set(err, EFBIG, "%s: the disk would be too large for its clusters of %llu bytes",
                       q->fmt.file->name, (unsigned long long)qcow2_cluster(q));
    l1 = calloc(entries, sizeof(u64));
    if (!l1 || qcow2_cache_grow(&q->l2s, (u32)entries)) {
        free(l1);
        return err_set(err, ENOMEM, "%s: no memory", q->fmt.file->name);
    }
    memcpy(l1, q->l1, q->h.l1_entries * sizeof(u64));
    rc = move_l1(q, l1, (u32)entries, err);
    if (rc) {
        free(l1);
        return rc;
    }
    free(q->l1);
    q->l1 = l1;
    return 0;
}

static void see_size(void *opaque, unsigned n, const struct qcow2_snapshot *s)
{
    *(bool *)opaque = *(bool *)opaque && s->has_size;
}

/* Internal snapshots keep their own L1 tables; but without a size of their own, they have the disk's. */
static int check_snapshots(struct qcow2 *q, struct err *err)
{
    bool sized = q->h.version >= 3;
    int rc = q->h.snapshots && sized ? qcow2_snapshots(&q->fmt, see_size, &sized, err) : 0;

    if (rc || !q->h.snapshots || sized)
        return rc;
    return err_set(err, ENOTSUP,
                   "%s: has internal snapshots that do not say how large the disk was, so it must "
                   "keep its size (convert copies it into an image without them)",
                   q->fmt.file->name);
}

/* The file ends behind its last cluster that is used: what was given back at its end is no hole, but gone. */
static void trim(struct qcow2 *q)
{
    struct block_file *file = q->fmt.file;
    u64 end = (file->size + qcow2_cluster(q) - 1) >> q->h.cluster_bits, count;

    while (end && !qcow2_refcount(q, end - 1, &count, NULL) && !count &&
           !qcow2_metadata_at(q, (end - 1) << q->h.cluster_bits, 1))
        end--;
    if (end << q->h.cluster_bits < file->size)
        block_file_truncate(file, end << q->h.cluster_bits); /* else they are holes, as before */
}

static int resize_locked(struct qcow2 *q, u64 size, struct err *err)
{
    u64 span = qcow2_l2_span(q), bytes = qcow2_cluster(q), old = q->h.size, entries;
    int rc = check_snapshots(q, err);

    if (!rc && size > INT64_MAX - GiB)
        rc = err_set(err, EFBIG, "%s: the disk would be too large", q->fmt.file->name);
    if (!rc)
        rc = qcow2_begin(q, err);
    if (rc)
        return rc;
    entries = (size + span - 1) / span;
    if (entries > q->h.l1_entries)
        rc = grow_l1(q, entries, err);
    if (!rc && ALIGN_UP(size, bytes) < old)
        rc = qcow2_zero_locked(q, ALIGN_UP(size, bytes), old - ALIGN_UP(size, bytes), true, true,
                               err);
    if (!rc)
        rc = qcow2_flush_locked(q, err);
    if (!rc)
        rc = qcow2_header_put64(q, QCOW2_AT_SIZE, size, err);
    if (!rc)
        rc = qcow2_sync(q, err);
    if (rc)
        return rc;
    q->h.size = q->fmt.size = size;
    if (size < old)
        trim(q);
    return 0;
}

int qcow2_empty(struct block_format *f, struct err *err)
{
    struct qcow2 *q = qcow2_of(f);
    int rc;

    pthread_mutex_lock(&q->lock);
    rc = f->size ? qcow2_zero_locked(q, 0, f->size, true, true, err) : 0;
    if (!rc)
        rc = qcow2_flush_locked(q, err);
    if (!rc)
        trim(q);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

int qcow2_resize(struct block_format *f, u64 size, struct err *err)
{
    struct qcow2 *q = qcow2_of(f);
    int rc;

    pthread_mutex_lock(&q->lock);
    rc = resize_locked(q, size, err);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

/* --- the name of the backing file --- */

static int write_sector(struct qcow2 *q, const struct block_format *names, u64 name_at,
                        struct err *err)
{
    u8 sector[512];
    int rc = qcow2_header_sector(&q->h, names, name_at, sector, err);

    if (rc)
        return rc;
    rc = block_file_write(q->fmt.file, sector, sizeof(sector), 0);
    if (rc)
        return err_sys(err, -rc, "%s: cannot write the header", q->fmt.file->name);
    return qcow2_sync(q, err);
}

/* Where in the first cluster a name of len bytes can be without touching the first sector or the old name; 0: nowhere. */
static u64 place_for(const struct qcow2 *q, u64 len, u64 old_at, u64 old_len)
{
    u64 end = qcow2_cluster(q), first = 512, behind = MAX(first, old_at + old_len);

    if (range_fits(first, len, old_len ? MIN(old_at, end) : end))
        return first;
    return range_fits(behind, len, end) ? behind : 0;
}

/*
 * One sector says all that counts, and the new name does not lie where the old one is: first the sector that still says
 * the old name, but has no extensions beyond itself; then the new name; then the sector that says so.
 */
static int write_names(struct qcow2 *q, const struct block_format *names, struct err *err)
{
    u64 len = names->backing_name ? strlen(names->backing_name) : 0, at = 0, old_at;
    u64 old[2]; /* where it is; its length, u32, and what follows */
    u8 probe[512];
    int rc = qcow2_begin(q, err);

    if (!rc)
        rc = qcow2_flush_locked(q, err);
    if (rc)
        return rc;
    rc = block_file_read(q->fmt.file, old, sizeof(old), QCOW2_AT_BACKING);
    if (rc)
        return err_sys(err, -rc, "%s: cannot read the header", q->fmt.file->name);
    old_at = be64toh(old[0]);
    if (len && qcow2_header_sector(&q->h, names, 0, probe, NULL)) {
        at = place_for(q, len, old_at, be64toh(old[1]) >> 32);
        if (!at)
            return err_set(err, ENAMETOOLONG,
                           "%s: the name '%s' has no place in the header beside the old one",
                           q->fmt.file->name, names->backing_name);
    }
    /* A name within the sector has all extensions before it. */
    if (at && (old_at >= 512 || !q->fmt.backing_name))
        rc = write_sector(q, &q->fmt, old_at, err);
    if (!rc && at) {
        rc = block_file_write(q->fmt.file, names->backing_name, len, at);
        rc = rc ? err_sys(err, -rc, "%s: cannot write the header", q->fmt.file->name)
                : qcow2_sync(q, err);
    }
    return rc ? rc : write_sector(q, names, at, err);
}

int qcow2_set_backing(struct block_format *f, const char *name, const char *format, struct err *err)
{
    struct qcow2 *q = qcow2_of(f);
    struct block_format names = {.data_name = f->data_name};
    int rc;

    names.backing_name = name ? strdup(name) : NULL;
    names.backing_format = name && format ? strdup(format) : NULL;
    if ((name && !names.backing_name) || (name && format && !names.backing_format)) {
        rc = err_set(err, ENOMEM, "%s: no memory", f->file->name);
    } else {
        pthread_mutex_lock(&q->lock);
        rc = write_names(q, &names, err);
        pthread_mutex_unlock(&q->lock);
    }
    if (rc) {
        free(names.backing_name);
        free(names.backing_format);
        return rc;
    }
    free(f->backing_name);
    free(f->backing_format);
    f->backing_name = names.backing_name;
    f->backing_format = names.backing_format;
    return 0;
}
