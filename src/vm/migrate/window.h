/*
 * How much of what nobody waits for may be under way in a post-copy: what is in a line's buffers cannot be overtaken by a
 * page that is asked for, be it one of those or one behind them. Marks (FENCE, which is answered by FENCED) tell what has arrived and how long that took. No
 * locks, no clock: both are the caller's.
 */
#ifndef VM_MIGRATE_WINDOW_H
#define VM_MIGRATE_WINDOW_H

#include "base/types.h"

#define MIGRATE_WINDOW_MIN (64 * KiB)
#define MIGRATE_WINDOW_FIRST (256 * KiB)
#define MIGRATE_WINDOW_MAX (8 * MiB)
#define MIGRATE_MARKS 16

struct migrate_mark {
    u32 number;
    u64 sent; /* before it */
    s64 at_ns;
};

struct migrate_window {
    u64 bytes;                               /* that may be under way */
    u64 sent, arrived;                       /* since it began */
    u64 judged;                              /* sent when `bytes` was chosen */
    s64 base_ns;                             /* the shortest time that a mark took; 0: none yet */
    struct migrate_mark mark[MIGRATE_MARKS]; /* under way, the oldest first */
    unsigned marks;
};

void migrate_window_init(struct migrate_window *w);
void migrate_window_sent(struct migrate_window *w, u64 bytes);
/* Nothing more may be sent until a mark comes back. */
bool migrate_window_full(const struct migrate_window *w);
/* Time to send a mark: so that a window that is full has one under way that says when it is not any more. */
bool migrate_window_due(const struct migrate_window *w);
/* A mark goes now; numbers grow. */
void migrate_window_mark(struct migrate_window *w, u32 number, s64 now_ns);
/* It has come back, and with it all before. One that we did not send changes nothing. */
void migrate_window_arrived(struct migrate_window *w, u32 number, s64 now_ns);

#endif
