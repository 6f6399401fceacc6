/*
 * Instructions of older modes and the stack: decimal adjustment against a table made by hand, frames, PUSHA, wide compare and
 * exchange, bit strings, flags.
 */
#include "bt_mock.h"

static u64 flags_of(struct cpu *c)
{
    return c->rflags & (FL_CF | FL_AF | FL_ZF | FL_SF | FL_PF);
}

static void adjust(const char *hex, u16 ax, u64 flags, u16 want_ax, u64 want_flags)
{
    struct cpu c = mock_protected(0);

    c.gpr[RAX] = ax;
    c.rflags |= flags;
    assert_int_equal(run(&c, hex), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RAX], want_ax);
    assert_int_equal(flags_of(&c), want_flags);
}

static void test_decimal(void **state)
{
    struct cpu c = mock_protected(0);

    (void)state;
    adjust("27", 0x7d, 0, 0x83, FL_AF | FL_SF);
    adjust("27", 0x9a, 0, 0x00, FL_AF | FL_CF | FL_ZF | FL_PF);
    adjust("27", 0x12, FL_AF | FL_CF, 0x78, FL_AF | FL_CF | FL_PF);
    adjust("2f", 0x47, FL_AF, 0x41, FL_AF | FL_PF);
    adjust("2f", 0x05, FL_AF, 0xff, FL_AF | FL_CF | FL_SF | FL_PF);
    adjust("37", 0x010b, 0, 0x0201, FL_AF | FL_CF);
    adjust("3f", 0x020f, 0, 0x0109, FL_AF | FL_CF | FL_PF);
    adjust("d4 0a", 0x0053, 0, 0x0803, FL_PF);
    adjust("d5 0a", 0x0803, 0, 0x0053, FL_PF);
    assert_int_equal(run(&c, "d4 00"), VEC_DE);
}

static void test_bound_and_xlat(void **state)
{
    struct cpu c = mock_protected(0);

    (void)state;
    put(0x8000, 4, (u32)-5);
    put(0x8004, 4, 10);
    c.gpr[RBX] = 0x8000;
    c.gpr[RAX] = (u32)-5;
    assert_int_equal(run(&c, "62 03"), MOCK_NO_FAULT);
    c.gpr[RAX] = 11;
    assert_int_equal(run(&c, "62 03"), VEC_BR);
    mock_ram[0x800b] = 0x99;
    assert_int_equal(run(&c, "d7"), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RAX], 0x99);
}

static void test_pusha(void **state)
{
    struct cpu c = mock_protected(0);
    u64 saved[8];

    (void)state;
    for (unsigned i = 0; i < 8; i++)
        c.gpr[i] = 0x1000 * (i + 1);
    memcpy(saved, c.gpr, sizeof(saved));
    assert_int_equal(run(&c, "60"), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RSP], saved[RSP] - 32);
    assert_int_equal(get(saved[RSP] - 4, 4), saved[RAX]);
    assert_int_equal(get(saved[RSP] - 20, 4), saved[RSP]);
    for (unsigned i = 0; i < 8; i++)
        if (i != RSP)
            c.gpr[i] = 0;
    assert_int_equal(run(&c, "61"), MOCK_NO_FAULT);
    assert_memory_equal(c.gpr, saved, sizeof(saved));
    mock_hole = 0x4000;
    c.gpr[RSP] = 0x5010; /* the fifth push faults: nothing has happened */
    assert_int_equal(run(&c, "60"), VEC_PF);
    assert_int_equal(c.gpr[RSP], 0x5010);
}

static void test_enter_leave(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    c.gpr[RSP] = 0x9000;
    c.gpr[RBP] = 0x8800;
    put(0x8800 - 8, 8, 0x1111);
    assert_int_equal(run(&c, "c8 20 00 02"), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RBP], 0x9000 - 8);
    assert_int_equal(c.gpr[RSP], 0x9000 - 24 - 0x20);
    assert_int_equal(get(0x9000 - 8, 8), 0x8800);
    assert_int_equal(get(0x9000 - 16, 8), 0x1111);
    assert_int_equal(get(0x9000 - 24, 8), 0x9000 - 8);
    assert_int_equal(run_with(&c, "c9", sys_leave), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RSP], 0x9000);
    assert_int_equal(c.gpr[RBP], 0x8800);
}

static void test_stack16(void **state)
{
    struct cpu c = mock_real();

    (void)state;
    c.seg[SEG_SS].base = 0x20000;
    c.gpr[RSP] = 0x12340004;
    c.gpr[RAX] = 0xaaaabbbb;
    assert_int_equal(run_with(&c, "66 50", sys_push), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RSP], 0x12340000);
    assert_int_equal(run_with(&c, "50", sys_push), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RSP], 0x1234fffe);
    assert_int_equal(get(0x2fffe, 2), 0xbbbb);
    c.rip = 0xfffd;
    assert_int_equal(run_with(&c, "e8 10 00", sys_call), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x10); /* IP wraps */
    assert_int_equal(get(0x2fffc, 2), 0);
    assert_int_equal(run_with(&c, "c3", sys_ret), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0);
    c.gpr[RSP] = 0xffff;
    assert_int_equal(run_with(&c, "58", sys_pop), VEC_SS); /* beyond the limit */
}

static void test_pop_to_memory(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    c.gpr[RSP] = 0x8000;
    put(0x8000, 8, 0x1234);
    assert_int_equal(run_with(&c, "8f 04 24", sys_pop), MOCK_NO_FAULT);
    assert_int_equal(get(0x8008, 8), 0x1234);
    assert_int_equal(c.gpr[RSP], 0x8008);
    mock_hole = 0x9000;
    c.gpr[RAX] = 0x9000;
    assert_int_equal(run_with(&c, "8f 00", sys_pop), VEC_PF);
    assert_int_equal(c.gpr[RSP], 0x8008);
}

static void test_loop(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    c.rip = 0x100;
    c.gpr[RCX] = 2;
    assert_int_equal(run_with(&c, "e2 fe", sys_loop), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x100);
    assert_int_equal(run_with(&c, "e2 fe", sys_loop), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x102);
    assert_int_equal(run_with(&c, "e3 10", sys_loop), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x114);
    c.gpr[RCX] = 5;
    c.rflags |= FL_ZF;
    assert_int_equal(run_with(&c, "e0 10", sys_loop), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x116);
    assert_int_equal(run_with(&c, "e1 10", sys_loop), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x128);
    assert_int_equal(run_with(&c, "7f 10", sys_jcc), MOCK_NO_FAULT); /* not above: ZF */
    assert_int_equal(c.rip, 0x12a);
}

static void check_cmpxchg16b(struct cpu *c)
{
    put(0x8000, 8, 1);
    put(0x8008, 8, 2);
    c->gpr[RDI] = 0x8000;
    c->gpr[RAX] = 1;
    c->gpr[RDX] = 2;
    c->gpr[RBX] = 3;
    c->gpr[RCX] = 4;
    assert_int_equal(run(c, "f0 48 0f c7 0f"), MOCK_NO_FAULT);
    assert_true(c->rflags & FL_ZF);
    assert_int_equal(get(0x8000, 8), 3);
    assert_int_equal(get(0x8008, 8), 4);
    assert_int_equal(run(c, "f0 48 0f c7 0f"), MOCK_NO_FAULT);
    assert_false(c->rflags & FL_ZF);
    assert_int_equal(c->gpr[RAX], 3);
    assert_int_equal(c->gpr[RDX], 4);
}

static void test_cmpxchg_wide(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    check_cmpxchg16b(&c);
    mock_slow = 0x8000;
    check_cmpxchg16b(&c);
    c.gpr[RDI] = 0x8008;
    assert_int_equal(run(&c, "f0 48 0f c7 0f"), VEC_GP);
    put(0x9000, 8, 0x1111111122222222ull);
    c.gpr[RDI] = 0x9000;
    c.gpr[RAX] = c.gpr[RDX] = 0;
    assert_int_equal(run(&c, "0f c7 0f"), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RAX], 0x22222222);
    assert_int_equal(c.gpr[RDX], 0x11111111);
}

static void test_bits(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    c.gpr[RAX] = 0x8000;
    c.gpr[RCX] = (u64)-9;
    assert_int_equal(run(&c, "f0 48 0f ab 08"), MOCK_NO_FAULT);
    assert_int_equal(mock_ram[0x7ffe], 0x80);
    assert_false(c.rflags & FL_CF);
    assert_int_equal(run(&c, "48 0f a3 08"), MOCK_NO_FAULT);
    assert_true(c.rflags & FL_CF);
    mock_slow = 0x7000;
    assert_int_equal(run(&c, "f0 48 0f bb 08"), MOCK_NO_FAULT);
    assert_int_equal(mock_ram[0x7ffe], 0);
    c.gpr[RCX] = 1000;
    assert_int_equal(run(&c, "0f ab 08"), MOCK_NO_FAULT);
    assert_int_equal(mock_ram[0x8000 + 125], 1);
}

static void test_flags(void **state)
{
    struct cpu c = mock_long(3);

    (void)state;
    c.gpr[RSP] = 0x8000;
    put(0x8000, 8, FL_IF | FL_IOPL | FL_CF | FL_VM | FL_RF | FL_AC);
    assert_int_equal(run(&c, "9d"), MOCK_NO_FAULT);
    assert_int_equal(c.rflags, 2 | FL_CF | FL_AC);
    assert_int_equal(run(&c, "fa"), VEC_GP);
    assert_int_equal(run(&c, "f4"), VEC_GP);
    assert_int_equal(run(&c, "0f 01 cb"), VEC_UD);
    c.cpl = 0;
    assert_int_equal(run(&c, "fb"), MOCK_NO_FAULT);
    assert_int_equal(c.shadow, 1);
    assert_int_equal(run(&c, "f4"), MOCK_NO_FAULT);
    assert_int_equal(c.activity, X86_HALTED);
    c.rflags |= FL_RF;
    assert_int_equal(run(&c, "9c"), MOCK_NO_FAULT);
    assert_int_equal(get(c.gpr[RSP], 8), 2 | FL_CF | FL_AC | FL_IF);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_decimal), cmocka_unit_test(test_bound_and_xlat),
    cmocka_unit_test(test_pusha),   cmocka_unit_test(test_enter_leave),
    cmocka_unit_test(test_stack16), cmocka_unit_test(test_pop_to_memory),
    cmocka_unit_test(test_loop),    cmocka_unit_test(test_cmpxchg_wide),
    cmocka_unit_test(test_bits),    cmocka_unit_test(test_flags),
};
UNIT_MAIN(tests)
