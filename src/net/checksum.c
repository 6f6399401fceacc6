/* The Internet checksum, RFC 1071. */
#include "net/checksum.h"
#include <string.h>

u16 checksum_sum(const u8 *p, size_t len)
{
    u64 sum = 0;
    size_t i;

    /* Order of bytes does not matter until the end (RFC 1071, 2 (B)): sum native 32-bit words, swap
     * once. */
    for (i = 0; i + 4 <= len; i += 4) {
        u32 word;

        memcpy(&word, p + i, 4);
        sum += word;
    }
    for (; i < len; i++)
        sum += (u64)p[i] << (i % 2 * 8);
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return __builtin_bswap16((u16)sum);
}

void checksum_finish(u8 *frame, size_t len, u16 start, u16 offset)
{
    u16 sum = (u16)~checksum_sum(frame + start, len - start);
    u8 *field = frame + start + offset;

    /* UDP sends 0xffff for 0, which means "none" (RFC 768); for TCP both are the same. */
    if (!sum)
        sum = 0xffff;
    field[0] = (u8)(sum >> 8);
    field[1] = (u8)sum;
}
