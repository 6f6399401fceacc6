/* The event loop over pipes: readiness, removal inside callbacks, calls from other threads, timers.
 */
#include "unit.h"

#include "loop/loop.h"

#include <sys/epoll.h>
#include <unistd.h>

/* A watched pipe. `also` is removed by the first callback that runs. */
struct pipe_probe {
    int ends[2];
    struct loop_fd fd;
    struct loop *loop;
    struct pipe_probe *also;
    unsigned ready;
};

static void on_ready(void *opaque, u32 events)
{
    struct pipe_probe *p = opaque;

    p->ready++;
    if (p->also) {
        loop_remove(p->loop, &p->also->fd);
        loop_remove(p->loop, &p->fd);
    }
}

static void probe_open(struct pipe_probe *p, struct loop *l)
{
    *p = (struct pipe_probe){.loop = l};
    assert_int_equal(pipe(p->ends), 0);
    p->fd = (struct loop_fd){.fd = p->ends[0], .events = EPOLLIN, .ready = on_ready, .opaque = p};
}

static void probe_close(struct pipe_probe *p)
{
    loop_remove(p->loop, &p->fd);
    close(p->ends[0]);
    close(p->ends[1]);
}

static struct loop *new_loop(void)
{
    struct err err = ERR_INIT;
    struct loop *l = NULL;

    assert_int_equal(loop_new(&l, &err), 0);
    return l;
}

static void test_ready_descriptor_is_called(void **state)
{
    struct loop *l = new_loop();
    struct err err = ERR_INIT;
    struct pipe_probe p;

    probe_open(&p, l);
    assert_int_equal(loop_add(l, &p.fd, &err), 0);
    assert_int_equal(loop_once(l, 0), 0);
    assert_int_equal(p.ready, 0);
    assert_int_equal(write(p.ends[1], "x", 1), 1);
    assert_int_equal(loop_once(l, -1), 0);
    assert_int_equal(p.ready, 1);
    /* Nothing is asked for any more. */
    assert_int_equal(loop_modify(l, &p.fd, 0), 0);
    assert_int_equal(loop_once(l, 0), 0);
    assert_int_equal(p.ready, 1);
    probe_close(&p);
    loop_free(l);
}

static void test_removal_in_a_callback_silences_the_other(void **state)
{
    struct loop *l = new_loop();
    struct pipe_probe a, b;

    probe_open(&a, l);
    probe_open(&b, l);
    a.also = &b;
    b.also = &a;
    assert_int_equal(loop_add(l, &a.fd, NULL), 0);
    assert_int_equal(loop_add(l, &b.fd, NULL), 0);
    assert_int_equal(write(a.ends[1], "x", 1), 1);
    assert_int_equal(write(b.ends[1], "x", 1), 1);
    assert_int_equal(loop_once(l, -1), 0);
    assert_int_equal(a.ready + b.ready, 1);
    probe_close(&a);
    probe_close(&b);
    loop_free(l);
}

static void test_bad_descriptor_is_an_error(void **state)
{
    struct loop *l = new_loop();
    struct err err = ERR_INIT;
    struct loop_fd f = {.fd = -1, .events = EPOLLIN};

    assert_int_equal(loop_add(l, &f, &err), -EBADF);
    assert_non_null(strstr(err.msg, "descriptor -1"));
    loop_remove(l, &f);
    loop_free(l);
}

struct counter {
    struct loop *l;
    unsigned calls;
};

static void count_and_stop(void *opaque)
{
    struct counter *c = opaque;

    if (++c->calls == 100)
        loop_stop(c->l);
}

static void *call_from_thread(void *opaque)
{
    struct counter *c = opaque;

    for (int i = 0; i < 100; i++)
        if (loop_call(c->l, count_and_stop, c))
            loop_stop(c->l);
    return NULL;
}

static void test_calls_from_another_thread_arrive(void **state)
{
    struct counter c = {.l = new_loop()};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, call_from_thread, &c), 0);
    assert_int_equal(loop_run(c.l), 0);
    pthread_join(thread, NULL);
    assert_int_equal(c.calls, 100);
    loop_free(c.l);
}

static void test_stop_before_run_is_not_lost(void **state)
{
    struct loop *l = new_loop();

    loop_stop(l);
    assert_int_equal(loop_run(l), 0);
    loop_free(l);
}

static void stop_loop(void *opaque)
{
    loop_stop(opaque);
}

static void test_timer_ends_the_sleep(void **state)
{
    struct loop *l = new_loop();
    struct timer t;

    timer_init(&t, loop_timers(l), stop_loop, l);
    timer_arm(&t, timerq_now(loop_timers(l)) + 1);
    assert_int_equal(loop_run(l), 0);
    loop_free(l);
}

static void test_calls_left_over_are_freed(void **state)
{
    struct counter c = {.l = new_loop()};

    assert_int_equal(loop_call(c.l, count_and_stop, &c), 0);
    loop_free(c.l);
    assert_int_equal(c.calls, 0);
    loop_free(NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_ready_descriptor_is_called),
    cmocka_unit_test(test_removal_in_a_callback_silences_the_other),
    cmocka_unit_test(test_bad_descriptor_is_an_error),
    cmocka_unit_test(test_calls_from_another_thread_arrive),
    cmocka_unit_test(test_stop_before_run_is_not_lost),
    cmocka_unit_test(test_timer_ends_the_sleep),
    cmocka_unit_test(test_calls_left_over_are_freed),
};
UNIT_MAIN(tests)
