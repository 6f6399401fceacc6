/*
 * How much a device has moved, for people who watch: any thread counts, any thread reads, nothing is synchronized by it.
 * "in" is what came to the guest (read, received), "out" what it gave away (written, sent).
 */
#ifndef DEVICE_TRAFFIC_H
#define DEVICE_TRAFFIC_H

#include "base/types.h"
#include <stdatomic.h>

struct traffic {
    atomic_ullong in_bytes, in_count, out_bytes, out_count;
};

static inline void traffic_in(struct traffic *t, u64 bytes)
{
    atomic_fetch_add_explicit(&t->in_bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&t->in_count, 1, memory_order_relaxed);
}

static inline void traffic_out(struct traffic *t, u64 bytes)
{
    atomic_fetch_add_explicit(&t->out_bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&t->out_count, 1, memory_order_relaxed);
}

#endif
