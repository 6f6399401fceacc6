/* The 8259 pair, driven through its ports and the board's lines. */
#include "pc.h"

static void line(struct pc *pc, unsigned isa, bool level)
{
    struct irq irq = board_irq(pc->b, isa);

    irq_set(&irq, level);
}

static void pulse(struct pc *pc, unsigned isa)
{
    line(pc, isa, true);
    line(pc, isa, false);
}

static void specific_eoi(struct pc *pc, u16 port, u8 input)
{
    pc_outb(pc, port, 0x60 | input);
}

static void test_vector_and_eoi(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_init_pics(&pc);
    assert_false(pc_pending(&pc, 0));
    line(&pc, 4, true);
    assert_true(pc_pending(&pc, 0));
    assert_int_equal(pc_take_kicks(&pc, 0), KICK_INTR);
    assert_int_equal(pc_ack(&pc, 0), 0x24);
    assert_false(pc_pending(&pc, 0));
    line(&pc, 4, false);
    line(&pc, 4, true); /* a second edge waits for the end of the first */
    assert_false(pc_pending(&pc, 0));
    pc_outb(&pc, 0x20, 0x20);
    assert_int_equal(pc_ack(&pc, 0), 0x24);
    pc_fini(&pc);
}

static void test_priorities(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_init_pics(&pc);
    line(&pc, 5, true);
    line(&pc, 1, true);
    assert_int_equal(pc_ack(&pc, 0), 0x21);
    assert_false(pc_pending(&pc, 0)); /* 5 is lower than what is in service */
    line(&pc, 0, true);
    assert_int_equal(pc_ack(&pc, 0), 0x20); /* 0 interrupts it */
    specific_eoi(&pc, 0x20, 0);
    specific_eoi(&pc, 0x20, 1);
    assert_int_equal(pc_ack(&pc, 0), 0x25);
    pc_fini(&pc);
}

static void test_cascade(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_init_pics(&pc);
    line(&pc, 8, true);
    assert_int_equal(pc_ack(&pc, 0), 0x28);
    pc_outb(&pc, 0x20, 0x0b); /* read ISR */
    pc_outb(&pc, 0xa0, 0x0b);
    assert_int_equal(pc_inb(&pc, 0x20), 1 << 2);
    assert_int_equal(pc_inb(&pc, 0xa0), 1 << 0);
    line(&pc, 10, true);
    assert_false(pc_pending(&pc, 0));
    pc_outb(&pc, 0xa0, 0x20);
    pc_outb(&pc, 0x20, 0x20);
    assert_int_equal(pc_ack(&pc, 0), 0x2a);
    pc_fini(&pc);
}

static void test_mask_and_spurious(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_init_pics(&pc);
    pc_outb(&pc, 0x21, 0x10);
    line(&pc, 4, true);
    assert_false(pc_pending(&pc, 0));
    pc_outb(&pc, 0x20, 0x0a); /* read IRR: it waits */
    assert_int_equal(pc_inb(&pc, 0x20), 0x10);
    pc_outb(&pc, 0x21, 0x00);
    assert_true(pc_pending(&pc, 0));
    line(&pc, 4, false);                                 /* gone before the acknowledge ... */
    assert_int_equal(pic_acknowledge(&pc.b->pic), 0x27); /* ... input 7 answers */
    pc_outb(&pc, 0x20, 0x0b);
    assert_int_equal(pc_inb(&pc, 0x20), 0); /* and nothing is in service */
    pulse(&pc, 12);
    assert_false(pc_pending(&pc, 0));
    pc_fini(&pc);
}

static void test_level_input(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_init_pics(&pc);
    pc_outb(&pc, 0x4d1, 1 << 1); /* input 9 */
    assert_int_equal(pc_in(&pc, 0x4d0, 2), 0x0200);
    line(&pc, 9, true);
    assert_int_equal(pc_ack(&pc, 0), 0x29);
    pc_outb(&pc, 0xa0, 0x20);
    pc_outb(&pc, 0x20, 0x20);
    assert_int_equal(pc_ack(&pc, 0), 0x29); /* as long as the line is high */
    line(&pc, 9, false);
    pc_outb(&pc, 0xa0, 0x20);
    pc_outb(&pc, 0x20, 0x20);
    assert_false(pc_pending(&pc, 0));
    pc_outb(&pc, 0x4d0, 0xff);
    assert_int_equal(pc_inb(&pc, 0x4d0), 0xf8); /* timer, keyboard and cascade stay edges */
    pc_fini(&pc);
}

static void test_rotation(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_init_pics(&pc);
    line(&pc, 3, true);
    line(&pc, 6, true);
    assert_int_equal(pc_ack(&pc, 0), 0x23);
    pc_outb(&pc, 0x20, 0xa0); /* end, and 3 becomes the lowest */
    line(&pc, 3, false);
    line(&pc, 3, true);
    assert_int_equal(pc_ack(&pc, 0), 0x26);
    pc_outb(&pc, 0x20, 0x20);
    assert_int_equal(pc_ack(&pc, 0), 0x23);
    pc_fini(&pc);
}

static void test_poll_and_automatic_end(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_init_pics(&pc);
    pc_outb(&pc, 0x21, 0xff);
    pc_outb(&pc, 0x20, 0x0c);
    assert_int_equal(pc_inb(&pc, 0x20), 0);
    pc_outb(&pc, 0x21, 0x00);
    line(&pc, 6, true);
    pc_outb(&pc, 0x20, 0x0c);
    assert_int_equal(pc_inb(&pc, 0x20), 0x86); /* the poll acknowledges */
    assert_false(pc_pending(&pc, 0));
    pc_outb(&pc, 0x20, 0x11);
    pc_outb(&pc, 0x21, 0x40);
    pc_outb(&pc, 0x21, 0x04);
    pc_outb(&pc, 0x21, 0x03); /* automatic end of interrupt */
    pulse(&pc, 6);
    line(&pc, 5, true);
    assert_int_equal(pc_ack(&pc, 0), 0x45);
    pc_outb(&pc, 0x20, 0x0b);
    assert_int_equal(pc_inb(&pc, 0x20), 0);
    pc_fini(&pc);
}

static void test_lint0_decides(void **state)
{
    struct pc pc;

    pc_init(&pc, 2);
    pc_init_pics(&pc);
    line(&pc, 1, true);
    assert_true(pc_pending(&pc, 0));
    assert_false(pc_pending(&pc, 1)); /* wired to the first processor only */
    pc_apic_write(&pc, 0, 0x350, 0x10700);
    assert_false(pc_pending(&pc, 0));
    pc_apic_write(&pc, 0, 0x350, 0x700);
    assert_true(pc_pending(&pc, 0));
    pc_fini(&pc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vector_and_eoi),
        cmocka_unit_test(test_priorities),
        cmocka_unit_test(test_cascade),
        cmocka_unit_test(test_mask_and_spurious),
        cmocka_unit_test(test_level_input),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_poll_and_automatic_end),
        cmocka_unit_test(test_lint0_decides),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
