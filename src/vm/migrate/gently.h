/* Work that gives way to the guest. */
#ifndef VM_MIGRATE_GENTLY_H
#define VM_MIGRATE_GENTLY_H

/* Runs fn(opaque) in a thread of its own, at a low priority, and waits until it has returned. */
void migrate_gently(void (*fn)(void *opaque), void *opaque);

#endif
