/*
 * The destination of a migration: its life, and its director. Connections are in arrival.c, those who wait for
 * pages in waiter.c.
 *
 *   filling --STATE, every connection past its fence--> loaded --GO--> running --last page--> complete
 *      \--line lost, CANCEL, rubbish--> refused           |               \--line lost--> running, waits
 *                                                         \--line lost--> refused
 *
 * Invariants:
 *  1. The guest runs only after the word (owner.h) was taken as RAN, and it is taken only when
 *     GO has come. Whoever ends without it takes it as REFUSED.
 *  2. The director, which loads the state, may wait for a page; connections' threads never do.
 */
#include "vm/migrate/destination_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SILENCE_S 90 /* until GO; after it, the machine is here and waits */

void migrate_destination_fail(struct migrate_destination *d, const struct err *err)
{
    pthread_mutex_lock(&d->lock);
    if (!d->failure.code)
        d->failure = *err;
    pthread_cond_broadcast(&d->changed);
    pthread_cond_broadcast(&d->page_came);
    pthread_mutex_unlock(&d->lock);
}

int migrate_destination_new(const struct migrate_guest *guest, struct migrate_word *word,
                            const int *fds, unsigned nfds,
                            struct migrate_destination **ret_destination, struct err *err)
{
    struct migrate_destination *d =
        nfds && nfds <= MIGRATE_CONNECTIONS ? calloc(1, sizeof(*d)) : NULL;

    if (!d) {
        for (unsigned i = 0; i < nfds; i++)
            close(fds[i]);
        return err_set(err, ENOMEM, "no memory to receive a machine");
    }
    d->guest = guest;
    d->word = word;
    d->words = (guest->pages + 63) / 64;
    d->memory = (struct migrate_memory){
        .ram = guest->ram, .pages = guest->pages, .memfd = guest->memfd, .opaque = d};
    d->memory.seen = calloc(d->words, sizeof(*d->memory.seen));
    d->lazy = (struct lazy_source){migrate_waiters_fetch, d};
    pthread_mutex_init(&d->lock, NULL);
    cond_init(&d->changed);
    cond_init(&d->page_came);
    int rc = migrate_arrivals_init(d, fds, nfds, err);
    if (!rc && !d->memory.seen)
        rc = err_set(err, ENOMEM, "no memory to receive a machine");
    if (rc)
        migrate_destination_free(d);
    else
        *ret_destination = d;
    return rc;
}

void migrate_destination_free(struct migrate_destination *d)
{
    if (!d)
        return;
    migrate_arrivals_fini(d);
    state_buf_fini(&d->state);
    free(d->memory.seen);
    free(d->absent);
    pthread_cond_destroy(&d->changed);
    pthread_cond_destroy(&d->page_came);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

void migrate_destination_cut(struct migrate_destination *d)
{
    pthread_mutex_lock(&d->lock); /* under which lines end and new ones begin */
    for (unsigned i = 0; i < d->count; i++)
        migrate_line_cut(&d->arrival[i].line);
    pthread_mutex_unlock(&d->lock);
}

void migrate_destination_wait(struct migrate_destination *d, pthread_cond_t *what, s64 *since_s)
{
    struct timespec until = cond_after(NS_PER_S), now;

    *since_s = *since_s ?: until.tv_sec - 1;
    pthread_cond_timedwait(what, &d->lock, &until);
    clock_gettime(CLOCK_MONOTONIC, &now);
    /* Nobody is at the other end, whatever the lines look like. */
    if (!d->go && !d->failure.code &&
        now.tv_sec - MAX(*since_s, migrate_arrivals_heard_s(d)) > SILENCE_S)
        err_set(&d->failure, ETIMEDOUT, "the source has said nothing for %d s", SILENCE_S);
}

/* Waits until *flag, or failure. */
static int wait_for(struct migrate_destination *d, const bool *flag, struct err *err)
{
    s64 since_s = 0;
    int rc = 0;

    pthread_mutex_lock(&d->lock);
    while (!*flag && !d->failure.code)
        migrate_destination_wait(d, &d->changed, &since_s);
    /* What came in order before the line broke counts: GO above all. */
    if (!*flag)
        rc = err_set(err, d->failure.code, "%s", d->failure.msg);
    pthread_mutex_unlock(&d->lock);
    return rc;
}

static int load(struct migrate_destination *d, struct err *err)
{
    const struct migrate_guest *g = d->guest;
    struct state_source from = state_buf_source(&d->state);
    int rc = 0;

    if (d->has_absent) {
        for (u64 w = 0; w < d->words; w++)
            atomic_fetch_add(&d->missing, (unsigned)__builtin_popcountll(d->absent[w]));
        rc = g->absent(g->opaque, &d->lazy, d->absent, err);
        d->memory.supply = migrate_waiters_supply;
    }
    if (!rc)
        rc = g->load(g->opaque, &from, err);
    state_buf_fini(&d->state);
    pthread_mutex_lock(&d->lock);
    d->loaded = !rc;
    pthread_mutex_unlock(&d->lock);
    return rc ? rc : migrate_line_say(&d->arrival[0].line, MIGRATE_READY, 0, NULL, 0, err);
}

static int run_guest(struct migrate_destination *d, struct err *err)
{
    int rc = d->guest->claim(d->guest->opaque, err);

    /* While it can still be refused; then the word decides. */
    if (!rc && migrate_word_take(d->word, MIGRATE_RAN) != MIGRATE_RAN) {
        d->guest->release(d->guest->opaque);
        rc = err_set(err, ECANCELED, "the source was told that the machine never ran here");
    }
    if (!rc)
        rc = d->guest->run(d->guest->opaque, err);
    if (rc)
        return rc;
    d->running = true;
    /* If this cannot be said, the source asks our supervisor. */
    migrate_line_say(&d->arrival[0].line, MIGRATE_RUNNING, 0, NULL, 0, NULL);
    return 0;
}

static int wait_pages(struct migrate_destination *d, struct err *err)
{
    int rc = 0;

    pthread_mutex_lock(&d->lock);
    while (atomic_load(&d->missing) && !d->failure.code)
        pthread_cond_wait(&d->changed, &d->lock);
    if (atomic_load(&d->missing))
        rc = err_set(err, d->failure.code, "%s", d->failure.msg);
    pthread_mutex_unlock(&d->lock);
    if (rc)
        return rc;
    if (d->has_absent)
        d->guest->all_there(d->guest->opaque);
    migrate_line_say(&d->arrival[0].line, MIGRATE_COMPLETE, 0, NULL, 0, NULL);
    return 0;
}

/* It will never run here. Says so, once that is certain. */
static void refuse(struct migrate_destination *d, const struct err *why)
{
    bool mine = migrate_word_take(d->word, MIGRATE_REFUSED) == MIGRATE_REFUSED;

    pthread_mutex_lock(&d->lock);
    d->refused = true;
    /* GO is an answer to READY: without that, the source still has its machine and will ask nobody. */
    if (mine && !d->loaded)
        __atomic_store_n(&d->word->settled, 1, __ATOMIC_SEQ_CST);
    pthread_cond_broadcast(&d->page_came);
    pthread_mutex_unlock(&d->lock);
    if (mine)
        migrate_line_say(&d->arrival[0].line, MIGRATE_FAILED, 0, why->msg, (u32)strlen(why->msg),
                         NULL);
}

static int receive(struct migrate_destination *d, struct err *err)
{
    int rc = migrate_line_say(&d->arrival[0].line, MIGRATE_FIT, 0, NULL, 0, err);

    pthread_mutex_lock(&d->lock);
    d->up = true;
    pthread_mutex_unlock(&d->lock);
    if (!rc)
        rc = wait_for(d, &d->load_due, err);
    if (!rc)
        rc = load(d, err);
    if (!rc)
        rc = wait_for(d, &d->go, err);
    return rc ? rc : run_guest(d, err);
}

/* After a reconnect: what is missing, and what somebody waits for already. */
static int go_on(struct migrate_destination *d, struct err *err)
{
    if (!d->absent && !(d->absent = calloc(d->words, sizeof(*d->absent))))
        return err_set(err, ENOMEM, "no memory for the list of pages");
    for (u64 w = 0; w < d->words; w++)
        for (u64 left = d->absent[w]; left; left &= left - 1) {
            u64 page = 64 * w + (u64)__builtin_ctzll(left);

            if (!d->guest->is_absent(d->guest->opaque, page))
                d->absent[w] &= ~BIT(page % 64);
        }
    int rc = migrate_line_send_bits(&d->arrival[0].line, MIGRATE_LACK, d->absent, d->words, err);
    migrate_waiters_ask_again(d);
    return rc;
}

int migrate_destination_run(struct migrate_destination *d, struct err *err)
{
    int rc = migrate_arrivals_start(d, err);

    if (!rc)
        rc = d->running ? go_on(d, err) : receive(d, err);
    if (!rc)
        rc = wait_pages(d, err);
    else if (!d->running)
        refuse(d, err);
    /* The source hangs up once it has read the last message, and its own last one comes over this connection; cutting
     * the line might swallow either. */
    if (!rc)
        migrate_arrivals_wait_first(d);
    migrate_arrivals_stop(d);
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->count && !rc; i++)
        migrate_line_fini(&d->arrival[i].line);
    pthread_mutex_unlock(&d->lock);
    return rc;
}

bool migrate_destination_runs(const struct migrate_destination *d)
{
    return d->running;
}

u64 migrate_destination_missing(const struct migrate_destination *d)
{
    return atomic_load(&d->missing);
}

int migrate_destination_again(struct migrate_destination *d, const int *fds, unsigned nfds,
                              struct err *err)
{
    if (!d->running || !nfds || nfds > MIGRATE_CONNECTIONS) {
        for (unsigned i = 0; i < nfds; i++)
            close(fds[i]);
        return err_set(err, EINVAL, "there is no broken post-copy to go on with");
    }
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->count; i++)
        migrate_line_fini(&d->arrival[i].line);
    d->failure = ERR_INIT;
    d->fence = 0;
    int rc = migrate_arrivals_init(d, fds, nfds, err);
    pthread_mutex_unlock(&d->lock);
    return rc;
}
