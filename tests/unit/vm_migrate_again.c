/*
 * Migrations after migrations: one that failed leaves nothing behind that the next one would miss, and one that cannot be
 * costs the guest nothing.
 */
#include "vm_migrate_toy.h"

/* The next try of the same guest, over new lines to a destination that knows nothing. */
static void forget(struct move *m)
{
    migrate_source_free(m->source);
    migrate_destination_free(m->destination);
    m->source = NULL;
    m->destination = NULL;
    free(m->there.ram);
    toy_init(&m->there, 0);
    m->guest_there = guest_of(&m->there);
    m->word = (struct migrate_word){0};
    m->messages = m->cut_at = 0;
}

/* moving.md: pages were lost by the second try elsewhere, because the first had taken them off the log. */
static void a_second_try_has_all_pages(void **state)
{
    struct err err = ERR_INIT;
    unsigned failed = 0;

    for (unsigned at = 3; at < 40; at += 3) {
        struct move *m = move_new(2, 10);

        m->cut_at = at;
        if (run_move(m, &err) && migrate_source_owner(m->source) == MIGRATE_OURS) {
            failed++;
            assert_true(m->here.running);
            forget(m);
            err = ERR_INIT;
            assert_int_equal(run_move(m, &err), 0);
            assert_moved(m);
        }
        move_free(m);
    }
    assert_true(failed > 5);
}

/* There, and from there to a third one. */
static void a_second_hop_has_all_pages(void **state)
{
    for (int postcopy = 0; postcopy < 2; postcopy++) {
        struct move *first = move_new(2, 20), *second = move_new(2, 20);
        struct err err = ERR_INIT;

        first->options.postcopy_first = postcopy;
        assert_int_equal(run_move(first, &err), 0);
        if (first->there.reading)
            pthread_join(first->there.reader, NULL);
        first->there.reading = false;
        memcpy(second->here.ram, first->there.ram, PAGES * PAGE);
        second->here.counter = first->there.counter;
        assert_int_equal(run_move(second, &err), 0);
        assert_moved(second);
        move_free(first);
        move_free(second);
    }
}

static bool is_greeting(void *opaque, enum migrate_type type)
{
    bool *only = opaque;

    *only = *only && (type == MIGRATE_HELLO || type == MIGRATE_JOIN || type == MIGRATE_CANCEL);
    return true;
}

static void *refuse(void *opaque)
{
    static const char lacks[] = "processor: the host has no avx2\nmemory: 1 MiB are available";
    struct greeting *g = opaque;
    struct migrate_head head = {.type = MIGRATE_FIT, .len = sizeof(lacks) - 1};
    u8 bytes[MIGRATE_HEAD_BYTES];

    read_greetings(g->fds, g->move->lines);
    migrate_head_put(&head, bytes);
    assert_int_equal(write(g->fds[0], bytes, sizeof(bytes)), sizeof(bytes));
    assert_int_equal(write(g->fds[0], lacks, head.len), head.len);
    return NULL;
}

/* All that is lacking is said at once, and before a page was sent or the guest disturbed. */
static void lacks_come_before_pages(void **state)
{
    struct move *m = move_new(3, 10);
    struct greeting g = {.move = m};
    struct err err = ERR_INIT;
    int here[MIGRATE_CONNECTIONS];
    bool only_greetings = true;

    make_pairs(m->lines, here, g.fds);
    assert_int_equal(
        migrate_source_new(&m->guest_here, &m->options, here, m->lines, &m->source, &err), 0);
    migrate_source_watch(m->source, is_greeting, &only_greetings);
    pthread_create(&m->thread, NULL, refuse, &g);
    assert_int_equal(migrate_source_run(m->source, &err), -ENOTSUP);
    pthread_join(m->thread, NULL);
    assert_non_null(strstr(err.msg, "no avx2\nmemory: 1 MiB"));
    assert_true(only_greetings && m->here.running && !m->here.looks);
    for (unsigned i = 0; i < m->lines; i++)
        close(g.fds[i]);
    move_free(m);
}

/* What is written between the last look of a round and the stop goes over: the toy writes when it is stopped. */
static void the_last_writes_go_over(void **state)
{
    for (unsigned writes = 1; writes < 200; writes *= 3) {
        struct move *m = move_new(1, writes);
        struct err err = ERR_INIT;

        m->options.wish.downtime_ns = 1000000000;
        assert_int_equal(run_move(m, &err), 0);
        assert_moved(m);
        move_free(m);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(a_second_try_has_all_pages),
    cmocka_unit_test(a_second_hop_has_all_pages),
    cmocka_unit_test(lacks_come_before_pages),
    cmocka_unit_test(the_last_writes_go_over),
};

int main(void);
int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
