/*
 * Decompression of kernel payloads with the host's libraries. The kernel's own variants: LZ4 in the
 * legacy frame format (LZ4 frame description, "Legacy frame": magic, then blocks of at most 8 MiB
 * with 32-bit lengths).
 *
 * Input is hostile: nothing is written past out_cap, whatever the streams claim about their sizes.
 */
#include "board/unpack.h"

#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define LZ4_BLOCK_MAX (8 * MiB)
#define XZ_MEMORY_MAX (256 * MiB)

static int damaged(struct err *err, const char *format)
{
    return err_set(err, EINVAL, "the %s stream is damaged", format);
}

static int too_large(struct err *err, const char *format, size_t cap)
{
    return err_set(err, E2BIG, "the %s stream unpacks to more than %zu bytes", format, cap);
}

static int unpack_gzip(const u8 *in, size_t in_len, u8 *out, size_t out_cap, size_t *ret_len,
                       struct err *err)
{
    z_stream z = {.next_in = (u8 *)(uintptr_t)in,
                  .avail_in = (uInt)in_len,
                  .next_out = out,
                  .avail_out = (uInt)out_cap};
    int rc;

    if (inflateInit2(&z, 15 + 16) != Z_OK)
        return err_set(err, ENOMEM, "no memory for gzip");
    rc = inflate(&z, Z_FINISH);
    *ret_len = z.total_out;
    inflateEnd(&z);
    if (rc == Z_STREAM_END)
        return 0;
    return rc == Z_BUF_ERROR && z.avail_out == 0 ? too_large(err, "gzip", out_cap)
                                                 : damaged(err, "gzip");
}

static int unpack_xz(const u8 *in, size_t in_len, u8 *out, size_t out_cap, size_t *ret_len,
                     struct err *err)
{
    lzma_stream s = LZMA_STREAM_INIT;
    lzma_ret rc;

    if (lzma_stream_decoder(&s, XZ_MEMORY_MAX, 0) != LZMA_OK)
        return err_set(err, ENOMEM, "no memory for xz");
    s.next_in = in;
    s.avail_in = in_len;
    s.next_out = out;
    s.avail_out = out_cap;
    rc = lzma_code(&s, LZMA_RUN);
    *ret_len = s.total_out;
    lzma_end(&s);
    if (rc == LZMA_STREAM_END)
        return 0;
    return rc == LZMA_OK && s.avail_out == 0 ? too_large(err, "xz", out_cap) : damaged(err, "xz");
}

static int unpack_lz4(const u8 *in, size_t in_len, u8 *out, size_t out_cap, size_t *ret_len,
                      struct err *err)
{
    size_t at = 4, len = 0;

    while (in_len - at > 4) { /* what is left at the end is the length that the kernel appends */
        size_t room = MIN(out_cap - len, LZ4_BLOCK_MAX);
        u32 block;
        int n;

        memcpy(&block, in + at, 4);
        at += 4;
        if (block == 0 || block > in_len - at)
            return damaged(err, "LZ4");
        n = LZ4_decompress_safe((const char *)in + at, (char *)out + len, (int)block, (int)room);
        if (n < 0)
            return room < LZ4_BLOCK_MAX ? too_large(err, "LZ4", out_cap) : damaged(err, "LZ4");
        at += block;
        len += (size_t)n;
    }
    *ret_len = len;
    return 0;
}

static int unpack_zstd(const u8 *in, size_t in_len, u8 *out, size_t out_cap, size_t *ret_len,
                       struct err *err)
{
    size_t frame = ZSTD_findFrameCompressedSize(in, in_len), n;

    if (ZSTD_isError(frame))
        return damaged(err, "zstd");
    n = ZSTD_decompress(out, out_cap, in, frame);
    if (ZSTD_isError(n))
        return ZSTD_getErrorCode(n) == ZSTD_error_dstSize_tooSmall ? too_large(err, "zstd", out_cap)
                                                                   : damaged(err, "zstd");
    *ret_len = n;
    return 0;
}

static const struct format {
    const char *name;
    u8 magic[6], magic_len;
    int (*unpack)(const u8 *in, size_t in_len, u8 *out, size_t out_cap, size_t *ret_len,
                  struct err *err);
} formats[] = {
    {"gzip", {0x1f, 0x8b}, 2, unpack_gzip},
    {"xz", {0xfd, '7', 'z', 'X', 'Z', 0}, 6, unpack_xz},
    {"LZ4", {0x02, 0x21, 0x4c, 0x18}, 4, unpack_lz4},
    {"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4, unpack_zstd},
};

static const struct format *find(const u8 *in, size_t in_len)
{
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        if (in_len >= 8 && !memcmp(in, formats[i].magic, formats[i].magic_len))
            return &formats[i];
    }
    return NULL;
}

const char *unpack_format(const u8 *in, size_t in_len)
{
    const struct format *f = find(in, in_len);

    return f ? f->name : NULL;
}

int unpack(const u8 *in, size_t in_len, u8 *out, size_t out_cap, size_t *ret_len, struct err *err)
{
    const struct format *f = find(in, in_len);
    size_t len = 0;
    int rc;

    if (!f || in_len > UINT32_MAX || out_cap > INT32_MAX)
        return err_set(err, ENOTSUP, "the compression is none of gzip, xz, LZ4 and zstd");
    rc = f->unpack(in, in_len, out, out_cap, &len, err);
    if (!rc)
        *ret_len = len;
    return rc;
}
