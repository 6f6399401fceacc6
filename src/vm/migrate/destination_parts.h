/* What the files of a migration's destination share. Its users see destination.h only. */
#ifndef VM_MIGRATE_DESTINATION_PARTS_H
#define VM_MIGRATE_DESTINATION_PARTS_H

#include "base/cond.h"
#include "vm/migrate/destination.h"
#include "vm/migrate/gently.h"
#include "vm/migrate/line.h"
#include "vm/migrate/page.h"

struct arrival {
    struct migrate_destination *destination;
    struct migrate_line line;
    struct migrate_decoder decoder;
    pthread_t thread;
    bool started;
    bool first_round; /* until something else than pages and blocks comes */
    bool gentle;      /* just now its thread gives way to guests */
    struct migrate_patience patience;
    u32 fence;  /* the last one that came */
    int rc;     /* of its thread */
    bool ended; /* under the lock: nothing more will come over it */
    struct err err;
};

/* Somebody who waits for a page; on the stack of a vCPU's or device's thread. */
struct waiter {
    u64 page;
    struct waiter *next;
};

struct migrate_destination {
    const struct migrate_guest *guest;
    struct migrate_word *word;
    struct migrate_memory memory;
    struct arrival arrival[MIGRATE_CONNECTIONS];
    unsigned count;
    u64 words;
    u64 *absent; /* bits of pages to come */
    struct lazy_source lazy;
    atomic_ullong missing;
    atomic_bool running; /* and what is missing comes to a machine that runs */
    atomic_uint waiting; /* length of `waiters`; read without the lock */

    pthread_mutex_t lock; /* protects all below */
    pthread_cond_t changed, page_came;
    struct state_buf state;
    bool state_ended, absent_ended, has_absent;
    u32 fence; /* that every connection has come past */
    bool load_due, loaded, go, refused;
    bool
        up; /* NEED may be said: from the first message on, or after LACK, until the lines are cut */
    unsigned asking; /* threads that say it just now: lines stay as they are meanwhile */
    unsigned interrupts;
    struct waiter *waiters;
    struct err failure;
};

/* Remembers why it failed (the first time), and wakes all who wait for anything. */
void migrate_destination_fail(struct migrate_destination *d, const struct err *err);

/* Under the lock: waits for the condition, for a second at most. Before GO, silence of all lines for too long is a failure.
 * *since_s: 0 at first, and kept. */
void migrate_destination_wait(struct migrate_destination *d, pthread_cond_t *what, s64 *since_s);

/* Connections (arrival.c). Takes the descriptors over, on failure too; what they were before is closed by then. */
int migrate_arrivals_init(struct migrate_destination *d, const int *fds, unsigned nfds,
                          struct err *err);
void migrate_arrivals_fini(struct migrate_destination *d);
int migrate_arrivals_start(struct migrate_destination *d, struct err *err);
void migrate_arrivals_stop(struct migrate_destination *d); /* cuts the lines */
/* Waits until the other side has hung up on the first one, or has been silent for too long. */
void migrate_arrivals_wait_first(struct migrate_destination *d);
/* CLOCK_MONOTONIC, when any of them carried its last byte; 0: never. */
s64 migrate_arrivals_heard_s(const struct migrate_destination *d);

/* Those who wait for pages (waiter.c). fetch is a lazy_source's, supply a migrate_memory's. */
int migrate_waiters_fetch(void *opaque, u64 page, void *dst4096);
int migrate_waiters_supply(void *opaque, u64 page, u64 count, const u8 *bytes);
/* On a new line: asks for all that is waited for. */
void migrate_waiters_ask_again(struct migrate_destination *d);

#endif
