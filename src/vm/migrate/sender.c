/*
 * Threads that send pages: each takes the groups that are its own from the list, over its own
 * connection. While the guest runs, they give way to it (gently.h).
 *
 *   waiting --pass--> sending --nothing left--> waiting
 *      \--quit--> ended
 */
#include "vm/migrate/source_parts.h"

#include <errno.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>

/* In a post-copy somebody may wait for any page. A message that takes long makes him wait for pages that come before his
 * in it, or for what is in front of it on the line. */
#define LONG_NS 600000
#define SHORT_NS 150000
#define MOST_MIN 8

static void sleep_ns(s64 ns)
{
    struct timespec t = {ns / NS_PER_S, ns % NS_PER_S};

    nanosleep(&t, NULL);
}

static int send_batch(struct migrate_sender *m, struct err *err)
{
    struct migrate_encoder *e = &m->encoder;
    u8 flags;
    u32 len;

    if (!migrate_encoder_end(e, &flags, &len))
        return 0;
    s64 start_ns = migrate_now_ns();
    u64 limit = m->source->options.bytes_per_s;
    migrate_pace_take(&m->source->pace, len + MIGRATE_HEAD_BYTES, start_ns);
    migrate_fence_count(m->source, len + MIGRATE_HEAD_BYTES);
    int rc = migrate_line_send(m->line, MIGRATE_PAGES, flags, e->iov, e->niov, err);
    s64 took_ns = migrate_now_ns() - start_ns + m->waited_ns;
    migrate_encoder_measure(e, len, took_ns);
    if (limit)
        took_ns = MAX(took_ns, (s64)(len * (u64)NS_PER_S / limit));
    if (took_ns > LONG_NS)
        m->most = MAX(m->most / 2, (unsigned)MOST_MIN);
    else if (took_ns < SHORT_NS)
        m->most = MIN(m->most * 2, (unsigned)MIGRATE_BATCH);
    return rc;
}

static int send_group(struct migrate_sender *m, u64 first, u64 bits, struct err *err)
{
    struct migrate_queue *q = &m->source->queue;
    const u8 *ram = m->source->guest->ram;
    u64 sent = atomic_load_explicit(&q->sent[first / 64], memory_order_relaxed);

    migrate_encoder_begin(&m->encoder);
    for (u64 left = bits; left; left &= left - 1) {
        u64 page = first + (u64)__builtin_ctzll(left);

        migrate_encoder_add(&m->encoder, page, ram + page * MIGRATE_PAGE_BYTES,
                            sent >> (page % 64) & 1);
    }
    atomic_store_explicit(&q->sent[first / 64], sent | bits, memory_order_relaxed);
    return send_batch(m, err);
}

/* Waits until the line is free, then says how many pages the next message may have; 0: it is over. Pages are taken off the
 * list after that: from then on nobody can have them sooner. */
static unsigned next_most(struct migrate_sender *m)
{
    struct migrate_source *s = m->source;
    s64 wait_ns = migrate_pace_wait(&s->pace, migrate_now_ns());

    if (wait_ns > 0)
        sleep_ns(wait_ns);
    pthread_mutex_lock(&s->lock);
    bool failed = s->failure.code || s->cancelled || s->quit;
    bool serving = s->phase == MIGRATE_POSTCOPY;
    pthread_mutex_unlock(&s->lock);
    if (failed || !serving)
        return failed ? 0 : MIGRATE_BATCH;
    s64 start_ns = migrate_now_ns();
    unsigned room = migrate_fence_room(s);
    m->waited_ns = migrate_now_ns() - start_ns;
    return MIN(m->most, room);
}

static void send_pass(void *opaque)
{
    struct migrate_sender *m = opaque;
    struct migrate_source *s = m->source;
    struct err err = ERR_INIT;
    u64 first, bits;
    unsigned most;
    int rc = 0;

    while (!rc && !(m->gentle && migrate_patience_over(&m->patience)) && (most = next_most(m)) &&
           migrate_queue_take(&s->queue, m->index, most, &first, &bits))
        rc = send_group(m, first, bits, &err);
    if (rc)
        migrate_source_fail(s, &err);
}

static void *sender_thread(void *opaque)
{
    struct migrate_sender *m = opaque;
    struct migrate_source *s = m->source;
    unsigned seen = 0;
    char name[16];

    snprintf(name, sizeof(name), "migrate%u", m->index);
    prctl(PR_SET_NAME, name);
    pthread_mutex_lock(&s->lock);
    while (!s->quit) {
        if (s->pass == seen) {
            pthread_cond_wait(&s->work, &s->lock);
            continue;
        }
        seen = s->pass;
        bool runs = s->phase != MIGRATE_HANDOVER; /* here, or there on what may be the same host */
        pthread_mutex_unlock(&s->lock);
        m->gentle = runs && !m->patience.over;
        if (m->gentle) {
            m->patience.seen_ns = 0;
            migrate_gently(send_pass, m);
        }
        if (!m->gentle || m->patience.over) {
            m->gentle = false;
            send_pass(m);
        }
        pthread_mutex_lock(&s->lock);
        if (!--s->busy)
            pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

int migrate_senders_start(struct migrate_source *s, struct err *err)
{
    int rc = 0;

    s->quit = false;
    s->pass = s->busy = 0;
    for (unsigned i = 0; i < s->nsenders && !rc; i++) {
        struct migrate_sender *m = &s->sender[i];

        /* The first connection is for what must not wait, if there is another one. */
        *m = (struct migrate_sender){.source = s,
                                     .index = i,
                                     .most = MIGRATE_BATCH,
                                     .line = &s->line[s->nlines == 1 ? 0 : i + 1]};
        rc = migrate_encoder_init(&m->encoder, &s->cache, &s->counts, s->options.pack, err);
        migrate_encoder_limit(&m->encoder, s->options.bytes_per_s);
        if (!rc && (rc = pthread_create(&m->thread, NULL, sender_thread, m)))
            rc = err_sys(err, rc, "thread for sending pages");
        m->started = !rc;
    }
    return rc;
}

void migrate_senders_stop(struct migrate_source *s)
{
    pthread_mutex_lock(&s->lock);
    s->quit = true;
    pthread_cond_broadcast(&s->work);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    for (unsigned i = 0; i < s->nsenders; i++) {
        if (s->sender[i].started)
            pthread_join(s->sender[i].thread, NULL);
        migrate_encoder_fini(&s->sender[i].encoder);
        s->sender[i].started = false;
    }
}

void migrate_senders_go(struct migrate_source *s)
{
    pthread_mutex_lock(&s->lock);
    s->pass++;
    s->busy = s->nsenders;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
}

bool migrate_senders_wait(struct migrate_source *s, s64 timeout_ns)
{
    struct timespec until = cond_after(timeout_ns);

    pthread_mutex_lock(&s->lock);
    while (s->busy && pthread_cond_timedwait(&s->changed, &s->lock, &until) != ETIMEDOUT)
        ;
    bool done = !s->busy;
    pthread_mutex_unlock(&s->lock);
    return done;
}
