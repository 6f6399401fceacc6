/*
 * The event loop: epoll(7), a timer queue and a list of calls from other threads.
 *
 * Invariants:
 *  1. Everything but loop_call() and loop_stop() happens in the thread that runs the loop.
 * loop_once() is never entered from a callback.
 *  2. ready[next..count) are events of this round not yet handed out. loop_remove() erases a
 * descriptor from it, so no callback runs for what an earlier callback removed.
 *  3. Whoever gives the loop something from outside (a call, the stop flag, an earlier timer)
 * writes to `wake`.
 */
#include "loop/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_PER_ROUND 64

struct call {
    void (*fn)(void *opaque);
    void *opaque;
    struct call *next;
};

struct loop {
    int epoll;
    struct loop_fd wake; /* an eventfd */
    struct timerq timers;
    struct epoll_event ready[EVENTS_PER_ROUND];
    int next, count;
    bool no_pwait2; /* the kernel knows only milliseconds */
    atomic_bool stop;
    _Atomic pthread_t thread; /* the last that ran a round */
    pthread_mutex_t lock; /* protects calls and last_call */
    struct call *calls, **last_call;
};

/* Any thread. An eventfd that is full (EAGAIN) wakes as well. */
static void wake_up(void *opaque)
{
    struct loop *l = opaque;
    u64 one = 1;

    (void)!write(l->wake.fd, &one, sizeof(one));
}

/* Any thread. The loop's own looks at its timers before it sleeps, and needs no waking. */
static void timers_earlier(void *opaque)
{
    struct loop *l = opaque;

    if (!pthread_equal(l->thread, pthread_self()))
        wake_up(l);
}

/* The calls that came in until now, in order. Those that they queue in turn wait for the next
 * round. */
static void run_calls(void *opaque, u32 events)
{
    struct loop *l = opaque;
    struct call *c, *next;
    u64 count;

    (void)!read(l->wake.fd, &count, sizeof(count));
    pthread_mutex_lock(&l->lock);
    c = l->calls;
    l->calls = NULL;
    l->last_call = &l->calls;
    pthread_mutex_unlock(&l->lock);
    for (; c; c = next) {
        next = c->next;
        c->fn(c->opaque);
        free(c);
    }
}

int loop_new(struct loop **ret_loop, struct err *err)
{
    struct loop *l = calloc(1, sizeof(*l));
    int rc;

    if (!l)
        return err_sys(err, ENOMEM, "event loop");
    l->last_call = &l->calls;
    l->wake = (struct loop_fd){.fd = -1, .events = EPOLLIN, .ready = run_calls, .opaque = l};
    pthread_mutex_init(&l->lock, NULL);
    timerq_init(&l->timers);
    l->timers.earlier = timers_earlier;
    l->timers.opaque = l;
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll >= 0)
        l->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->wake.fd < 0) {
        rc = err_sys(err, errno, "event loop");
        loop_free(l);
        return rc;
    }
    rc = loop_add(l, &l->wake, err);
    if (rc) {
        loop_free(l);
        return rc;
    }
    *ret_loop = l;
    return 0;
}

void loop_free(struct loop *l)
{
    struct call *c;

    if (!l)
        return;
    while ((c = l->calls)) {
        l->calls = c->next;
        free(c);
    }
    if (l->wake.fd >= 0)
        close(l->wake.fd);
    if (l->epoll >= 0)
        close(l->epoll);
    timerq_fini(&l->timers);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

struct timerq *loop_timers(struct loop *l)
{
    return &l->timers;
}

int loop_add(struct loop *l, struct loop_fd *f, struct err *err)
{
    struct epoll_event ev = {.events = f->events, .data.ptr = f};

    assert(!f->added);
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, f->fd, &ev))
        return err_sys(err, errno, "cannot watch descriptor %d", f->fd);
    f->added = true;
    return 0;
}

int loop_modify(struct loop *l, struct loop_fd *f, u32 events)
{
    struct epoll_event ev = {.events = events, .data.ptr = f};

    assert(f->added);
    if (epoll_ctl(l->epoll, EPOLL_CTL_MOD, f->fd, &ev))
        return -errno;
    f->events = events;
    return 0;
}

void loop_remove(struct loop *l, struct loop_fd *f)
{
    if (!f->added)
        return;
    f->added = false;
    /* Fails only when the descriptor was closed before; then it is out of the set already. */
    epoll_ctl(l->epoll, EPOLL_CTL_DEL, f->fd, NULL);
    for (int i = l->next; i < l->count; i++) {
        if (l->ready[i].data.ptr == f)
            l->ready[i].data.ptr = NULL;
    }
}

int loop_call(struct loop *l, void (*fn)(void *opaque), void *opaque)
{
    struct call *c = malloc(sizeof(*c));

    if (!c)
        return -ENOMEM;
    *c = (struct call){.fn = fn, .opaque = opaque};
    pthread_mutex_lock(&l->lock);
    *l->last_call = c;
    l->last_call = &c->next;
    pthread_mutex_unlock(&l->lock);
    wake_up(l);
    return 0;
}

/* How long to sleep: until the first timer, but no longer than the caller allows. Negative: for
 * ever. */
static s64 sleep_ns(struct loop *l, s64 timeout_ns)
{
    s64 deadline = timerq_deadline(&l->timers), until;

    if (deadline == TIMER_NEVER)
        return timeout_ns;
    until = MAX(deadline - timerq_now(&l->timers), 0);
    return timeout_ns < 0 ? until : MIN(until, timeout_ns);
}

/* Fills ready[]; the number of events or -errno. */
static int wait_events(struct loop *l, s64 ns)
{
    struct timespec ts = {.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
    int n;

    if (!l->no_pwait2) {
        n = epoll_pwait2(l->epoll, l->ready, EVENTS_PER_ROUND, ns < 0 ? NULL : &ts, NULL);
        if (n >= 0 || errno != ENOSYS)
            return n < 0 ? -errno : n;
        l->no_pwait2 = true;
    }
    /* Rounded up: a timer must not be looked at before it is due, or we would spin until it is. */
    n = epoll_wait(l->epoll, l->ready, EVENTS_PER_ROUND,
                   ns < 0 ? -1 : (int)MIN((ns + 999999) / 1000000, INT32_MAX));
    return n < 0 ? -errno : n;
}

int loop_once(struct loop *l, s64 timeout_ns)
{
    struct loop_fd *f;
    int n;

    assert(l->next == l->count);
    l->thread = pthread_self();
    n = wait_events(l, sleep_ns(l, timeout_ns));
    if (n < 0 && n != -EINTR)
        return n;
    l->next = 0;
    l->count = MAX(n, 0);
    while (l->next < l->count) {
        struct epoll_event *ev = &l->ready[l->next++];

        f = ev->data.ptr;
        if (f)
            f->ready(f->opaque, ev->events);
    }
    timerq_run(&l->timers);
    return 0;
}

int loop_run(struct loop *l)
{
    int rc = 0;

    /* Asked to stop before it began to run, it does not run. */
    while (!rc && !atomic_exchange(&l->stop, false))
        rc = loop_once(l, -1);
    return rc;
}

void loop_stop(struct loop *l)
{
    atomic_store(&l->stop, true);
    wake_up(l);
}
