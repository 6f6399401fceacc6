/*
 * Both ends of a migration over socket pairs, with a guest of some hundred pages that has no processor: it writes whenever
 * its dirty log is looked at. For tests of the engine.
 */
#ifndef UNIT_VM_MIGRATE_TOY_H
#define UNIT_VM_MIGRATE_TOY_H

#include "unit.h"

#include "vm/migrate/destination.h"
#include "vm/migrate/frames.h"
#include "vm/migrate/line.h"
#include "vm/migrate/source.h"
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef PAGES
#define PAGES 700 /* no multiple of a group */
#endif
#define PAGE MIGRATE_PAGE_BYTES
#define WORDS ((PAGES + 63) / 64)

struct toy {
    u8 *ram;
    pthread_mutex_t lock; /* the source's listener and director, the destination's threads */
    u64 dirty[WORDS], absent[WORDS];
    bool running, stopped;
    unsigned writes; /* pages that it writes between two looks */
    unsigned looks;
    u32 counter;    /* its state */
    bool bad_state; /* destination: load fails */
    const struct lazy_source *lazy;
    pthread_t reader; /* destination in post-copy: touches all pages */
    bool reading;
    unsigned throttled;
    bool claimed;    /* destination: has what both sides share */
    unsigned frames; /* source: that still come; destination: that came */
    bool away;       /* source: as it is written down */
    bool full;       /* source: it cannot be written down */
};

static u64 random_at = 1;

static u64 random_word(void)
{
    random_at = random_at * 6364136223846793005ull + 1442695040888963407ull;
    return random_at ^ random_at >> 29;
}

static void write_page(struct toy *t)
{
    u64 page = random_word() % PAGES;
    u8 *at = t->ram + page * PAGE;
    u64 how = random_word() % 4;

    memcpy(at + random_word() % (PAGE - 8), &random_at, 8);
    if (how == 0)
        memset(at, (int)random_word(), PAGE);
    if (how == 1)
        memset(at, 0, PAGE);
    t->dirty[page / 64] |= BIT(page % 64);
    t->counter++;
}

static int log_start(void *opaque, struct err *err)
{
    struct toy *t = opaque;

    memset(t->dirty, 0, sizeof(t->dirty));
    return 0;
}

static int log_collect(void *opaque, u64 *ret_bits, u64 *ret_count, struct err *err)
{
    struct toy *t = opaque;
    u64 count = 0;

    t->looks++;
    for (unsigned i = 0; i < t->writes && t->running; i++)
        write_page(t);
    for (unsigned w = 0; w < WORDS; w++)
        count += (u64)__builtin_popcountll(t->dirty[w]);
    memcpy(ret_bits, t->dirty, sizeof(t->dirty));
    memset(t->dirty, 0, sizeof(t->dirty));
    *ret_count = count;
    return 0;
}

static void log_stop(void *opaque)
{
}

static int toy_stop(void *opaque, struct err *err)
{
    struct toy *t = opaque;

    for (unsigned i = 0; i < t->writes; i++)
        write_page(t);
    t->running = false;
    return 0;
}

static int toy_resume(void *opaque, struct err *err)
{
    struct toy *t = opaque;

    assert_false(t->away);
    t->running = true;
    return 0;
}

static int toy_note(void *opaque, bool away, struct err *err)
{
    struct toy *t = opaque;

    assert_false(t->running);
    if (away && t->full)
        return err_set(err, ENOSPC, "no room");
    t->away = away;
    return 0;
}

static void toy_throttle(void *opaque, unsigned percent)
{
    struct toy *t = opaque;

    t->throttled = MAX(t->throttled, percent);
    t->writes = percent >= 80 ? 0 : t->writes;
}

static int toy_save(void *opaque, const struct state_sink *to, struct err *err)
{
    struct toy *t = opaque;

    assert_false(t->running);
    return to->write(to->opaque, &t->counter, sizeof(t->counter));
}

static int toy_load(void *opaque, const struct state_source *from, struct err *err)
{
    struct toy *t = opaque;

    if (t->bad_state)
        return err_set(err, EINVAL, "state of toy 0: no");
    return from->read(from->opaque, &t->counter, sizeof(t->counter));
}

static int toy_absent(void *opaque, const struct lazy_source *source, const u64 *bits,
                      struct err *err)
{
    struct toy *t = opaque;

    memcpy(t->absent, bits, sizeof(t->absent));
    for (u64 page = 0; page < PAGES; page++)
        if (bits[page / 64] >> (page % 64) & 1)
            memset(t->ram + page * PAGE, 0xee, PAGE);
    t->lazy = source;
    return 0;
}

static bool toy_is_absent(void *opaque, u64 page)
{
    struct toy *t = opaque;

    pthread_mutex_lock(&t->lock);
    bool absent = t->absent[page / 64] >> (page % 64) & 1;
    pthread_mutex_unlock(&t->lock);
    return absent;
}

static u64 toy_supply(void *opaque, u64 page, u64 count, const u8 *bytes)
{
    struct toy *t = opaque;
    u64 fresh = 0;

    pthread_mutex_lock(&t->lock);
    for (u64 end = page + count; page < end; page++, bytes += PAGE) {
        if (!(t->absent[page / 64] >> (page % 64) & 1))
            continue;
        memcpy(t->ram + page * PAGE, bytes, PAGE);
        t->absent[page / 64] &= ~BIT(page % 64);
        fresh++;
    }
    pthread_mutex_unlock(&t->lock);
    return fresh;
}

static void toy_all_there(void *opaque)
{
}

/* A vCPU that touches everything, from the end: against the order in which pages are pushed. */
static void *read_pages(void *opaque)
{
    struct toy *t = opaque;
    u8 bytes[PAGE];

    for (u64 page = PAGES; page-- > 0;)
        while (toy_is_absent(t, page))
            t->lazy->fetch(t->lazy->opaque, page, bytes);
    return NULL;
}

static int toy_run(void *opaque, struct err *err)
{
    struct toy *t = opaque;

    assert_true(t->claimed);
    t->running = true;
    if (t->lazy) {
        t->reading = true;
        pthread_create(&t->reader, NULL, read_pages, t);
    }
    return 0;
}

static int toy_claim(void *opaque, struct err *err)
{
    struct toy *t = opaque;

    t->claimed = true;
    return 0;
}

static void toy_release(void *opaque)
{
    struct toy *t = opaque;

    t->claimed = false;
}

static u32 toy_frames(void *opaque, u8 *body, u32 size)
{
    struct toy *t = opaque;
    struct migrate_frame f = {.len = 60};

    assert_true(size >= MIGRATE_FRAME_HEAD + NET_FRAME_MAX && !t->running);
    if (!t->frames)
        return 0;
    t->frames--;
    migrate_frame_put(&f, body);
    memset(body + MIGRATE_FRAME_HEAD, 1, f.len);
    return MIGRATE_FRAME_HEAD + f.len;
}

static int toy_take_frames(void *opaque, const u8 *body, u32 len, struct err *err)
{
    struct toy *t = opaque;
    struct migrate_frame f;
    int rc;

    while ((rc = migrate_frame_next(&body, &len, &f, err)) > 0)
        t->frames++;
    return rc;
}

static struct migrate_guest guest_of(struct toy *t)
{
    return (struct migrate_guest){.ram = t->ram,
                                  .pages = PAGES,
                                  .memfd = -1,
                                  .log_start = log_start,
                                  .log_collect = log_collect,
                                  .log_stop = log_stop,
                                  .stop = toy_stop,
                                  .resume = toy_resume,
                                  .throttle = toy_throttle,
                                  .save = toy_save,
                                  .note = toy_note,
                                  .load = toy_load,
                                  .absent = toy_absent,
                                  .supply = toy_supply,
                                  .is_absent = toy_is_absent,
                                  .all_there = toy_all_there,
                                  .claim = toy_claim,
                                  .release = toy_release,
                                  .run = toy_run,
                                  .frames = toy_frames,
                                  .take_frames = toy_take_frames,
                                  .opaque = t};
}

static void toy_init(struct toy *t, unsigned writes)
{
    *t = (struct toy){.ram = calloc(PAGES, PAGE), .writes = writes};
    pthread_mutex_init(&t->lock, NULL);
}

/* Both ends of one migration. */
struct move {
    struct toy here, there;
    struct migrate_guest guest_here, guest_there;
    struct migrate_word word;
    struct migrate_options options;
    struct migrate_source *source;
    struct migrate_destination *destination;
    unsigned lines;
    int arrive_rc;
    struct err arrive_err;
    pthread_t thread;
    /* Cutting: */
    unsigned messages, cut_at; /* 0: never */
    pthread_mutex_t lock;
};

static void *arrive(void *opaque)
{
    struct move *m = opaque;

    m->arrive_rc = migrate_destination_run(m->destination, &m->arrive_err);
    return NULL;
}

/* Reads the greeting of every connection, as the receiver's process does. */
static void read_greetings(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct migrate_head head;
        u8 bytes[MIGRATE_HEAD_BYTES], body[256];

        assert_int_equal(read(fds[i], bytes, sizeof(bytes)), sizeof(bytes));
        assert_int_equal(migrate_head_get(bytes, MIGRATE_TO_DESTINATION, 0, &head, NULL), 0);
        assert_int_equal(head.type, i ? MIGRATE_JOIN : MIGRATE_HELLO);
        assert_int_equal(read(fds[i], body, head.len), head.len);
    }
}

static bool count_message(void *opaque, enum migrate_type type)
{
    struct move *m = opaque;

    pthread_mutex_lock(&m->lock);
    bool go_on = ++m->messages != m->cut_at;
    pthread_mutex_unlock(&m->lock);
    if (type == MIGRATE_GO)
        assert_true(m->here.away);
    return go_on;
}

static void make_pairs(unsigned n, int *here, int *there)
{
    for (unsigned i = 0; i < n; i++) {
        int pair[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        here[i] = pair[0];
        there[i] = pair[1];
    }
}

static struct move *move_new(unsigned lines, unsigned writes)
{
    struct move *m = calloc(1, sizeof(*m));

    m->lines = lines;
    m->options = (struct migrate_options){.wish = {.downtime_ns = 300000000}};
    pthread_mutex_init(&m->lock, NULL);
    toy_init(&m->here, writes);
    toy_init(&m->there, 0);
    m->here.running = true;
    m->here.frames = 3;
    for (u64 page = 0; page < PAGES; page += 2)
        for (unsigned i = 0; i < PAGE; i += 8) {
            u64 word = random_word();
            memcpy(m->here.ram + page * PAGE + i, &word, 8);
        }
    m->guest_here = guest_of(&m->here);
    m->guest_there = guest_of(&m->there);
    return m;
}

struct greeting {
    int fds[MIGRATE_CONNECTIONS];
    struct move *move;
    bool again;
};

/* The receiver's side from the first byte on; ends at once when the greeting never comes whole. */
static void *greet_and_arrive(void *opaque)
{
    struct greeting *g = opaque;
    struct move *m = g->move;

    read_greetings(g->fds, m->lines);
    if (g->again)
        migrate_destination_again(m->destination, g->fds, m->lines, &m->arrive_err);
    else
        migrate_destination_new(&m->guest_there, &m->word, g->fds, m->lines, &m->destination,
                                &m->arrive_err);
    return arrive(m);
}

static __attribute__((unused)) int run_move(struct move *m, struct err *err)
{
    struct greeting g = {.move = m};
    int here[MIGRATE_CONNECTIONS], rc;

    make_pairs(m->lines, here, g.fds);
    assert_int_equal(
        migrate_source_new(&m->guest_here, &m->options, here, m->lines, &m->source, err), 0);
    if (m->cut_at || m->messages)
        migrate_source_watch(m->source, count_message, m);
    pthread_create(&m->thread, NULL, greet_and_arrive, &g);
    rc = migrate_source_run(m->source, err);
    pthread_join(m->thread, NULL);
    return rc;
}

static void move_free(struct move *m)
{
    if (m->there.reading)
        pthread_join(m->there.reader, NULL);
    migrate_source_free(m->source);
    migrate_destination_free(m->destination);
    free(m->here.ram);
    free(m->there.ram);
    free(m);
}

static void assert_moved(struct move *m)
{
    assert_false(m->here.running);
    assert_true(m->there.running);
    assert_true(m->here.away);
    assert_int_equal(migrate_source_owner(m->source), MIGRATE_GONE);
    assert_int_equal(m->arrive_rc, 0);
    assert_int_equal(m->here.counter, m->there.counter);
    assert_memory_equal(m->here.ram, m->there.ram, PAGES * PAGE);
}

#endif
