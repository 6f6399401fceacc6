/* Timers on a stepped clock: order, re-arming, cancelling, storms. */
#include "unit.h"

#include "loop/timer.h"

/* A timer that notes when it fired and, if asked, arms itself again. */
struct probe {
    struct timer t;
    struct timerq *q;
    char name;
    s64 period_ns;
    bool again;
    unsigned fired;
    s64 at_ns;
};

static char trail[64];

static void note(void *opaque)
{
    struct probe *p = opaque;
    size_t n = strlen(trail);

    p->fired++;
    p->at_ns = timerq_now(p->q);
    if (n + 1 < sizeof(trail)) {
        trail[n] = p->name;
        trail[n + 1] = '\0';
    }
    if (p->again)
        timer_arm(&p->t, p->at_ns + p->period_ns);
}

static void probe_init(struct probe *p, struct timerq *q, char name)
{
    *p = (struct probe){.q = q, .name = name};
    timer_init(&p->t, q, note, p);
}

static void stepped_init(struct timerq *q)
{
    timerq_init(q);
    q->stepped = true;
    trail[0] = '\0';
}

static void test_fires_in_order_of_deadline_then_of_arming(void **state)
{
    struct timerq q;
    struct probe a, b, c;

    stepped_init(&q);
    probe_init(&a, &q, 'a');
    probe_init(&b, &q, 'b');
    probe_init(&c, &q, 'c');
    timer_arm(&a.t, 20);
    timer_arm(&b.t, 10);
    timer_arm(&c.t, 20);
    assert_int_equal(timerq_deadline(&q), 10);
    timerq_step(&q, 9);
    assert_string_equal(trail, "");
    timerq_step(&q, 100);
    assert_string_equal(trail, "bac");
    assert_int_equal(b.at_ns, 10);
    assert_int_equal(c.at_ns, 20);
    assert_int_equal(timerq_now(&q), 109);
    assert_true(timerq_deadline(&q) == TIMER_NEVER);
    timerq_fini(&q);
}

static void test_rearming_moves_and_cancel_forgets(void **state)
{
    struct timerq q;
    struct probe a, b;

    stepped_init(&q);
    probe_init(&a, &q, 'a');
    probe_init(&b, &q, 'b');
    timer_arm(&a.t, 10);
    timer_arm(&b.t, 20);
    timer_arm(&a.t, 30);
    timerq_step(&q, 25);
    assert_string_equal(trail, "b");
    timer_cancel(&a.t);
    timer_cancel(&a.t);
    timerq_step(&q, 25);
    assert_string_equal(trail, "b");
    timer_arm(&a.t, TIMER_NEVER);
    assert_true(timerq_deadline(&q) == TIMER_NEVER);
    timerq_fini(&q);
}

static void test_periodic_timer_sees_each_tick(void **state)
{
    struct timerq q;
    struct probe a;

    stepped_init(&q);
    probe_init(&a, &q, 'a');
    a.again = true;
    a.period_ns = 10;
    timer_arm(&a.t, 10);
    timerq_step(&q, 100);
    assert_int_equal(a.fired, 10);
    assert_int_equal(timerq_deadline(&q), 110);
    timerq_fini(&q);
}

static void test_period_zero_cannot_hold_the_thread(void **state)
{
    struct timerq q;
    struct probe a;

    stepped_init(&q);
    probe_init(&a, &q, 'a');
    a.again = true;
    timer_arm(&a.t, 0);
    timerq_run(&q);
    assert_int_equal(a.fired, 1);
    timerq_fini(&q);
}

static unsigned earlier_calls;

static void count_earlier(void *opaque)
{
    earlier_calls++;
}

static void test_owner_hears_of_earlier_deadlines_only(void **state)
{
    struct timerq q;
    struct probe a, b;

    stepped_init(&q);
    q.earlier = count_earlier;
    earlier_calls = 0;
    probe_init(&a, &q, 'a');
    probe_init(&b, &q, 'b');
    timer_arm(&a.t, 20);
    assert_int_equal(earlier_calls, 1);
    timer_arm(&b.t, 30);
    assert_int_equal(earlier_calls, 1);
    timer_arm(&b.t, 10);
    assert_int_equal(earlier_calls, 2);
    timerq_fini(&q);
}

static void test_real_clock_runs_what_is_due(void **state)
{
    struct timerq q;
    struct probe a;

    timerq_init(&q);
    trail[0] = '\0';
    probe_init(&a, &q, 'a');
    timer_arm(&a.t, timerq_now(&q));
    timerq_run(&q);
    assert_int_equal(a.fired, 1);
    timerq_fini(&q);
}

static void *arm_often(void *opaque)
{
    struct probe *p = opaque;

    for (unsigned i = 0; i < 1000; i++) {
        timer_arm(&p->t, i);
        timer_cancel(&p->t);
    }
    timer_arm(&p->t, 5);
    return NULL;
}

static void test_other_threads_may_arm_and_cancel(void **state)
{
    struct timerq q;
    struct probe a;
    pthread_t thread;

    stepped_init(&q);
    probe_init(&a, &q, 'a');
    assert_int_equal(pthread_create(&thread, NULL, arm_often, &a), 0);
    for (unsigned i = 0; i < 1000; i++)
        timerq_run(&q);
    pthread_join(thread, NULL);
    timerq_step(&q, 10);
    assert_true(a.fired > 0);
    timerq_fini(&q);
}

static void test_zeroed_objects(void **state)
{
    struct timer t = {0};
    struct timerq q = {0};

    timer_cancel(&t);
    timer_cancel(NULL);
    timerq_fini(&q);
    timerq_fini(NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_fires_in_order_of_deadline_then_of_arming),
    cmocka_unit_test(test_rearming_moves_and_cancel_forgets),
    cmocka_unit_test(test_periodic_timer_sees_each_tick),
    cmocka_unit_test(test_period_zero_cannot_hold_the_thread),
    cmocka_unit_test(test_owner_hears_of_earlier_deadlines_only),
    cmocka_unit_test(test_real_clock_runs_what_is_due),
    cmocka_unit_test(test_other_threads_may_arm_and_cancel),
    cmocka_unit_test(test_zeroed_objects),
};
UNIT_MAIN(tests)
