/*
 * New qcow2 images: header, an L1 table of zeros, refcounts. The header is written last, so that what was left half done
 * is no image.
 */
#include "block/qcow2.h"
#include <errno.h>
#include <stdlib.h>

static u64 l1_entries(const struct qcow2_create *o)
{
    u64 span_bits = 2 * o->cluster_bits - 3;

    return MAX((o->size + BIT(span_bits) - 1) >> span_bits, 1ull);
}

int qcow2_create_check(const struct qcow2_create *o, struct err *err)
{
    if (o->version != 2 && o->version != 3)
        return err_set(err, EINVAL, "qcow2 version %u; there are 2 and 3", o->version);
    if (o->cluster_bits < 9 || o->cluster_bits > 21)
        return err_set(err, EINVAL, "the cluster size must be a power of two from 512 to 2M");
    if (o->refcount_order > 6 || (o->version == 2 && o->refcount_order != 4))
        return err_set(err, EINVAL,
                       o->version == 2
                           ? "qcow2 version 2 (compat=0.10) has refcounts of 16 bits only"
                           : "the refcount width must be a power of two up to 64 bits");
    if (o->version == 2 && o->lazy_refcounts)
        return err_set(err, EINVAL, "lazy refcounts need qcow2 version 3 (compat=1.1)");
    if (o->version == 2 && o->compression != QCOW2_ZLIB)
        return err_set(err, EINVAL, "zstd needs qcow2 version 3 (compat=1.1)");
    if (o->size > INT64_MAX - GiB)
        return err_set(err, EFBIG, "the disk would be too large");
    if (l1_entries(o) > QCOW2_L1_BYTES_MAX / 8)
        return err_set(err, EFBIG,
                       "the disk is too large for clusters of %llu bytes, with which "
                       "there are up to %llu GiB; larger clusters (up to 2M) hold more",
                       (unsigned long long)BIT(o->cluster_bits),
                       (unsigned long long)((QCOW2_L1_BYTES_MAX / 8) << (2 * o->cluster_bits - 3)) /
                           GiB);
    return 0;
}

static int write_all(struct block_file *file, struct qcow2_header *h, const u16 *counts, u64 n,
                     const u8 *cluster, struct err *err)
{
    struct qcow2_counts s = {file, h->cluster_bits, h->refcount_order, counts, n};
    auto_free u8 *header = malloc(BIT(h->cluster_bits));
    int rc;

    if (!header)
        return err_set(err, ENOMEM, "%s: no memory", file->name);
    rc = block_file_zero(file, 0, n << h->cluster_bits, true);
    if (rc)
        return err_sys(err, -rc, "%s: cannot make room", file->name);
    rc = qcow2_counts_write(&s, &h->reftable_offset, &h->reftable_clusters, err);
    if (rc)
        return rc;
    memcpy(header, cluster, BIT(h->cluster_bits));
    u64 offset = htobe64(h->reftable_offset);
    u32 clusters = htobe32(h->reftable_clusters);
    memcpy(header + QCOW2_AT_REFTABLE, &offset, sizeof(offset));
    memcpy(header + QCOW2_AT_REFTABLE + 8, &clusters, sizeof(clusters));
    rc = block_file_sync(file);
    if (!rc)
        rc = block_file_write(file, header, BIT(h->cluster_bits), 0);
    if (!rc)
        rc = block_file_sync(file);
    return rc ? err_sys(err, -rc, "%s: cannot write the header", file->name) : 0;
}

int qcow2_create(struct block_file *file, const struct qcow2_create *o, struct err *err)
{
    u64 entries, l1_clusters, n;
    struct qcow2_header h = {.version = o->version, .cluster_bits = o->cluster_bits};
    struct block_format names = {.backing_name = (char *)o->backing_name,
                                 .backing_format = (char *)o->backing_format};
    auto_free u16 *counts = NULL;
    auto_free u8 *cluster = NULL;
    int rc = qcow2_create_check(o, err);

    if (rc)
        return rc;
    entries = l1_entries(o);
    l1_clusters = (entries * 8 + BIT(o->cluster_bits) - 1) >> o->cluster_bits;
    n = 1 + l1_clusters;
    h.size = o->size;
    h.refcount_order = o->refcount_order;
    h.compat = o->lazy_refcounts ? QCOW2_LAZY : 0;
    h.compression = o->compression;
    h.incompat = o->compression == QCOW2_ZLIB ? 0 : QCOW2_COMPRESSION;
    h.l1_entries = (u32)entries;
    h.l1_offset = BIT(o->cluster_bits);
    counts = malloc(n * sizeof(u16));
    cluster = malloc(BIT(o->cluster_bits));
    if (!counts || !cluster)
        return err_set(err, ENOMEM, "%s: no memory", file->name);
    for (u64 i = 0; i < n; i++)
        counts[i] = 1;
    rc = qcow2_header_make(&h, &names, cluster, err);
    return rc ? rc : write_all(file, &h, counts, n, cluster, err);
}
