/* The I/O APIC: redirection entries, lines, ends of interrupts. */
#include "pc.h"

#define MASKED 0x10000u
#define LEVEL 0x8000u
#define REMOTE_IRR 0x4000u

static void entry(struct pc *pc, unsigned pin, u32 dest, u32 low)
{
    pc_ioapic_write(pc, 0x11 + 2 * pin, dest << 24);
    pc_ioapic_write(pc, 0x10 + 2 * pin, low);
}

static void line(struct pc *pc, unsigned gsi, bool level)
{
    struct irq irq = board_irq(pc->b, gsi);

    irq_set(&irq, level);
}

static void test_registers(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    assert_int_equal(pc_ioapic_read(&pc, 1), 0x170020);
    for (u32 i = 0; i < 24; i++)
        assert_int_equal(pc_ioapic_read(&pc, 0x10 + 2 * i), MASKED);
    pc_ioapic_write(&pc, 0x10, 0xffffffff);
    assert_int_equal(pc_ioapic_read(&pc, 0x10), 0x1afff); /* read-only bits stay clear */
    pc_ioapic_write(&pc, 0, 0x0f000000);
    assert_int_equal(pc_ioapic_read(&pc, 0), 0x0f000000);
    assert_int_equal(pc_ioapic_read(&pc, 0x40), 0xffffffff);
    pc_ioapic_write(&pc, 0x40, 5);
    pc_fini(&pc);
}

static void test_edge(void **state)
{
    struct pc pc;

    pc_init(&pc, 2);
    pc_enable_apics(&pc);
    entry(&pc, 4, 1, 0x34);
    line(&pc, 4, true);
    assert_int_equal(pc_ack(&pc, 1), 0x34);
    pc_eoi(&pc, 1);
    assert_false(pc_pending(&pc, 1)); /* a line that stays high is no edge */
    line(&pc, 4, false);
    line(&pc, 4, true);
    assert_int_equal(pc_ack(&pc, 1), 0x34);
    pc_eoi(&pc, 1);
    entry(&pc, 4, 1, MASKED | 0x34);
    line(&pc, 4, false);
    line(&pc, 4, true);
    entry(&pc, 4, 1, 0x34);
    assert_false(pc_pending(&pc, 1)); /* an edge while masked is lost */
    pc_fini(&pc);
}

static void test_level(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_enable_apics(&pc);
    entry(&pc, 17, 0, LEVEL | 0x41);
    line(&pc, 17, true);
    line(&pc, 17, true);
    assert_int_equal(pc_ioapic_read(&pc, 0x10 + 2 * 17), LEVEL | REMOTE_IRR | 0x41);
    assert_int_equal(pc_ack(&pc, 0), 0x41);
    assert_false(pc_pending(&pc, 0)); /* not again before its end */
    pc_eoi(&pc, 0);
    assert_int_equal(pc_ack(&pc, 0), 0x41); /* the line is still high */
    line(&pc, 17, false);
    pc_eoi(&pc, 0);
    assert_false(pc_pending(&pc, 0));
    assert_int_equal(pc_ioapic_read(&pc, 0x10 + 2 * 17), LEVEL | 0x41);
    pc_fini(&pc);
}

static void test_level_masked(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_enable_apics(&pc);
    entry(&pc, 18, 0, MASKED | LEVEL | 0x42);
    line(&pc, 18, true);
    assert_false(pc_pending(&pc, 0));
    entry(&pc, 18, 0, LEVEL | 0x42); /* a level waits */
    assert_int_equal(pc_ack(&pc, 0), 0x42);
    entry(&pc, 18, 0, MASKED | LEVEL | 0x42);
    pc_eoi(&pc, 0);
    assert_false(pc_pending(&pc, 0));
    entry(&pc, 18, 0, LEVEL | 0x42);
    assert_true(pc_pending(&pc, 0));
    pc_fini(&pc);
}

static void test_directed_end(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_enable_apics(&pc);
    pc_apic_write(&pc, 0, 0xf0, 0x11ff); /* no broadcasts */
    entry(&pc, 19, 0, LEVEL | 0x43);
    line(&pc, 19, true);
    assert_int_equal(pc_ack(&pc, 0), 0x43);
    pc_eoi(&pc, 0);
    assert_false(pc_pending(&pc, 0));
    aspace_write(board_mmio(pc.b), MEMMAP_IOAPIC + 0x40, 4, 0x43);
    assert_int_equal(pc_ack(&pc, 0), 0x43);
    pc_fini(&pc);
}

static void test_nobody_there(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_enable_apics(&pc);
    entry(&pc, 20, 7, LEVEL | 0x44);
    line(&pc, 20, true); /* not accepted, so nothing is remembered */
    assert_int_equal(pc_ioapic_read(&pc, 0x10 + 2 * 20), LEVEL | 0x44);
    entry(&pc, 20, 0, LEVEL | 0x44);
    assert_int_equal(pc_ack(&pc, 0), 0x44);
    pc_fini(&pc);
}

/* Interrupt 0 of the ISA bus is pin 2, and the 8259s see it too. */
static void test_routing(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_enable_apics(&pc);
    entry(&pc, 2, 0, 0x30);
    entry(&pc, 0, 0, 0x50);
    line(&pc, 0, true);
    assert_int_equal(pc_ack(&pc, 0), 0x30);
    pc_eoi(&pc, 0);
    assert_false(pc_pending(&pc, 0));
    pc_outb(&pc, 0x20, 0x0a);
    assert_int_equal(pc_inb(&pc, 0x20) & 1, 1);
    pc_fini(&pc);
}

static void test_reset(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_enable_apics(&pc);
    entry(&pc, 5, 0, 0x35);
    line(&pc, 5, true);
    assert_true(pc_pending(&pc, 0));
    board_reset(pc.b);
    assert_false(pc_pending(&pc, 0));
    assert_int_equal(pc_ioapic_read(&pc, 0x10 + 2 * 5), MASKED);
    assert_int_equal(pc_apic_read(&pc, 0, 0xf0), 0xff);
    pc_fini(&pc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registers),    cmocka_unit_test(test_edge),
        cmocka_unit_test(test_level),        cmocka_unit_test(test_level_masked),
        cmocka_unit_test(test_directed_end), cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_routing),      cmocka_unit_test(test_reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
