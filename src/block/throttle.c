/*
 * Two buckets, kept as times: `due` is when all that was let through would have been used up at the rate allowed. It may
 * lie ahead of now by the burst, no further; a request that starts moves it on by its own cost. (The generic cell rate
 * algorithm of ATM, I.371.) So a request of any size can start, and those behind it pay.
 */
#include "block/throttle.h"

/* 128 bits: a foreign length times a billion. */
static s64 cost_ns(u64 amount, u64 per_s)
{
    unsigned __int128 ns = (unsigned __int128)amount * NS_PER_S / per_s;

    return ns > 3600ull * NS_PER_S ? 3600ll * (s64)NS_PER_S : (s64)ns;
}

static s64 wait_ns(u64 per_s, s64 due_ns, s64 now_ns)
{
    return per_s ? MAX(due_ns - now_ns - THROTTLE_BURST_NS, 0) : 0;
}

s64 throttle_take(struct throttle *t, s64 now_ns, u64 bytes)
{
    s64 wait = MAX(wait_ns(t->bytes_per_s, t->bytes_due_ns, now_ns),
                   wait_ns(t->requests_per_s, t->requests_due_ns, now_ns));

    if (wait)
        return wait;
    if (t->bytes_per_s)
        t->bytes_due_ns = MAX(t->bytes_due_ns, now_ns) + cost_ns(bytes, t->bytes_per_s);
    if (t->requests_per_s)
        t->requests_due_ns = MAX(t->requests_due_ns, now_ns) + cost_ns(1, t->requests_per_s);
    return 0;
}
