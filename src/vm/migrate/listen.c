/*
 * What the destination says, read by a thread of its own: answers to the director, and in a post-copy
 * the pages that somebody waits for. Those are sent at once, each as a message of its own over the
 * first connection, their neighbours behind them.
 */
#include "vm/migrate/source_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#define NEIGHBOURS 15
#define END_NS (2 * NS_PER_S)

static void say(struct migrate_source *s, bool *flag)
{
    pthread_mutex_lock(&s->lock);
    *flag = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

/* Text of the other side for people: whatever it holds, it will not touch a terminal. */
static void take_text(char *to, size_t size, const u8 *body, u32 len)
{
    size_t n = MIN((size_t)len, size - 1);

    for (size_t i = 0; i < n; i++)
        to[i] = body[i] == '\n' || (body[i] >= ' ' && body[i] < 0x7f) ? (char)body[i] : '?';
    to[n] = 0;
}

static int send_now(struct migrate_source *s, struct migrate_encoder *e, u64 first, u64 bits,
                    struct err *err)
{
    u8 flags;
    u32 len;

    migrate_encoder_begin(e);
    for (; bits; bits &= bits - 1) {
        u64 page = first + (u64)__builtin_ctzll(bits);

        migrate_encoder_add(e, page, s->guest->ram + page * MIGRATE_PAGE_BYTES, false);
    }
    if (!migrate_encoder_end(e, &flags, &len))
        return 0;
    /* It does not wait, but others will. */
    migrate_pace_take(&s->pace, len + MIGRATE_HEAD_BYTES, migrate_now_ns());
    return migrate_line_send(&s->line[0], MIGRATE_PAGES, flags, e->iov, e->niov, err);
}

/* One page that somebody waits for, then what is likely to be wanted next. */
static int serve_page(struct migrate_source *s, struct migrate_encoder *e, u64 page,
                      struct err *err)
{
    u64 first = ALIGN_DOWN(page, 64), near = 0;

    if (page >= s->queue.pages)
        return err_set(err, EPROTO, "it wants page 0x%" PRIx64 ", which the machine has not", page);
    if (!migrate_queue_claim(&s->queue, page))
        return 0; /* on its way already */
    pthread_mutex_lock(&s->lock);
    s->urgent++;
    pthread_mutex_unlock(&s->lock);
    int rc = send_now(s, e, page, 1, err);
    for (unsigned i = 1; i <= NEIGHBOURS && page + i < first + 64; i++)
        if (migrate_queue_claim(&s->queue, page + i))
            near |= BIT((page + i) % 64);
    migrate_queue_go_on_at(&s->queue, page);
    return rc || !near ? rc : send_now(s, e, first, near, err);
}

static int serve(struct migrate_source *s, struct migrate_encoder *e,
                 const struct migrate_head *head, struct err *err)
{
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    bool runs = s->owner == MIGRATE_OURS;
    pthread_mutex_unlock(&s->lock);
    /* Loading the state may touch a page that is to come: the guest stands still by then. */
    if (runs)
        return err_set(err, EPROTO, "it wants pages while the machine runs here");
    for (u32 at = 0; at + 8 <= head->len && !rc; at += 8)
        rc = serve_page(s, e, migrate_get(s->line[0].body + at, 8), err);
    return rc;
}

static int take(struct migrate_source *s, struct migrate_encoder *e,
                const struct migrate_head *head, struct err *err)
{
    const u8 *body = s->line[0].body;
    char text[400];
    int rc = 0;

    switch (head->type) {
    case MIGRATE_FIT:
        take_text(s->lacks, sizeof(s->lacks), body, head->len);
        say(s, &s->fit);
        break;
    case MIGRATE_FENCED:
        pthread_mutex_lock(&s->lock);
        s->fenced = (u32)migrate_get(body, 4);
        migrate_window_arrived(&s->window, s->fenced, migrate_now_ns());
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        break;
    case MIGRATE_READY:
        say(s, &s->ready);
        break;
    case MIGRATE_RUNNING:
        s->running_ns = migrate_now_ns(); /* before it is seen that it does */
        say(s, &s->running);
        break;
    case MIGRATE_COMPLETE:
        say(s, &s->complete);
        break;
    case MIGRATE_NEED:
        rc = serve(s, e, head, err);
        break;
    case MIGRATE_LACK:
        if (!s->lack)
            return err_set(err, EPROTO, "LACK, but this is no reconnect");
        rc = migrate_take_bits(head, body, s->lack, s->queue.words, err);
        if (!rc && head->flags & MIGRATE_LAST)
            say(s, &s->fit);
        break;
    case MIGRATE_FAILED:
        take_text(text, sizeof(text), body, head->len);
        return err_set(err, EREMOTEIO, "the destination cannot go on: %s", text);
    case MIGRATE_ANSWER:
    case MIGRATE_HELLO: /* these go the other way; migrate_head_get() refuses them */
    case MIGRATE_JOIN:
    case MIGRATE_QUERY:
    case MIGRATE_PAGES:
    case MIGRATE_BLOCKS:
    case MIGRATE_FENCE:
    case MIGRATE_STATE:
    case MIGRATE_ABSENT:
    case MIGRATE_GO:
    case MIGRATE_CANCEL:
    case MIGRATE_BYE:
    case MIGRATE_FRAMES:
    case MIGRATE_TYPES:
        return err_set(err, EPROTO, "message %s is out of place", migrate_type_name(head->type));
    }
    return rc;
}

static void *listen_thread(void *opaque)
{
    struct migrate_source *s = opaque;
    struct migrate_cache none = {0};
    struct migrate_encoder e = {0};
    struct migrate_head head;
    struct err err = ERR_INIT;

    prctl(PR_SET_NAME, "migrate-listen");
    int rc = migrate_encoder_init(&e, &none, &s->counts, MIGRATE_PACK_NONE, &err);
    while (!rc) {
        rc = migrate_line_receive(&s->line[0], &head, &err);
        if (!rc)
            rc = take(s, &e, &head, &err);
    }
    migrate_encoder_fini(&e);
    migrate_source_fail(s, &err);
    say(s, &s->heard_all);
    return NULL;
}

void migrate_listen_wait_end(struct migrate_source *s)
{
    struct timespec until = cond_after(END_NS);
    int late = 0;

    pthread_mutex_lock(&s->lock);
    while (s->listening && !s->heard_all && late != ETIMEDOUT)
        late = pthread_cond_timedwait(&s->changed, &s->lock, &until);
    pthread_mutex_unlock(&s->lock);
}

int migrate_listen_reason(struct migrate_source *s, int rc, struct err *err)
{
    migrate_listen_wait_end(s);
    pthread_mutex_lock(&s->lock);
    if (s->failure.code == EREMOTEIO)
        rc = err_set(err, EREMOTEIO, "%s", s->failure.msg);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int migrate_listen_start(struct migrate_source *s, struct err *err)
{
    s->heard_all = false;
    int rc = pthread_create(&s->listener, NULL, listen_thread, s);

    if (rc)
        return err_sys(err, rc, "thread for the connection");
    s->listening = true;
    return 0;
}

void migrate_listen_stop(struct migrate_source *s)
{
    for (unsigned i = 0; i < s->nlines; i++)
        migrate_line_cut(&s->line[i]);
    if (s->listening)
        pthread_join(s->listener, NULL);
    s->listening = false;
}

int migrate_listen_wait(struct migrate_source *s, const bool *flag, s64 timeout_ns,
                        const char *what, struct err *err)
{
    struct timespec until = cond_after(timeout_ns);
    int rc = 0;

    pthread_mutex_lock(&s->lock);
    while (!*flag && !s->failure.code && !s->cancelled && rc != ETIMEDOUT)
        rc = timeout_ns ? pthread_cond_timedwait(&s->changed, &s->lock, &until)
                        : pthread_cond_wait(&s->changed, &s->lock);
    bool said = *flag;
    pthread_mutex_unlock(&s->lock);
    if (said)
        return 0;
    rc = migrate_source_check(s, err);
    return rc ? rc
              : err_set(err, ETIMEDOUT, "the destination did not say within %lld s that %s",
                        (long long)(timeout_ns / NS_PER_S), what);
}

static int send_fence(struct migrate_source *s, u32 fence, struct err *err)
{
    u8 number[4];
    int rc = 0;

    migrate_put(number, fence, 4);
    for (unsigned i = 0; i < s->nlines && !rc; i++)
        rc = migrate_line_say(&s->line[i], MIGRATE_FENCE, 0, number, 4, err);
    return rc;
}

/* Under the lock, which it lets go. One at a time: on every line, fences are in order. */
static void send_mark(struct migrate_source *s)
{
    struct err err = ERR_INIT;
    u32 fence = ++s->fence;

    s->marking = true;
    migrate_window_mark(&s->window, fence, migrate_now_ns());
    pthread_mutex_unlock(&s->lock);
    if (send_fence(s, fence, &err))
        migrate_source_fail(s, &err);
    pthread_mutex_lock(&s->lock);
    s->marking = false;
}

unsigned migrate_fence_room(struct migrate_source *s)
{
    bool over;

    pthread_mutex_lock(&s->lock);
    while (!(over = s->failure.code || s->cancelled || s->quit)) {
        if (!s->marking && migrate_window_due(&s->window))
            send_mark(s);
        else if (migrate_window_full(&s->window))
            pthread_cond_wait(&s->changed, &s->lock);
        else
            break;
    }
    u64 pages = s->window.bytes / 8 / MIGRATE_PAGE_BYTES;
    pthread_mutex_unlock(&s->lock);
    return over ? 0 : (unsigned)MIN(pages, (u64)MIGRATE_BATCH);
}

void migrate_fence_count(struct migrate_source *s, u64 bytes)
{
    pthread_mutex_lock(&s->lock);
    migrate_window_sent(&s->window, bytes);
    pthread_mutex_unlock(&s->lock);
}

int migrate_fence(struct migrate_source *s, s64 timeout_ns, struct err *err)
{
    struct timespec until = cond_after(timeout_ns);
    int late = 0, rc = send_fence(s, ++s->fence, err);

    if (rc)
        return rc;
    pthread_mutex_lock(&s->lock);
    while (s->fenced != s->fence && !s->failure.code && !s->cancelled && late != ETIMEDOUT)
        late = pthread_cond_timedwait(&s->changed, &s->lock, &until);
    bool arrived = s->fenced == s->fence;
    pthread_mutex_unlock(&s->lock);
    rc = migrate_source_check(s, err);
    return rc || arrived ? rc
                         : err_set(err, ETIMEDOUT, "what was sent did not arrive within %lld s",
                                   (long long)(timeout_ns / NS_PER_S));
}
