/* The Internet checksum (RFC 1071). */
#ifndef NET_CHECKSUM_H
#define NET_CHECKSUM_H

#include "base/types.h"

/* One's complement sum of the bytes as big-endian words, folded; not inverted. An odd last byte is
 * padded with zero. */
u16 checksum_sum(const u8 *p, size_t len);
/* Finishes a frame whose checksum field, at start + offset, holds the sum of the pseudo header
 * only. The caller has checked that start + offset + 2 <= len. */
void checksum_finish(u8 *frame, size_t len, u16 start, u16 offset);

#endif
