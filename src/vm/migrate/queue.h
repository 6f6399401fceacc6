/*
 * Which pages still have to be sent, and in which order.
 *
 * `todo` is the truth: a page is in it from the moment the guest may have changed it until a sender
 * has taken it. A pass sends part of them. Pages that the guest writes all the time are held back:
 * sending them before the machine stops is waste. Groups of MIGRATE_BATCH pages belong to one sender
 * each, so what is sent of a page stays in order.
 *
 * The director's thread calls everything but migrate_queue_take() and _claim(), which are for senders.
 */
#ifndef VM_MIGRATE_QUEUE_H
#define VM_MIGRATE_QUEUE_H

#include "base/err.h"
#include <stdatomic.h>

struct migrate_queue {
    u64 pages, words;
    unsigned senders;
    atomic_ullong *todo, *pass;
    atomic_ullong *sent;  /* pages that went over at least once; a word is set by one sender */
    u64 *fresh;           /* room for one dirty_collect() */
    u64 *round;           /* written since the pass began */
    u64 wasted;           /* of those: pages that had gone over before */
    u64 first;            /* of the pass: pages that had not */
    u8 *history;          /* per page: was it written in the last 8 looks, the newest in bit 0 */
    u64 *touched;         /* bit per word of `history`: is any of it set */
    atomic_ullong at[16]; /* per sender: which of its words comes next */
};

enum migrate_pass {
    MIGRATE_PASS_CALM, /* what was not written lately */
    MIGRATE_PASS_ALL,
    MIGRATE_PASS_AGAIN, /* what went over before and was written since: some `limit` pages all over it */
    MIGRATE_PASS_RESTLESS, /* only what is written all the time, about `limit` pages of it */
    MIGRATE_PASS_NONE,
};

int migrate_queue_init(struct migrate_queue *q, u64 pages, unsigned senders, struct err *err);
void migrate_queue_fini(struct migrate_queue *q);
/* The first time: all pages of these bits are to be sent. */
void migrate_queue_fill(struct migrate_queue *q, u64 first_page, u64 count);
/* q->fresh holds what the guest wrote since the last call. Pages written since are taken out of the
 * pass that is under way: they come later. Returns how many of them are new in this pass. */
u64 migrate_queue_written(struct migrate_queue *q);
/* As above for the last look, with the guest stopped: no history. */
void migrate_queue_written_last(struct migrate_queue *q);
/* Begins a pass; returns how many pages it has. Senders must be idle. */
u64 migrate_queue_begin(struct migrate_queue *q, enum migrate_pass pass, u64 limit);
/* Ends the pass early: senders that are busy find nothing more in it. */
void migrate_queue_cut(struct migrate_queue *q);
u64 migrate_queue_left(const struct migrate_queue *q); /* pages to do, in all */
/* The next pages of the pass for one sender, of one group and `most` at most, as bits; false: none is left. They are off
 * the list. */
bool migrate_queue_take(struct migrate_queue *q, unsigned sender, unsigned most, u64 *ret_first,
                        u64 *ret_bits);
/* Takes one page, whatever pass it is in; false: it was sent already. Any thread. */
bool migrate_queue_claim(struct migrate_queue *q, u64 page);
/* The pass goes on at this page: somebody touched it, and will touch its neighbours. Any thread. */
void migrate_queue_go_on_at(struct migrate_queue *q, u64 page);

#endif
