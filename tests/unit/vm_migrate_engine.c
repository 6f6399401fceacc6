/*
 * Both ends of a migration: every mode; the line cut before every message; a destination that refuses. At the end exactly
 * one side runs the guest, and no byte is lost.
 */
#include "vm_migrate_toy.h"

static void move_by(unsigned lines, unsigned writes, bool zstd, bool cache, bool postcopy)
{
    struct move *m = move_new(lines, writes);
    struct migrate_progress progress;
    struct err err = ERR_INIT;

    m->options.pack = zstd ? MIGRATE_PACK_ZSTD : MIGRATE_PACK_NONE;
    m->options.cache_bytes = cache ? PAGES * PAGE : 0;
    m->options.postcopy_first = postcopy;
    assert_int_equal(run_move(m, &err), 0);
    assert_moved(m);
    assert_int_equal(m->word.settled, 1);
    assert_int_equal(m->there.frames, 3); /* what came for it meanwhile is there, too */
    migrate_source_progress(m->source, &progress);
    assert_int_equal(progress.phase, MIGRATE_DONE);
    assert_int_equal(progress.left_pages, 0);
    assert_true(progress.bytes > PAGES / 2 * PAGE / 8 && progress.downtime_ns > 0);
    move_free(m);
}

static void precopy_one_line(void **state)
{
    move_by(1, 20, false, false, false);
    move_by(1, 20, true, true, false);
}

static void precopy_lines(void **state)
{
    move_by(2, 30, false, true, false);
    move_by(5, 30, true, false, false);
}

static void postcopy_one_line(void **state)
{
    move_by(1, 20, false, false, true);
}

static void postcopy_lines(void **state)
{
    move_by(3, 20, true, true, true);
}

/* A guest that writes more than a slow line carries: post-copy after rounds, and throttling. */
static void hybrid_and_throttle(void **state)
{
    for (int throttle = 0; throttle < 2; throttle++) {
        struct move *m = move_new(2, 400);
        struct err err = ERR_INIT;

        m->options.bytes_per_s = 20 * MiB;
        m->options.wish.downtime_ns = 1000000;
        m->options.wish.postcopy = !throttle;
        m->options.wish.throttle_percent = throttle ? 99 : 0;
        assert_int_equal(run_move(m, &err), 0);
        assert_moved(m);
        assert_int_equal(m->there.reading, !throttle);
        if (throttle)
            assert_in_range(m->here.throttled, 80, 99);
        move_free(m);
    }
}

/* The time limit: the guest stays, runs, and gets its time back. */
static void gives_up(void **state)
{
    struct move *m = move_new(2, 400);
    struct err err = ERR_INIT;

    m->options.bytes_per_s = 50 * MiB;
    m->options.wish.downtime_ns = 1000000;
    m->options.wish.limit_ns = 50000000;
    assert_int_equal(run_move(m, &err), -ETIME);
    assert_int_equal(migrate_source_owner(m->source), MIGRATE_OURS);
    assert_true(m->here.running);
    assert_false(m->there.running);
    assert_int_not_equal(m->arrive_rc, 0); /* CANCEL, or the end of another connection */
    assert_int_equal(m->word.claim, MIGRATE_REFUSED);
    move_free(m);
}

/* The destination does not take the state: that is before GO, so nothing has happened. */
static void bad_state_is_refused(void **state)
{
    struct move *m = move_new(2, 5);
    struct err err = ERR_INIT;

    m->there.bad_state = true;
    assert_int_equal(run_move(m, &err), -EREMOTEIO);
    assert_non_null(strstr(err.msg, "state of toy 0"));
    assert_true(m->here.running);
    assert_false(m->there.running);
    move_free(m);
}

/* A hand-over that nobody could find out about is none. */
static void not_written_down_not_given(void **state)
{
    struct move *m = move_new(2, 5);
    struct err err = ERR_INIT;

    m->here.full = true;
    assert_int_equal(run_move(m, &err), -ENOSPC);
    assert_int_equal(migrate_source_owner(m->source), MIGRATE_OURS);
    assert_true(m->here.running);
    assert_false(m->there.running);
    move_free(m);
}

static int run_again(struct move *m, struct err *err)
{
    struct greeting g = {.move = m, .again = true};
    int here[MIGRATE_CONNECTIONS], rc;

    make_pairs(m->lines, here, g.fds);
    assert_int_equal(migrate_source_again(m->source, here, m->lines, err), 0);
    pthread_create(&m->thread, NULL, greet_and_arrive, &g);
    rc = migrate_source_run(m->source, err);
    pthread_join(m->thread, NULL);
    return rc;
}

/* What a supervisor and the user do after a broken line, and who runs then. */
static void settle(struct move *m)
{
    struct err err = ERR_INIT;

    if (migrate_source_owner(m->source) == MIGRATE_UNDECIDED) {
        bool ran = migrate_word_take(&m->word, MIGRATE_REFUSED) == MIGRATE_RAN;

        migrate_source_decide(m->source, ran ? MIGRATE_EV_RAN : MIGRATE_EV_NEVER, &err);
    }
    assert_int_equal(m->here.running + m->there.running, 1);
    assert_int_equal(m->here.away, m->there.running);
    if (m->here.running)
        return;
    for (int tries = 0; migrate_source_owner(m->source) == MIGRATE_SERVING && tries < 3; tries++)
        run_again(m, &err);
    assert_moved(m);
}

static void cut_everywhere(bool postcopy, unsigned lines)
{
    struct move *m = move_new(lines, 10);
    struct err err = ERR_INIT;

    m->messages = 1; /* only count */
    m->options.postcopy_first = postcopy;
    assert_int_equal(run_move(m, &err), 0);
    unsigned total = m->messages;
    move_free(m);
    /* The greeting itself is cut in the receiver's process. */
    for (unsigned at = lines + 2; at <= total + 1; at++) {
        m = move_new(lines, 10);
        m->cut_at = at;
        m->messages = 0;
        m->options.postcopy_first = postcopy;
        run_move(m, &err);
        settle(m);
        move_free(m);
    }
}

static void cuts_in_precopy(void **state)
{
    cut_everywhere(false, 1);
    cut_everywhere(false, 3);
}

static void cuts_in_postcopy(void **state)
{
    cut_everywhere(true, 1);
    cut_everywhere(true, 3);
}

static void *cancel_soon(void *opaque)
{
    struct move *m = opaque;
    struct migrate_progress p;

    do
        migrate_source_progress(m->source, &p);
    while (p.phase == MIGRATE_CONNECT);
    migrate_source_cancel(m->source);
    return NULL;
}

static void cancel_leaves_a_running_guest(void **state)
{
    struct move *m = move_new(2, 400);
    struct greeting g = {.move = m};
    struct err err = ERR_INIT;
    int here[MIGRATE_CONNECTIONS];
    pthread_t canceller;

    m->options.bytes_per_s = 20 * MiB; /* never ends by itself */
    m->options.wish.downtime_ns = 1000;
    make_pairs(2, here, g.fds);
    assert_int_equal(migrate_source_new(&m->guest_here, &m->options, here, 2, &m->source, &err), 0);
    pthread_create(&m->thread, NULL, greet_and_arrive, &g);
    pthread_create(&canceller, NULL, cancel_soon, m);
    assert_int_equal(migrate_source_run(m->source, &err), -ECANCELED);
    pthread_join(m->thread, NULL);
    pthread_join(canceller, NULL);
    assert_true(m->here.running && !m->there.running);
    assert_int_equal(migrate_source_owner(m->source), MIGRATE_OURS);
    move_free(m);
}

/* Whatever happens after GO, only `never` and `claim` lead back to a state that runs. */
static void owner_table(void **state)
{
    for (unsigned from = 0; from < MIGRATE_OWNERS; from++)
        for (unsigned event = 0; event < MIGRATE_EVENTS; event++) {
            enum migrate_owner to =
                migrate_owner_next((enum migrate_owner)from, (enum migrate_event)event);
            bool given = from == MIGRATE_GIVEN || from == MIGRATE_SERVING ||
                         from == MIGRATE_UNDECIDED || from == MIGRATE_GONE;
            bool ours = to == MIGRATE_OURS || to == MIGRATE_HELD;

            if (given && ours)
                assert_true(event == MIGRATE_EV_NEVER || event == MIGRATE_EV_CLAIM);
            if (from == MIGRATE_GONE || from == MIGRATE_SERVING)
                assert_false(ours);
            if (to == MIGRATE_OURS)
                assert_true(migrate_owner_runs(to) && !given);
        }
    struct migrate_word word = {0};
    assert_int_equal(migrate_word_take(&word, MIGRATE_RAN), MIGRATE_RAN);
    assert_int_equal(migrate_word_take(&word, MIGRATE_REFUSED), MIGRATE_RAN);
    word.claim = 77;
    assert_int_equal(migrate_word_take(&word, MIGRATE_RAN), MIGRATE_REFUSED);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(precopy_one_line),     cmocka_unit_test(precopy_lines),
    cmocka_unit_test(postcopy_one_line),    cmocka_unit_test(postcopy_lines),
    cmocka_unit_test(hybrid_and_throttle),  cmocka_unit_test(gives_up),
    cmocka_unit_test(bad_state_is_refused), cmocka_unit_test(cuts_in_precopy),
    cmocka_unit_test(cuts_in_postcopy),     cmocka_unit_test(cancel_leaves_a_running_guest),
    cmocka_unit_test(owner_table),          cmocka_unit_test(not_written_down_not_given),
};

int main(void);
int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
