/*
 * The source of a migration: greeting, rounds, and the way out.
 *
 *   run --fits--> rounds --what is left is little--> hand-over --> serving what is absent --> gone
 *     \             |  \--do not help, post-copy allowed--^            |
 *      \--lacks     \--cancelled, line lost, time over                 \--line lost: again
 *          (runs here)  (runs here)
 *
 * Invariants:
 *  1. Until GO is sent, whatever fails leaves the guest running here as it was (handover.c).
 *  2. Nothing is ever sent twice to two places: the lines are cut before run() returns, unless all is done.
 *
 * The director runs in the thread that calls migrate_source_run(); see source.h.
 */
#include "vm/migrate/source_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS 60000000 /* how often the dirty log is asked while a round is sent */
#define FIT_NS (60 * NS_PER_S)

s64 migrate_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

void migrate_source_fail(struct migrate_source *s, const struct err *err)
{
    pthread_mutex_lock(&s->lock);
    /* What the destination says about it is the better reason. */
    if (!s->failure.code || err->code == EREMOTEIO)
        s->failure = *err;
    s->lost = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

bool migrate_stalled(const struct migrate_source *s, struct migrate_stall *stall, s64 limit_ns)
{
    u64 bytes = atomic_load(&s->counts.bytes), limit = s->options.bytes_per_s;
    s64 now_ns = migrate_now_ns();

    if (limit)
        limit_ns = MAX(limit_ns, (s64)(2.0 * MIGRATE_BODY_MAX / (double)limit * 1e9));
    if (bytes != stall->bytes || !stall->since_ns)
        *stall = (struct migrate_stall){bytes, now_ns};
    return now_ns - stall->since_ns > limit_ns;
}

static int take_lines(struct migrate_source *s, const int *fds, unsigned nfds, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < nfds; i++) {
        int one = migrate_line_init(&s->line[i], fds[i], MIGRATE_TO_SOURCE, err);

        if (one) /* fini leaves a descriptor that never became a line */
            close(fds[i]);
        rc = rc ? rc : one;
    }
    s->nlines = nfds;
    s->nsenders = MAX(nfds, 2u) - 1;
    return rc;
}

int migrate_source_new(const struct migrate_guest *guest, const struct migrate_options *options,
                       const int *fds, unsigned nfds, struct migrate_source **ret_source,
                       struct err *err)
{
    struct migrate_source *s = nfds && nfds <= MIGRATE_CONNECTIONS ? calloc(1, sizeof(*s)) : NULL;
    int rc;

    if (!s) {
        for (unsigned i = 0; i < nfds; i++)
            close(fds[i]);
        return err_set(err, nfds ? ENOMEM : EINVAL, "a migration over %u connections", nfds);
    }
    s->guest = guest;
    s->options = *options;
    pthread_mutex_init(&s->lock, NULL);
    cond_init(&s->changed);
    pthread_cond_init(&s->work, NULL);
    migrate_pace_init(&s->pace, options->bytes_per_s);
    rc = take_lines(s, fds, nfds, err);
    if (!rc)
        rc = migrate_queue_init(&s->queue, guest->pages, s->nsenders, err);
    if (!rc)
        rc = migrate_cache_init(&s->cache, options->cache_bytes, guest->pages, s->nsenders, err);
    if (rc) {
        migrate_source_free(s);
        return rc;
    }
    s->start_ns = migrate_now_ns();
    *ret_source = s;
    return 0;
}

void migrate_source_free(struct migrate_source *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < s->nlines; i++)
        migrate_line_fini(&s->line[i]);
    migrate_queue_fini(&s->queue);
    migrate_cache_fini(&s->cache);
    migrate_pace_fini(&s->pace);
    pthread_cond_destroy(&s->changed);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    free(s->frames);
    free(s->lack);
    free(s);
}

static void set_phase(struct migrate_source *s, enum migrate_phase phase)
{
    pthread_mutex_lock(&s->lock);
    s->phase = phase;
    pthread_mutex_unlock(&s->lock);
}

/* Says who we are on every connection, and waits for what the other side thinks of it. */
static int greet(struct migrate_source *s, u32 flags, struct err *err)
{
    const struct migrate_options *o = &s->options;
    u8 fixed[MIGRATE_HELLO_BYTES], join[MIGRATE_JOIN_BYTES];
    struct migrate_hello hello = {.version = MIGRATE_VERSION,
                                  .connections = s->nlines,
                                  .flags = flags,
                                  .ram_bytes = s->guest->pages * MIGRATE_PAGE_BYTES,
                                  .config_bytes = o->config_bytes};
    struct iovec iov[] = {{fixed, sizeof(fixed)}, {(void *)(uintptr_t)o->config, o->config_bytes}};

    memcpy(hello.token, o->token, sizeof(hello.token));
    migrate_hello_put(&hello, fixed);
    int rc = migrate_line_send(&s->line[0], MIGRATE_HELLO, 0, iov, 2, err);
    memcpy(join, o->token, sizeof(o->token));
    for (unsigned i = 1; i < s->nlines && !rc; i++) {
        migrate_put(join + MIGRATE_TOKEN_BYTES, i, 4);
        rc = migrate_line_say(&s->line[i], MIGRATE_JOIN, 0, join, sizeof(join), err);
    }
    if (!rc)
        rc = migrate_listen_wait(s, &s->fit, FIT_NS, "it can take the machine", err);
    if (rc == -EPIPE)
        err_wrap(err, "before it said whether it can take the machine");
    if (!rc && s->lacks[0])
        rc = err_set(err, ENOTSUP, "the destination cannot take the machine:\n%.480s", s->lacks);
    return rc;
}

/* Puts everything that memory holds on the list. What was never touched is a hole, and zero over there, too. */
static void list_all(struct migrate_source *s)
{
    const struct migrate_guest *g = s->guest;
    off_t end = (off_t)(g->pages * MIGRATE_PAGE_BYTES), at = 0;

    if (g->memfd < 0) {
        migrate_queue_fill(&s->queue, 0, g->pages);
        at = end;
    }
    while (at < end) {
        off_t data = lseek(g->memfd, at, SEEK_DATA);
        if (data < 0 || data >= end)
            break;
        off_t hole = lseek(g->memfd, data, SEEK_HOLE);
        if (hole < 0)
            hole = end;
        migrate_queue_fill(&s->queue, (u64)data / MIGRATE_PAGE_BYTES,
                           (u64)(hole - data + MIGRATE_PAGE_BYTES - 1) / MIGRATE_PAGE_BYTES);
        at = hole;
    }
    pthread_mutex_lock(&s->lock);
    s->total_pages = migrate_queue_left(&s->queue);
    pthread_mutex_unlock(&s->lock);
}

int migrate_source_check(struct migrate_source *s, struct err *err)
{
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    if (s->cancelled)
        rc = err_set(err, ECANCELED, "the migration was cancelled");
    else if (s->failure.code)
        rc = err_set(err, s->failure.code, "%s", s->failure.msg);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static int look(struct migrate_source *s, u64 *written, struct err *err)
{
    u64 count;
    int rc = s->guest->log_collect(s->guest->opaque, s->queue.fresh, &count, err);

    if (!rc)
        *written += migrate_queue_written(&s->queue);
    return rc ? rc : migrate_source_check(s, err);
}

/* Disks go over the first connection while senders are busy with memory; what is left after this round counts as
 * memory does. */
int migrate_source_disks(struct migrate_source *s, u64 budget, u64 *ret_sent, struct err *err)
{
    u64 sent = 0, left = s->disk_left;

    *ret_sent = 0;
    if (!s->guest->disks)
        return 0;
    int rc = s->guest->disks(s->guest->opaque, &s->line[0], budget, &sent, &left, err);
    atomic_fetch_add(&s->counts.bytes, sent);
    pthread_mutex_lock(&s->lock);
    s->disk_left = left;
    pthread_mutex_unlock(&s->lock);
    *ret_sent = sent;
    return rc;
}

static int send_disks(struct migrate_source *s, u64 budget, struct err *err)
{
    u64 sent = 0;
    int rc = migrate_source_disks(s, budget, &sent, err);
    s64 wait_ns = migrate_pace_take(&s->pace, sent, migrate_now_ns());
    if (wait_ns > 0) {
        struct timespec t = {wait_ns / NS_PER_S, wait_ns % NS_PER_S};
        nanosleep(&t, NULL);
    }
    return rc;
}

#define WASTE_NS (300 * NS_PER_S / 1000)
#define WASTE_TENTHS 3
#define PROBE_PAGES 1024
#define DISK_STEP (4 * MiB)
#define DISK_SWEEPS \
    16 /* before a post-copy; a guest that writes faster than the line stands still longer */

/* A post-copy is allowed, and much of what went over is written again already: sending all else before would only make
 * that worse. How much it would really be (differences can be short) a probe finds out. */
static bool is_waste(const struct migrate_source *s, s64 took_ns, u64 bytes)
{
    return s->options.wish.postcopy && !s->estimate.rounds && took_ns >= WASTE_NS &&
           s->queue.wasted * MIGRATE_PAGE_BYTES * 10 > bytes * WASTE_TENTHS;
}

static u64 begin_pass(struct migrate_source *s, bool probe)
{
    if (probe)
        return migrate_queue_begin(&s->queue, MIGRATE_PASS_AGAIN, PROBE_PAGES);
    u64 pages = migrate_queue_begin(&s->queue, MIGRATE_PASS_CALM, 0);
    return pages >= migrate_queue_left(&s->queue) / 4
               ? pages
               : migrate_queue_begin(&s->queue, MIGRATE_PASS_ALL, 0);
}

/* Sends a pass while the guest runs. ret_round->cut says whether the one before was cut. */
static int send_round(struct migrate_source *s, struct migrate_round *ret_round, struct err *err)
{
    s64 start_ns = migrate_now_ns(), looked_ns = start_ns;
    u64 bytes = atomic_load(&s->counts.bytes), written = 0;
    u64 same = atomic_load(&s->counts.pages[MIGRATE_SAME]);
    u64 pages = begin_pass(s, ret_round->cut), first = s->queue.first;
    struct migrate_stall stall = {0};
    bool cut = false;
    int rc = 0;

    migrate_senders_go(s);
    /* Of the disks, as much as there is now: what is written meanwhile is for the next round. */
    u64 disk_due = s->disk_left;
    do {
        s64 wait_ns = disk_due ? 0 : LOOK_NS;

        if (disk_due)
            rc = send_disks(s, DISK_STEP, err);
        disk_due = s->disk_left && disk_due > DISK_STEP ? disk_due - DISK_STEP : 0;
        if (!rc && migrate_senders_wait(s, wait_ns) && !disk_due)
            break;
        s64 now_ns = migrate_now_ns();
        if (!rc && now_ns - looked_ns >= LOOK_NS / 2) {
            rc = look(s, &written, err);
            looked_ns = now_ns;
        }
        if (!rc && !cut && is_waste(s, now_ns - start_ns, atomic_load(&s->counts.bytes) - bytes)) {
            cut = true;
            migrate_queue_cut(&s->queue);
        }
        if (!rc && migrate_stalled(s, &stall, MIGRATE_STALL_NS))
            rc = err_set(err, ETIMEDOUT, "the line has carried nothing for %lld s",
                         (long long)(MIGRATE_STALL_NS / NS_PER_S));
    } while (!rc);
    if (!rc)
        rc = migrate_fence(s, MIGRATE_STALL_NS, err);
    if (!rc && s->guest->disks)
        rc = send_disks(s, DISK_STEP, err);
    if (!rc)
        rc = look(s, &written, err);
    s64 now_ns = migrate_now_ns();
    same = atomic_load(&s->counts.pages[MIGRATE_SAME]) - same;
    *ret_round = (struct migrate_round){.now_ns = now_ns,
                                        .took_ns = now_ns - start_ns,
                                        .bytes = atomic_load(&s->counts.bytes) - bytes,
                                        .pages = pages - MIN(same, pages),
                                        .written = written,
                                        .left = migrate_queue_left(&s->queue) +
                                                s->disk_left / MIGRATE_PAGE_BYTES,
                                        .cut = cut,
                                        .again = first * 8 < pages};
    return rc;
}

/* Disks cannot follow later: all of them but the last writes is on the medium there before the hand-over. */
static int disks_first(struct migrate_source *s, struct err *err)
{
    int rc = 0;

    if (!s->guest->disks)
        return 0;
    for (unsigned i = 0; !rc && (!i || s->disk_left > DISK_STEP) && i < DISK_SWEEPS; i++) {
        for (u64 due = s->disk_left; !rc && due; due -= MIN(due, DISK_STEP))
            if (!(rc = send_disks(s, DISK_STEP, err)))
                rc = migrate_source_check(s, err);
        if (!rc)
            rc = migrate_fence(s, MIGRATE_STALL_NS, err);
        if (!rc) /* sends nothing: finds what was written meanwhile */
            rc = send_disks(s, 0, err);
    }
    return rc;
}

/* Rounds until it is time for the hand-over. */
static int copy(struct migrate_source *s, bool *ret_postcopy, struct err *err)
{
    struct migrate_round round = {0};
    int rc = 0;

    *ret_postcopy = s->options.postcopy_first;
    while (!*ret_postcopy && !rc) {
        rc = send_round(s, &round, err);
        if (rc)
            break;
        pthread_mutex_lock(&s->lock);
        enum migrate_verdict verdict = migrate_estimate_round(&s->estimate, &round);
        pthread_mutex_unlock(&s->lock);
        switch (verdict) {
        case MIGRATE_ROUND:
            break;
        case MIGRATE_STOP:
            return 0;
        case MIGRATE_SWITCH:
            *ret_postcopy = true;
            break;
        case MIGRATE_THROTTLE:
            s->guest->throttle(s->guest->opaque, s->estimate.throttle);
            break;
        case MIGRATE_GIVE_UP:
            rc = err_set(
                err, ETIME,
                "the guest writes %llu MiB/s, more than the line carries; the time limit "
                "is over. Allow --postcopy, --throttle or a longer --max-downtime",
                (unsigned long long)(s->estimate.pages_written_per_s * MIGRATE_PAGE_BYTES / MiB));
            break;
        }
    }
    return rc || !*ret_postcopy ? rc : disks_first(s, err);
}

static int go_over(struct migrate_source *s, struct err *err)
{
    bool postcopy = false;
    int rc;

    pthread_mutex_lock(&s->lock);
    migrate_estimate_init(&s->estimate, &s->options.wish, migrate_now_ns());
    pthread_mutex_unlock(&s->lock);
    rc = s->guest->log_start(s->guest->opaque, err);
    s->logging = !rc;
    if (!rc)
        list_all(s);
    set_phase(s, MIGRATE_PRECOPY);
    if (!rc)
        rc = send_disks(s, DISK_STEP, err);
    if (!rc)
        rc = copy(s, &postcopy, err);
    if (!rc)
        rc = migrate_handover(s, postcopy, err);
    /* A guest that stays here gets all of its time back. */
    if (s->estimate.throttle && s->guest->throttle)
        s->guest->throttle(s->guest->opaque, 0);
    return rc;
}

#define DRY_LOOKS 10

/* How much memory holds something, and how much of it the guest writes in a second. Sends nothing: the destination has
 * hung up. */
static int measure(struct migrate_source *s, struct err *err)
{
    struct timespec pause = {.tv_nsec = LOOK_NS};
    s64 start_ns = migrate_now_ns();
    u64 written = 0;
    int rc = s->guest->log_start(s->guest->opaque, err);

    s->logging = !rc;
    if (!rc)
        list_all(s);
    set_phase(s, MIGRATE_MEASURE);
    migrate_queue_begin(&s->queue, MIGRATE_PASS_NONE, 0);
    for (int i = 0; i < DRY_LOOKS && !rc; i++) {
        u64 count;

        nanosleep(&pause, NULL);
        rc = s->guest->log_collect(s->guest->opaque, s->queue.fresh, &count, err);
        written += rc ? 0 : migrate_queue_written(&s->queue);
    }
    pthread_mutex_lock(&s->lock);
    s->estimate.pages_written_per_s =
        (double)written / (double)(migrate_now_ns() - start_ns) * (double)NS_PER_S;
    s->estimate.bytes_per_page = MIGRATE_PAGE_BYTES;
    s->estimate.bytes_per_s = (double)s->options.bytes_per_s;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* It hangs up when it has read it. Whoever cuts a line sooner may take it back: a page that it had asked for meanwhile comes
 * too late here, and a connection that is closed with something unread is reset. */
static void say_bye(struct migrate_source *s)
{
    if (!migrate_line_say(&s->line[0], MIGRATE_BYE, 0, NULL, 0, NULL))
        migrate_listen_wait_end(s);
}

int migrate_source_run(struct migrate_source *s, struct err *err)
{
    bool again = s->owner == MIGRATE_SERVING;
    int rc = migrate_listen_start(s, err);

    if (!rc)
        rc = greet(s,
                   again ? MIGRATE_HELLO_RESUME
                         : s->options.hello_flags | (s->options.dry ? MIGRATE_HELLO_DRY : 0),
                   err);
    if (!rc && s->options.dry)
        rc = measure(s, err);
    if (!rc && !s->options.dry)
        rc = migrate_senders_start(s, err);
    if (!rc && again)
        for (u64 w = 0; w < s->queue.words; w++)
            atomic_store(&s->queue.todo[w], s->lack[w]);
    if (!rc && !s->options.dry && !again)
        rc = go_over(s, err);
    if (!rc && s->owner == MIGRATE_SERVING)
        rc = migrate_serve(s, err);
    if (rc == -EPIPE)
        rc = migrate_listen_reason(s, rc, err);
    /* Said, so that the other side need not wait for a line that only looks alive. */
    if (rc && s->owner == MIGRATE_OURS)
        migrate_line_say(&s->line[0], MIGRATE_CANCEL, 0, NULL, 0, NULL);
    else if (!rc && s->owner == MIGRATE_GONE)
        say_bye(s);
    migrate_senders_stop(s);
    migrate_listen_stop(s);
    if (s->logging && (s->owner == MIGRATE_OURS || s->owner == MIGRATE_GONE)) {
        s->guest->log_stop(s->guest->opaque);
        s->logging = false;
    }
    if (!rc)
        set_phase(s, MIGRATE_DONE);
    /* Whatever the lines said when they were cut for it. */
    if (rc && s->cancelled && s->owner == MIGRATE_OURS)
        rc = migrate_source_check(s, err);
    return rc;
}

enum migrate_owner migrate_source_owner(struct migrate_source *s)
{
    pthread_mutex_lock(&s->lock);
    enum migrate_owner owner = s->owner;
    pthread_mutex_unlock(&s->lock);
    return owner;
}

int migrate_source_cancel(struct migrate_source *s)
{
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    if (s->owner == MIGRATE_OURS || s->owner == MIGRATE_HELD)
        s->cancelled = true;
    else
        rc = -EBUSY;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int migrate_source_again(struct migrate_source *s, const int *fds, unsigned nfds, struct err *err)
{
    if (s->owner != MIGRATE_SERVING || !nfds || nfds > MIGRATE_CONNECTIONS) {
        for (unsigned i = 0; i < nfds; i++)
            close(fds[i]);
        return err_set(err, EINVAL, "there is no broken post-copy to go on with");
    }
    for (unsigned i = 0; i < s->nlines; i++)
        migrate_line_fini(&s->line[i]);
    s->failure = ERR_INIT;
    s->lost = s->fit = s->complete = false;
    s->fence = s->fenced = 0;
    if (!s->lack)
        s->lack = calloc(s->queue.words, sizeof(*s->lack));
    int rc = take_lines(s, fds, nfds, err);
    if (!s->lack)
        return err_set(err, ENOMEM, "no memory for the list of pages");
    s->queue.senders = s->nsenders;
    return rc;
}

void migrate_source_cut(struct migrate_source *s)
{
    for (unsigned i = 0; i < s->nlines; i++)
        migrate_line_cut(&s->line[i]);
}

void migrate_source_watch(struct migrate_source *s, bool (*fn)(void *, enum migrate_type),
                          void *opaque)
{
    for (unsigned i = 0; i < s->nlines; i++) {
        s->line[i].before_send = fn;
        s->line[i].opaque = opaque;
    }
}

/* Over at least 100 ms, so that a look every now and then sees a rate and not noise. */
static void measure_rate(struct migrate_source *s, u64 bytes, s64 now_ns)
{
    s64 took = now_ns - s->report_ns;

    if (took < NS_PER_S / 10)
        return;
    if (s->report_ns && s->phase != MIGRATE_DONE)
        s->rate = (u64)((double)(bytes - s->report_bytes) / (double)took * 1e9);
    s->report_ns = now_ns;
    s->report_bytes = bytes;
}

void migrate_source_progress(struct migrate_source *s, struct migrate_progress *ret)
{
    s64 now_ns = migrate_now_ns();

    *ret = (struct migrate_progress){0};
    pthread_mutex_lock(&s->lock);
    ret->bytes = atomic_load(&s->counts.bytes);
    measure_rate(s, ret->bytes, now_ns);
    ret->phase = s->phase;
    ret->owner = s->owner;
    ret->round = s->estimate.rounds + (s->phase == MIGRATE_PRECOPY);
    ret->throttle = s->estimate.throttle;
    ret->left_pages = migrate_queue_left(&s->queue);
    ret->left_disk_bytes = s->disk_left;
    ret->total_pages = s->total_pages;
    ret->bytes_per_s = s->rate;
    ret->written_per_s = (u64)(s->estimate.pages_written_per_s * MIGRATE_PAGE_BYTES);
    ret->elapsed_ns = now_ns - s->start_ns;
    ret->downtime_ns = s->downtime_ns;
    memcpy(ret->part_ns, s->part_ns, sizeof(ret->part_ns));
    s->estimate.left = ret->left_pages;
    ret->remaining_ns = migrate_estimate_remaining(&s->estimate);
    ret->converges = ret->remaining_ns >= 0;
    if (!s->estimate.rounds)
        ret->remaining_ns =
            s->rate ? (s64)((double)(ret->left_pages * MIGRATE_PAGE_BYTES + s->disk_left) /
                            (double)s->rate * 1e9)
                    : -1;
    for (unsigned i = 0; i < MIGRATE_KINDS; i++)
        ret->pages[i] = atomic_load(&s->counts.pages[i]);
    ret->packed_bytes = atomic_load(&s->counts.packed);
    ret->urgent = s->urgent;
    memcpy(ret->token, s->options.token, sizeof(ret->token));
    pthread_mutex_unlock(&s->lock);
}
