/*
 * The disk engine over io_uring: whoever has a request submits it, one thread reaps what is done.
 *
 * Invariants: the submission queue is empty whenever ring->lock is free (every request is handed to
 * the kernel at once), and at most CQ_ENTRIES requests are in flight, so that the kernel never has
 * to refuse one for want of room. A request that moved fewer bytes than asked is submitted again
 * for the rest.
 */
#include "block/disk.h"
#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#define SQ_ENTRIES 64
#define CQ_ENTRIES 4096
#define STACK_BYTES (256 * KiB)

struct ring {
    struct block_engine engine;
    pthread_mutex_t lock; /* protects the submission side */
    struct io_uring uring;
    pthread_t reaper;
    bool started;
    atomic_uint pending; /* requests in flight */
};

/* What a submission that failed turns into. */
#define IGNORED(ring) ((void *)(ring))

static void prepare(struct io_uring_sqe *sqe, struct block_req *r)
{
    int fd = r->fd;

    switch (r->op) {
    case BLOCK_READ:
        io_uring_prep_readv(sqe, fd, r->iov, r->niov, r->host + r->moved);
        break;
    case BLOCK_WRITE:
        io_uring_prep_writev(sqe, fd, r->iov, r->niov, r->host + r->moved);
        break;
    case BLOCK_FLUSH:
        r->moved = block_flush_begin(r->disk);
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
    case BLOCK_DISCARD:
    case BLOCK_ZERO:
        io_uring_prep_fallocate(sqe, fd, block_fallocate_mode(r), (off_t)r->host, (off_t)r->len);
        break;
    }
    io_uring_sqe_set_data(sqe, r);
}

static void prepare_nop(struct io_uring_sqe *sqe, void *mark)
{
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data(sqe, mark);
}

/* r NULL: the message that ends the reaper. False: the kernel did not take it. */
static bool hand_over(struct ring *g, struct block_req *r)
{
    struct io_uring_sqe *sqe = NULL;
    int rc;

    pthread_mutex_lock(&g->lock);
    if (atomic_load(&g->pending) < CQ_ENTRIES)
        sqe = io_uring_get_sqe(&g->uring);
    if (!sqe) {
        pthread_mutex_unlock(&g->lock);
        return false;
    }
    if (r)
        prepare(sqe, r);
    else
        prepare_nop(sqe, NULL);
    atomic_fetch_add(&g->pending, 1); /* after that, the request is the reaper's */
    while ((rc = io_uring_submit(&g->uring)) == -EINTR || rc == -EAGAIN)
        sched_yield(); /* EAGAIN: the kernel is short of memory at this moment */
    if (rc < 0)
        prepare_nop(sqe, IGNORED(g)); /* it stays in the queue and goes out with the next one */
    pthread_mutex_unlock(&g->lock);
    return rc >= 0;
}

static int ring_submit(struct block_engine *e, struct block_req *r)
{
    return hand_over(CONTAINER_OF(e, struct ring, engine), r) ? -EINPROGRESS : block_execute(r);
}

/* What the kernel said about a request. True: it is finished with *ret_result; false: it has to go
 * on. */
static bool judge(struct block_req *r, int res, int *ret_result)
{
    bool again = res == -EINTR || res == -EAGAIN;

    *ret_result = res < 0 ? res : 0;
    switch (r->op) {
    case BLOCK_READ:
    case BLOCK_WRITE:
        if (again)
            return false;
        if (res == 0)
            *ret_result = -EIO; /* past the end of an image that has shrunk */
        if (res > 0)
            block_advance(r, (size_t)res);
        return res <= 0 || r->moved >= r->len;
    case BLOCK_FLUSH:
        if (again)
            return false;
        *ret_result = block_flush_end(r->disk, r->moved, *ret_result);
        return true;
    case BLOCK_DISCARD:
    case BLOCK_ZERO:
        if (res == -EOPNOTSUPP || again)
            *ret_result = block_execute(r);
        return true;
    }
    return true;
}

static void *reaper(void *opaque)
{
    struct ring *g = opaque;

    pthread_setname_np(pthread_self(), "disk");
    for (;;) {
        struct io_uring_cqe *cqe;
        struct block_req *r;
        int res, result;

        if (io_uring_wait_cqe(&g->uring, &cqe))
            continue;
        r = io_uring_cqe_get_data(cqe);
        res = cqe->res;
        io_uring_cqe_seen(&g->uring, cqe);
        atomic_fetch_sub(&g->pending, 1);
        if (!r)
            return NULL; /* the no-op of ring_free() */
        if (r == IGNORED(g))
            continue;
        if (!judge(r, res, &result))
            result = ring_submit(&g->engine, r);
        if (result != -EINPROGRESS)
            block_finish(r, result);
    }
}

static void ring_free(struct block_engine *e)
{
    struct ring *g = CONTAINER_OF(e, struct ring, engine);

    if (g->started && hand_over(g, NULL))
        pthread_join(g->reaper, NULL);
    io_uring_queue_exit(&g->uring);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static int start_reaper(struct ring *g)
{
    sigset_t all, old;
    pthread_attr_t attr;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    rc = pthread_create(&g->reaper, &attr, reaper, g);
    g->started = rc == 0;
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

static int ring_new(struct block_engine **ret_engine, struct err *err)
{
    struct io_uring_params params = {.flags = IORING_SETUP_CQSIZE, .cq_entries = CQ_ENTRIES};
    struct ring *g = calloc(1, sizeof(*g));
    int rc;

    if (!g)
        return err_set(err, ENOMEM, "disk ring: no memory");
    rc = -io_uring_queue_init_params(SQ_ENTRIES, &g->uring, &params);
    if (rc) {
        free(g);
        return err_sys(err, rc, "io_uring");
    }
    g->engine.ops = &block_uring;
    pthread_mutex_init(&g->lock, NULL);
    rc = start_reaper(g);
    if (rc) {
        ring_free(&g->engine);
        return err_sys(err, rc, "disk thread");
    }
    *ret_engine = &g->engine;
    return 0;
}

const struct block_engine_ops block_uring = {
    .name = "uring", .new = ring_new, .free = ring_free, .submit = ring_submit};
