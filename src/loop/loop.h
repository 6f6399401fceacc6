/*
 * The event loop: descriptors and timers of one thread, over epoll. All calls are made in that
 * thread, except loop_call() and loop_stop(), which any thread may use.
 */
#ifndef LOOP_LOOP_H
#define LOOP_LOOP_H

#include "base/err.h"
#include "loop/timer.h"

struct loop;

struct loop_fd {
    int fd;
    u32 events; /* EPOLLIN and so on */
    void (*ready)(void *opaque, u32 events);
    void *opaque;
    bool added;
};

int loop_new(struct loop **ret_loop, struct err *err);
void loop_free(struct loop *l);
struct timerq *loop_timers(struct loop *l);

/* The loop_fd stays the caller's and must outlive its registration. */
int loop_add(struct loop *l, struct loop_fd *f, struct err *err);
int loop_modify(struct loop *l, struct loop_fd *f, u32 events); /* 0 or -errno */
void loop_remove(struct loop *l, struct loop_fd *f); /* safe inside callbacks, also of another fd */

/* Runs fn(opaque) in the loop's thread, soon. Any thread. -ENOMEM when it cannot be queued. */
int loop_call(struct loop *l, void (*fn)(void *opaque), void *opaque);
/* Runs until loop_stop(); returns 0, or -errno when the kernel failed us. */
int loop_run(struct loop *l);
/* One round: waits at most timeout_ns (negative: for ever) and runs what is ready. */
int loop_once(struct loop *l, s64 timeout_ns);
void loop_stop(struct loop *l);

#endif
