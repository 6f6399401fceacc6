/* What the files share that tie a migration to a machine. */
#ifndef VM_MIGRATE_PARTS_H
#define VM_MIGRATE_PARTS_H

#include "mem/dirty.h"
#include "vm/migrate/destination.h"
#include "vm/migrate/disk.h"
#include "vm/migrate/source.h"
#include "vm/migrate/vm.h"
#include "vm/parts.h"
#include "vm/worker.h"

struct vm_migration {
    struct vm *vm;
    struct worker *worker;
    struct migrate_guest guest;
    struct dirty_log log;
    bool with_disks; /* they are copied; else both hosts see the same */
    struct migrate_disks disks;
    bool was_paused; /* by the user, when the migration began */
    bool free_due;   /* the machine ends */
    bool saved;      /* its processors' state is what it was when it stopped */

    struct migrate_source *source;
    struct state_buf config;
    char place[160];           /* where it goes, as its user called it */
    struct control_call *call; /* who asked for it, and waits; NULL: has gone */
    struct timer tick;         /* progress */
    struct timer patience;     /* with a side that does not take our CANCEL */
    enum migrate_event decision;
    atomic_int result;
    struct err error;

    struct migrate_destination *destination;
    atomic_bool receiving; /* its director is at work */
    struct migrate_doorman *doorman;
    pthread_mutex_t again_lock; /* new lines come through the main loop or the doorman */

    /* network.c */
    struct timer announce_tick;
    unsigned announced; /* rounds */
    pthread_mutex_t
        arrived_lock; /* of frames from the source that are on their way to the main loop */
    struct arrived *arrived, **arrived_last;
    size_t arrived_bytes;

    struct timer throttle_tick;
    unsigned throttle; /* percent */
    bool throttled;    /* vCPUs stand still just now */
};

/* The machine's side for both ends (guest.c). */
void vm_migration_guest(struct vm_migration *m);
/* The machine's networks (network.c): their part of m->guest. */
void vm_migration_network_init(struct vm_migration *m);
void vm_migration_network_fini(struct vm_migration *m);
/* Tells networks where the machine is now: at once, and a few times later. Main loop. */
void vm_migration_announce(struct vm_migration *m);
/* Source: do the disks go over, too? Destination: they come, if they were not opened as another host's. */
void vm_migration_copy_disks(struct vm_migration *m, bool on);
void vm_migration_take_disks(struct vm_migration *m);
struct vm_migration *vm_migration_get(struct vm *vm, struct err *err); /* makes it if need be */

/* New lines for a post-copy whose line broke, from who accepted them; takes them over. Main loop or doorman. */
int vm_migration_again(struct vm_migration *m, const int *fds, unsigned nfds, struct err *err);

#endif
