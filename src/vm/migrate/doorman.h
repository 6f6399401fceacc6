/* Who answers at the control socket while the main loop waits for memory that is still on another host. */
#ifndef VM_MIGRATE_DOORMAN_H
#define VM_MIGRATE_DOORMAN_H

#include "base/err.h"

struct vm_migration;
struct migrate_doorman;

/* In a thread that is locked in, whose kind its own thread gets. It ends by itself when all memory is there. */
int migrate_doorman_start(struct vm_migration *m, struct migrate_doorman **ret_doorman,
                          struct err *err);
/* NULL is fine. */
void migrate_doorman_stop(struct migrate_doorman *d);

#endif
