/* The HPET, driven through its registers. */
#include "pc.h"

static u64 reg(struct pc *pc, u32 offset)
{
    return aspace_read(board_mmio(pc->b), MEMMAP_HPET + offset, 8);
}

static void set_reg(struct pc *pc, u32 offset, u64 value)
{
    aspace_write(board_mmio(pc->b), MEMMAP_HPET + offset, 8, value);
}

static void route(struct pc *pc, unsigned pin, u8 vector, bool level)
{
    pc_ioapic_write(pc, 0x11 + 2 * pin, 0);
    pc_ioapic_write(pc, 0x10 + 2 * pin, vector | (level ? 0x8000 : 0));
}

static void start(struct pc *pc)
{
    pc_init(pc, 1);
    pc_enable_apics(pc);
    route(pc, 10, 0x5a, false);
    route(pc, 11, 0x5b, true);
    route(pc, 2, 0x30, false);
    route(pc, 8, 0x38, false);
}

static void test_counter(void **state)
{
    struct pc pc;

    start(&pc);
    assert_int_equal(reg(&pc, 0), 10000000ull << 32 | HPET_ID);
    assert_int_equal(aspace_read(board_mmio(pc.b), MEMMAP_HPET + 4, 4), 10000000);
    pc_step(&pc, 1000);
    assert_int_equal(reg(&pc, 0xf0), 0);
    set_reg(&pc, 0x10, 1);
    pc_step(&pc, 1000);
    assert_int_equal(reg(&pc, 0xf0), 100);
    set_reg(&pc, 0x10, 0);
    pc_step(&pc, 1000);
    assert_int_equal(reg(&pc, 0xf0), 100);
    set_reg(&pc, 0xf0, 0x123456789abcdef0);
    set_reg(&pc, 0x10, 1);
    pc_step(&pc, 100);
    assert_int_equal(aspace_read(board_mmio(pc.b), MEMMAP_HPET + 0xf4, 4), 0x12345678);
    assert_int_equal(reg(&pc, 0xf0), 0x123456789abcdefa);
    pc_fini(&pc);
}

static void test_one_shot(void **state)
{
    struct pc pc;

    start(&pc);
    set_reg(&pc, 0x10, 1);
    set_reg(&pc, 0x140, 10 << 9 | 4);
    set_reg(&pc, 0x148, 1000);
    pc_step(&pc, 9990);
    assert_false(pc_pending(&pc, 0));
    pc_step(&pc, 10);
    assert_int_equal(pc_ack(&pc, 0), 0x5a);
    pc_eoi(&pc, 0);
    pc_step(&pc, NS_PER_S);
    assert_false(pc_pending(&pc, 0));
    set_reg(&pc, 0x140, 10 << 9 | 4 | 0x100); /* 32 bits: a passed value comes again after a wrap */
    set_reg(&pc, 0x148, 1000);
    pc_step(&pc, 41 * NS_PER_S);
    assert_false(pc_pending(&pc, 0));
    pc_step(&pc, 2 * NS_PER_S);
    assert_int_equal(pc_ack(&pc, 0), 0x5a);
    pc_fini(&pc);
}

static void test_level(void **state)
{
    struct pc pc;

    start(&pc);
    set_reg(&pc, 0x10, 1);
    set_reg(&pc, 0x120, 11 << 9 | 6);
    set_reg(&pc, 0x128, 100);
    pc_step(&pc, 1000);
    assert_int_equal(reg(&pc, 0x20), 2);
    assert_int_equal(pc_ack(&pc, 0), 0x5b);
    pc_eoi(&pc, 0);
    assert_true(pc_pending(&pc, 0)); /* still asked for */
    set_reg(&pc, 0x20, 2);
    assert_int_equal(reg(&pc, 0x20), 0);
    pc_ack(&pc, 0);
    pc_eoi(&pc, 0);
    assert_false(pc_pending(&pc, 0));
    pc_fini(&pc);
}

static void test_periodic_legacy(void **state)
{
    struct pc pc;

    start(&pc);
    pc_outb(&pc, 0x43, 0x34); /* the PIT runs at 100 Hz */
    pc_outb(&pc, 0x40, 0x9c);
    pc_outb(&pc, 0x40, 0x2e);
    pc_ack(&pc, 0);
    pc_eoi(&pc, 0);
    set_reg(&pc, 0x10, 3);
    set_reg(&pc, 0x100, 0x4c); /* enabled, periodic, comparator follows */
    set_reg(&pc, 0x108, 400000);
    set_reg(&pc, 0x108, 400000); /* the period: 4 ms */
    for (unsigned i = 0; i < 5; i++) {
        pc_step(&pc, 3999990);
        assert_false(pc_pending(&pc, 0));
        pc_step(&pc, 10);
        assert_int_equal(pc_ack(&pc, 0), 0x30);
        pc_eoi(&pc, 0);
    }
    set_reg(&pc, 0x10, 0); /* off: interrupt 0 is the PIT's again */
    pc_step(&pc, 20000000);
    assert_int_equal(pc_ack(&pc, 0), 0x30);
    pc_fini(&pc);
}

/* Interrupts of other devices cannot be driven, and a period of nothing is no storm. hostile.md 36 */
static void test_hostile(void **state)
{
    struct pc pc;
    unsigned n = 0;

    start(&pc);
    set_reg(&pc, 0x10, 1);
    route(&pc, 4, 0x44, false);
    set_reg(&pc, 0x140, 4 << 9 | 4);
    set_reg(&pc, 0x148, reg(&pc, 0xf0) + 100);
    pc_step(&pc, 10000);
    assert_false(pc_pending(&pc, 0));
    set_reg(&pc, 0x140, 10 << 9 | 0x4c);
    set_reg(&pc, 0x148, reg(&pc, 0xf0) + 1);
    set_reg(&pc, 0x148, 0);
    for (unsigned i = 0; i < 100; i++) {
        pc_step(&pc, 10000);
        if (pc_pending(&pc, 0)) {
            pc_ack(&pc, 0);
            pc_eoi(&pc, 0);
            n++;
        }
    }
    assert_in_range(n, 15, 25);
    for (u32 offset = 0; offset < HPET_LEN; offset++)
        aspace_write(board_mmio(pc.b), MEMMAP_HPET + offset, 1u << (offset & 3), ~0ull);
    pc_fini(&pc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counter), cmocka_unit_test(test_one_shot),
        cmocka_unit_test(test_level),   cmocka_unit_test(test_periodic_legacy),
        cmocka_unit_test(test_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
