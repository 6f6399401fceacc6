/*
 * How fast a migration may send: a bucket that fills at the allowed rate and may be overdrawn by one
 * message, so no message is too large for it. Shared by all senders; the clock is the caller's.
 */
#ifndef VM_MIGRATE_PACE_H
#define VM_MIGRATE_PACE_H

#include "base/types.h"
#include <pthread.h>

struct migrate_pace {
    pthread_mutex_t lock;
    u64 bytes_per_s; /* 0: as fast as it goes */
    s64 free_ns;     /* when what was sent so far is paid for */
};

void migrate_pace_init(struct migrate_pace *p, u64 bytes_per_s);
void migrate_pace_fini(struct migrate_pace *p);
void migrate_pace_set(struct migrate_pace *p, u64 bytes_per_s);
/* How long until all that was sent is paid for, in ns. */
s64 migrate_pace_wait(struct migrate_pace *p, s64 now_ns);
/* About to send `bytes`: how long to wait first, in ns. */
s64 migrate_pace_take(struct migrate_pace *p, u64 bytes, s64 now_ns);

#endif
