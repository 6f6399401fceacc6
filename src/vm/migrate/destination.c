/*
 * The destination of a migration.
 *
 *   filling --STATE, every connection past its fence--> loaded --GO--> running --last page--> complete
 *      \--line lost, CANCEL, rubbish--> refused           |               \--line lost--> running, waits
 *                                                         \--line lost--> refused
 *
 * Invariants:
 *  1. The guest runs only after the word (owner.h) was taken as RAN, and it is taken only when
 *     GO has come. Whoever ends without it takes it as REFUSED.
 *  2. Nothing is allocated by a number from the line: the state grows with the bytes that have come, up to
 *     STATE_MAX.
 *  3. Connections' threads never wait for a page; the director, which loads the state, may.
 */
#include "vm/migrate/destination.h"

#include "vm/migrate/gently.h"
#include "vm/migrate/line.h"
#include "vm/migrate/page.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define STATE_MAX (64 * MiB)
#define SILENCE_S 90 /* until GO; after it, the machine is here and waits */

struct arrival {
    struct migrate_destination *destination;
    struct migrate_line line;
    struct migrate_decoder decoder;
    pthread_t thread;
    bool started, bulk;
    u32 fence; /* the last one that came */
    int rc;    /* of its thread */
    struct err err;
};

/* Somebody who waits for a page; on the stack of a vCPU's or device's thread. */
struct waiter {
    u64 page;
    struct waiter *next;
};

struct migrate_destination {
    const struct migrate_guest *guest;
    struct migrate_word *word;
    struct migrate_memory memory;
    struct arrival arrival[MIGRATE_CONNECTIONS];
    unsigned count;
    u64 words;
    u64 *absent; /* bits of pages to come */
    struct lazy_source lazy;
    atomic_ullong missing;
    atomic_uint waiting; /* length of `waiters`; read without the lock */

    pthread_mutex_t lock; /* protects all below */
    pthread_cond_t changed, page_came;
    struct state_buf state;
    bool state_ended, absent_ended, has_absent;
    u32 fence; /* that every connection has come past */
    bool load_due, loaded, go, running, refused;
    unsigned interrupts;
    struct waiter *waiters;
    struct err failure;
};

static void fail(struct migrate_destination *d, const struct err *err)
{
    pthread_mutex_lock(&d->lock);
    if (!d->failure.code)
        d->failure = *err;
    pthread_cond_broadcast(&d->changed);
    pthread_cond_broadcast(&d->page_came);
    pthread_mutex_unlock(&d->lock);
}

/* --- pages that come after the guest runs --- */

/* Under the lock. */
static bool is_asked(const struct migrate_destination *d, u64 page)
{
    const struct waiter *w = d->waiters;

    while (w && w->page != page)
        w = w->next;
    return w != NULL;
}

static int supply(void *opaque, u64 page, const u8 *bytes)
{
    struct migrate_destination *d = opaque;

    if (!d->guest->supply(d->guest->opaque, page, bytes))
        return 0; /* it was there already: these bytes are older */
    u64 left = atomic_fetch_sub(&d->missing, 1) - 1;
    if (left && !atomic_load(&d->waiting))
        return 0;
    pthread_mutex_lock(&d->lock);
    /* Waking a processor for somebody else's page costs it more than the page. */
    if (is_asked(d, page))
        pthread_cond_broadcast(&d->page_came);
    if (!left)
        pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    return 0;
}

static void ask(struct migrate_destination *d, u64 page)
{
    u8 body[8];

    migrate_put(body, page, 8);
    /* When the line is broken, the next one asks for all that is waited for. */
    migrate_line_say(&d->arrival[0].line, MIGRATE_NEED, 0, body, 8, NULL);
}

/* Under the lock: no page will come, nor is one needed. Until GO that is so as soon as a line is lost: who waits loads the
 * state of a machine that will not run here. */
static bool is_over(const struct migrate_destination *d)
{
    return d->refused || (!d->go && d->failure.code);
}

/* lazy_source.fetch: the page comes through supply(); this only asks for it and waits. */
static int fetch(void *opaque, u64 page, void *dst4096)
{
    struct migrate_destination *d = opaque;
    struct waiter me = {.page = page};

    pthread_mutex_lock(&d->lock);
    unsigned interrupts = d->interrupts;
    bool asked = is_asked(d, page);
    me.next = d->waiters;
    d->waiters = &me;
    atomic_fetch_add(&d->waiting, 1);
    pthread_mutex_unlock(&d->lock);
    if (!asked)
        ask(d, page);

    pthread_mutex_lock(&d->lock);
    while (d->guest->is_absent(d->guest->opaque, page) && d->interrupts == interrupts &&
           !is_over(d))
        pthread_cond_wait(&d->page_came, &d->lock);
    struct waiter **link = &d->waiters;
    while (*link != &me)
        link = &(*link)->next;
    *link = me.next;
    atomic_fetch_sub(&d->waiting, 1);
    bool over = is_over(d);
    pthread_mutex_unlock(&d->lock);
    if (!d->guest->is_absent(d->guest->opaque, page))
        return 1;
    return over ? -EIO : -EINTR;
}

void migrate_destination_interrupt(struct migrate_destination *d)
{
    pthread_mutex_lock(&d->lock);
    d->interrupts++;
    pthread_cond_broadcast(&d->page_came);
    pthread_mutex_unlock(&d->lock);
}

/* --- messages --- */

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
    u8 body[4];
    bool all = true;

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

/* Everything but PAGES and FENCE comes over the first connection, so that it is in order. */
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
    if (d->loaded || d->load_due)
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

/* Until it ends; the first time until the first round has, which is most of what comes at all. */
static void take_all(void *opaque)
{
    struct arrival *a = opaque;
    struct migrate_head head = {0};

    do {
        a->rc = migrate_line_receive(&a->line, &head, &a->err);
        if (!a->rc)
            a->rc = take(a, &head, &a->err);
    } while (!a->rc && (!a->bulk || head.type == MIGRATE_PAGES || head.type == MIGRATE_BLOCKS));
}

static void *arrival_thread(void *opaque)
{
    struct arrival *a = opaque;

    prctl(PR_SET_NAME, "migrate-in");
    if (a->bulk) /* the guest may be on this very host */
        migrate_gently(take_all, a);
    a->bulk = false;
    if (!a->rc)
        take_all(a);
    fail(a->destination, &a->err);
    return NULL;
}

/* --- life --- */

static int take_lines(struct migrate_destination *d, const int *fds, unsigned nfds, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < nfds; i++) {
        struct arrival *a = &d->arrival[i];

        a->destination = d;
        a->fence = 0;
        a->rc = 0;
        a->err = ERR_INIT;
        a->bulk = !d->running;
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

int migrate_destination_new(const struct migrate_guest *guest, struct migrate_word *word,
                            const int *fds, unsigned nfds,
                            struct migrate_destination **ret_destination, struct err *err)
{
    pthread_condattr_t monotonic;
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
    d->lazy = (struct lazy_source){fetch, d};
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&d->changed, &monotonic);
    pthread_cond_init(&d->page_came, NULL);
    int rc = take_lines(d, fds, nfds, err);
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
    for (unsigned i = 0; i < MIGRATE_CONNECTIONS; i++) {
        if (i < d->count)
            migrate_line_fini(&d->arrival[i].line);
        migrate_decoder_fini(&d->arrival[i].decoder);
    }
    state_buf_fini(&d->state);
    free(d->memory.seen);
    free(d->absent);
    pthread_cond_destroy(&d->changed);
    pthread_cond_destroy(&d->page_came);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

static int start_threads(struct migrate_destination *d, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < d->count && !rc; i++) {
        struct arrival *a = &d->arrival[i];

        rc = pthread_create(&a->thread, NULL, arrival_thread, a);
        a->started = !rc;
    }
    return rc ? err_sys(err, rc, "thread for a connection") : 0;
}

void migrate_destination_cut(struct migrate_destination *d)
{
    for (unsigned i = 0; i < d->count; i++)
        migrate_line_cut(&d->arrival[i].line);
}

static void stop_threads(struct migrate_destination *d)
{
    migrate_destination_cut(d);
    for (unsigned i = 0; i < d->count; i++) {
        if (d->arrival[i].started)
            pthread_join(d->arrival[i].thread, NULL);
        d->arrival[i].started = false;
    }
}

/* No line has carried a byte for so long that nobody is at the other end, whatever its lines look like. */
static bool is_forsaken(const struct migrate_destination *d, s64 since_s, s64 now_s)
{
    s64 heard_s = since_s;

    for (unsigned i = 0; i < d->count; i++) {
        s64 line_s = atomic_load_explicit(&d->arrival[i].line.heard_s, memory_order_relaxed);

        heard_s = MAX(heard_s, line_s);
    }
    return now_s - heard_s > SILENCE_S;
}

/* Waits until *flag, or failure. */
static int wait_for(struct migrate_destination *d, const bool *flag, struct err *err)
{
    struct timespec now;
    int rc = 0;

    clock_gettime(CLOCK_MONOTONIC, &now);
    s64 since_s = now.tv_sec;
    pthread_mutex_lock(&d->lock);
    while (!*flag && !d->failure.code) {
        struct timespec look = {now.tv_sec + 1, now.tv_nsec};

        pthread_cond_timedwait(&d->changed, &d->lock, &look);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (!*flag && !d->failure.code && is_forsaken(d, since_s, now.tv_sec))
            err_set(&d->failure, ETIMEDOUT, "the source has said nothing for %d s", SILENCE_S);
    }
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
        d->memory.supply = supply;
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
    pthread_mutex_lock(&d->lock);
    u64 wanted[MIGRATE_BATCH];
    unsigned n = 0;
    for (struct waiter *w = d->waiters; w && n < MIGRATE_BATCH; w = w->next)
        wanted[n++] = w->page;
    pthread_mutex_unlock(&d->lock);
    for (unsigned i = 0; i < n; i++)
        ask(d, wanted[i]);
    return rc;
}

int migrate_destination_run(struct migrate_destination *d, struct err *err)
{
    int rc = start_threads(d, err);

    if (!rc)
        rc = d->running ? go_on(d, err) : receive(d, err);
    if (!rc)
        rc = wait_pages(d, err);
    else if (!d->running)
        refuse(d, err);
    /* The source hangs up once it has read the last message, and its own last one comes over this connection; cutting
     * the line might swallow either. */
    if (!rc) {
        pthread_join(d->arrival[0].thread, NULL);
        d->arrival[0].started = false;
    }
    stop_threads(d);
    for (unsigned i = 0; i < d->count && !rc; i++)
        migrate_line_fini(&d->arrival[i].line);
    return rc;
}

void migrate_destination_abandon(struct migrate_destination *d)
{
    pthread_mutex_lock(&d->lock);
    d->refused = true;
    pthread_cond_broadcast(&d->page_came);
    pthread_mutex_unlock(&d->lock);
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
    int rc = take_lines(d, fds, nfds, err);
    pthread_mutex_unlock(&d->lock);
    return rc;
}
