/* Work that gives way to the guest. */
#ifndef VM_MIGRATE_GENTLY_H
#define VM_MIGRATE_GENTLY_H

#include "base/types.h"

/* How a gentle thread fares; zeroed to begin with. It gives way for as long as it gets about half of the time in which it
 * could run: where others want the processors, too, its low priority serves them, not the guest. */
struct migrate_patience {
    bool over;           /* it should end, and somebody else go on with its work at the usual priority */
    s64 late_ns;         /* by how much it has waited for a processor longer than it had one, of late */
    s64 seen_ns, cpu_ns; /* the last look: time, and the thread's; seen_ns is 0 when another thread begins */
    s64 sleeps;          /* how often it had slept by then */
};

/* Runs fn(opaque) in a thread of its own, at a low priority, and waits until it has returned. */
void migrate_gently(void (*fn)(void *opaque), void *opaque);
/* Called by that thread every now and then, from its beginning on: is its patience over? */
bool migrate_patience_over(struct migrate_patience *p);
/* The same of numbers: since the last time it ran and waited for so long. */
void migrate_patience_note(struct migrate_patience *p, s64 ran_ns, s64 wait_ns);

#endif
