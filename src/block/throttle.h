/* How much a disk may be used: bytes and requests a second, with a burst. Time is the caller's. Not locked. */
#ifndef BLOCK_THROTTLE_H
#define BLOCK_THROTTLE_H

#include "base/types.h"

#define THROTTLE_BURST_NS 100000000ll /* what was not used lately may be used at once */

struct throttle {
    u64 bytes_per_s, requests_per_s; /* 0: as much as it likes */
    s64 bytes_due_ns, requests_due_ns;
};

static inline bool throttle_is_on(const struct throttle *t)
{
    return t->bytes_per_s || t->requests_per_s;
}

/* 0: the request may start now, and is counted. Else so many ns are to be waited. */
s64 throttle_take(struct throttle *t, s64 now_ns, u64 bytes);

#endif
