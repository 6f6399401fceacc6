/*
 * Hostile drivers against the core, on virtio-rng: one queue, one writable buffer per chain. Numbers
 * in names are those of the project's list of hostile input.
 */
#include "device/virtio_rng.h"
#include "driver.h"

struct queue_test {
    struct bench b;
    struct drv d;
    struct virtio *neighbour;
    u64 buf;
};

static int setup(void **state)
{
    struct queue_test *t = calloc(1, sizeof(*t));

    bench_init(&t->b);
    assert_int_equal(virtio_new(&t->b.env, &virtio_rng_type, 1, NULL, NULL, NULL), 0);
    assert_int_equal(virtio_new(&t->b.env, &virtio_rng_type, 2, NULL, &t->neighbour, NULL), 0);
    drv_find(&t->d, &t->b, 1);
    drv_start(&t->d, 0);
    t->buf = bench_alloc(&t->b, 64 * KiB, 4096);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct queue_test *t = *state;

    bench_fini(&t->b);
    free(t);
    return 0;
}

/* The device works: a buffer comes back with bytes in it. */
static void assert_works(struct queue_test *t)
{
    struct seg s = {t->buf, 16, SEG_WRITE, 0};
    u32 id, len;
    u16 head;

    timerq_step(&t->b.timers, NS_PER_S);
    head = drv_add(&t->d, 0, &s, 1);
    drv_kick(&t->d, 0);
    assert_true(drv_used(&t->d, 0, &id, &len));
    assert_int_equal(id, head);
    assert_int_equal(len, 16);
    assert_healthy(&t->d);
}

/* The device has failed, a reset mends it, and its neighbour never noticed. */
static void assert_failed_alone(struct queue_test *t)
{
    u32 id, len;

    assert_needs_reset(&t->d);
    assert_true(bench_count_msi(&t->b, DRIVER_MSI_CONFIG) >= 1);
    assert_false(drv_used(&t->d, 0, &id, &len));
    drv_kick(&t->d, 0);
    drv_reset(&t->d);
    assert_int_equal(drv_status(&t->d), 0);
    drv_start(&t->d, 0);
    assert_works(t);
    assert_int_equal(atomic_load(&t->neighbour->status), 0);
}

static void one_desc(struct queue_test *t, struct seg s)
{
    drv_desc(&t->d, t->d.q[0].desc, 0, s);
    drv_offer(&t->d, 0, 0);
    drv_kick(&t->d, 0);
}

static void test_normal(void **state)
{
    struct queue_test *t = *state;

    for (unsigned i = 0; i < 300; i++)
        assert_works(t);
    assert_true(bench_count_msi(&t->b, DRIVER_MSI_DATA) >= 1);
}

static void test_without_event_index(void **state)
{
    struct queue_test *t = *state;
    u16 flags = 1;
    unsigned before;

    drv_reset(&t->d);
    drv_start(&t->d, VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC);
    assert_works(t);
    before = bench_count_msi(&t->b, DRIVER_MSI_DATA);
    drv_put(&t->d, t->d.q[0].avail, &flags, 2); /* no interrupts, please */
    assert_works(t);
    assert_int_equal(bench_count_msi(&t->b, DRIVER_MSI_DATA), before);
    flags = 0;
    drv_put(&t->d, t->d.q[0].avail, &flags, 2);
    assert_works(t);
    assert_int_equal(bench_count_msi(&t->b, DRIVER_MSI_DATA), before + 1);
}

static void test_event_index_holds_interrupts_back(void **state)
{
    struct queue_test *t = *state;
    u16 event = 2;
    unsigned before = bench_count_msi(&t->b, DRIVER_MSI_DATA);

    drv_put(&t->d, t->d.q[0].avail + 4 + 2u * t->d.q[0].size, &event, 2);
    assert_works(t);
    assert_works(t);
    assert_int_equal(bench_count_msi(&t->b, DRIVER_MSI_DATA), before);
    assert_works(t);
    assert_int_equal(bench_count_msi(&t->b, DRIVER_MSI_DATA), before + 1);
}

/* The device says when it wants to be notified again: of the next chain. */
static void test_avail_event_follows(void **state)
{
    struct queue_test *t = *state;
    u16 event;

    assert_works(t);
    assert_works(t);
    drv_get(&t->d, t->d.q[0].used + 4 + 8u * t->d.q[0].size, &event, 2);
    assert_int_equal(event, 2);
}

static void test_1_self_loop(void **state)
{
    struct queue_test *t = *state;

    one_desc(t, (struct seg){t->buf, 16, SEG_WRITE | SEG_NEXT, 0});
    assert_failed_alone(t);
}

static void test_2_two_descriptor_loop(void **state)
{
    struct queue_test *t = *state;

    drv_desc(&t->d, t->d.q[0].desc, 1, (struct seg){t->buf, 16, SEG_WRITE | SEG_NEXT, 0});
    one_desc(t, (struct seg){t->buf, 16, SEG_WRITE | SEG_NEXT, 1});
    assert_failed_alone(t);
}

static void test_3_next_past_the_table(void **state)
{
    struct queue_test *t = *state;
    static const u16 next[] = {64, 65, 0x7fff, 0xffff};

    for (unsigned i = 0; i < ARRAY_LEN(next); i++) {
        one_desc(t, (struct seg){t->buf, 16, SEG_WRITE | SEG_NEXT, next[i]});
        assert_failed_alone(t);
    }
}

static void test_4_head_past_the_table(void **state)
{
    struct queue_test *t = *state;

    drv_offer(&t->d, 0, t->d.q[0].size);
    drv_kick(&t->d, 0);
    assert_failed_alone(t);
}

static void set_avail_idx(struct queue_test *t, u16 idx)
{
    drv_put(&t->d, t->d.q[0].avail + 2, &idx, 2);
    drv_kick(&t->d, 0);
}

static void test_5_avail_jumps(void **state)
{
    struct queue_test *t = *state;

    set_avail_idx(t, t->d.q[0].size + 1);
    assert_failed_alone(t);
    set_avail_idx(t, 0x8000);
    assert_failed_alone(t);
}

static void test_6_avail_goes_backwards(void **state)
{
    struct queue_test *t = *state;

    assert_works(t);
    assert_works(t);
    set_avail_idx(t, 1);
    assert_needs_reset(&t->d);
}

static void test_8_to_12_bad_ranges(void **state)
{
    struct queue_test *t = *state;
    const struct seg bad[] = {
        {BENCH_RAM, 16, SEG_WRITE, 0}, /* beyond RAM */
        {1ull << 40, 16, SEG_WRITE, 0},
        {UINT64_MAX - 15, 16, SEG_WRITE, 0}, /* 9: the sum is 2^64 */
        {UINT64_MAX - 3, 16, SEG_WRITE, 0},  /* 9: and beyond */
        {UINT64_MAX, UINT32_MAX, SEG_WRITE, 0},
        {BENCH_RAM - 8, 16, SEG_WRITE, 0}, /* 10: straddles the end */
        {t->d.bar, 16, SEG_WRITE, 0},      /* 11: our own BAR */
        {t->d.notify, 4, SEG_WRITE, 0},
        {BENCH_ECAM, 64, SEG_WRITE, 0},
        {0, UINT32_MAX, SEG_WRITE, 0}, /* 12 */
        {t->buf, UINT32_MAX, SEG_WRITE, 0},
    };

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        one_desc(t, bad[i]);
        assert_failed_alone(t);
    }
}

/* 12, 13: nothing to write into. */
static void test_13_wrong_direction(void **state)
{
    struct queue_test *t = *state;

    one_desc(t, (struct seg){t->buf, 0, SEG_WRITE, 0});
    assert_failed_alone(t);
    one_desc(t, (struct seg){t->buf, 16, 0, 0});
    assert_failed_alone(t);
    drv_desc(&t->d, t->d.q[0].desc, 1, (struct seg){t->buf, 16, 0, 0});
    one_desc(t, (struct seg){t->buf, 16, SEG_WRITE | SEG_NEXT, 1});
    assert_failed_alone(t);
}

static void indirect(struct queue_test *t, u64 table, u32 len, u16 flags)
{
    one_desc(t, (struct seg){table, len, SEG_INDIRECT | flags, 0});
}

static void test_15_indirect_lengths(void **state)
{
    struct queue_test *t = *state;
    static const u32 bad[] = {0, 1, 15, 17, 65537u * 16, UINT32_MAX, 0x80000000u};
    u64 table = bench_alloc(&t->b, 4096, 16);
    u32 id, len;

    drv_desc(&t->d, table, 0, (struct seg){t->buf, 32, SEG_WRITE, 0});
    indirect(t, table, 16, 0);
    assert_true(drv_used(&t->d, 0, &id, &len));
    assert_int_equal(len, 32);
    indirect(t, table, 16, SEG_WRITE); /* 2.7.5.3.2: the device ignores WRITE here */
    assert_true(drv_used(&t->d, 0, &id, &len));
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        indirect(t, table, bad[i], 0);
        assert_failed_alone(t);
    }
}

static void test_16_indirect_nonsense(void **state)
{
    struct queue_test *t = *state;
    u64 table = bench_alloc(&t->b, 4096, 16);

    drv_desc(&t->d, table, 0, (struct seg){table, 16, SEG_INDIRECT, 0});
    indirect(t, table, 16, 0); /* nested */
    assert_failed_alone(t);
    drv_desc(&t->d, table, 0, (struct seg){t->buf, 16, SEG_WRITE, 0});
    indirect(t, table, 16, SEG_NEXT); /* with NEXT */
    assert_failed_alone(t);
    drv_desc(&t->d, table, 0, (struct seg){t->buf, 16, SEG_WRITE | SEG_NEXT, 0});
    indirect(t, table, 16, 0); /* loop */
    assert_failed_alone(t);
    drv_desc(&t->d, table, 0, (struct seg){t->buf, 16, SEG_WRITE | SEG_NEXT, 1});
    indirect(t, table, 16, 0); /* next past the table */
    assert_failed_alone(t);
    indirect(t, BENCH_RAM, 16, 0);
    assert_failed_alone(t);
    indirect(t, BENCH_RAM - 16, 32, 0);
    assert_failed_alone(t);
    indirect(t, t->d.bar, 16, 0);
    assert_failed_alone(t);
    drv_reset(&t->d);
    drv_start(&t->d, VIRTIO_F_INDIRECT_DESC); /* not negotiated */
    drv_desc(&t->d, table, 0, (struct seg){t->buf, 16, SEG_WRITE, 0});
    indirect(t, table, 16, 0);
    assert_needs_reset(&t->d);
}

/* Invariant 3: an indirect table may be longer than the queue, a chain may not. */
static void test_15_long_chains(void **state)
{
    struct queue_test *t = *state;
    unsigned size = t->d.q[0].size;
    u64 table = bench_alloc(&t->b, 512 * 16, 16);
    u32 id, len;

    for (unsigned i = 0; i < 512; i++)
        drv_desc(
            &t->d, table, i,
            (struct seg){t->buf + i, 1, SEG_WRITE | (i + 1 < size ? SEG_NEXT : 0), (u16)(i + 1)});
    indirect(t, table, 512 * 16, 0);
    assert_true(drv_used(&t->d, 0, &id, &len));
    assert_int_equal(len, size);
    drv_desc(&t->d, table, size - 1, (struct seg){t->buf, 1, SEG_WRITE | SEG_NEXT, (u16)size});
    indirect(t, table, 512 * 16, 0);
    assert_failed_alone(t);
}

/* 12: all of RAM, 64 times, is 2^32 bytes: one more than a used element can say. */
static void test_12_very_long_chain(void **state)
{
    struct queue_test *t = *state;
    unsigned size = t->d.q[0].size;
    u64 table = bench_alloc(&t->b, size * 16, 16);

    assert_int_equal((u64)size * BENCH_RAM, 1ull << 32);
    for (unsigned i = 0; i < size; i++)
        drv_desc(&t->d, table, i,
                 (struct seg){0, (u32)BENCH_RAM, SEG_WRITE | (i + 1 < size ? SEG_NEXT : 0),
                              (u16)(i + 1)});
    indirect(t, table, size * 16, 0);
    assert_failed_alone(t);
}

static void setup_until_queues(struct queue_test *t)
{
    drv_reset(&t->d);
    drv_features(&t->d, VIRTIO_F_VERSION_1);
    drv_set_reg(&t->d, REG_QSELECT, 2, 0);
}

static void test_17_queue_sizes(void **state)
{
    struct queue_test *t = *state;
    static const u16 bad[] = {0, 3, 65, 128, 0x8000, 0xffff};

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        setup_until_queues(t);
        drv_set_reg(&t->d, REG_QSIZE, 2, bad[i]);
        assert_needs_reset(&t->d);
        assert_int_equal(drv_reg(&t->d, REG_QSIZE, 2), 64);
        drv_set_reg(&t->d, REG_STATUS, 1, 15);
        assert_false(drv_status(&t->d) & VIRTIO_DRIVER_OK);
    }
    for (u16 size = 1; size <= 64; size *= 2) {
        setup_until_queues(t);
        drv_queue_setup(&t->d, 0, size);
        drv_set_reg(&t->d, REG_STATUS, 1, 15);
        assert_works(t);
    }
}

/* The one that cost others most: nothing about a queue changes while it is in use. */
static void test_18_registers_are_frozen(void **state)
{
    struct queue_test *t = *state;
    struct drv_queue q = t->d.q[0];

    drv_set_reg(&t->d, REG_QSELECT, 2, 0);
    drv_set_reg(&t->d, REG_QSIZE, 2, 1);
    drv_set_reg(&t->d, REG_QSIZE, 2, 0);
    drv_set_reg(&t->d, REG_QSIZE, 2, 0xffff);
    for (unsigned reg = REG_QDESC; reg < 56; reg += 4) {
        drv_set_reg(&t->d, reg, 4, 0x12345670);
        drv_set_reg(&t->d, reg & ~7u, 8, UINT64_MAX);
    }
    drv_set_reg(&t->d, REG_QENABLE, 2, 0);
    drv_set_reg(&t->d, REG_QENABLE, 2, 1);
    assert_int_equal(drv_reg(&t->d, REG_QSIZE, 2), q.size);
    assert_int_equal(drv_reg(&t->d, REG_QDESC, 8), q.desc);
    assert_int_equal(drv_reg(&t->d, REG_QDRIVER, 8), q.avail);
    assert_int_equal(drv_reg(&t->d, REG_QDEVICE, 8), q.used);
    assert_int_equal(drv_reg(&t->d, REG_QENABLE, 2), 1);
    drv_set_reg(&t->d, REG_GFSELECT, 4, 0);
    drv_set_reg(&t->d, REG_GF, 4, UINT32_MAX);
    assert_int_equal(drv_reg(&t->d, REG_GF, 4), (u32)t->d.features);
    assert_works(t);
}

static void enable_with(struct queue_test *t, u64 desc, u64 avail, u64 used)
{
    setup_until_queues(t);
    drv_set_reg(&t->d, REG_QDESC, 8, desc);
    drv_set_reg(&t->d, REG_QDRIVER, 8, avail);
    drv_set_reg(&t->d, REG_QDEVICE, 8, used);
    drv_set_reg(&t->d, REG_QENABLE, 2, 1);
}

static void test_19_bad_rings(void **state)
{
    struct queue_test *t = *state;
    u64 ok = t->buf;
    const u64 bad[][3] = {
        {0x1000000000, ok, ok},    {ok, 0x1000000000, ok},   {ok, ok, 0x1000000000},
        {ok + 8, ok, ok},          {ok, ok + 1, ok},         {ok, ok, ok + 2},
        {t->d.bar, ok, ok},        {ok, t->d.bar, ok},       {ok, ok, t->d.bar},
        {BENCH_RAM - 16, ok, ok},  {ok, BENCH_RAM - 4, ok},  {ok, ok, BENCH_RAM - 4},
        {UINT64_MAX - 15, ok, ok}, {ok, UINT64_MAX - 1, ok}, {ok, ok, UINT64_MAX - 3},
    };

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        enable_with(t, bad[i][0], bad[i][1], bad[i][2]);
        assert_needs_reset(&t->d);
        assert_int_equal(drv_reg(&t->d, REG_QENABLE, 2), 0);
        drv_kick(&t->d, 0);
    }
    /* All three on top of each other: garbage, but the guest's own. */
    enable_with(t, ok, ok, ok);
    drv_set_reg(&t->d, REG_STATUS, 1, 15);
    for (unsigned i = 0; i < 1000; i++) {
        u16 junk[2] = {(u16)i, (u16)(i * 7)};

        drv_put(&t->d, ok, junk, 4);
        drv_kick(&t->d, 0);
    }
    drv_reset(&t->d);
    drv_start(&t->d, 0);
    assert_works(t);
}

static void test_20_early_and_missing_notifications(void **state)
{
    struct queue_test *t = *state;
    u32 id, len;

    setup_until_queues(t);
    drv_kick(&t->d, 0);
    drv_queue_setup(&t->d, 0, 0);
    drv_add(&t->d, 0, &(struct seg){t->buf, 16, SEG_WRITE, 0}, 1);
    drv_kick(&t->d, 0);
    assert_false(drv_used(&t->d, 0, &id, &len));
    for (unsigned offset = 0; offset < 0x1000; offset += 2)
        bench_write(&t->b, t->d.notify + 4 + offset % 0xffc, 2, offset);
    drv_set_reg(&t->d, REG_STATUS, 1, 15);
    drv_kick(&t->d, 0);
    assert_true(drv_used(&t->d, 0, &id, &len));
    assert_healthy(&t->d);
}

static void test_21_select_past_the_queues(void **state)
{
    struct queue_test *t = *state;

    for (unsigned sel = 1; sel < 0x10000; sel += 241) {
        drv_set_reg(&t->d, REG_QSELECT, 2, sel);
        assert_int_equal(drv_reg(&t->d, REG_QSIZE, 2), 0);
        drv_set_reg(&t->d, REG_QSIZE, 2, 4);
        drv_set_reg(&t->d, REG_QVECTOR, 2, 0);
        drv_set_reg(&t->d, REG_QDESC, 8, t->buf);
        drv_set_reg(&t->d, REG_QENABLE, 2, 1);
        assert_int_equal(drv_reg(&t->d, REG_QENABLE, 2), 0);
    }
    assert_works(t);
}

static void test_22_every_status(void **state)
{
    struct queue_test *t = *state;

    for (unsigned first = 0; first < 256; first++) {
        drv_reset(&t->d);
        drv_set_reg(&t->d, REG_STATUS, 1, first);
        for (unsigned next = 1; next < 256; next += 5)
            drv_set_reg(&t->d, REG_STATUS, 1, next);
        drv_kick(&t->d, 0);
        assert_false(drv_status(&t->d) & VIRTIO_DRIVER_OK); /* never without FEATURES_OK */
    }
    drv_reset(&t->d);
    drv_start(&t->d, 0);
    assert_works(t);
}

static void test_23_features(void **state)
{
    struct queue_test *t = *state;
    static const u64 bad[] = {0,
                              UINT64_MAX,
                              1,
                              VIRTIO_F_INDIRECT_DESC,
                              VIRTIO_F_VERSION_1 | BIT(63),
                              VIRTIO_F_VERSION_1 | BIT(40)};

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        drv_reset(&t->d);
        drv_features(&t->d, bad[i]);
        assert_int_equal(drv_status(&t->d), 3);
    }
    drv_set_reg(&t->d, REG_DFSELECT, 4, 2);
    assert_int_equal(drv_reg(&t->d, REG_DF, 4), 0);
    drv_set_reg(&t->d, REG_GFSELECT, 4, UINT32_MAX);
    drv_set_reg(&t->d, REG_GF, 4, UINT32_MAX);
    assert_int_equal(drv_reg(&t->d, REG_GF, 4), 0);
}

static void test_24_vectors(void **state)
{
    struct queue_test *t = *state;

    drv_set_reg(&t->d, REG_QSELECT, 2, 0);
    drv_set_reg(&t->d, REG_QVECTOR, 2, 2); /* 0 and 1 exist */
    assert_int_equal(drv_reg(&t->d, REG_QVECTOR, 2), 0xffff);
    drv_set_reg(&t->d, REG_CONFIG_VECTOR, 2, 0x7ff);
    assert_int_equal(drv_reg(&t->d, REG_CONFIG_VECTOR, 2), 0xffff);
    assert_works(t);
    set_avail_idx(t, 0x9999);
    assert_needs_reset(&t->d);
}

/* 29: every register, every width, every offset. */
static void test_29_any_access(void **state)
{
    struct queue_test *t = *state;

    for (unsigned round = 0; round < 2; round++) {
        for (unsigned offset = 0; offset < 0x8000; offset++) {
            for (unsigned size = 1; size <= 8; size *= 2) {
                if (offset + size > 0x8000)
                    continue;
                bench_read(&t->b, t->d.bar + offset, size);
                if (offset != REG_STATUS || round)
                    bench_write(&t->b, t->d.bar + offset, size, 0xa5a5a5a5a5a5a5a5ull ^ offset);
            }
        }
    }
    drv_reset(&t->d);
    bench_write(&t->b, t->d.msix, 4, 0);
    drv_start(&t->d, 0);
    assert_works(t);
}

/* The bucket runs dry and a timer fills it. */
static void test_rng_is_bounded(void **state)
{
    struct queue_test *t = *state;
    struct seg s = {t->buf, 4096, SEG_WRITE, 0};
    unsigned got = 0;
    u32 id, len;

    for (unsigned i = 0; i < 64; i++)
        drv_add(&t->d, 0, &s, 1);
    drv_kick(&t->d, 0);
    while (drv_used(&t->d, 0, &id, &len))
        got++;
    assert_int_equal(got, 16);
    timerq_step(&t->b.timers, NS_PER_S);
    while (drv_used(&t->d, 0, &id, &len))
        got++;
    assert_int_equal(got, 64);
    assert_healthy(&t->d);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_normal),
        CASE(test_without_event_index),
        CASE(test_event_index_holds_interrupts_back),
        CASE(test_avail_event_follows),
        CASE(test_1_self_loop),
        CASE(test_2_two_descriptor_loop),
        CASE(test_3_next_past_the_table),
        CASE(test_4_head_past_the_table),
        CASE(test_5_avail_jumps),
        CASE(test_6_avail_goes_backwards),
        CASE(test_8_to_12_bad_ranges),
        CASE(test_12_very_long_chain),
        CASE(test_13_wrong_direction),
        CASE(test_15_indirect_lengths),
        CASE(test_15_long_chains),
        CASE(test_16_indirect_nonsense),
        CASE(test_17_queue_sizes),
        CASE(test_18_registers_are_frozen),
        CASE(test_19_bad_rings),
        CASE(test_20_early_and_missing_notifications),
        CASE(test_21_select_past_the_queues),
        CASE(test_22_every_status),
        CASE(test_23_features),
        CASE(test_24_vectors),
        CASE(test_29_any_access),
        CASE(test_rng_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
