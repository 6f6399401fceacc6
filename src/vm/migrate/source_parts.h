/* What the files of a migration's source share. Its users see source.h only. */
#ifndef VM_MIGRATE_SOURCE_PARTS_H
#define VM_MIGRATE_SOURCE_PARTS_H

#include "base/cond.h"
#include "vm/migrate/gently.h"
#include "vm/migrate/line.h"
#include "vm/migrate/pace.h"
#include "vm/migrate/queue.h"
#include "vm/migrate/source.h"
#include "vm/migrate/window.h"

struct migrate_sender {
    struct migrate_source *source;
    unsigned index;
    struct migrate_line *line;
    struct migrate_encoder encoder;
    unsigned most; /* pages in a message, while the guest runs over there */
    bool gentle;   /* it gives way to the guest just now */
    struct migrate_patience patience;
    s64 waited_ns; /* for room on the line, before this message */
    pthread_t thread;
    bool started;
};

struct migrate_source {
    const struct migrate_guest *guest;
    struct migrate_options options;
    struct migrate_line line[MIGRATE_CONNECTIONS];
    unsigned nlines;
    struct migrate_queue queue;
    struct migrate_cache cache;
    struct migrate_counts counts;
    struct migrate_pace pace;
    struct migrate_estimate estimate;
    struct migrate_sender sender[MIGRATE_CONNECTIONS];
    unsigned nsenders;
    pthread_t listener;
    bool listening;
    bool logging, stopped; /* the guest's log is on; it stands still */
    bool ready_before;     /* post-copy after a reconnect: nothing but pages goes over */
    s64 start_ns, stop_ns, round_ns, running_ns;
    u64 round_bytes, disk_left, total_pages;
    u8 *frames; /* room for a FRAMES message, from the hand-over on; NULL: none go over */

    pthread_mutex_t lock; /* protects all below; the listener and senders signal `changed` */
    pthread_cond_t changed, work;
    enum migrate_owner owner;
    enum migrate_phase phase;
    unsigned pass, busy; /* number of the pass; senders that are in it */
    bool quit;           /* senders: end */
    bool cancelled;
    u32 fenced;                   /* the last fence that the other side has seen */
    u32 fence;                    /* the last one sent */
    struct migrate_window window; /* of a post-copy */
    bool marking;                 /* a sender is about to send a fence for it */
    bool fit, ready, running, complete, lost;
    bool heard_all; /* the listener has ended: nothing more will be heard */
    char lacks[1024];
    struct err failure; /* of a sender or the listener: the first one */
    s64 downtime_ns, report_ns;
    s64 part_ns[MIGRATE_PARTS], part_since_ns;
    u64 report_bytes, rate;
    u64 urgent; /* pages sent because somebody waited for them */
    u64 *lack;  /* after a reconnect: what the other side misses */
};

/* Whether a line carries anything at all. */
struct migrate_stall {
    u64 bytes;
    s64 since_ns; /* that no more have gone; 0: look first */
};

#define MIGRATE_STALL_NS (60 * NS_PER_S) /* while the guest runs here */

s64 migrate_now_ns(void);
/* Nothing has gone over for limit_ns, and not because a limit of bandwidth is obeyed. */
bool migrate_stalled(const struct migrate_source *s, struct migrate_stall *stall, s64 limit_ns);
/* Remembers why it failed (the first time), and wakes the director. */
void migrate_source_fail(struct migrate_source *s, const struct err *err);
/* 0, or why it cannot go on: cancelled, or a thread's failure. */
int migrate_source_check(struct migrate_source *s, struct err *err);

/* Director: sends so much of the disks that are copied, if any, and remembers what is left of them. */
int migrate_source_disks(struct migrate_source *s, u64 budget, u64 *ret_sent, struct err *err);

/* Senders (sender.c). */
int migrate_senders_start(struct migrate_source *s, struct err *err);
void migrate_senders_stop(struct migrate_source *s);
/* Sends a pass; queue.pass is set up. */
void migrate_senders_go(struct migrate_source *s);
/* Waits until all are done or timeout_ns has passed; true: done. */
bool migrate_senders_wait(struct migrate_source *s, s64 timeout_ns);

/* The listener (listen.c). */
int migrate_listen_start(struct migrate_source *s, struct err *err);
void migrate_listen_stop(struct migrate_source *s); /* cuts the lines */
/* Waits until *flag or failure, at most timeout_ns (0: for ever). -ETIMEDOUT, or why it failed. */
int migrate_listen_wait(struct migrate_source *s, const bool *flag, s64 timeout_ns,
                        const char *what, struct err *err);
/* Until the other side has hung up, a moment at most: it may not have read the last message yet, or not said its last one. */
void migrate_listen_wait_end(struct migrate_source *s);
/* A line could not be written any more: if the other side has said why, that is the reason. */
int migrate_listen_reason(struct migrate_source *s, int rc, struct err *err);
/* Sends a fence over every line (senders are idle) and waits until all that was sent has come, at most timeout_ns. */
int migrate_fence(struct migrate_source *s, s64 timeout_ns, struct err *err);

/* A post-copy: waits until so little is under way that what is asked for can overtake it. How many pages the next message
 * may have, at most; 0: it is over. */
unsigned migrate_fence_room(struct migrate_source *s);
/* So many bytes of pages that nobody waits for are about to go. */
void migrate_fence_count(struct migrate_source *s, u64 bytes);

/* The hand-over (handover.c): from a running guest to GIVEN and beyond. */
int migrate_handover(struct migrate_source *s, bool postcopy, struct err *err);
int migrate_serve(struct migrate_source *s, struct err *err);

#endif
