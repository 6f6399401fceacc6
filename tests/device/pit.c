/* The interval timer, driven through its ports; interrupt 0 is watched at the 8259. */
#include "pc.h"

#define TICK_NS 838.0955 /* of 1.193182 MHz */

static s64 ticks(unsigned n)
{
    return (s64)(n * TICK_NS) + 1;
}

static void program(struct pc *pc, u8 control, u16 count)
{
    u16 port = 0x40 + (control >> 6);

    pc_outb(pc, 0x43, control);
    pc_outb(pc, port, (u8)count);
    pc_outb(pc, port, (u8)(count >> 8));
}

static u16 latched(struct pc *pc, unsigned channel)
{
    u8 low;

    pc_outb(pc, 0x43, (u8)(channel << 6));
    low = pc_inb(pc, (u16)(0x40 + channel));
    return (u16)(low | pc_inb(pc, (u16)(0x40 + channel)) << 8);
}

/* Was there an interrupt? Ends it. */
static bool fired(struct pc *pc)
{
    if (!pc_pending(pc, 0))
        return false;
    assert_int_equal(pc_ack(pc, 0), 0x20);
    pc_outb(pc, 0x20, 0x20);
    return true;
}

static void test_rate_generator(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_init_pics(&pc);
    program(&pc, 0x34, 11932); /* 100 Hz */
    fired(&pc);                /* the output goes high with the control word */
    for (unsigned i = 1; i <= 5; i++) {
        pc_step(&pc, ticks(11932 * i) - 10000 - timerq_now(&pc.q));
        assert_false(fired(&pc));
        pc_step(&pc, 20000);
        assert_true(fired(&pc));
    }
    pc_fini(&pc);
}

static void test_terminal_count(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_init_pics(&pc);
    program(&pc, 0x30, 1000);
    assert_false(fired(&pc));
    pc_step(&pc, ticks(900));
    assert_false(fired(&pc));
    assert_in_range(latched(&pc, 0), 98, 101);
    pc_step(&pc, ticks(101));
    assert_true(fired(&pc));
    pc_step(&pc, NS_PER_S); /* once */
    assert_false(fired(&pc));
    program(&pc, 0x30, 1000);
    pc_step(&pc, ticks(1001));
    assert_true(fired(&pc));
    pc_fini(&pc);
}

static void test_counts(void **state)
{
    struct pc pc;
    u8 low;

    pc_init(&pc, 1);
    program(&pc, 0xb4, 10000); /* channel 2, rate */
    pc_outb(&pc, 0x61, 1);
    pc_step(&pc, ticks(2500));
    assert_in_range(latched(&pc, 2), 7498, 7501);
    program(&pc, 0xb6, 10000); /* square wave: twice as fast */
    pc_step(&pc, ticks(1000));
    assert_in_range(latched(&pc, 2), 7996, 8001);
    program(&pc, 0xb1, 0x2000); /* BCD, terminal count */
    pc_step(&pc, ticks(500));
    assert_in_range(latched(&pc, 2), 0x1498, 0x1501);
    pc_outb(&pc, 0x43, 0x80); /* a latch holds its value ... */
    low = pc_inb(&pc, 0x42);
    pc_step(&pc, ticks(400));
    assert_in_range(pc_inb(&pc, 0x42) << 8 | low, 0x1498, 0x1501);
    pc_fini(&pc);
}

static void test_read_back(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    program(&pc, 0xb0, 100);
    pc_outb(&pc, 0x61, 1);
    pc_outb(&pc, 0x43, 0xe8);                  /* status of channel 2 */
    assert_int_equal(pc_inb(&pc, 0x42), 0x30); /* output low, loaded, word access, mode 0 */
    pc_step(&pc, ticks(101));
    pc_outb(&pc, 0x43, 0xe8);
    assert_int_equal(pc_inb(&pc, 0x42), 0xb0);
    assert_int_equal(pc_inb(&pc, 0x43), 0xff);
    pc_fini(&pc);
}

static void test_port61(void **state)
{
    struct pc pc;
    u8 first;

    pc_init(&pc, 1);
    pc_outb(&pc, 0x61, 0x01);
    program(&pc, 0xb0, 1193);
    assert_int_equal(pc_inb(&pc, 0x61) & 0x21, 0x01);
    pc_step(&pc, 500000);
    assert_int_equal(pc_inb(&pc, 0x61) & 0x20, 0);
    pc_step(&pc, 500000);
    assert_int_equal(pc_inb(&pc, 0x61) & 0x20, 0x20); /* what calibration loops wait for */
    first = pc_inb(&pc, 0x61) & 0x10;
    assert_int_not_equal(pc_inb(&pc, 0x61) & 0x10, first); /* refresh toggles */
    pc_fini(&pc);
}

/* hostile.md 36: a period of nothing does not keep the host busy. */
static void test_storm(void **state)
{
    struct pc pc;
    unsigned n = 0;

    pc_init(&pc, 1);
    pc_init_pics(&pc);
    for (unsigned count = 0; count < 3; count++) {
        program(&pc, 0x34, (u16)count);
        for (unsigned i = 0; i < 100; i++) {
            pc_step(&pc, 10000);
            n += fired(&pc);
        }
    }
    assert_in_range(n, 1, 60);
    pc_fini(&pc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rate_generator), cmocka_unit_test(test_terminal_count),
        cmocka_unit_test(test_counts),         cmocka_unit_test(test_read_back),
        cmocka_unit_test(test_port61),         cmocka_unit_test(test_storm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
