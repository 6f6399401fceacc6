/* What is sent when: pacing, the list of pages, and the judge of rounds, with a clock that is stepped. */
#include "unit.h"

#include "vm/migrate/estimate.h"
#include "vm/migrate/gently.h"
#include "vm/migrate/pace.h"
#include "vm/migrate/queue.h"

#define MS 1000000ll

/* Half of a processor will do for ever; a sixth will not, and a good time before only helps for a while. */
static void patience_ends_where_it_starves(void **state)
{
    struct migrate_patience p = {0};
    s64 waited = 0;

    for (int i = 0; i < 1000; i++)
        migrate_patience_note(&p, 5 * MS, 5 * MS);
    migrate_patience_note(&p, 1000 * MS, 0);
    assert_false(p.over);
    for (; !p.over && waited < 1000 * MS; waited += 5 * MS)
        migrate_patience_note(&p, MS, 5 * MS);
    assert_in_range(waited, 100 * MS, 300 * MS);
    migrate_patience_note(&p, 1000 * MS, 0);
    assert_true(p.over);
}

/* Sends as fast as it may for a second: the rate is kept. */
static void pace_holds_the_rate(void **state)
{
    struct migrate_pace p;
    s64 now = 0;
    u64 sent = 0;

    migrate_pace_init(&p, 100 * MiB);
    while (now < 1000 * MS) {
        now += migrate_pace_take(&p, 256 * KiB, now);
        sent += 256 * KiB;
    }
    assert_in_range(sent, 100 * MiB, 102 * MiB);
    /* A pause is no credit. */
    now += 10000 * MS;
    sent = 0;
    for (s64 end = now + 100 * MS; now < end; sent += 256 * KiB)
        now += migrate_pace_take(&p, 256 * KiB, now);
    assert_in_range(sent, 10 * MiB, 12 * MiB);
    /* Who asks first and pays later. */
    for (s64 end = now + 100 * MS, wait_ns; now < end; now += wait_ns) {
        migrate_pace_take(&p, 256 * KiB, now);
        wait_ns = migrate_pace_wait(&p, now);
        assert_in_range(wait_ns, 1, 6 * MS);
    }
    migrate_pace_set(&p, 0);
    assert_int_equal(migrate_pace_wait(&p, now), 0);
    assert_int_equal(migrate_pace_take(&p, GiB, now), 0);
    assert_int_equal(migrate_pace_take(&p, GiB, now), 0);
    migrate_pace_fini(&p);
}

static u64 take_all(struct migrate_queue *q, unsigned sender)
{
    u64 first, bits, count = 0;

    while (migrate_queue_take(q, sender, 64, &first, &bits)) {
        assert_int_equal(first / 64 % q->senders, sender);
        count += (u64)__builtin_popcountll(bits);
    }
    return count;
}

static void queue_sends_everything_once(void **state)
{
    struct migrate_queue q;

    assert_int_equal(migrate_queue_init(&q, 1000, 3, NULL), 0);
    migrate_queue_fill(&q, 10, 500);
    migrate_queue_fill(&q, 990, 100); /* cut at the end of memory */
    assert_int_equal(migrate_queue_left(&q), 510);
    assert_int_equal(migrate_queue_begin(&q, MIGRATE_PASS_ALL, 0), 510);
    assert_true(migrate_queue_claim(&q, 12));
    assert_false(migrate_queue_claim(&q, 12));
    assert_false(migrate_queue_claim(&q, 9));
    assert_false(migrate_queue_claim(&q, 1ull << 50));
    assert_int_equal(take_all(&q, 0) + take_all(&q, 1) + take_all(&q, 2), 509);
    assert_int_equal(migrate_queue_left(&q), 0);
    migrate_queue_fini(&q);
    migrate_queue_fini(&q);
}

/* A page written during the pass leaves it, and comes in a later one. */
static void queue_holds_back_written_pages(void **state)
{
    struct migrate_queue q;

    assert_int_equal(migrate_queue_init(&q, 256, 1, NULL), 0);
    migrate_queue_fill(&q, 0, 256);
    migrate_queue_begin(&q, MIGRATE_PASS_CALM, 0);
    q.fresh[1] = 5;
    assert_int_equal(migrate_queue_written(&q), 2);
    assert_int_equal(take_all(&q, 0), 254);
    assert_int_equal(migrate_queue_left(&q), 2);
    /* Once is not restless, twice is; after four quiet looks it is calm again. */
    q.fresh[1] = 1;
    migrate_queue_written(&q);
    assert_int_equal(migrate_queue_begin(&q, MIGRATE_PASS_CALM, 0), 1);
    assert_int_equal(migrate_queue_begin(&q, MIGRATE_PASS_ALL, 0), 2);
    assert_int_equal(migrate_queue_begin(&q, MIGRATE_PASS_RESTLESS, 10), 1);
    assert_int_equal(migrate_queue_begin(&q, MIGRATE_PASS_RESTLESS, 0), 0);
    q.fresh[1] = 0;
    for (int i = 0; i < 4; i++)
        migrate_queue_written(&q);
    assert_int_equal(migrate_queue_begin(&q, MIGRATE_PASS_CALM, 0), 2);
    assert_int_equal(migrate_queue_begin(&q, MIGRATE_PASS_NONE, 0), 0);
    q.fresh[0] = 1;
    migrate_queue_written_last(&q);
    assert_int_equal(migrate_queue_left(&q), 3);
    migrate_queue_fini(&q);
}

/* A page that somebody waits for is followed by its neighbours, wherever the pass is. */
static void queue_goes_on_where_it_is_touched(void **state)
{
    struct migrate_queue q;
    u64 first, bits;

    assert_int_equal(migrate_queue_init(&q, 640, 2, NULL), 0);
    migrate_queue_fill(&q, 0, 640);
    assert_int_equal(migrate_queue_begin(&q, MIGRATE_PASS_ALL, 0), 640);
    migrate_queue_go_on_at(&q, 6 * 64 + 5);
    for (u64 page = 6 * 64 + 5; page < 7 * 64; page++)
        assert_true(migrate_queue_claim(&q, page));
    assert_false(migrate_queue_claim(&q, 6 * 64 + 5));
    assert_true(migrate_queue_take(&q, 0, 64, &first, &bits));
    assert_int_equal(first, 6 * 64);
    assert_int_equal(bits, 31);
    assert_true(migrate_queue_take(&q, 1, 64, &first, &bits));
    assert_int_equal(first, 64);
    assert_int_equal(take_all(&q, 0) + take_all(&q, 1), 640 - 128);
    migrate_queue_fini(&q);
}

/* As many pages as are asked for; what somebody else has claimed meanwhile is no end. */
static void queue_gives_little_at_a_time(void **state)
{
    struct migrate_queue q;
    u64 first, bits;

    assert_int_equal(migrate_queue_init(&q, 128, 1, NULL), 0);
    migrate_queue_fill(&q, 0, 128);
    assert_int_equal(migrate_queue_begin(&q, MIGRATE_PASS_ALL, 0), 128);
    assert_true(migrate_queue_take(&q, 0, 8, &first, &bits));
    assert_true(first == 0 && bits == 0xff);
    for (u64 page = 8; page < 16; page++)
        assert_true(migrate_queue_claim(&q, page));
    assert_true(migrate_queue_take(&q, 0, 8, &first, &bits));
    assert_true(first == 0 && bits == 0xff0000);
    for (u64 page = 24; page < 68; page++)
        assert_true(migrate_queue_claim(&q, page));
    assert_true(migrate_queue_take(&q, 0, 64, &first, &bits));
    assert_true(first == 64 && bits == ~0xfull);
    assert_false(migrate_queue_take(&q, 0, 64, &first, &bits));
    assert_int_equal(migrate_queue_left(&q), 0);
    migrate_queue_fini(&q);
}

/* What was sent and is written again is counted, and can be sent alone to see what it costs. */
static void queue_counts_waste(void **state)
{
    struct migrate_queue q;
    u64 first, bits;

    assert_int_equal(migrate_queue_init(&q, 640, 1, NULL), 0);
    migrate_queue_fill(&q, 0, 640);
    assert_int_equal(migrate_queue_begin(&q, MIGRATE_PASS_ALL, 0), 640);
    assert_int_equal(q.first, 640);
    assert_true(migrate_queue_take(&q, 0, 64, &first, &bits));
    q.sent[0] = bits;
    q.fresh[0] = 7;
    q.fresh[5] = 15; /* has not gone over: no waste */
    assert_int_equal(migrate_queue_written(&q), 7);
    assert_int_equal(migrate_queue_written(&q), 0);
    assert_int_equal(q.wasted, 3);
    migrate_queue_cut(&q);
    assert_false(migrate_queue_take(&q, 0, 64, &first, &bits));
    assert_int_equal(migrate_queue_left(&q), 640 - 64 + 3);
    assert_int_equal(migrate_queue_begin(&q, MIGRATE_PASS_AGAIN, 100), 3);
    assert_int_equal(q.wasted, 0);
    assert_int_equal(q.first, 0);
    assert_int_equal(take_all(&q, 0), 3);
    assert_int_equal(migrate_queue_begin(&q, MIGRATE_PASS_AGAIN, 100), 0);
    for (unsigned w = 0; w < 10; w++) { /* some from everywhere, not the first ones */
        q.sent[w] = ~0ull;
        q.fresh[w] = 3;
    }
    migrate_queue_written(&q);
    migrate_queue_fill(&q, 0, 640);
    assert_int_equal(migrate_queue_begin(&q, MIGRATE_PASS_AGAIN, 128), 128);
    assert_true(migrate_queue_take(&q, 0, 64, &first, &bits) && first == 0);
    assert_true(migrate_queue_take(&q, 0, 64, &first, &bits) && first == 320);
    migrate_queue_fini(&q);
}

/* A guest that writes `dirty` bytes/s, uniformly over a working set, on a line of `line` bytes/s. Plays rounds until the
 * verdict is another than to send one more; at most 60 s. */
struct play {
    u64 line, dirty, set_pages;
    s64 now;
    unsigned rounds;
    u64 left;
};

static enum migrate_verdict play(struct play *p, struct migrate_estimate *e)
{
    enum migrate_verdict verdict = MIGRATE_ROUND;

    while (p->now < 60000 * MS && (verdict == MIGRATE_ROUND || verdict == MIGRATE_THROTTLE)) {
        u64 rate = p->dirty * (100 - e->throttle) / 100, bytes = p->left * 4104;
        s64 took = (s64)((double)bytes / (double)p->line * 1e9) + MS;
        u64 written = (u64)((double)rate / 4096 * (double)took / 1e9);

        p->now += took;
        p->rounds++;
        struct migrate_round r = {.now_ns = p->now,
                                  .took_ns = took,
                                  .bytes = bytes,
                                  .pages = p->left,
                                  .written = written,
                                  .again = p->rounds > 1};
        r.left = p->left = MIN(written, p->set_pages);
        verdict = migrate_estimate_round(e, &r);
    }
    return verdict;
}

static enum migrate_verdict play_wish(const struct migrate_wish *wish, struct play *p,
                                      struct migrate_estimate *e)
{
    p->line = 128 * MiB;
    p->set_pages = 65536;
    p->left = 90000;
    migrate_estimate_init(e, wish, 0);
    return play(p, e);
}

static void judge_converges(void **state)
{
    struct migrate_wish wish = {.downtime_ns = 300 * MS};
    struct play p = {.dirty = 20 * MiB};
    struct migrate_estimate e;

    assert_int_equal(play_wish(&wish, &p, &e), MIGRATE_STOP);
    assert_in_range(migrate_estimate_downtime(&e), 0, 10 * MS);
    assert_in_range(p.rounds, 2, 5);
}

static void judge_idle_guest_stops_at_once(void **state)
{
    struct migrate_wish wish = {.downtime_ns = 300 * MS};
    struct play p = {.dirty = 0};
    struct migrate_estimate e;

    assert_int_equal(play_wish(&wish, &p, &e), MIGRATE_STOP);
    assert_int_equal(p.rounds, 1);
    assert_int_equal(migrate_estimate_remaining(&e), 0);
}

/* 400 MB/s on a 128 MiB/s line: only with help. */
static void judge_hopeless(void **state)
{
    struct migrate_wish wish = {.downtime_ns = 300 * MS};
    struct play p = {.dirty = 400 * MiB};
    struct migrate_estimate e;

    assert_int_equal(play_wish(&wish, &p, &e), MIGRATE_ROUND); /* for ever, as asked */
    assert_int_equal(migrate_estimate_remaining(&e), -1);

    wish.postcopy = true;
    p = (struct play){.dirty = 400 * MiB};
    assert_int_equal(play_wish(&wish, &p, &e), MIGRATE_SWITCH);
    assert_int_equal(p.rounds, 1);

    wish.postcopy = false;
    wish.throttle_percent = 99;
    p = (struct play){.dirty = 400 * MiB};
    assert_int_equal(play_wish(&wish, &p, &e), MIGRATE_STOP);
    assert_in_range(e.throttle, 60, 99);
}

/* The first round was cut because of what it wasted. The probe says whether that was dear. */
static void judge_after_a_cut(void **state)
{
    struct migrate_wish wish = {.downtime_ns = 300 * MS, .postcopy = true};
    struct migrate_round cut = {.now_ns = 1000 * MS,
                                .took_ns = 1000 * MS,
                                .bytes = 128 * MiB,
                                .pages = 32768,
                                .written = 25600,
                                .left = 80000,
                                .cut = true};
    struct migrate_round probe = {.now_ns = 1040 * MS,
                                  .took_ns = 40 * MS,
                                  .bytes = 4 * MiB,
                                  .pages = 1024,
                                  .written = 1024,
                                  .left = 80000,
                                  .again = true};
    struct migrate_estimate e;

    migrate_estimate_init(&e, &wish, 0);
    assert_int_equal(migrate_estimate_round(&e, &cut), MIGRATE_ROUND);
    assert_int_equal(migrate_estimate_round(&e, &probe), MIGRATE_SWITCH);

    migrate_estimate_init(&e, &wish, 0);
    assert_int_equal(migrate_estimate_round(&e, &cut), MIGRATE_ROUND);
    probe.bytes = 20 * 1024; /* differences of a word */
    assert_int_equal(migrate_estimate_round(&e, &probe), MIGRATE_ROUND);
    /* 10000 of them are 200 KB, but 390 ms of work. */
    e.left = 10000;
    assert_in_range(migrate_estimate_downtime(&e), 390 * MS, 400 * MS);
}

static void judge_time_limit(void **state)
{
    static const struct {
        enum migrate_timeout timeout;
        enum migrate_verdict verdict;
    } cases[] = {
        {MIGRATE_TIMEOUT_CANCEL, MIGRATE_GIVE_UP},
        {MIGRATE_TIMEOUT_STOP, MIGRATE_STOP},
        {MIGRATE_TIMEOUT_POSTCOPY, MIGRATE_SWITCH},
        {MIGRATE_TIMEOUT_CONTINUE, MIGRATE_ROUND},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct migrate_wish wish = {
            .downtime_ns = 300 * MS, .limit_ns = 10000 * MS, .timeout = cases[i].timeout};
        struct play p = {.dirty = 400 * MiB};
        struct migrate_estimate e;

        assert_int_equal(play_wish(&wish, &p, &e), cases[i].verdict);
        if (cases[i].verdict != MIGRATE_ROUND)
            assert_in_range(p.now, 10000 * MS, 15000 * MS);
    }
}

/* A downtime of a few ms is aimed at; a longer one is used only when rounds do not help. */
static void judge_allowed_downtime_grows(void **state)
{
    struct migrate_wish wish = {.downtime_ns = 2500 * MS};
    struct play p = {.dirty = 400 * MiB};
    struct migrate_estimate e;

    assert_int_equal(play_wish(&wish, &p, &e), MIGRATE_STOP);
    assert_in_range(e.allowed_ns, 2000 * MS, 2500 * MS);
    assert_true(p.rounds > 4);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(patience_ends_where_it_starves),
    cmocka_unit_test(pace_holds_the_rate),
    cmocka_unit_test(queue_sends_everything_once),
    cmocka_unit_test(queue_holds_back_written_pages),
    cmocka_unit_test(queue_goes_on_where_it_is_touched),
    cmocka_unit_test(queue_gives_little_at_a_time),
    cmocka_unit_test(judge_converges),
    cmocka_unit_test(judge_idle_guest_stops_at_once),
    cmocka_unit_test(judge_hopeless),
    cmocka_unit_test(judge_after_a_cut),
    cmocka_unit_test(queue_counts_waste),
    cmocka_unit_test(judge_time_limit),
    cmocka_unit_test(judge_allowed_downtime_grows),
};

UNIT_MAIN(tests)
