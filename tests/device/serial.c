/* The 16550A at COM1; the test is guest, host and the peer's terminal. */
#include "pc.h"

enum { DATA = 0x3f8, IER, IIR, LCR, MCR, LSR, MSR, SCR };

static bool irq4(struct pc *pc)
{
    pc_outb(pc, 0x20, 0x0a);
    return pc_inb(pc, 0x20) & 0x10;
}

static size_t type(struct pc *pc, const char *text)
{
    return pc->console.front.receive(pc->console.front.opaque, (const u8 *)text, strlen(text));
}

static void test_probe(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    assert_int_equal(pc_inb(&pc, LSR), 0x60);
    assert_int_equal(pc_inb(&pc, IIR), 0x01);
    pc_outb(&pc, SCR, 0xa5);
    assert_int_equal(pc_inb(&pc, SCR), 0xa5);
    pc_outb(&pc, IIR, 0x01);
    assert_int_equal(pc_inb(&pc, IIR), 0xc1); /* a 16550A: FIFOs that work */
    pc_outb(&pc, LCR, 0x83);
    pc_outb(&pc, DATA, 1);
    pc_outb(&pc, IER, 0);
    assert_int_equal(pc_in(&pc, DATA, 2), 1); /* the divisor, as one access */
    pc_outb(&pc, LCR, 0x03);
    assert_int_equal(pc_inb(&pc, IER), 0);
    assert_int_equal(pc_inb(&pc, MSR), 0xb0);
    pc_fini(&pc);
}

static void test_transmit(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_outb(&pc, IIR, 0x01);
    for (const char *s = "hello"; *s; s++)
        pc_outb(&pc, DATA, (u8)*s);
    assert_memory_equal(pc.out, "hello", 5);
    assert_false(irq4(&pc));
    pc_outb(&pc, IER, 0x02); /* enabling the interrupt reports the empty transmitter */
    assert_true(irq4(&pc));
    assert_int_equal(pc_inb(&pc, IIR), 0xc2);
    assert_false(irq4(&pc)); /* reading the cause ends it */
    pc_outb(&pc, DATA, '!');
    assert_true(irq4(&pc));
    pc_fini(&pc);
}

static void test_full_console(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_outb(&pc, IIR, 0x01);
    pc.room = 2;
    for (const char *s = "abcdef"; *s; s++)
        pc_outb(&pc, DATA, (u8)*s);
    assert_int_equal(pc.nout, 2);
    assert_int_equal(pc_inb(&pc, LSR) & 0x60, 0); /* the guest sees that it must wait */
    pc_outb(&pc, IER, 0x02);
    assert_false(irq4(&pc));
    pc.room = 100;
    pc.console.front.writable(pc.console.front.opaque);
    assert_memory_equal(pc.out, "abcdef", 6); /* nothing is lost */
    assert_int_equal(pc_inb(&pc, LSR) & 0x60, 0x60);
    assert_true(irq4(&pc));
    pc_fini(&pc);
}

static void test_receive_without_fifo(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_outb(&pc, IER, 0x01);
    assert_int_equal(type(&pc, "xy"), 1); /* one at a time */
    assert_true(irq4(&pc));
    assert_int_equal(pc_inb(&pc, IIR), 0x04);
    assert_int_equal(pc_inb(&pc, LSR) & 1, 1);
    assert_int_equal(pc_inb(&pc, DATA), 'x');
    assert_int_equal(pc.accepts, 1); /* and the host hears that there is room */
    assert_false(irq4(&pc));
    assert_int_equal(pc_inb(&pc, DATA), 0);
    pc_fini(&pc);
}

static void test_fifo_trigger_and_timeout(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_outb(&pc, IER, 0x01);
    pc_outb(&pc, IIR, 0x81); /* trigger at 8 */
    assert_int_equal(type(&pc, "1234567"), 7);
    assert_false(irq4(&pc));
    pc_step(&pc, 400000); /* less than four characters at 115200 */
    assert_false(irq4(&pc));
    pc_step(&pc, 100000);
    assert_true(irq4(&pc));
    assert_int_equal(pc_inb(&pc, IIR), 0xcc);
    assert_int_equal(pc_inb(&pc, DATA), '1');
    assert_false(irq4(&pc)); /* the time starts anew */
    assert_int_equal(type(&pc, "89"), 2);
    assert_int_equal(pc_inb(&pc, IIR), 0xc4);
    for (const char *s = "23456789"; *s; s++)
        assert_int_equal(pc_inb(&pc, DATA), (u8)*s);
    assert_int_equal(pc_inb(&pc, LSR) & 1, 0);
    assert_int_equal(type(&pc, "0123456789abcdefgh"), 16);
    pc_outb(&pc, IIR, 0x83); /* clear */
    assert_int_equal(pc_inb(&pc, LSR) & 1, 0);
    assert_true(pc.accepts > 0);
    pc_fini(&pc);
}

static void test_loopback(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_outb(&pc, MCR, 0x1a); /* loop, OUT2, RTS: how Linux probes */
    assert_int_equal(pc_inb(&pc, MSR) & 0xf0, 0x90);
    pc_outb(&pc, DATA, 'L');
    assert_int_equal(pc.nout, 0);
    assert_int_equal(type(&pc, "h"), 0); /* the line is cut */
    assert_int_equal(pc_inb(&pc, DATA), 'L');
    pc_outb(&pc, DATA, 'a');
    pc_outb(&pc, DATA, 'b');
    assert_int_equal(pc_inb(&pc, LSR) & 0x03, 0x03); /* overrun */
    assert_int_equal(pc_inb(&pc, LSR) & 0x02, 0);
    pc_outb(&pc, MCR, 0x10);
    assert_int_equal(pc_inb(&pc, MSR), 0x09); /* CTS and DCD went */
    assert_int_equal(pc_inb(&pc, MSR), 0x00);
    pc_outb(&pc, MCR, 0x14);
    pc_inb(&pc, MSR);
    pc_outb(&pc, MCR, 0x10);
    assert_int_equal(pc_inb(&pc, MSR), 0x04); /* ring: the trailing edge counts */
    pc_outb(&pc, LCR, 0x43);
    assert_int_equal(pc_inb(&pc, LSR) & 0x11, 0x11); /* a break */
    pc_fini(&pc);
}

static void test_line_and_modem_interrupts(void **state)
{
    struct pc pc;

    pc_init(&pc, 1);
    pc_outb(&pc, IER, 0x0c);
    pc_outb(&pc, MCR, 0x10);
    assert_int_equal(pc_inb(&pc, IIR), 0x00); /* all modem lines fell */
    assert_true(irq4(&pc));
    pc_outb(&pc, DATA, 'a');
    pc_outb(&pc, DATA, 'b');
    assert_int_equal(pc_inb(&pc, IIR), 0x06); /* overrun comes first */
    pc_inb(&pc, LSR);
    assert_int_equal(pc_inb(&pc, IIR), 0x00);
    pc_inb(&pc, MSR);
    assert_int_equal(pc_inb(&pc, IIR), 0x01);
    assert_false(irq4(&pc));
    pc_fini(&pc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_transmit),
        cmocka_unit_test(test_full_console),
        cmocka_unit_test(test_receive_without_fifo),
        cmocka_unit_test(test_fifo_trigger_and_timeout),
        cmocka_unit_test(test_loopback),
        cmocka_unit_test(test_line_and_modem_interrupts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
