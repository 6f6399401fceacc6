/*
 * The disk engine for hosts without io_uring (containers often forbid it): a few threads and one
 * queue.
 *
 * Threads are started at once, since the machine's sandbox may forbid it later. They take no
 * signals.
 */
#include "block/disk.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#define THREADS 4
#define STACK_BYTES (256 * KiB)

struct pool {
    struct block_engine engine;
    pthread_mutex_t lock; /* protects all below */
    pthread_cond_t work;
    struct block_req *first, **last;
    bool stop;
    pthread_t thread[THREADS];
    unsigned threads;
};

static struct block_req *take(struct pool *p)
{
    struct block_req *r;

    pthread_mutex_lock(&p->lock);
    while (!p->first && !p->stop)
        pthread_cond_wait(&p->work, &p->lock);
    r = p->first;
    if (r) {
        p->first = r->next;
        if (!p->first)
            p->last = &p->first;
    }
    pthread_mutex_unlock(&p->lock);
    return r;
}

static void *worker(void *opaque)
{
    struct pool *p = opaque;
    struct block_req *r;

    pthread_setname_np(pthread_self(), "disk");
    while ((r = take(p)) != NULL)
        block_finish(r, block_execute(r));
    return NULL;
}

static int pool_submit(struct block_engine *e, struct block_req *r)
{
    struct pool *p = CONTAINER_OF(e, struct pool, engine);

    r->next = NULL;
    pthread_mutex_lock(&p->lock);
    *p->last = r;
    p->last = &r->next;
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->lock);
    return -EINPROGRESS;
}

static void pool_free(struct block_engine *e)
{
    struct pool *p = CONTAINER_OF(e, struct pool, engine);

    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->threads; i++)
        pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static int start_workers(struct pool *p)
{
    sigset_t all, old;
    pthread_attr_t attr;
    int rc = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    while (!rc && p->threads < THREADS) {
        rc = pthread_create(&p->thread[p->threads], &attr, worker, p);
        p->threads += rc == 0;
    }
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return p->threads ? 0 : rc; /* one is enough to make progress */
}

static int pool_new(struct block_engine **ret_engine, struct err *err)
{
    struct pool *p = calloc(1, sizeof(*p));
    int rc;

    if (!p)
        return err_set(err, ENOMEM, "disk threads: no memory");
    p->engine.ops = &block_threads;
    p->last = &p->first;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    rc = start_workers(p);
    if (rc) {
        pool_free(&p->engine);
        return err_sys(err, rc, "disk threads");
    }
    *ret_engine = &p->engine;
    return 0;
}

const struct block_engine_ops block_threads = {
    .name = "threads", .new = pool_new, .free = pool_free, .submit = pool_submit};
