/* virtio-console between a driver and a terminal that is slow, and list item 7 on its queue. */
#include "device/virtio_console.h"
#include "driver.h"

enum { RX, TX };

struct sink {
    struct chardev port;
    size_t bytes, room;
    unsigned asked; /* accept_input() calls */
};

struct console_test {
    struct bench b;
    struct drv d;
    struct virtio *v;
    struct sink sink;
    u64 buf;
};

static size_t sink_write(struct chardev *c, const u8 *buf, size_t len)
{
    struct sink *s = CONTAINER_OF(c, struct sink, port);
    size_t take = MIN(len, s->room);

    s->bytes += take;
    s->room -= take;
    return take;
}

static void sink_accept_input(struct chardev *c)
{
    CONTAINER_OF(c, struct sink, port)->asked++;
}

static int setup(void **state)
{
    struct console_test *t = calloc(1, sizeof(*t));
    struct virtio_console_options o = {.port = &t->sink.port, .cols = 80, .rows = 25};

    bench_init(&t->b);
    t->sink.port.write = sink_write;
    t->sink.port.accept_input = sink_accept_input;
    t->sink.room = SIZE_MAX;
    assert_int_equal(virtio_new(&t->b.env, &virtio_console_type, 1, &o, &t->v, NULL), 0);
    drv_find(&t->d, &t->b, 1);
    drv_start(&t->d, 0);
    t->buf = bench_alloc(&t->b, 64 * KiB, 4096);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct console_test *t = *state;

    bench_fini(&t->b);
    free(t);
    return 0;
}

/* 7: on a device that keeps chains: the console, whose sink is full, keeps at most one and takes nothing twice. */
static void test_7_same_head_many_times(void **state)
{
    struct console_test *t = *state;
    struct drv_queue *q;
    u32 id, len;

    q = &t->d.q[TX];
    drv_desc(&t->d, q->desc, 0, (struct seg){t->buf, 100, 0, 0});
    t->sink.room = 150;
    for (unsigned i = 0; i < 64; i++)
        drv_offer(&t->d, TX, 0);
    drv_kick(&t->d, TX);
    assert_int_equal(t->sink.bytes, 150);
    t->sink.room = SIZE_MAX;
    t->sink.port.front.writable(t->sink.port.front.opaque);
    assert_int_equal(t->sink.bytes, 6400);
    for (unsigned i = 0; i < 64; i++) {
        assert_true(drv_used(&t->d, TX, &id, &len));
        assert_int_equal(id, 0);
    }
    assert_false(drv_used(&t->d, TX, &id, &len));
    assert_healthy(&t->d);
}

static void test_console_input(void **state)
{
    struct console_test *t = *state;
    const struct chardev_front *f = &t->sink.port.front;
    struct seg s[2] = {{t->buf, 4, SEG_WRITE, 0}, {t->buf + 100, 3, SEG_WRITE, 0}};
    char back[8] = {0};
    u32 id, len;

    assert_int_equal(f->receive(f->opaque, (const u8 *)"hello, world", 12), 0); /* no buffers */
    drv_add(&t->d, 0, s, 2);
    drv_add(&t->d, 0, s, 1);
    drv_kick(&t->d, 0);
    assert_int_equal(f->receive(f->opaque, (const u8 *)"hello, world", 12), 11);
    assert_true(drv_used(&t->d, 0, &id, &len));
    assert_int_equal(len, 7);
    assert_true(drv_used(&t->d, 0, &id, &len));
    assert_int_equal(len, 4);
    drv_get(&t->d, t->buf, back, 4);
    assert_memory_equal(back, "worl", 4);
    drv_get(&t->d, t->buf + 100, back, 3);
    assert_memory_equal(back, "o, ", 3);
    s[0].flags = 0;
    drv_add(&t->d, 0, s, 1);
    f->receive(f->opaque, (const u8 *)"x", 1);
    assert_needs_reset(&t->d);
}

static void test_console_without_bus_mastering(void **state)
{
    struct console_test *t = *state;
    struct seg s = {t->buf, 4, 0, 0};

    bench_config_write(&t->b, 1, PCI_COMMAND, 2, PCI_COMMAND_MEM);
    drv_add(&t->d, TX, &s, 1);
    drv_kick(&t->d, TX);
    assert_int_equal(t->sink.bytes, 0);
    bench_config_write(&t->b, 1, PCI_COMMAND, 2, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
    drv_kick(&t->d, TX);
    assert_int_equal(t->sink.bytes, 4);
}

static void test_resize(void **state)
{
    struct console_test *t = *state;
    u64 generation = drv_reg(&t->d, REG_GENERATION, 1);

    assert_int_equal(bench_read(&t->b, t->d.config, 4), 80 | 25 << 16);
    virtio_console_resize(t->v, 132, 50);
    assert_int_equal(bench_read(&t->b, t->d.config, 4), 132 | 50 << 16);
    assert_int_equal(bench_count_msi(&t->b, DRIVER_MSI_CONFIG), 1);
    assert_int_not_equal(drv_reg(&t->d, REG_GENERATION, 1), generation);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_7_same_head_many_times),
        CASE(test_console_input),
        CASE(test_console_without_bus_mastering),
        CASE(test_resize),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
