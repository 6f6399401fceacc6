/*
 * Compressed clusters: raw deflate or one zstd frame, which must give a whole cluster. The compressed length is known
 * only in sectors, so rubbish may follow; output past the cluster is never made, so nothing can explode.
 * qcow2.txt, "Compressed Clusters Descriptor". Any thread.
 */
#include "block/qcow2.h"
#include <errno.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#define ZSTD_WINDOW_LOG_MAX 23 /* memory that a frame may ask for: 8 MiB */

static bool inflate_all(const u8 *from, size_t len, u8 *to, size_t size)
{
    z_stream z = {
        .next_in = (u8 *)from, .avail_in = (uInt)len, .next_out = to, .avail_out = (uInt)size};
    int rc;

    if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
        return false;
    rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return z.avail_out == 0 && (rc == Z_STREAM_END || rc == Z_BUF_ERROR || rc == Z_OK);
}

static bool zstd_all(const u8 *from, size_t len, u8 *to, size_t size)
{
    ZSTD_inBuffer in = {.src = from, .size = len};
    ZSTD_outBuffer out = {.dst = to, .size = size};
    ZSTD_DStream *z = ZSTD_createDStream();
    size_t rc = 1, before;

    if (!z)
        return false;
    ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);
    do {
        before = in.pos + out.pos;
        rc = ZSTD_decompressStream(z, &out, &in);
    } while (!ZSTD_isError(rc) && rc && out.pos < size && in.pos + out.pos > before);
    ZSTD_freeDStream(z);
    return !ZSTD_isError(rc) && out.pos == size;
}

int qcow2_unpack(struct block_format *f, const struct block_extent *e, void *buf, struct err *err)
{
    struct qcow2 *q = qcow2_of(f);
    auto_free u8 *packed = malloc(e->packed_len);
    bool good;
    int rc;

    if (!packed)
        return err_set(err, ENOMEM, "%s: no memory", f->file->name);
    rc = block_file_read(e->file, packed, e->packed_len, e->host);
    if (rc)
        return err_sys(err, -rc, "%s: cannot read the compressed cluster at 0x%llx", f->file->name,
                       (unsigned long long)e->host);
    good = q->h.compression == QCOW2_ZSTD
               ? zstd_all(packed, e->packed_len, buf, f->cluster_bytes)
               : inflate_all(packed, e->packed_len, buf, f->cluster_bytes);
    if (!good)
        return err_set(err, EIO, "%s: the compressed cluster at 0x%llx is damaged", f->file->name,
                       (unsigned long long)e->host);
    return 0;
}
