/* Address spaces: lookup, splitting, overlap, moving regions from within their own callbacks. */
#include "unit.h"

#include "mem/aspace.h"

/* Sixteen bytes of registers that note how they were accessed. */
struct bank {
    struct io_region r;
    struct aspace *as;
    u8 reg[16];
    unsigned accesses, last_size;
    u64 move_to; /* a write to register 0 moves the bank there, when not 0 */
    pthread_mutex_t lock;
};

static u64 bank_read(void *opaque, u64 offset, unsigned size)
{
    struct bank *b = opaque;
    u64 value = UINT64_MAX; /* rubbish above the bytes asked for must not get through */

    assert_true(offset + size <= sizeof(b->reg));
    memcpy(&value, b->reg + offset, size);
    b->accesses++;
    b->last_size = size;
    return value;
}

static void bank_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct bank *b = opaque;

    assert_true(offset + size <= sizeof(b->reg));
    memcpy(b->reg + offset, &value, size);
    b->accesses++;
    b->last_size = size;
    if (b->move_to && offset == 0) {
        aspace_unmap(b->as, &b->r);
        b->r.base = b->move_to;
        assert_int_equal(aspace_map(b->as, &b->r, NULL), 0);
    }
}

static const struct io_ops bank_ops = {bank_read, bank_write};

static void bank_init(struct bank *b, struct aspace *as, u64 base)
{
    memset(b, 0, sizeof(*b));
    pthread_mutex_init(&b->lock, NULL);
    b->as = as;
    for (unsigned i = 0; i < sizeof(b->reg); i++)
        b->reg[i] = (u8)i;
    b->r = (struct io_region){.name = "bank",
                              .base = base,
                              .len = sizeof(b->reg),
                              .ops = &bank_ops,
                              .opaque = b,
                              .lock = &b->lock};
}

static void test_sizes_and_unaligned_accesses(void **state)
{
    struct aspace as;
    struct bank b;

    aspace_init(&as, 65536);
    bank_init(&b, &as, 0x3f8);
    assert_int_equal(aspace_map(&as, &b.r, NULL), 0);
    assert_int_equal(aspace_read(&as, 0x3f8, 1), 0);
    assert_int_equal(aspace_read(&as, 0x3f9, 2), 0x0201);
    assert_int_equal(aspace_read(&as, 0x3fb, 4), 0x06050403);
    assert_true(aspace_read(&as, 0x400, 8) == 0x0f0e0d0c0b0a0908ull);
    aspace_write(&as, 0x3fa, 2, 0xfffff55aa);
    assert_int_equal(b.reg[2], 0xaa);
    assert_int_equal(b.reg[3], 0x55);
    assert_int_equal(b.reg[4], 4);
    aspace_fini(&as);
    assert_false(b.r.mapped);
}

static void test_nothing_there_reads_as_ones(void **state)
{
    struct aspace as;

    aspace_init(&as, 65536);
    assert_int_equal(aspace_read(&as, 0x80, 1), 0xff);
    assert_int_equal(aspace_read(&as, 0x80, 4), 0xffffffff);
    assert_true(aspace_read(&as, UINT64_MAX, 8) == UINT64_MAX);
    aspace_write(&as, 0x80, 1, 0);
    aspace_write(&as, UINT64_MAX, 8, 0);
    aspace_fini(&as);
}

static void test_straddling_accesses_split_into_bytes(void **state)
{
    struct aspace as;
    struct bank a, b;

    aspace_init(&as, 65536);
    bank_init(&a, &as, 0x100);
    bank_init(&b, &as, 0x110);
    assert_int_equal(aspace_map(&as, &b.r, NULL), 0);
    assert_int_equal(aspace_map(&as, &a.r, NULL), 0);
    /* Over the border of two regions, and over each end into nothing. */
    assert_int_equal(aspace_read(&as, 0x10f, 2), 0x000f);
    assert_int_equal(a.last_size, 1);
    assert_int_equal(b.last_size, 1);
    assert_int_equal(aspace_read(&as, 0xff, 2), 0x00ff);
    assert_int_equal(aspace_read(&as, 0x11f, 4), 0xffffff0f);
    aspace_write(&as, 0x10e, 4, 0x44332211);
    assert_int_equal(a.reg[14], 0x11);
    assert_int_equal(a.reg[15], 0x22);
    assert_int_equal(b.reg[0], 0x33);
    assert_int_equal(b.reg[1], 0x44);
    aspace_fini(&as);
}

static void test_overlap_and_range_are_refused(void **state)
{
    struct err err = ERR_INIT;
    struct aspace as;
    struct bank a, b;

    aspace_init(&as, 65536);
    bank_init(&a, &as, 0x100);
    assert_int_equal(aspace_map(&as, &a.r, &err), 0);
    assert_int_equal(aspace_map(&as, &a.r, &err), -EEXIST);
    bank_init(&b, &as, 0x10f);
    assert_int_equal(aspace_map(&as, &b.r, &err), -EEXIST);
    b.r.base = 0xf1;
    assert_int_equal(aspace_map(&as, &b.r, &err), -EEXIST);
    b.r.base = 0xfff1;
    assert_int_equal(aspace_map(&as, &b.r, &err), -ERANGE);
    b.r.base = UINT64_MAX;
    assert_int_equal(aspace_map(&as, &b.r, &err), -ERANGE);
    b.r.base = 0xfff0;
    assert_int_equal(aspace_map(&as, &b.r, &err), 0);
    assert_int_equal(aspace_read(&as, 0xffff, 2), 0xff0f);
    aspace_unmap(&as, &a.r);
    aspace_unmap(&as, &a.r);
    assert_int_equal(aspace_read(&as, 0x100, 1), 0xff);
    aspace_fini(&as);
}

static void test_callback_may_move_its_own_region(void **state)
{
    struct aspace as;
    struct bank a;

    aspace_init(&as, 65536);
    bank_init(&a, &as, 0x100);
    a.move_to = 0x200;
    assert_int_equal(aspace_map(&as, &a.r, NULL), 0);
    aspace_write(&as, 0x100, 1, 7);
    assert_int_equal(aspace_read(&as, 0x100, 1), 0xff);
    assert_int_equal(aspace_read(&as, 0x200, 1), 7);
    aspace_fini(&as);
}

static void test_full_space_is_refused(void **state)
{
    static struct bank banks[ASPACE_REGIONS + 1];
    struct aspace as;

    aspace_init(&as, 1ull << 52);
    for (unsigned i = 0; i < ASPACE_REGIONS; i++) {
        bank_init(&banks[i], &as, 1000000 - i * 16);
        assert_int_equal(aspace_map(&as, &banks[i].r, NULL), 0);
    }
    bank_init(&banks[ASPACE_REGIONS], &as, 0);
    assert_int_equal(aspace_map(&as, &banks[ASPACE_REGIONS].r, NULL), -ENOSPC);
    for (unsigned i = 0; i < ASPACE_REGIONS; i++) {
        aspace_read(&as, 1000000 - i * 16, 1);
        assert_int_equal(banks[i].accesses, 1);
    }
    aspace_fini(&as);
}

/* Moves a region back and forth, as a guest that programs a BAR does. */
static void *move_often(void *opaque)
{
    struct bank *b = opaque;

    for (unsigned i = 0; i < 1000; i++) {
        aspace_unmap(b->as, &b->r);
        b->r.base = i & 1 ? 0x100 : 0x200;
        if (aspace_map(b->as, &b->r, NULL))
            return b;
    }
    return NULL;
}

static void test_regions_move_while_others_read(void **state)
{
    struct aspace as;
    struct bank a;
    pthread_t thread;
    void *failed = &a;

    aspace_init(&as, 65536);
    bank_init(&a, &as, 0x100);
    assert_int_equal(aspace_map(&as, &a.r, NULL), 0);
    assert_int_equal(pthread_create(&thread, NULL, move_often, &a), 0);
    for (unsigned i = 0; i < 1000; i++) {
        u64 value = aspace_read(&as, 0x105, 1);

        assert_true(value == 5 || value == 0xff);
    }
    pthread_join(thread, &failed);
    assert_null(failed);
    aspace_fini(&as);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_sizes_and_unaligned_accesses),
    cmocka_unit_test(test_nothing_there_reads_as_ones),
    cmocka_unit_test(test_straddling_accesses_split_into_bytes),
    cmocka_unit_test(test_overlap_and_range_are_refused),
    cmocka_unit_test(test_callback_may_move_its_own_region),
    cmocka_unit_test(test_full_space_is_refused),
    cmocka_unit_test(test_regions_move_while_others_read),
};
UNIT_MAIN(tests)
