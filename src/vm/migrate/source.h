/*
 * The source's half of a migration. One director (the thread that calls migrate_source_run()), one
 * thread for each sending connection, one that listens.
 */
#ifndef VM_MIGRATE_SOURCE_H
#define VM_MIGRATE_SOURCE_H

#include "vm/migrate/estimate.h"
#include "vm/migrate/guest.h"
#include "vm/migrate/owner.h"
#include "vm/migrate/page.h"

enum migrate_phase {
    MIGRATE_CONNECT, /* until the destination has said that it can take the machine */
    MIGRATE_MEASURE, /* dry: how much the guest writes */
    MIGRATE_PRECOPY,
    MIGRATE_HANDOVER, /* the guest stands still */
    MIGRATE_POSTCOPY, /* it runs there, pages follow */
    MIGRATE_DONE,
};

/* What a downtime is made of: stopping the guest and the last look at its log; the last pages, disks and state; the
 * destination's loading them; its start. */
enum migrate_part {
    MIGRATE_STOPPING,
    MIGRATE_SENDING,
    MIGRATE_LOADING,
    MIGRATE_STARTING,
    MIGRATE_PARTS
};

struct migrate_options {
    struct migrate_wish wish;
    u64 bytes_per_s; /* while the guest runs here; 0: no limit */
    u64 cache_bytes; /* to remember sent pages */
    enum migrate_pack pack;
    bool postcopy_first; /* no rounds: hand over at once */
    bool dry;            /* only ask whether it fits */
    u8 token[MIGRATE_TOKEN_BYTES];
    const u8 *config; /* the machine's description, see vm/identity.h */
    u32 config_bytes;
    u32 hello_flags; /* MIGRATE_HELLO_DISKS */
};

/* A look at it, any thread at any time. */
struct migrate_progress {
    enum migrate_phase phase;
    enum migrate_owner owner;
    unsigned round, throttle;
    u64 left_pages, total_pages; /* to send; of the machine that hold something */
    u64 left_disk_bytes;
    u64 bytes, bytes_per_s, written_per_s; /* sent; now; what the guest writes */
    s64 elapsed_ns, remaining_ns;          /* -1: no end in sight */
    s64 downtime_ns;                       /* from stopping to RUNNING; 0: not yet */
    s64 part_ns[MIGRATE_PARTS];            /* of downtime_ns */
    bool converges;
    u64 pages[MIGRATE_KINDS], packed_bytes, urgent;
    u8 token[MIGRATE_TOKEN_BYTES];
};

struct migrate_source;

/* Takes the descriptors over, on failure too. The guest's functions and options->config stay the
 * caller's. */
int migrate_source_new(const struct migrate_guest *guest, const struct migrate_options *options,
                       const int *fds, unsigned nfds, struct migrate_source **ret_source,
                       struct err *err);
void migrate_source_free(struct migrate_source *s);
/*
 * Runs it to its end or until the line breaks. 0: the machine has gone, or dry: it fits. Else *err says why, and
 * migrate_source_owner() where the machine is: OURS (it runs here, nothing has happened), SERVING
 * (call migrate_source_again() when there is a new line), UNDECIDED (migrate_source_decide()).
 */
int migrate_source_run(struct migrate_source *s, struct err *err);
enum migrate_owner migrate_source_owner(struct migrate_source *s); /* any thread */
/* Any thread; before GO it ends with -ECANCELED and the machine running here. -EBUSY: too late. */
int migrate_source_cancel(struct migrate_source *s);
/* Any thread: ends it as if the line had broken. */
void migrate_source_cut(struct migrate_source *s);
/* New connections for a post-copy whose line broke; then run again. */
int migrate_source_again(struct migrate_source *s, const int *fds, unsigned nfds, struct err *err);
/* Somebody found out (the supervisor), or vouches (a person). Resumes the machine if it is ours again. -EINVAL: there is
 * nothing to decide. */
int migrate_source_decide(struct migrate_source *s, enum migrate_event event, struct err *err);
void migrate_source_progress(struct migrate_source *s, struct migrate_progress *ret);
/* Tests: called before each message is sent, see struct migrate_line. */
void migrate_source_watch(struct migrate_source *s, bool (*fn)(void *, enum migrate_type),
                          void *opaque);

#endif
