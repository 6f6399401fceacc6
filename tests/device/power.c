/* Whatever ends or restarts the machine, and the small ports: ACPI, i8042, port 0x92, pvpanic, debug ports. */
#include "pc.h"

#define PM MEMMAP_PORT_PM

static bool irq9(struct pc *pc)
{
    pc_outb(pc, 0xa0, 0x0a);
    return pc_inb(pc, 0xa0) & 2;
}

static void expect(struct pc *pc, enum machine_event event, int value)
{
    assert_int_equal(pc->nevents, 1);
    assert_int_equal(pc->events[0].event, event);
    assert_int_equal(pc->events[0].value, value);
    pc->nevents = 0;
}

static void test_poweroff(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    assert_int_equal(pc_in(&pc, PM + 4, 2), 1); /* SCI_EN: ACPI is on */
    pc_out(&pc, PM + 4, 2, 0x2000 | 3 << 10);   /* a sleep state there is not */
    assert_int_equal(pc.nevents, 0);
    pc_out(&pc, PM + 4, 2, 5 << 10);
    assert_int_equal(pc.nevents, 0);
    pc_out(&pc, PM + 4, 2, 0x2000 | 5 << 10);
    expect(&pc, MACHINE_POWEROFF, 0);
    assert_int_equal(pc_in(&pc, PM + 4, 2), 5 << 10 | 1);
    pc_fini(&pc);
}

static void test_reset_register(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_outb(&pc, PM + 12, 1);
    assert_int_equal(pc.nevents, 0);
    pc_outb(&pc, PM + 12, 6);
    expect(&pc, MACHINE_RESET, 0);
    pc_fini(&pc);
}

static void test_power_button(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    board_power_button(pc.b);
    assert_false(irq9(&pc));
    pc_out(&pc, PM + 2, 2, 0x100);
    assert_true(irq9(&pc));
    assert_int_equal(pc_in(&pc, PM, 2), 0x100);
    pc_out(&pc, PM, 2, 0x100); /* write one to clear */
    assert_false(irq9(&pc));
    assert_int_equal(pc_in(&pc, PM, 4), 0x01000000);
    pc_fini(&pc);
}

static void test_pm_timer(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    assert_int_equal(pc_in(&pc, PM + 8, 4), 0);
    pc_step(&pc, NS_PER_S);
    assert_int_equal(pc_in(&pc, PM + 8, 4), 3579545);
    pc_out(&pc, PM + 2, 2, 1);
    pc_step(&pc, 600 * NS_PER_S); /* bit 31 flips after 599.9 s */
    assert_true(irq9(&pc));
    pc_out(&pc, PM, 2, 1);
    assert_false(irq9(&pc));
    pc_fini(&pc);
}

static void test_i8042(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    assert_int_equal(pc_inb(&pc, 0x64) & 0x03, 0);
    pc_outb(&pc, 0x64, 0xaa);
    assert_int_equal(pc_inb(&pc, 0x64) & 1, 1);
    assert_int_equal(pc_inb(&pc, 0x60), 0x55);
    pc_outb(&pc, 0x64, 0xab);
    assert_int_equal(pc_inb(&pc, 0x60), 0x00);
    pc_outb(&pc, 0x64, 0x60);
    pc_outb(&pc, 0x60, 0x45);
    pc_outb(&pc, 0x64, 0x20);
    assert_int_equal(pc_inb(&pc, 0x60), 0x45);
    pc_outb(&pc, 0x60, 0xf2);
    assert_int_equal(pc_inb(&pc, 0x60), 0xfa);
    assert_int_equal(pc_inb(&pc, 0x60), 0xab);
    assert_int_equal(pc_inb(&pc, 0x60), 0x83);
    pc_outb(&pc, 0x64, 0xd3); /* no mouse port: nothing is looped back */
    pc_outb(&pc, 0x60, 0x5a);
    assert_int_equal(pc_inb(&pc, 0x64) & 1, 0);
    for (unsigned i = 0; i < 1000; i++)
        pc_outb(&pc, 0x60, 0xff); /* more answers than anyone reads */
    pc_outb(&pc, 0x64, 0xfe);
    expect(&pc, MACHINE_RESET, 0);
    pc_fini(&pc);
}

static void test_port92(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    assert_int_equal(pc_inb(&pc, 0x92), 0x02); /* A20 is on */
    pc_outb(&pc, 0x92, 0x00);
    assert_int_equal(pc_inb(&pc, 0x92), 0x00);
    pc_outb(&pc, 0x92, 0x03);
    expect(&pc, MACHINE_RESET, 0);
    pc_fini(&pc);
}

static void test_reset_control(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_out(&pc, 0xcf8, 4, 0x80000004); /* the address register is another one, in the same place */
    pc_outb(&pc, 0xcf9, 0x02);
    assert_int_equal(pc.nevents, 0);
    assert_int_equal(pc_inb(&pc, 0xcf9), 0x02);
    pc_outb(&pc, 0xcf9, 0x06);
    expect(&pc, MACHINE_RESET, 0);
    assert_int_equal(pc_in(&pc, 0xcf8, 4), 0x80000004);
    board_reset(pc.b);
    assert_int_equal(pc_inb(&pc, 0xcf9), 0);
    pc_fini(&pc);
}

static void test_panic_and_debug_ports(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    assert_int_equal(pc_inb(&pc, 0x505), 3);
    pc_outb(&pc, 0x505, 1);
    expect(&pc, MACHINE_PANIC, 0);
    pc_outb(&pc, 0x505, 2);
    expect(&pc, MACHINE_CRASH_KERNEL, 0);
    pc_outb(&pc, 0x505, 0x80);
    assert_int_equal(pc.nevents, 0);
    pc_out(&pc, 0xf4, 4, 0x10);
    expect(&pc, MACHINE_DEBUG_EXIT, 0x21);
    pc_outb(&pc, 0xf4, 0xff);
    expect(&pc, MACHINE_DEBUG_EXIT, 0xff);
    pc_outb(&pc, 0x402, 'o');
    pc_outb(&pc, 0x402, 'k');
    assert_memory_equal(pc.debug, "ok", 2);
    pc_outb(&pc, 0x80, 0x55);
    assert_int_equal(pc_inb(&pc, 0x80), 0xff);
    pc_fini(&pc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_poweroff),      cmocka_unit_test(test_reset_register),
        cmocka_unit_test(test_power_button),  cmocka_unit_test(test_pm_timer),
        cmocka_unit_test(test_i8042),         cmocka_unit_test(test_port92),
        cmocka_unit_test(test_reset_control), cmocka_unit_test(test_panic_and_debug_ports),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
