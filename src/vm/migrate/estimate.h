/*
 * What to do next in a pre-copy, judged from how fast the line is, how fast the guest writes, and
 * what is left. Pure arithmetic: the caller brings clock and counts.
 */
#ifndef VM_MIGRATE_ESTIMATE_H
#define VM_MIGRATE_ESTIMATE_H

#include "base/types.h"

/* What to do when the time is over: keep the guest here, go on trying, stop it however long the rest
 * takes, or turn to post-copy. */
enum migrate_timeout {
    MIGRATE_TIMEOUT_CANCEL,
    MIGRATE_TIMEOUT_CONTINUE,
    MIGRATE_TIMEOUT_STOP,
    MIGRATE_TIMEOUT_POSTCOPY
};

/* What the user asked for. */
struct migrate_wish {
    s64 downtime_ns;              /* the longest pause allowed */
    s64 limit_ns;                 /* time for the whole, 0: none */
    enum migrate_timeout timeout; /* when it is over */
    bool postcopy;                /* may turn to post-copy when rounds do not help any more */
    unsigned throttle_percent;    /* how much of its time the guest may lose at most; 0: none */
};

enum migrate_verdict {
    MIGRATE_ROUND,    /* send another round */
    MIGRATE_STOP,     /* what is left fits: stop the guest and send it */
    MIGRATE_SWITCH,   /* turn to post-copy */
    MIGRATE_THROTTLE, /* slow the guest down (estimate.throttle percent) and send another round */
    MIGRATE_GIVE_UP,  /* time is over */
};

struct migrate_round {
    s64 now_ns;       /* when it ended */
    s64 took_ns;      /* how long sending took */
    u64 bytes, pages; /* sent in it; of pages, those that differed */
    u64 written;      /* pages that the guest wrote in it, each look counted by itself */
    u64 left;         /* pages to send now */
    bool cut;         /* it ended early, so `left` says nothing; a probe follows */
    bool again;       /* nearly all were sent before: bytes per page are those of changed pages */
};

struct migrate_estimate {
    struct migrate_wish wish;
    s64 start_ns;
    unsigned rounds, stuck; /* stuck: rounds in a row that did not help */
    double bytes_per_s, pages_written_per_s, bytes_per_page;
    double ns_per_page; /* of changed pages: short differences are not the line's time but ours */
    u64 left, best_left;
    s64 allowed_ns; /* of downtime, at the moment: grows to wish.downtime_ns when rounds do not help */
    s64 fixed_ns; /* what a stop costs beside pages */
    unsigned throttle;
};

void migrate_estimate_init(struct migrate_estimate *e, const struct migrate_wish *wish, s64 now_ns);
/* A round has ended. */
enum migrate_verdict migrate_estimate_round(struct migrate_estimate *e,
                                            const struct migrate_round *r);
/* How long the machine would stand still if it were stopped now. */
s64 migrate_estimate_downtime(const struct migrate_estimate *e);
/* Until the end, ns; -1: never at this rate. */
s64 migrate_estimate_remaining(const struct migrate_estimate *e);

#endif
