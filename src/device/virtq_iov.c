/* Copies between flat buffers and the segments of a chain. Lengths are checked by these loops
 * alone. */
#include "device/virtq.h"
#include <string.h>

size_t iov_read(const struct iovec *iov, unsigned n, size_t offset, void *buf, size_t len)
{
    size_t done = 0;

    for (unsigned i = 0; i < n && done < len; i++) {
        size_t part;

        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        part = MIN(len - done, iov[i].iov_len - offset);
        memcpy((u8 *)buf + done, (const u8 *)iov[i].iov_base + offset, part);
        done += part;
        offset = 0;
    }
    return done;
}

size_t iov_write(const struct iovec *iov, unsigned n, size_t offset, const void *buf, size_t len)
{
    size_t done = 0;

    for (unsigned i = 0; i < n && done < len; i++) {
        size_t part;

        if (offset >= iov[i].iov_len) {
            offset -= iov[i].iov_len;
            continue;
        }
        part = MIN(len - done, iov[i].iov_len - offset);
        memcpy((u8 *)iov[i].iov_base + offset, (const u8 *)buf + done, part);
        done += part;
        offset = 0;
    }
    return done;
}

bool iov_drop(struct iovec **iov, unsigned *n, size_t len)
{
    while (len && *n) {
        size_t part = MIN(len, (*iov)->iov_len);

        (*iov)->iov_base = (u8 *)(*iov)->iov_base + part;
        (*iov)->iov_len -= part;
        len -= part;
        if (!(*iov)->iov_len) {
            (*iov)++;
            (*n)--;
        }
    }
    return len == 0;
}
