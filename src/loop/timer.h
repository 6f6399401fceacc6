/*
 * Timers on a queue that one thread runs. The clock is CLOCK_MONOTONIC in nanoseconds, or a value
 * that a test steps. Arming and cancelling is allowed from any thread; callbacks run in the thread
 * that calls timerq_run(). A timer cancelled by another thread may still be inside its callback
 * when timer_cancel() returns.
 */
#ifndef LOOP_TIMER_H
#define LOOP_TIMER_H

#include "base/types.h"
#include <pthread.h>

#define TIMER_NEVER INT64_MAX

struct timerq;

struct timer {
    struct timerq *q;
    void (*fire)(void *opaque);
    void *opaque;
    s64 deadline_ns; /* TIMER_NEVER when not armed; protected by q->lock */
    struct timer *next;
};

struct timerq {
    pthread_mutex_t lock;
    struct timer *first; /* sorted by deadline */
    bool stepped;        /* tests: the clock is now_ns, moved by timerq_step() */
    s64 now_ns;
    /* Called (without the lock) when the first deadline has become earlier, so that the owner can
     * wake up. */
    void (*earlier)(void *opaque);
    void *opaque;
};

void timerq_init(struct timerq *q);
void timerq_fini(struct timerq *q);
s64 timerq_now(struct timerq *q);      /* ns */
s64 timerq_deadline(struct timerq *q); /* of the first timer, or TIMER_NEVER */
void timerq_run(struct timerq *q); /* fires all that are due, in order; callbacks may arm again */
void timerq_step(
    struct timerq *q,
    s64 delta_ns); /* tests only: moves the stepped clock, running what is due in order */

void timer_init(struct timer *t, struct timerq *q, void (*fire)(void *), void *opaque);
void timer_arm(struct timer *t, s64 deadline_ns); /* absolute; re-arming moves it */
void timer_cancel(struct timer *t);               /* no-op when not armed */

#endif
