/*
 * The connections of a machine that arrives: what their messages say, each read by a thread of its own.
 *
 * Invariants:
 *  1. Nothing is allocated by a number from the line: the state grows with the bytes that have come, up to STATE_MAX.
 *  2. Everything but PAGES and FENCE comes over the first connection, so it is in order.
 *  3. These threads never wait for a page: it is they who bring it.
 */
#include "vm/migrate/destination_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATE_MAX (64 * MiB)
#define BYE_S 20

static int take_state(struct migrate_destination *d, const struct migrate_head *head,
                      const u8 *body, struct err *err)
{
    struct state_sink sink = state_buf_sink(&d->state);

    if (d->state_ended || head->len > STATE_MAX - d->state.len)
        return err_set(err, EPROTO, "the machine's state does not end");
    if (head->flags & MIGRATE_ZSTD)
        return err_set(err, EPROTO, "the machine's state is compressed");
    if (sink.write(sink.opaque, body, head->len))
        return err_set(err, ENOMEM, "no memory for the machine's state");
    d->state_ended = head->flags & MIGRATE_LAST;
    return 0;
}

static int take_absent(struct migrate_destination *d, const struct migrate_head *head,
                       const u8 *body, struct err *err)
{
    if (d->absent_ended || d->state_ended)
        return err_set(err, EPROTO, "ABSENT after its end");
    if (!d->absent && !(d->absent = calloc(d->words, sizeof(*d->absent))))
        return err_set(err, ENOMEM, "no memory for the list of pages");
    int rc = migrate_take_bits(head, body, d->absent, d->words, err);
    d->has_absent = true;
    d->absent_ended = head->flags & MIGRATE_LAST;
    return rc;
}

static int take_fence(struct arrival *a, u32 number, struct err *err)
{
    struct migrate_destination *d = a->destination;
    const struct migrate_guest *g = d->guest;
    u8 body[4];
    bool all = true;
    int rc = 0;

    /* While the guest still runs over there; the last time, loading does it. */
    if (a == d->arrival && !d->state_ended && g->sync_blocks)
        rc = g->sync_blocks(g->opaque, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&d->lock);
    a->fence = number;
    for (unsigned i = 0; i < d->count; i++)
        all = all && d->arrival[i].fence == number;
    all = all && d->fence != number;
    if (all) {
        d->fence = number;
        d->load_due = d->state_ended && !d->loaded;
        pthread_cond_broadcast(&d->changed);
    }
    pthread_mutex_unlock(&d->lock);
    migrate_put(body, number, 4);
    return all ? migrate_line_say(&d->arrival[0].line, MIGRATE_FENCED, 0, body, 4, err) : 0;
}

static int take_go(struct migrate_destination *d, struct err *err)
{
    pthread_mutex_lock(&d->lock);
    bool good = d->loaded && !d->go;
    d->go = true;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    return good ? 0 : err_set(err, EPROTO, "GO before the state was loaded");
}

/* u32 disk, u32 flags, u64 offset, u64 len; the bytes, or none: zeros. */
static int take_blocks(struct arrival *a, const struct migrate_head *head, struct err *err)
{
    const struct migrate_guest *g = a->destination->guest;
    const u8 *body = a->line.body;
    u32 disk = (u32)migrate_get(body, 4);
    u64 offset = migrate_get(body + 8, 8), len = migrate_get(body + 16, 8);
    u64 data = head->len - 24;

    if (!g->write_blocks || migrate_get(body + 4, 4) || head->flags || (data && data != len))
        return err_set(err, EPROTO, "blocks of disk %u that cannot be", disk);
    return g->write_blocks(g->opaque, disk, offset, len, data ? body + 24 : NULL, err);
}

/* They came to the old place, after the machine had left it. */
static int take_frames(struct migrate_destination *d, const struct migrate_head *head,
                       const u8 *body, struct err *err)
{
    const struct migrate_guest *g = d->guest;

    pthread_mutex_lock(&d->lock);
    bool go = d->go;
    pthread_mutex_unlock(&d->lock);
    if (!go)
        return err_set(err, EPROTO, "frames of a machine that has not been handed over");
    return g->take_frames ? g->take_frames(g->opaque, body, head->len, err) : 0;
}

/* The source's last word: nobody will ask the receiver how it ended. Ends the connection's thread. */
static int take_end(struct migrate_destination *d, bool bye, struct err *err)
{
    pthread_mutex_lock(&d->lock);
    bool fits = bye ? d->running && !atomic_load(&d->missing) : !d->go;
    pthread_mutex_unlock(&d->lock);
    if (!fits)
        return err_set(err, EPROTO, "message %s is out of place", bye ? "BYE" : "CANCEL");
    __atomic_store_n(&d->word->settled, 1, __ATOMIC_SEQ_CST);
    return err_set(err, ECANCELED, bye ? "all is done" : "the source has called it off");
}

/* Invariant 2. */
static int take_control(struct arrival *a, const struct migrate_head *head, struct err *err)
{
    struct migrate_destination *d = a->destination;

    if (a != &d->arrival[0])
        return err_set(err, EPROTO, "message %s on a connection for pages",
                       migrate_type_name(head->type));
    if (head->type == MIGRATE_GO)
        return take_go(d, err);
    if (head->type == MIGRATE_CANCEL || head->type == MIGRATE_BYE)
        return take_end(d, head->type == MIGRATE_BYE, err);
    if (head->type == MIGRATE_FRAMES)
        return take_frames(d, head, a->line.body, err);
    pthread_mutex_lock(&d->lock);
    bool late = d->loaded || d->load_due;
    pthread_mutex_unlock(&d->lock);
    if (late)
        return err_set(err, EPROTO, "message %s after the state", migrate_type_name(head->type));
    if (head->type == MIGRATE_STATE)
        return take_state(d, head, a->line.body, err);
    if (head->type == MIGRATE_ABSENT)
        return take_absent(d, head, a->line.body, err);
    if (head->type == MIGRATE_BLOCKS)
        return take_blocks(a, head, err);
    return err_set(err, EPROTO, "message %s is out of place", migrate_type_name(head->type));
}

static int take(struct arrival *a, const struct migrate_head *head, struct err *err)
{
    const u8 *body = a->line.body;

    if (head->type == MIGRATE_PAGES)
        return migrate_decoder_apply(&a->decoder, &a->destination->memory, head->flags, body,
                                     head->len, err);
    if (head->type == MIGRATE_FENCE)
        return take_fence(a, (u32)migrate_get(body, 4), err);
    return take_control(a, head, err);
}

/* Guests that run on this host come first, be it the very one that moves: in the first round, which is most of what comes at
 * all, and once the guest runs here, until it has all pages. Between the two everybody waits for what comes. */
static bool gives_way(const struct arrival *a)
{
    const struct migrate_destination *d = a->destination;

    return !a->patience.over &&
           (a->first_round || (atomic_load(&d->running) && atomic_load(&d->missing)));
}

/* Until the line ends, or somebody with another priority is to go on. */
static void take_all(void *opaque)
{
    struct arrival *a = opaque;
    struct migrate_head head = {0};

    a->patience.seen_ns = 0;
    do {
        a->rc = migrate_line_receive(&a->line, &head, &a->err);
        if (!a->rc)
            a->rc = take(a, &head, &a->err);
        a->first_round &= head.type == MIGRATE_PAGES || head.type == MIGRATE_BLOCKS;
        if (a->gentle)
            migrate_patience_over(&a->patience);
    } while (!a->rc && gives_way(a) == a->gentle);
}

static void *arrival_thread(void *opaque)
{
    struct arrival *a = opaque;

    prctl(PR_SET_NAME, "migrate-in");
    while (!a->rc) {
        a->gentle = gives_way(a);
        if (a->gentle)
            migrate_gently(take_all, a);
        else
            take_all(a);
    }
    pthread_mutex_lock(&a->destination->lock);
    a->ended = true;
    pthread_mutex_unlock(&a->destination->lock);
    migrate_destination_fail(a->destination, &a->err);
    return NULL;
}

int migrate_arrivals_init(struct migrate_destination *d, const int *fds, unsigned nfds,
                          struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < nfds; i++) {
        struct arrival *a = &d->arrival[i];

        a->destination = d;
        a->fence = 0;
        a->rc = 0;
        a->err = ERR_INIT;
        a->first_round = !d->running;
        a->ended = false;
        int one = migrate_line_init(&a->line, fds[i], MIGRATE_TO_DESTINATION, err);
        if (one)
            close(fds[i]);
        a->line.in_sequence = 1; /* HELLO or JOIN was the first */
        if (!one && !a->decoder.stage)
            one = migrate_decoder_init(&a->decoder, err);
        rc = rc ? rc : one;
    }
    d->count = nfds;
    return rc;
}

void migrate_arrivals_fini(struct migrate_destination *d)
{
    for (unsigned i = 0; i < MIGRATE_CONNECTIONS; i++) {
        if (i < d->count)
            migrate_line_fini(&d->arrival[i].line);
        migrate_decoder_fini(&d->arrival[i].decoder);
    }
}

int migrate_arrivals_start(struct migrate_destination *d, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < d->count && !rc; i++) {
        struct arrival *a = &d->arrival[i];

        rc = pthread_create(&a->thread, NULL, arrival_thread, a);
        a->started = !rc;
    }
    return rc ? err_sys(err, rc, "thread for a connection") : 0;
}

void migrate_arrivals_stop(struct migrate_destination *d)
{
    migrate_destination_cut(d);
    for (unsigned i = 0; i < d->count; i++) {
        if (d->arrival[i].started)
            pthread_join(d->arrival[i].thread, NULL);
        d->arrival[i].started = false;
    }
    pthread_mutex_lock(&d->lock);
    d->up = false;
    while (d->asking)
        pthread_cond_wait(&d->changed, &d->lock);
    pthread_mutex_unlock(&d->lock);
}

void migrate_arrivals_wait_first(struct migrate_destination *d)
{
    struct timespec until = cond_after(BYE_S * NS_PER_S);
    int late = 0;

    pthread_mutex_lock(&d->lock);
    while (!d->arrival[0].ended && late != ETIMEDOUT)
        late = pthread_cond_timedwait(&d->changed, &d->lock, &until);
    pthread_mutex_unlock(&d->lock);
}

bool migrate_destination_has_line(struct migrate_destination *d, int fd)
{
    struct stat theirs, ours;
    bool same = false;

    if (fstat(fd, &theirs))
        return false;
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->count; i++)
        same |= d->arrival[i].line.fd >= 0 && !fstat(d->arrival[i].line.fd, &ours) &&
                ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
    pthread_mutex_unlock(&d->lock);
    return same;
}

s64 migrate_arrivals_heard_s(const struct migrate_destination *d)
{
    s64 heard_s = 0;

    for (unsigned i = 0; i < d->count; i++) {
        s64 line_s = atomic_load_explicit(&d->arrival[i].line.heard_s, memory_order_relaxed);

        heard_s = MAX(heard_s, line_s);
    }
    return heard_s;
}
