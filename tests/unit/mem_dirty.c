/* The dirty log: what the VMM writes is reported to every log once, and what is written while somebody collects is never
 * lost. */
#include "unit.h"

#include "mem/dirty.h"

#include <pthread.h>

#define RAM_BYTES (8 * MiB)
#define WORDS (RAM_BYTES / 4096 / 64)

struct bench {
    struct gmem m;
    struct dirty_log log;
    u64 bits[WORDS], count;
};

static void open_bench(struct bench *b)
{
    struct err err = ERR_INIT;

    *b = (struct bench){0};
    assert_int_equal(gmem_init(&b->m, RAM_BYTES, &err), 0);
    assert_int_equal(dirty_words(&b->m), WORDS);
    assert_int_equal(dirty_start(&b->m, &b->log, &err), 0);
}

static void close_bench(struct bench *b)
{
    dirty_stop(&b->m, &b->log);
    gmem_fini(&b->m);
}

static void collect(struct bench *b, struct dirty_log *log)
{
    struct err err = ERR_INIT;

    assert_int_equal(dirty_collect(&b->m, log, b->bits, &b->count, &err), 0);
}

static bool is_set(const struct bench *b, u64 page)
{
    return b->bits[page / 64] >> (page % 64) & 1;
}

static void test_a_write_is_reported_once(void **state)
{
    struct bench b;
    u32 word = 7;

    open_bench(&b);
    collect(&b, &b.log);
    assert_int_equal(b.count, 0);
    assert_int_equal(gmem_write(&b.m, 5 * 4096 - 2, &word, 4), 0);
    collect(&b, &b.log);
    assert_int_equal(b.count, 2);
    assert_true(is_set(&b, 4) && is_set(&b, 5));
    collect(&b, &b.log);
    assert_int_equal(b.count, 0);
    assert_false(is_set(&b, 4));
    close_bench(&b);
}

static void test_writes_through_a_pointer(void **state)
{
    struct bench b;

    open_bench(&b);
    gmem_wrote(&b.m, 4096, 3 * 4096);
    gmem_wrote(&b.m, RAM_BYTES - 1, 1);
    gmem_wrote(&b.m, 0, 0);
    gmem_wrote(&b.m, RAM_BYTES - 1, 2); /* no range of RAM */
    gmem_wrote(&b.m, 1ull << 60, UINT64_MAX);
    collect(&b, &b.log);
    assert_int_equal(b.count, 4);
    assert_true(is_set(&b, 1) && is_set(&b, 3) && is_set(&b, RAM_BYTES / 4096 - 1));
    close_bench(&b);
}

static void test_high_memory_counts_by_its_place_in_the_file(void **state)
{
    struct err err = ERR_INIT;
    struct dirty_log log = {0};
    struct gmem m;
    u64 *bits, count;

    assert_int_equal(gmem_init(&m, 4 * GiB, &err), 0);
    assert_int_equal(gmem_add_rom(&m, 0xfffff000, "rom", 3, &err), 0);
    assert_int_equal(dirty_start(&m, &log, &err), 0);
    bits = calloc(dirty_words(&m), 8);
    gmem_wrote(&m, 4 * GiB + 4096, 1);
    gmem_wrote(&m, 0xfffff000, 4096); /* ROM: not in the log */
    assert_int_equal(dirty_collect(&m, &log, bits, &count, &err), 0);
    assert_int_equal(count, 1);
    assert_true(bits[(3 * GiB / 4096 + 1) / 64] & BIT(1));
    free(bits);
    dirty_stop(&m, &log);
    gmem_fini(&m);
}

static void test_logs_are_independent(void **state)
{
    struct err err = ERR_INIT;
    struct dirty_log second = {0};
    struct bench b;

    open_bench(&b);
    gmem_wrote(&b.m, 0, 1);
    assert_int_equal(dirty_start(&b.m, &second, &err), 0);
    gmem_wrote(&b.m, 4096, 1);
    collect(&b, &b.log);
    assert_int_equal(b.count, 2);
    gmem_wrote(&b.m, 8192, 1);
    collect(&b, &second);
    assert_int_equal(b.count, 2);
    assert_true(is_set(&b, 1) && is_set(&b, 2));
    dirty_stop(&b.m, &second);
    collect(&b, &b.log);
    assert_int_equal(b.count, 1);
    assert_true(is_set(&b, 2));
    close_bench(&b);
}

static void test_nothing_is_noted_without_a_log(void **state)
{
    struct err err = ERR_INIT;
    struct bench b;
    u64 count = 99;

    open_bench(&b);
    dirty_stop(&b.m, &b.log);
    dirty_stop(&b.m, &b.log);
    dirty_stop(&b.m, NULL);
    gmem_wrote(&b.m, 0, 1);
    assert_int_equal(dirty_collect(&b.m, &b.log, b.bits, &count, &err), -EINVAL);
    assert_int_equal(count, 99);
    assert_int_equal(dirty_start(&b.m, &b.log, &err), 0);
    collect(&b, &b.log);
    assert_int_equal(b.count, 0);
    close_bench(&b);
}

static int sync_or_fail(void *opaque, bool on, struct err *err)
{
    struct bench *b = opaque;

    if (b->count == 1234)
        return err_set(err, EIO, "sync failed");
    dirty_flip(&b->m);
    return 0;
}

static void test_a_failed_collect_loses_nothing(void **state)
{
    static const struct gmem_accel accel = {.dirty_sync = sync_or_fail};
    struct err err = ERR_INIT;
    struct dirty_log second = {0};
    struct bench b;

    open_bench(&b);
    b.m.accel = &accel;
    b.m.accel_opaque = &b;
    gmem_wrote(&b.m, 0, 1);
    b.count = 1234;
    assert_int_equal(dirty_collect(&b.m, &b.log, b.bits, &b.count, &err), -EIO);
    assert_int_equal(dirty_start(&b.m, &second, &err), -EIO);
    assert_int_equal(b.count, 1234);
    b.count = 0;
    collect(&b, &b.log);
    assert_int_equal(b.count, 1);
    close_bench(&b);
}

#define ROUNDS 20000

/* Writes a counter into one page after another, as a device does: bytes first, then the note. */
static void *writer(void *opaque)
{
    struct bench *b = opaque;

    for (u32 i = 1; i <= ROUNDS; i++) {
        u64 gpa = (i * 7 % (RAM_BYTES / 4096)) * 4096;

        __atomic_store_n((u32 *)gmem_ptr(&b->m, gpa, 4), i, __ATOMIC_RELAXED);
        gmem_wrote(&b->m, gpa, 4);
    }
    return NULL;
}

static void copy_dirty(struct bench *b, u8 *copy)
{
    collect(b, &b->log);
    for (u64 p = 0; p < RAM_BYTES / 4096; p++)
        if (is_set(b, p))
            memcpy(copy + p * 4096, b->m.base + p * 4096, 4096);
}

static void test_a_copy_made_in_rounds_is_whole(void **state)
{
    struct bench b;
    pthread_t thread;
    u8 *copy = calloc(1, RAM_BYTES);

    open_bench(&b);
    assert_int_equal(pthread_create(&thread, NULL, writer, &b), 0);
    for (unsigned i = 0; i < 50; i++)
        copy_dirty(&b, copy);
    assert_int_equal(pthread_join(thread, NULL), 0);
    copy_dirty(&b, copy);
    assert_memory_equal(copy, b.m.base, RAM_BYTES);
    free(copy);
    close_bench(&b);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_a_write_is_reported_once),
    cmocka_unit_test(test_writes_through_a_pointer),
    cmocka_unit_test(test_high_memory_counts_by_its_place_in_the_file),
    cmocka_unit_test(test_logs_are_independent),
    cmocka_unit_test(test_nothing_is_noted_without_a_log),
    cmocka_unit_test(test_a_failed_collect_loses_nothing),
    cmocka_unit_test(test_a_copy_made_in_rounds_is_whole),
};

UNIT_MAIN(tests)
