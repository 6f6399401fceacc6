/*
 * Pacing. Invariant: over any stretch of time, what was let through is at most rate * time + BURST_NS
 * worth of bytes + one message of each sender.
 */
#include "vm/migrate/pace.h"

#define BURST_NS 5000000 /* unused time is kept for this long */

void migrate_pace_init(struct migrate_pace *p, u64 bytes_per_s)
{
    *p = (struct migrate_pace){.bytes_per_s = bytes_per_s};
    pthread_mutex_init(&p->lock, NULL);
}

void migrate_pace_fini(struct migrate_pace *p)
{
    pthread_mutex_destroy(&p->lock);
}

void migrate_pace_set(struct migrate_pace *p, u64 bytes_per_s)
{
    pthread_mutex_lock(&p->lock);
    p->bytes_per_s = bytes_per_s;
    p->free_ns = 0;
    pthread_mutex_unlock(&p->lock);
}

s64 migrate_pace_wait(struct migrate_pace *p, s64 now_ns)
{
    pthread_mutex_lock(&p->lock);
    s64 wait_ns = p->bytes_per_s ? p->free_ns - now_ns : 0;
    pthread_mutex_unlock(&p->lock);
    return MAX(wait_ns, (s64)0);
}

s64 migrate_pace_take(struct migrate_pace *p, u64 bytes, s64 now_ns)
{
    s64 wait_ns = 0;

    pthread_mutex_lock(&p->lock);
    if (p->bytes_per_s) {
        if (p->free_ns < now_ns - BURST_NS)
            p->free_ns = now_ns - BURST_NS;
        if (p->free_ns > now_ns)
            wait_ns = p->free_ns - now_ns;
        p->free_ns += (s64)((double)bytes * 1e9 / (double)p->bytes_per_s);
    }
    pthread_mutex_unlock(&p->lock);
    return wait_ns;
}
