/*
 * The hand-over: the only part of a migration in which the guest stands still, and the one that decides
 * whose it is. See owner.h for the states.
 *
 *   stop the guest; the last look at the dirty log
 *   senders: the last pages (post-copy: those that are written all the time); meanwhile its state is saved
 *   ABSENT (post-copy), STATE, FENCE --> READY: the destination could run it now
 *   GO --> RUNNING
 *   FRAMES: what networks have sent here meanwhile, and still send
 *
 * Invariants:
 *  1. `owner` becomes GIVEN before the first byte of GO is written, so no failure of writing can make us believe that it
 *     was not sent.
 *  2. What is written down says "away" whenever `owner` is GIVEN or what follows from it, and "here" again before the guest
 *     runs here.
 */
#include "vm/migrate/source_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define READY_NS (20 * NS_PER_S)
#define RUNNING_NS (10 * NS_PER_S)
#define SILENCE_NS (30 * NS_PER_S) /* of a destination that gets pages */
#define STATE_PIECE (256u * KiB)
#define FRAMES_BYTES (512u * KiB)
#define QUIET_NS (10 * NS_PER_S / 1000)
#define FOLLOW_NS (100 * NS_PER_S / 1000)
#define RESTLESS_MAX 4096 /* pages that a post-copy takes along: what it will touch first */

static int turn(struct migrate_source *s, enum migrate_event event, struct err *err)
{
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    enum migrate_owner next = migrate_owner_next(s->owner, event);
    /* Cancelling and giving away exclude each other under this lock. */
    if (event == MIGRATE_EV_GO && s->cancelled)
        rc = err_set(err, ECANCELED, "the migration was cancelled");
    else if (next == MIGRATE_OWNERS)
        rc = err_set(err, EINVAL, "the machine is %s: that cannot be now",
                     migrate_owner_name(s->owner));
    else
        s->owner = next;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* Invariant 2. */
static int note(struct migrate_source *s, bool away, struct err *err)
{
    const struct migrate_guest *g = s->guest;

    return g->note ? g->note(g->opaque, away, err) : 0;
}

/* It is ours, and stands still. What cannot be written down is that `start` need not be forced. */
static int resume(struct migrate_source *s, struct err *err)
{
    note(s, false, NULL);
    turn(s, MIGRATE_EV_RESUME, NULL);
    return s->guest->resume(s->guest->opaque, err);
}

static int send_state(struct migrate_source *s, const struct state_buf *state, struct err *err)
{
    int rc = 0;

    for (size_t at = 0; at < state->len && !rc;) {
        u32 n = (u32)MIN(state->len - at, (size_t)STATE_PIECE);
        u8 last = at + n == state->len ? MIGRATE_LAST : 0;

        rc = migrate_line_say(&s->line[0], MIGRATE_STATE, last, state->data + at, n, err);
        at += n;
    }
    return rc;
}

static int send_absent(struct migrate_source *s, struct err *err)
{
    for (u64 w = 0; w < s->queue.words; w++)
        s->queue.fresh[w] = atomic_load(&s->queue.todo[w]);
    return migrate_line_send_bits(&s->line[0], MIGRATE_ABSENT, s->queue.fresh, s->queue.words, err);
}

static u64 restless_limit(const struct migrate_source *s)
{
    double pages =
        (double)s->estimate.allowed_ns / 1e9 * s->estimate.bytes_per_s / 2 / MIGRATE_PAGE_BYTES;

    return MAX((u64)64, MIN((u64)pages, (u64)RESTLESS_MAX));
}

static void part_ends_at(struct migrate_source *s, enum migrate_part part, s64 now_ns)
{
    pthread_mutex_lock(&s->lock);
    s->part_ns[part] = now_ns - s->part_since_ns;
    s->part_since_ns = now_ns;
    pthread_mutex_unlock(&s->lock);
}

static void part_ends(struct migrate_source *s, enum migrate_part part)
{
    part_ends_at(s, part, migrate_now_ns());
}

/* Until all is sent that the senders have. A line that carries nothing at all meanwhile is as good as broken. */
static void wait_senders(struct migrate_source *s)
{
    struct migrate_stall stall = {0};

    while (!migrate_senders_wait(s, NS_PER_S))
        if (migrate_stalled(s, &stall, READY_NS))
            migrate_source_cut(s);
}

/* The guest stands still: everything the destination needs to run it. */
static int send_rest(struct migrate_source *s, bool postcopy, struct err *err)
{
    const struct migrate_guest *g = s->guest;
    struct state_buf state = {0};
    struct state_sink sink = state_buf_sink(&state);
    u64 count, sent;
    int rc = g->log_collect(g->opaque, s->queue.fresh, &count, err);

    if (rc)
        return rc;
    migrate_queue_written_last(&s->queue);
    part_ends(s, MIGRATE_STOPPING);
    migrate_pace_set(&s->pace, 0); /* the limit is for as long as the guest runs */
    migrate_queue_begin(&s->queue, postcopy ? MIGRATE_PASS_RESTLESS : MIGRATE_PASS_ALL,
                        restless_limit(s));
    migrate_senders_go(s);
    rc = migrate_source_disks(s, UINT64_MAX, &sent, err);
    if (!rc)
        rc = g->save(g->opaque, &sink, err);
    wait_senders(s);
    if (!rc)
        rc = migrate_source_check(s, err);
    if (!rc && postcopy)
        rc = send_absent(s, err);
    if (!rc)
        rc = send_state(s, &state, err);
    state_buf_fini(&state);
    if (!rc)
        rc = migrate_fence(s, READY_NS, err);
    part_ends(s, MIGRATE_SENDING);
    if (!rc)
        rc = migrate_listen_wait(s, &s->ready, READY_NS, "it has loaded the state", err);
    part_ends(s, MIGRATE_LOADING);
    return rc;
}

/* Sends what came for the guest since it stopped; false: nothing did. Nobody misses what a broken line swallows: networks
 * lose frames. */
static bool send_frames(struct migrate_source *s)
{
    const struct migrate_guest *g = s->guest;
    u32 len = s->frames ? g->frames(g->opaque, s->frames, FRAMES_BYTES) : 0;

    if (len)
        migrate_line_say(&s->line[0], MIGRATE_FRAMES, 0, s->frames, len, NULL);
    return len;
}

/* Until switches have learned where the guest is, and what was under way has come. */
static void follow_frames(struct migrate_source *s)
{
    struct timespec pause = {.tv_nsec = QUIET_NS / 5};
    s64 since_ns = migrate_now_ns(), quiet_ns = since_ns, now_ns = since_ns;

    while (s->frames && now_ns - quiet_ns < QUIET_NS && now_ns - since_ns < FOLLOW_NS) {
        bool came = send_frames(s);

        nanosleep(&pause, NULL);
        now_ns = migrate_now_ns();
        quiet_ns = came ? now_ns : quiet_ns;
    }
    free(s->frames);
    s->frames = NULL;
}

/* After GO. */
static int wait_running(struct migrate_source *s, struct err *err)
{
    int rc = migrate_line_say(&s->line[0], MIGRATE_GO, 0, NULL, 0, err);

    if (!rc)
        send_frames(s);
    if (!rc)
        rc = migrate_listen_wait(s, &s->running, RUNNING_NS, "the machine runs", err);
    if (!rc) {
        part_ends_at(s, MIGRATE_STARTING, s->running_ns);
        pthread_mutex_lock(&s->lock);
        s->downtime_ns = s->part_since_ns - s->stop_ns;
        pthread_mutex_unlock(&s->lock);
        return turn(s, MIGRATE_EV_RUNNING, NULL);
    }
    /* FAILED is only said by a destination that has sworn never to run it. */
    if (rc == -EREMOTEIO) {
        turn(s, MIGRATE_EV_NEVER, NULL);
        return rc;
    }
    turn(s, MIGRATE_EV_LOST, NULL);
    return err_wrap(err, "the line broke exactly at the hand-over, and the destination may have "
                         "the machine");
}

int migrate_handover(struct migrate_source *s, bool postcopy, struct err *err)
{
    const struct migrate_guest *g = s->guest;
    int rc;

    s->frames = g->frames ? malloc(FRAMES_BYTES) : NULL; /* none: they are lost */
    pthread_mutex_lock(&s->lock);
    s->phase = MIGRATE_HANDOVER;
    s->stop_ns = s->part_since_ns = migrate_now_ns();
    pthread_mutex_unlock(&s->lock);
    rc = g->stop(g->opaque, err);
    if (rc)
        return rc;
    rc = turn(s, MIGRATE_EV_STOP, err);
    if (!rc)
        rc = send_rest(s, postcopy, err);
    if (!rc && (rc = note(s, true, err)))
        err_wrap(err, "cannot write down that the machine is handed over");
    if (!rc)
        rc = turn(s, MIGRATE_EV_GO, err);
    if (!rc)
        rc = wait_running(s, err);
    if (rc && s->owner == MIGRATE_HELD) {
        struct err other = ERR_INIT;

        if (resume(s, &other))
            err_wrap(err, "%s; and before that", other.msg);
    }
    return rc;
}

/* Until it has all pages. While they are sent it answers marks (window.h), so it is never silent for long. */
static int wait_complete(struct migrate_source *s, struct err *err)
{
    struct migrate_line *l = &s->line[0];
    struct migrate_stall stall = {0};
    int rc;

    do {
        s64 heard_s = atomic_load_explicit(&l->heard_s, memory_order_relaxed);

        rc = migrate_listen_wait(s, &s->complete, NS_PER_S, "it has all pages", err);
        if (heard_s != atomic_load_explicit(&l->heard_s, memory_order_relaxed))
            stall.since_ns = 0;
    } while (rc == -ETIMEDOUT && !migrate_stalled(s, &stall, SILENCE_NS));
    return rc != -ETIMEDOUT ? rc
                            : err_set(err, EPIPE, "the destination has said nothing for %lld s",
                                      (long long)(SILENCE_NS / NS_PER_S));
}

/* The guest runs there: it gets what is still absent, until it has all. */
int migrate_serve(struct migrate_source *s, struct err *err)
{
    /* What was sent before the hand-over has come past a fence, so what is not on the list is there. */
    bool owes = migrate_queue_left(&s->queue) > 0;

    pthread_mutex_lock(&s->lock);
    s->phase = MIGRATE_POSTCOPY;
    migrate_window_init(&s->window);
    pthread_mutex_unlock(&s->lock);
    /* Nothing may be sent as a difference now, nor be left out because it was sent before. */
    migrate_cache_fini(&s->cache);
    migrate_pace_set(&s->pace, s->options.bytes_per_s);
    migrate_queue_begin(&s->queue, MIGRATE_PASS_ALL, 0);
    migrate_senders_go(s);
    follow_frames(s);
    int rc = wait_complete(s, err);
    if (rc && !owes)
        *err = ERR_INIT; /* only the destination's word for it is missing */
    if (!rc || !owes)
        return turn(s, MIGRATE_EV_COMPLETE, err);
    return err_wrap(err,
                    "the machine runs at the destination, which waits for the rest of its memory");
}

int migrate_source_decide(struct migrate_source *s, enum migrate_event event, struct err *err)
{
    int rc = turn(s, event, err);

    /* It ran there, and nothing is left here that it needs. */
    if (!rc && s->owner == MIGRATE_SERVING && !migrate_queue_left(&s->queue))
        rc = turn(s, MIGRATE_EV_COMPLETE, err);
    if (rc || s->owner != MIGRATE_HELD)
        return rc;
    if (s->logging)
        s->guest->log_stop(s->guest->opaque);
    s->logging = false;
    return resume(s, err);
}
