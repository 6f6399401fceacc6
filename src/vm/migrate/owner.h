/*
 * Who may run the guest: the source's and the destination's half of the protocol, as tables without
 * any input or output. ARCHITECTURE.md, "Migration", has the diagram and the argument;
 * tests/model/migrate.pml checks it.
 */
#ifndef VM_MIGRATE_OWNER_H
#define VM_MIGRATE_OWNER_H

#include "base/types.h"

enum migrate_owner {
    MIGRATE_OURS,      /* source: it runs here, and is copied */
    MIGRATE_HELD,      /* source: it stands still, and is still ours */
    MIGRATE_GIVEN,     /* source: GO was sent, or may have been: not ours */
    MIGRATE_SERVING,   /* source: it runs there; we still have pages it needs */
    MIGRATE_GONE,      /* source: it has all; this process may end */
    MIGRATE_UNDECIDED, /* source: GO was sent, no answer, and nobody who knows can be asked */
    MIGRATE_OWNERS
};

enum migrate_event {
    MIGRATE_EV_STOP,     /* the guest was stopped for the hand-over */
    MIGRATE_EV_RESUME,   /* the hand-over is called off, for whatever reason */
    MIGRATE_EV_GO,       /* about to send GO */
    MIGRATE_EV_RUNNING,  /* the destination says that it runs */
    MIGRATE_EV_NEVER,    /* it says, or its supervisor does, that it never ran and never will */
    MIGRATE_EV_RAN,      /* its supervisor says that it ran */
    MIGRATE_EV_COMPLETE, /* it has every page */
    MIGRATE_EV_LOST,     /* the line is cut, and nobody answers */
    MIGRATE_EV_CLAIM,    /* a person says: it does not run there, let it run here */
    MIGRATE_EV_ABANDON,  /* a person says: it runs there, end this one */
    MIGRATE_EVENTS
};

/* The next state; the same one when the event changes nothing, MIGRATE_OWNERS when it cannot be. */
enum migrate_owner migrate_owner_next(enum migrate_owner state, enum migrate_event event);
/* May vCPUs of the source run in this state? */
bool migrate_owner_runs(enum migrate_owner state);
const char *migrate_owner_name(enum migrate_owner state);

/*
 * The destination's word, in memory that it shares with its supervisor: who comes first decides, for
 * good. The destination takes it before its first instruction; the supervisor when the source asks
 * and it was not taken.
 */
enum migrate_claim { MIGRATE_OPEN, MIGRATE_RAN, MIGRATE_REFUSED };

struct migrate_word {
    u32 claim;   /* atomic */
    u32 settled; /* atomic: the source knows how it ended, so nobody will ask */
};

/* Tries to make it `want`; returns what it is from now on. */
enum migrate_claim migrate_word_take(struct migrate_word *w, enum migrate_claim want);

#endif
