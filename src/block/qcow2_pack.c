/*
 * Compressed clusters are made: bytes are packed without a lock by as many threads as there are, then get a place, side
 * by side and over the ends of clusters, are written by the caller, and linked. qcow2.txt, "Compressed Clusters
 * Descriptor".
 *
 * Deflate has a window of 4 KiB, as the format wants. It takes its time to find out that nothing gets smaller; so data
 * whose bytes are all equally frequent, and in which a fast search finds no repetition, is not given to it.
 *
 * Invariant: a host cluster counts one for each compressed cluster that touches it; packed_at never lies in one that
 * counts none (qcow2_refcount_set sees to that).
 *
 * Any thread; a packer is one thread's.
 */
#include "block/qcow2_pack.h"
#include "block/qcow2.h"
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#define DEFLATE_WINDOW 12
#define DEFLATE_MEMORY 9
#define PROBE_LEVEL 1
#define EVEN_MIN 4096 /* bytes below which frequencies say nothing */

struct qcow2_packer {
    enum qcow2_compression type;
    u32 cluster;
    z_stream z;
    ZSTD_CCtx *zstd; /* zlib: to look for repetitions */
};

struct qcow2_packer *qcow2_packer_new(struct block_format *f)
{
    struct qcow2_packer *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->type = qcow2_of(f)->h.compression;
    p->cluster = f->cluster_bytes;
    p->zstd = ZSTD_createCCtx();
    if (!p->zstd || (p->type == QCOW2_ZLIB &&
                     deflateInit2(&p->z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -DEFLATE_WINDOW,
                                  DEFLATE_MEMORY, Z_DEFAULT_STRATEGY) != Z_OK)) {
        ZSTD_freeCCtx(p->zstd);
        free(p);
        return NULL;
    }
    return p;
}

void qcow2_packer_free(struct qcow2_packer *p)
{
    if (!p)
        return;
    if (p->type == QCOW2_ZLIB)
        deflateEnd(&p->z);
    ZSTD_freeCCtx(p->zstd);
    free(p);
}

/* All 256 bytes are about equally frequent: the sum of the squares of their counts is hardly above its least. */
static bool even(const u8 *data, u32 len)
{
    u32 count[4][256] = {{0}};
    u64 squares = 0, least = (u64)len * len / 256;

    for (u32 i = 0; i + 4 <= len; i += 4)
        for (u32 n = 0; n < 4; n++)
            count[n][data[i + n]]++;
    for (u32 b = 0; b < 256; b++) {
        u64 n = (u64)count[0][b] + count[1][b] + count[2][b] + count[3][b];

        squares += n * n;
    }
    /* Chance alone adds len * 255 / 256 on the average. */
    return squares < least + 2 * (u64)len;
}

/* zlib: not worth trying. */
static bool hopeless(struct qcow2_packer *p, const void *cluster, void *to)
{
    size_t n;

    if (p->cluster < EVEN_MIN || !even(cluster, p->cluster))
        return false;
    n = ZSTD_compressCCtx(p->zstd, to, p->cluster, cluster, p->cluster, PROBE_LEVEL);
    return ZSTD_isError(n); /* it did not fit */
}

u32 qcow2_pack(struct qcow2_packer *p, const void *cluster, void *to)
{
    size_t n;

    if (p->type == QCOW2_ZSTD) {
        n = ZSTD_compressCCtx(p->zstd, to, p->cluster - 1, cluster, p->cluster,
                              ZSTD_CLEVEL_DEFAULT);
        return ZSTD_isError(n) ? 0 : (u32)n;
    }
    if (hopeless(p, cluster, to) || deflateReset(&p->z) != Z_OK)
        return 0;
    p->z.next_in = (u8 *)cluster;
    p->z.avail_in = p->cluster;
    p->z.next_out = to;
    p->z.avail_out = p->cluster - 1;
    return deflate(&p->z, Z_FINISH) == Z_STREAM_END ? p->cluster - 1 - p->z.avail_out : 0;
}

/* --- places --- */

static u64 count_max(const struct qcow2 *q)
{
    return q->h.refcount_order == 6 ? UINT64_MAX : BIT(1u << q->h.refcount_order) - 1;
}

/* Behind what was placed last, if that cluster can count one more; else at the start of a new cluster. */
static int place(struct qcow2 *q, u32 len, u64 *ret_host, struct err *err)
{
    u64 bytes = qcow2_cluster(q), at = q->packed_at, next = ALIGN_UP(at, bytes), count = 0;
    u64 fresh = 0;
    bool goes_on;
    int rc = at ? qcow2_refcount(q, at >> q->h.cluster_bits, &count, err) : 0;

    goes_on = at && count < count_max(q);
    if (!rc && (!goes_on || next - at < len)) {
        rc = qcow2_alloc(q, 1, &fresh, err);
        goes_on = goes_on && fresh == next;
    }
    if (!rc && goes_on) {
        rc = qcow2_refcount_add(q, at >> q->h.cluster_bits, 1, err);
        if (rc && fresh)
            qcow2_unalloc(q, fresh, 1);
    }
    if (rc)
        return rc;
    if (!goes_on)
        at = fresh;
    q->packed_at = (at + len) % bytes ? at + len : 0;
    *ret_host = at;
    return 0;
}

static u64 entry_of(const struct qcow2 *q, const struct qcow2_piece *p)
{
    u64 more = ((p->host + p->len - 1) >> 9) - (p->host >> 9);

    return QCOW2_PACKED | more << (62 - (q->h.cluster_bits - 8)) | p->host;
}

static void drop(struct qcow2 *q, const struct qcow2_piece *list, unsigned n)
{
    for (; n; n--, list++) {
        u64 first = ALIGN_DOWN(list->host, qcow2_cluster(q));

        qcow2_unalloc(q, first, ((list->host + list->len - 1 - first) >> q->h.cluster_bits) + 1);
    }
}

int qcow2_pieces_place(struct block_format *f, struct qcow2_piece *list, unsigned n,
                       struct err *err)
{
    struct qcow2 *q = qcow2_of(f);
    unsigned done = 0;
    int rc;

    pthread_mutex_lock(&q->lock);
    rc = q->fmt.data_external
             ? err_set(err, ENOTSUP, "%s: keeps its data in another file, never compressed",
                       f->file->name)
             : qcow2_usable(q, err);
    while (!rc && done < n) {
        rc = place(q, list[done].len, &list[done].host, err);
        done += !rc;
    }
    if (!rc && list[n - 1].host >> (62 - (q->h.cluster_bits - 8)))
        rc = err_set(err, EFBIG, "%s: the image is too large for compressed clusters",
                     f->file->name);
    if (rc)
        drop(q, list, done);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

int qcow2_pieces_link(struct block_format *f, const struct qcow2_piece *list, unsigned n,
                      struct err *err)
{
    struct qcow2 *q = qcow2_of(f);
    unsigned done = 0;
    int rc = 0;

    pthread_mutex_lock(&q->lock);
    while (!rc && done < n) {
        rc = qcow2_entry_set(q, list[done].offset, entry_of(q, &list[done]), err);
        done += !rc;
    }
    if (rc)
        drop(q, list + done, n - done);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

void qcow2_pieces_drop(struct block_format *f, const struct qcow2_piece *list, unsigned n)
{
    struct qcow2 *q = qcow2_of(f);

    pthread_mutex_lock(&q->lock);
    drop(q, list, n);
    pthread_mutex_unlock(&q->lock);
}
