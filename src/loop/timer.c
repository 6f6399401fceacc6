/*
 * Timers: a list sorted by deadline, under one lock.
 *
 * Invariants:
 *  1. A timer is on the list exactly when its deadline_ns is not TIMER_NEVER.
 *  2. Callbacks run without the lock, so they may arm and cancel any timer of the queue.
 *  3. Timers with equal deadlines fire in the order in which they were armed.
 *  4. One timerq_run() fires at most as many timers as were due when it began: a timer that arms
 * itself again in the past (a guest may ask for period 0) cannot keep its thread from other work.
 */
#include "loop/timer.h"

#include <assert.h>
#include <time.h>

void timerq_init(struct timerq *q)
{
    *q = (struct timerq){0};
    pthread_mutex_init(&q->lock, NULL);
}

void timerq_fini(struct timerq *q)
{
    struct timer *t;

    if (!q)
        return;
    /* What is still armed will never fire; a later timer_cancel() must not find the queue any more.
     */
    while ((t = q->first)) {
        q->first = t->next;
        t->next = NULL;
        t->deadline_ns = TIMER_NEVER;
    }
    pthread_mutex_destroy(&q->lock);
}

static s64 clock_ns(const struct timerq *q)
{
    struct timespec ts;

    if (q->stepped)
        return q->now_ns;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

s64 timerq_now(struct timerq *q)
{
    s64 now;

    if (!q->stepped)
        return clock_ns(q);
    pthread_mutex_lock(&q->lock);
    now = q->now_ns;
    pthread_mutex_unlock(&q->lock);
    return now;
}

s64 timerq_deadline(struct timerq *q)
{
    s64 deadline;

    pthread_mutex_lock(&q->lock);
    deadline = q->first ? q->first->deadline_ns : TIMER_NEVER;
    pthread_mutex_unlock(&q->lock);
    return deadline;
}

/* Takes the timer off the list. Called with the lock. */
static void detach(struct timer *t)
{
    struct timer **link = &t->q->first;

    if (t->deadline_ns == TIMER_NEVER)
        return;
    while (*link != t)
        link = &(*link)->next;
    *link = t->next;
    t->next = NULL;
    t->deadline_ns = TIMER_NEVER;
}

/* Fires the first timer if it is due at now_ns. */
static bool fire_one(struct timerq *q, s64 now_ns)
{
    void (*fire)(void *opaque) = NULL;
    void *opaque = NULL;
    struct timer *t;

    pthread_mutex_lock(&q->lock);
    t = q->first;
    if (t && t->deadline_ns <= now_ns) {
        if (q->stepped)
            q->now_ns = MAX(q->now_ns, t->deadline_ns);
        detach(t);
        fire = t->fire;
        opaque = t->opaque;
    }
    pthread_mutex_unlock(&q->lock);
    if (!fire)
        return false;
    fire(opaque);
    return true;
}

void timerq_run(struct timerq *q)
{
    s64 now = timerq_now(q);
    unsigned due = 0;

    pthread_mutex_lock(&q->lock);
    for (struct timer *t = q->first; t && t->deadline_ns <= now; t = t->next)
        due++;
    pthread_mutex_unlock(&q->lock);
    while (due-- && fire_one(q, now))
        ;
}

void timerq_step(struct timerq *q, s64 delta_ns)
{
    s64 target = timerq_now(q) + delta_ns;

    assert(q->stepped);
    while (fire_one(q, target))
        ;
    pthread_mutex_lock(&q->lock);
    q->now_ns = target;
    pthread_mutex_unlock(&q->lock);
}

void timer_init(struct timer *t, struct timerq *q, void (*fire)(void *), void *opaque)
{
    *t = (struct timer){.q = q, .fire = fire, .opaque = opaque, .deadline_ns = TIMER_NEVER};
}

void timer_arm(struct timer *t, s64 deadline_ns)
{
    struct timerq *q = t->q;
    struct timer **link;
    bool earlier;
    s64 before;

    pthread_mutex_lock(&q->lock);
    before = q->first ? q->first->deadline_ns : TIMER_NEVER;
    detach(t);
    if (deadline_ns != TIMER_NEVER) {
        for (link = &q->first; *link && (*link)->deadline_ns <= deadline_ns;)
            link = &(*link)->next;
        t->deadline_ns = deadline_ns;
        t->next = *link;
        *link = t;
    }
    earlier = deadline_ns < before;
    pthread_mutex_unlock(&q->lock);
    if (earlier && q->earlier)
        q->earlier(q->opaque);
}

void timer_cancel(struct timer *t)
{
    if (!t || !t->q)
        return;
    pthread_mutex_lock(&t->q->lock);
    detach(t);
    pthread_mutex_unlock(&t->q->lock);
}
