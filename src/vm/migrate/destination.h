/*
 * The destination's half of a migration: one thread for each connection, and the director, which is
 * the thread that calls migrate_destination_run(). HELLO and JOIN were read before, by who accepted
 * the connections.
 */
#ifndef VM_MIGRATE_DESTINATION_H
#define VM_MIGRATE_DESTINATION_H

#include "vm/migrate/guest.h"
#include "vm/migrate/owner.h"
#include "vm/migrate/wire.h"

struct migrate_destination;

/* word: shared with the supervisor; outlives it. Takes the descriptors over, on failure too. */
int migrate_destination_new(const struct migrate_guest *guest, struct migrate_word *word,
                            const int *fds, unsigned nfds,
                            struct migrate_destination **ret_destination, struct err *err);
/* Nobody may be in its lazy source any more: after run() returned 0, or with the vCPUs ended. */
void migrate_destination_free(struct migrate_destination *d);
/*
 * 0: the machine runs here and has all of its memory. Else *err says why; migrate_destination_runs() says whether the
 * machine runs: then its vCPUs wait for pages, and a new line (migrate_destination_again()) brings them. If it does not, it
 * never will.
 */
int migrate_destination_run(struct migrate_destination *d, struct err *err);
bool migrate_destination_runs(const struct migrate_destination *d);
u64 migrate_destination_missing(const struct migrate_destination *d); /* pages */
/* Any thread, while nobody calls again(): the descriptor is one of its lines, or a copy of it. */
bool migrate_destination_has_line(struct migrate_destination *d, int fd);
/* New connections, on which HELLO and JOIN were read; then run again. */
int migrate_destination_again(struct migrate_destination *d, const int *fds, unsigned nfds,
                              struct err *err);
/* Any thread: those who wait for a page at this moment let go (mem/lazy.h). */
void migrate_destination_interrupt(struct migrate_destination *d);
/* Any thread: the machine ends; whoever waits for a page, now or later, gets none. */
void migrate_destination_abandon(struct migrate_destination *d);
/* Any thread: ends it as if the line had broken. */
void migrate_destination_cut(struct migrate_destination *d);

#endif
