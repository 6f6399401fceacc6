/* Compressed kernels: gzip, xz, LZ4 (the kernel's legacy frames) and zstd. */
#ifndef BOARD_UNPACK_H
#define BOARD_UNPACK_H

#include "base/err.h"

/* The format's name, or NULL when it is none we know. */
const char *unpack_format(const u8 *in, size_t in_len);
/* Decompresses all of `in` into out; *ret_len gets the number of bytes, at most out_cap. Bytes that
 * follow the compressed stream (the kernel appends the length) are ignored. -EINVAL: damaged;
 * -E2BIG: larger than out_cap; -ENOTSUP: unknown format. */
int unpack(const u8 *in, size_t in_len, u8 *out, size_t out_cap, size_t *ret_len, struct err *err);

#endif
