/* Absent pages: whoever touches one finds its bytes; late bytes are dropped; a page that is lost says so. */
#include "unit.h"

#include "mem/dirty.h"
#include "mem/lazy.h"

#include <pthread.h>

#define RAM_BYTES (4 * MiB)
#define PAGES (RAM_BYTES / 4096)
#define NO_PAGE (~0ull)

struct store {
    struct gmem m;
    u64 bits[PAGES / 64];
    unsigned fetched, interrupted; /* atomic */
    u64 lost, around;              /* a page that cannot be had; one that comes with its neighbour */
    int answer;                    /* the source's, once */
};

static void page_bytes(u64 page, u8 *ret_bytes)
{
    for (unsigned i = 0; i < 4096; i++)
        ret_bytes[i] = (u8)(page * 31 + i * 7 + 1);
}

static bool page_is(const struct store *s, u64 page)
{
    u8 bytes[4096];

    page_bytes(page, bytes);
    return !memcmp(s->m.base + page * 4096, bytes, 4096);
}

static int fetch(void *opaque, u64 page, void *dst)
{
    struct store *s = opaque;
    u8 bytes[4096];
    int answer = s->answer;

    __atomic_fetch_add(&s->fetched, 1, __ATOMIC_SEQ_CST);
    s->answer = 0;
    if (page == s->lost)
        return -EIO;
    if (answer == -EINTR)
        return answer;
    page_bytes(page, bytes);
    if (answer == 1 || page == s->around) {
        lazy_supply(&s->m, page, bytes);
        page_bytes(page + 1, bytes);
        lazy_supply(&s->m, page + 1, bytes);
        return 1;
    }
    memcpy(dst, bytes, 4096);
    return 0;
}

static void open_store(struct store *s)
{
    struct lazy_source source = {.fetch = fetch, .opaque = s};
    struct err err = ERR_INIT;

    *s = (struct store){.lost = NO_PAGE, .around = NO_PAGE};
    assert_int_equal(gmem_init(&s->m, RAM_BYTES, &err), 0);
    memset(s->bits, 0xff, sizeof(s->bits));
    s->bits[0] &= ~1ull; /* page 0 is there */
    assert_int_equal(lazy_begin(&s->m, &source, s->bits, &err), 0);
    assert_int_equal(lazy_missing(&s->m), PAGES - 1);
}

static void test_an_access_brings_its_pages_only(void **state)
{
    struct store s;
    u8 buf[8], want[4096];

    open_store(&s);
    assert_non_null(gmem_ptr(&s.m, 0, 4096));
    assert_int_equal(s.fetched, 0);
    assert_int_equal(gmem_read(&s.m, 3 * 4096 - 4, buf, 8), 0);
    assert_int_equal(lazy_missing(&s.m), PAGES - 3);
    page_bytes(2, want);
    assert_memory_equal(buf, want + 4092, 4);
    page_bytes(3, want);
    assert_memory_equal(buf + 4, want, 4);
    assert_true(lazy_absent(&s.m, 4 * 4096) && !lazy_absent(&s.m, 3 * 4096));
    assert_non_null(gmem_ptr_ro(&s.m, 5 * 4096, 4096));
    assert_non_null(gmem_ptr_ro(&s.m, 5 * 4096, 4096));
    assert_int_equal(s.fetched, 3);
    assert_true(lazy_need(&s.m, 6 * 4096) && page_is(&s, 6));
    gmem_fini(&s.m);
}

static void test_late_bytes_are_dropped(void **state)
{
    struct store s;
    u8 bytes[4096], old[4096];
    u32 word = 0xabcd;

    open_store(&s);
    page_bytes(9, bytes);
    assert_true(lazy_supply(&s.m, 9, bytes));
    assert_int_equal(gmem_write(&s.m, 9 * 4096, &word, 4), 0);
    memset(old, 0xee, sizeof(old));
    assert_false(lazy_supply(&s.m, 9, old));
    assert_false(lazy_supply(&s.m, 0, old));
    assert_false(lazy_supply(&s.m, PAGES, old));
    assert_int_equal(*(u32 *)gmem_ptr(&s.m, 9 * 4096, 4), word);
    assert_int_equal(s.fetched, 0);
    gmem_fini(&s.m);
}

/* A run over three stripes, some of whose pages are there: those stay, the others come, each once. */
static void test_runs(void **state)
{
    struct store s;
    u8 *bytes = malloc(140 * 4096), own[4096];

    open_store(&s);
    for (u64 i = 0; i < 140; i++)
        page_bytes(60 + i, bytes + i * 4096);
    memset(own, 0xee, sizeof(own));
    assert_true(lazy_supply(&s.m, 60, own) && lazy_supply(&s.m, 64, own) && lazy_supply(&s.m, 100, own));
    u64 missing = lazy_missing(&s.m);
    assert_int_equal(lazy_supply_run(&s.m, 60, 140, bytes), 137);
    assert_int_equal(lazy_missing(&s.m), missing - 137);
    assert_int_equal(lazy_supply_run(&s.m, 60, 140, bytes), 0);
    for (u64 i = 60; i < 200; i++) {
        bool old = i == 60 || i == 64 || i == 100;

        assert_memory_equal(s.m.base + i * 4096, old ? own : bytes + (i - 60) * 4096, 4096);
    }
    assert_int_equal(lazy_supply_run(&s.m, PAGES - 1, 2, bytes), 0);
    assert_int_equal(lazy_supply_run(&s.m, ~0ull, 2, bytes), 0);
    assert_int_equal(s.fetched, 0);
    free(bytes);
    gmem_fini(&s.m);
}

static void note_came(void *opaque, u64 page, u64 count)
{
    struct store *s = opaque;

    assert_true(count > 0);
    for (u64 i = 0; i < count; i++) {
        assert_false(lazy_absent(&s->m, (page + i) * 4096));
        s->bits[(page + i) / 64] ^= BIT((page + i) % 64);
    }
}

static void test_the_accelerator_hears_of_each_page_once(void **state)
{
    const struct gmem_accel accel = {.came = note_came};
    struct store s;
    u8 *bytes = calloc(70, 4096);

    open_store(&s);
    s.m.accel = &accel;
    s.m.accel_opaque = &s;
    assert_true(lazy_supply(&s.m, 30, bytes));
    assert_int_equal(lazy_supply_run(&s.m, 10, 70, bytes), 69);
    assert_int_equal(lazy_supply_run(&s.m, 10, 70, bytes), 0);
    for (u64 i = 0; i < PAGES; i++)
        assert_int_equal(s.bits[i / 64] >> (i % 64) & 1, i && (i < 10 || i >= 80));
    free(bytes);
    gmem_fini(&s.m);
}

static void test_a_source_may_supply_or_let_go(void **state)
{
    struct store s;

    open_store(&s);
    s.answer = 1;
    assert_non_null(gmem_ptr(&s.m, 7 * 4096, 1));
    assert_true(page_is(&s, 7) && page_is(&s, 8));
    assert_int_equal(s.fetched, 1);
    s.answer = -EINTR;
    assert_int_equal(lazy_fetch(&s.m, 11, 1), -EINTR);
    assert_true(lazy_absent(&s.m, 11 * 4096));
    s.answer = -EINTR;
    assert_non_null(gmem_ptr(&s.m, 11 * 4096, 1)); /* a device cannot give up: it asks again */
    assert_true(page_is(&s, 11));
    gmem_fini(&s.m);
}

static void test_the_end_brings_all(void **state)
{
    struct err err = ERR_INIT;
    struct store s;

    open_store(&s);
    s.around = 20;
    assert_int_equal(lazy_end(&s.m, &err), 0);
    assert_int_equal(lazy_missing(&s.m), 0);
    assert_null(s.m.absent);
    for (u64 p = 1; p < PAGES; p++)
        assert_true(page_is(&s, p));
    assert_int_equal(s.fetched, PAGES - 2);
    assert_int_equal(lazy_end(&s.m, &err), 0);
    gmem_fini(&s.m);
}

static void test_a_lost_page_is_an_error(void **state)
{
    struct err err = ERR_INIT;
    struct store s;
    u8 byte;

    open_store(&s);
    s.lost = 100;
    assert_null(gmem_ptr(&s.m, 100 * 4096, 1));
    assert_int_equal(gmem_read(&s.m, 100 * 4096, &byte, 1), -EFAULT);
    assert_false(lazy_need(&s.m, 100 * 4096));
    assert_int_equal(lazy_end(&s.m, &err), -EIO);
    assert_non_null(strstr(err.msg, "0x64000"));
    assert_int_equal(lazy_missing(&s.m), PAGES - 100);
    s.lost = NO_PAGE;
    assert_int_equal(lazy_end(&s.m, &err), 0);
    gmem_fini(&s.m);
}

static void test_begin_again_only_when_all_is_there(void **state)
{
    struct lazy_source source = {.fetch = fetch};
    struct err err = ERR_INIT;
    struct store s;

    open_store(&s);
    source.opaque = &s;
    assert_int_equal(lazy_begin(&s.m, &source, s.bits, &err), -EBUSY);
    assert_int_equal(lazy_end(&s.m, &err), 0);
    assert_int_equal(lazy_begin(&s.m, &source, s.bits, &err), 0);
    assert_int_equal(lazy_missing(&s.m), PAGES - 1);
    gmem_fini(&s.m);
}

/* What comes from elsewhere is no write of the guest's. */
static void test_arrival_is_not_dirty(void **state)
{
    struct err err = ERR_INIT;
    struct dirty_log log = {0};
    u64 bits[PAGES / 64], count;
    struct store s;

    open_store(&s);
    assert_int_equal(dirty_start(&s.m, &log, &err), 0);
    assert_int_equal(lazy_end(&s.m, &err), 0);
    assert_int_equal(dirty_collect(&s.m, &log, bits, &count, &err), 0);
    assert_int_equal(count, 0);
    dirty_stop(&s.m, &log);
    gmem_fini(&s.m);
}

static void *toucher(void *opaque)
{
    struct store *s = opaque;

    for (u64 p = 0; p < PAGES; p++)
        if (!gmem_ptr(&s->m, (p * 13 % PAGES) * 4096, 4096))
            return s;
    return NULL;
}

static void test_many_threads(void **state)
{
    pthread_t thread[4];
    struct store s;
    void *failed;

    open_store(&s);
    for (unsigned i = 0; i < ARRAY_LEN(thread); i++)
        assert_int_equal(pthread_create(&thread[i], NULL, toucher, &s), 0);
    for (unsigned i = 0; i < ARRAY_LEN(thread); i++) {
        assert_int_equal(pthread_join(thread[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(lazy_missing(&s.m), 0);
    for (u64 p = 1; p < PAGES; p++)
        assert_true(page_is(&s, p));
    gmem_fini(&s.m);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_an_access_brings_its_pages_only),
    cmocka_unit_test(test_late_bytes_are_dropped),
    cmocka_unit_test(test_runs),
    cmocka_unit_test(test_the_accelerator_hears_of_each_page_once),
    cmocka_unit_test(test_a_source_may_supply_or_let_go),
    cmocka_unit_test(test_the_end_brings_all),
    cmocka_unit_test(test_a_lost_page_is_an_error),
    cmocka_unit_test(test_begin_again_only_when_all_is_there),
    cmocka_unit_test(test_arrival_is_not_dirty),
    cmocka_unit_test(test_many_threads),
};

UNIT_MAIN(tests)
