/* The real-time clock, driven through ports 0x70 and 0x71. */
#include "pc.h"

static u8 cmos(struct pc *pc, u8 index)
{
    pc_outb(pc, 0x70, index);
    return pc_inb(pc, 0x71);
}

static void set_cmos(struct pc *pc, u8 index, u8 value)
{
    pc_outb(pc, 0x70, index);
    pc_outb(pc, 0x71, value);
}

/* Is interrupt 8 asked for? */
static bool irq8(struct pc *pc)
{
    pc_outb(pc, 0xa0, 0x0a);
    return pc_inb(pc, 0xa0) & 1;
}

static void assert_time(struct pc *pc, const u8 expected[8])
{
    static const u8 index[8] = {0x32, 9, 8, 7, 4, 2, 0, 6};

    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(cmos(pc, index[i]), expected[i]);
}

static void test_time(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    assert_time(&pc, (const u8[]){0x20, 0x01, 0x09, 0x09, 0x01, 0x46, 0x40, 1}); /* a Sunday */
    pc_step(&pc, 20 * NS_PER_S);
    assert_time(&pc, (const u8[]){0x20, 0x01, 0x09, 0x09, 0x01, 0x47, 0x00, 1});
    set_cmos(&pc, 11, 0x06); /* binary */
    pc_step(&pc, 12 * 3600 * NS_PER_S);
    assert_time(&pc, (const u8[]){20, 1, 9, 9, 13, 47, 0, 1});
    set_cmos(&pc, 11, 0x00); /* BCD, 12 hours */
    assert_int_equal(cmos(&pc, 4), 0x81);
    pc_fini(&pc);
}

static void test_setting(void **state)
{
    static const u8 index[] = {0x32, 9, 8, 7, 4, 2, 0},
                    value[] = {0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x58};
    struct pc pc;

    pc_init(&pc, 1);
    set_cmos(&pc, 11, 0x82); /* hold */
    for (unsigned i = 0; i < sizeof(index); i++)
        set_cmos(&pc, index[i], value[i]);
    pc_step(&pc, 100 * NS_PER_S);
    assert_int_equal(cmos(&pc, 0), 0x58);
    set_cmos(&pc, 11, 0x02);
    pc_step(&pc, 3 * NS_PER_S); /* over midnight into a leap day */
    assert_time(&pc, (const u8[]){0x20, 0x24, 0x02, 0x29, 0x00, 0x00, 0x01, 5});
    set_cmos(&pc, 8, 0xff); /* nonsense is normalized */
    cmos(&pc, 0);
    pc_fini(&pc);
}

static void test_update_in_progress(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_step(&pc, 500000000);
    assert_int_equal(cmos(&pc, 10), 0x26);
    pc_step(&pc, 499900000);
    assert_int_equal(cmos(&pc, 10), 0xa6);
    pc_fini(&pc);
}

static void test_periodic(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    set_cmos(&pc, 10, 0x26); /* 1024 Hz */
    set_cmos(&pc, 11, 0x42);
    pc_step(&pc, 976000);
    assert_false(irq8(&pc));
    pc_step(&pc, 1000);
    assert_true(irq8(&pc));
    assert_int_equal(cmos(&pc, 12), 0xc0);
    assert_false(irq8(&pc)); /* the read ends it */
    assert_int_equal(cmos(&pc, 12), 0);
    pc_step(&pc, 976600);
    assert_true(irq8(&pc));
    set_cmos(&pc, 11, 0x02);
    assert_false(irq8(&pc));
    pc_step(&pc, NS_PER_S);
    assert_int_equal(cmos(&pc, 12) & 0xf0, 0x50); /* flags come up without their interrupts */
    pc_fini(&pc);
}

static void test_update_and_alarm(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    set_cmos(&pc, 11, 0x12);
    pc_step(&pc, NS_PER_S);
    assert_true(irq8(&pc));
    assert_int_equal(cmos(&pc, 12) & 0xb0, 0x90);
    set_cmos(&pc, 1, 0x45);
    set_cmos(&pc, 3, 0xc0); /* any minute, any hour */
    set_cmos(&pc, 5, 0xc0);
    set_cmos(&pc, 11, 0x22);
    pc_step(&pc, 3 * NS_PER_S);
    assert_false(irq8(&pc));
    pc_step(&pc, NS_PER_S);
    assert_true(irq8(&pc));
    assert_int_equal(cmos(&pc, 12) & 0xa0, 0xa0);
    pc_step(&pc, 59 * NS_PER_S);
    assert_false(irq8(&pc));
    pc_step(&pc, NS_PER_S);
    assert_true(irq8(&pc));
    pc_fini(&pc);
}

static void test_memory(void **state)
{
    struct pc pc;

    pc_init(&pc, 3);
    assert_int_equal(cmos(&pc, 0x15) | cmos(&pc, 0x16) << 8, 640);
    assert_int_equal(cmos(&pc, 0x34) | cmos(&pc, 0x35) << 8, (PC_RAM - 16 * MiB) / (64 * KiB));
    assert_int_equal(cmos(&pc, 0x5f), 2);
    set_cmos(&pc, 0x40, 0xa5);
    board_reset(pc.b);
    assert_int_equal(cmos(&pc, 0x40), 0xa5);            /* a battery keeps it */
    assert_int_equal(cmos(&pc, 0xf0), cmos(&pc, 0x70)); /* bit 7 of the index is not part of it */
    pc_fini(&pc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_setting),
        cmocka_unit_test(test_update_in_progress),
        cmocka_unit_test(test_periodic),
        cmocka_unit_test(test_update_and_alarm),
        cmocka_unit_test(test_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
