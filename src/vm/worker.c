/*
 * The machine's thread for long work. Invariant: calls into the main loop are in `calls` until they are
 * done, and done by the loop, or by worker_free() in its thread when the loop runs no more.
 */
#include "vm/worker.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/prctl.h>

struct call {
    struct worker *worker;
    void (*fn)(void *opaque);
    void *opaque;
    bool done;
    struct call *next;
};

struct worker {
    struct loop *loop;
    pthread_t thread;
    pthread_mutex_t lock; /* protects all below */
    pthread_cond_t changed;
    void (*job)(void *opaque);
    void *opaque;
    bool busy, quit, queued;
    struct call *calls;
};

static void *worker_thread(void *opaque)
{
    struct worker *w = opaque;

    prctl(PR_SET_NAME, "worker");
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->busy && !w->quit)
            pthread_cond_wait(&w->changed, &w->lock);
        if (!w->busy)
            break;
        pthread_mutex_unlock(&w->lock);
        w->job(w->opaque);
        pthread_mutex_lock(&w->lock);
        w->busy = false;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static int start_thread(void *opaque, struct err *err)
{
    struct worker *w = opaque;
    int rc = pthread_create(&w->thread, NULL, worker_thread, w);

    return rc ? err_sys(err, rc, "thread for long work") : 0;
}

int worker_new(const struct sandbox *sandbox, struct loop *loop, struct worker **ret_worker,
               struct err *err)
{
    struct worker *w = calloc(1, sizeof(*w));

    if (!w)
        return err_set(err, ENOMEM, "thread for long work: no memory");
    w->loop = loop;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    int rc = sandbox_run(sandbox, SANDBOX_IO, start_thread, w, err);
    if (rc)
        free(w);
    else
        *ret_worker = w;
    return rc;
}

/* Does what threads of the job wait for. */
static void run_calls(void *opaque)
{
    struct worker *w = opaque;

    pthread_mutex_lock(&w->lock);
    w->queued = false;
    while (w->calls) {
        struct call *c = w->calls;

        w->calls = c->next;
        pthread_mutex_unlock(&w->lock);
        c->fn(c->opaque);
        pthread_mutex_lock(&w->lock);
        c->done = true;
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
}

void worker_in_loop(struct worker *w, void (*fn)(void *opaque), void *opaque)
{
    struct call c = {.worker = w, .fn = fn, .opaque = opaque};

    pthread_mutex_lock(&w->lock);
    c.next = w->calls;
    w->calls = &c;
    bool tell = !w->queued;
    w->queued = true;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
    while (tell && loop_call(w->loop, run_calls, w))
        sched_yield(); /* no memory right now */
    pthread_mutex_lock(&w->lock);
    while (!c.done)
        pthread_cond_wait(&w->changed, &w->lock);
    pthread_mutex_unlock(&w->lock);
}

void worker_start(struct worker *w, void (*fn)(void *opaque), void *opaque)
{
    pthread_mutex_lock(&w->lock);
    while (w->busy)
        pthread_cond_wait(&w->changed, &w->lock);
    w->busy = true;
    w->job = fn;
    w->opaque = opaque;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->quit = true;
    pthread_cond_broadcast(&w->changed);
    while (w->busy) {
        if (!w->calls) {
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        pthread_mutex_unlock(&w->lock);
        run_calls(w);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->changed);
    free(w);
}
