/* The translator's delivery of interrupts and exceptions, and IRET back, in every mode. */
#include "bt_mock.h"

#define HANDLER 0x5678u

static void gate64(unsigned vector, unsigned type, unsigned dpl, unsigned ist)
{
    put(MOCK_IDT + vector * 16, 8, mock_gate(SEL_CODE64, HANDLER, type, dpl) | (u64)ist << 32);
    put(MOCK_IDT + vector * 16 + 8, 8, 0xffffffff);
}
#define HANDLER64 0xffffffff00005678ull

static void test_long_same_level(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    gate64(14, 14, 0, 0);
    c.rip = 0x1234;
    c.gpr[RSP] = 0x8005;
    c.rflags |= FL_IF | FL_TF | FL_NT;
    assert_int_equal(deliver(&c, 14, true, 0x15, DELIVER_FAULT), MOCK_NO_FAULT);
    assert_int_equal(c.rip, HANDLER64);
    assert_int_equal(c.rflags, 2);
    assert_int_equal(c.gpr[RSP], 0x8000 - 6 * 8); /* aligned first */
    assert_int_equal(get(c.gpr[RSP], 8), 0x15);
    assert_int_equal(get(c.gpr[RSP] + 8, 8), 0x1234);
    assert_int_equal(get(c.gpr[RSP] + 16, 8), SEL_CODE64);
    assert_int_equal(get(c.gpr[RSP] + 24, 8), 2 | FL_IF | FL_TF | FL_NT | FL_RF);
    assert_int_equal(get(c.gpr[RSP] + 32, 8), 0x8005);
    assert_int_equal(get(c.gpr[RSP] + 40, 8), SEL_DATA);
    assert_int_equal(c.delivering, 0);
}

static void test_long_to_kernel_and_back(void **state)
{
    struct cpu c = mock_long(3);

    (void)state;
    gate64(0x80, 15, 3, 0);
    put(MOCK_TSS + 4, 8, MOCK_BASE64 + 0x9000);
    c.rip = 0x400000;
    c.gpr[RSP] = 0x7008;
    c.rflags |= FL_IF;
    assert_int_equal(run(&c, "cd 80"), MOCK_NO_FAULT);
    assert_int_equal(c.cpl, 0);
    assert_int_equal(c.rip, HANDLER64);
    assert_int_equal(c.seg[SEG_SS].sel, 0);
    assert_int_equal(c.seg[SEG_CS].sel, SEL_CODE64);
    assert_int_equal(c.rflags, 2 | FL_IF); /* a trap gate leaves IF */
    assert_int_equal(c.gpr[RSP], MOCK_BASE64 + 0x9000 - 40);
    assert_int_equal(get(0x9000 - 40, 8), 0x400002);
    c.seg[SEG_DS] = mock_seg(SEL_DATA, 0xc093);
    assert_int_equal(run(&c, "48 cf"), MOCK_NO_FAULT);
    assert_int_equal(c.cpl, 3);
    assert_int_equal(c.rip, 0x400002);
    assert_int_equal(c.gpr[RSP], 0x7008);
    assert_int_equal(c.seg[SEG_SS].sel, SEL_UDATA);
    assert_true(c.seg[SEG_DS].attr & SEG_ATTR_UNUSABLE); /* the kernel's, dropped */
    assert_false(c.seg[SEG_ES].attr & SEG_ATTR_UNUSABLE);
}

static void test_long_ist(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    gate64(2, 14, 0, 3);
    put(MOCK_TSS + 28 + 24, 8, 0xa000);
    c.gpr[RSP] = 0x8000;
    assert_int_equal(deliver(&c, 2, false, 0, DELIVER_NMI), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RSP], 0xa000 - 40);
    assert_int_equal(c.nmi_masked, 1);
    assert_int_equal(run(&c, "48 cf"), MOCK_NO_FAULT);
    assert_int_equal(c.nmi_masked, 0);
    assert_int_equal(c.gpr[RSP], 0x8000);
}

static void test_long_refusals(void **state)
{
    struct cpu c = mock_long(3);

    (void)state;
    gate64(0x80, 14, 0, 0);
    c.rip = 0x400000;
    assert_int_equal(run(&c, "cd 80"), VEC_GP); /* DPL */
    assert_int_equal(c.exc_error, 0x80 * 8 + 2);
    assert_int_equal(c.rip, 0x400000);
    c.idt.limit = 0x7f;
    assert_int_equal(deliver(&c, 13, true, 0, DELIVER_FAULT), VEC_GP);
    assert_int_equal(c.exc_error, 13 * 8 + 3);
    assert_int_equal(c.delivering, 14);
    c.idt.limit = 0xfff;
    put(MOCK_IDT + 13 * 16, 8, mock_gate(SEL_CODE64, HANDLER, 14, 0) & ~BIT(47));
    assert_int_equal(deliver(&c, 13, true, 0, DELIVER_FAULT), VEC_NP);
    put(MOCK_IDT + 13 * 16, 8, mock_gate(SEL_CODE32, HANDLER, 14, 0));
    assert_int_equal(deliver(&c, 13, true, 0, DELIVER_FAULT), VEC_GP); /* not 64-bit code */
    assert_int_equal(c.exc_error, SEL_CODE32 + 1);
    gate64(13, 14, 0, 0);
    put(MOCK_TSS + 4, 8, 0x0000800000001000ull);
    assert_int_equal(deliver(&c, 13, true, 0, DELIVER_FAULT), VEC_SS);
}

static void test_long_to_compat(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    c.gpr[RSP] = 0x8000;
    put(0x8000, 8, 0x11223344);
    put(0x8008, 8, SEL_UCODE32);
    put(0x8010, 8, FL_IF | FL_IOPL);
    put(0x8018, 8, 0xfff0);
    put(0x8020, 8, SEL_UDATA);
    assert_int_equal(run(&c, "48 cf"), MOCK_NO_FAULT);
    assert_int_equal(c.mode & MODE_CODE_MASK, MODE_CODE32);
    assert_int_equal(c.rip, 0x11223344);
    assert_int_equal(c.rflags, 2 | FL_IF | FL_IOPL);
    assert_int_equal(c.gpr[RSP], 0xfff0);
}

static void test_iret_refusals(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    c.gpr[RSP] = 0x8000;
    c.rflags |= FL_NT;
    assert_int_equal(run(&c, "48 cf"), VEC_GP);
    c.rflags = 2;
    put(0x8000, 8, 0x0000800000000000ull);
    put(0x8008, 8, SEL_CODE64);
    put(0x8020, 8, SEL_DATA);
    assert_int_equal(run(&c, "48 cf"), VEC_GP);
    assert_int_equal(c.exc_error, 0);
    put(0x8008, 8, SEL_ABSENT);
    assert_int_equal(run(&c, "48 cf"), VEC_GP);
    assert_int_equal(c.exc_error, SEL_ABSENT);
    assert_int_equal(c.gpr[RSP], 0x8000);
}

static void test_real(void **state)
{
    struct cpu c = mock_real();

    (void)state;
    put(0x21 * 4, 4, 0x20000100);
    c.rip = 0x10;
    c.gpr[RSP] = 0xabcd0000;
    c.seg[SEG_CS].sel = 0x100;
    c.seg[SEG_CS].base = 0x1000;
    c.rflags |= FL_IF | FL_CF;
    assert_int_equal(run(&c, "cd 21"), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x100);
    assert_int_equal(c.seg[SEG_CS].base, 0x20000);
    assert_int_equal(c.gpr[RSP], 0xabcdfffa);
    assert_int_equal(get(0xfffa, 2), 0x12);
    assert_int_equal(get(0xfffc, 2), 0x100);
    assert_int_equal(get(0xfffe, 2), 2 | FL_IF | FL_CF);
    assert_int_equal(c.rflags, 2 | FL_CF);
    assert_int_equal(run(&c, "cf"), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x12);
    assert_int_equal(c.seg[SEG_CS].base, 0x1000);
    assert_int_equal(c.gpr[RSP], 0xabcd0000);
    assert_int_equal(c.rflags, 2 | FL_IF | FL_CF);
}

static void test_protected_inner(void **state)
{
    struct cpu c = mock_protected(3);

    (void)state;
    put(MOCK_IDT + 13 * 8, 8, mock_gate(SEL_CODE32, 0x12345678, 14, 0));
    put(MOCK_TSS + 4, 4, 0x9000);
    put(MOCK_TSS + 8, 2, SEL_DATA);
    c.rip = 0x1000;
    c.gpr[RSP] = 0x7000;
    c.rflags |= FL_IF;
    assert_int_equal(deliver(&c, 13, true, 0x18, DELIVER_FAULT), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x12345678);
    assert_int_equal(c.cpl, 0);
    assert_int_equal(c.gpr[RSP], 0x9000 - 24);
    assert_int_equal(c.seg[SEG_SS].sel, SEL_DATA);
    assert_int_equal(get(0x9000 - 24, 4), 0x18);
    assert_int_equal(get(0x9000 - 8, 4), 0x7000);
    assert_int_equal(get(0x9000 - 4, 4), SEL_UDATA);
    c.gpr[RSP] += 4;
    assert_int_equal(run(&c, "cf"), MOCK_NO_FAULT);
    assert_int_equal(c.cpl, 3);
    assert_int_equal(c.rip, 0x1000);
    assert_int_equal(c.gpr[RSP], 0x7000);
    assert_int_equal(c.rflags & FL_IF, FL_IF);
}

static void test_protected_bad_stack(void **state)
{
    struct cpu c = mock_protected(3);

    (void)state;
    put(MOCK_IDT + 13 * 8, 8, mock_gate(SEL_CODE32, 0x5678, 14, 0));
    put(MOCK_TSS + 8, 2, SEL_UDATA);
    assert_int_equal(deliver(&c, 13, true, 0, DELIVER_FAULT), VEC_TS);
    assert_int_equal(c.exc_error, (SEL_UDATA & ~3) + 1);
    put(MOCK_TSS + 8, 2, 0);
    assert_int_equal(deliver(&c, 13, true, 0, DELIVER_EXTERNAL), VEC_TS);
    assert_int_equal(c.exc_error, 1);
    assert_int_equal(c.delivering, 0);
    c.tr.limit = 7;
    assert_int_equal(deliver(&c, 13, true, 0, DELIVER_FAULT), VEC_TS);
    assert_int_equal(c.exc_error, SEL_TSS + 1);
}

static void test_v86_and_back(void **state)
{
    struct cpu c = mock_protected(0);

    (void)state;
    put(MOCK_IDT + 0x21 * 8, 8, mock_gate(SEL_CODE32, 0x5678, 14, 3));
    put(MOCK_TSS + 4, 4, 0x9000);
    put(MOCK_TSS + 8, 2, SEL_DATA);
    c.gpr[RSP] = 0x8000;
    u32 frame[] = {0x10,   0x100, FL_VM | FL_IOPL | FL_IF, 0xfff0, 0x2000, 0x3000, 0x4000,
                   0x5000, 0x6000};
    memcpy(&mock_ram[0x8000], frame, sizeof(frame));
    assert_int_equal(run(&c, "cf"), MOCK_NO_FAULT);
    assert_int_equal(c.cpl, 3);
    assert_int_equal(c.rip, 0x10);
    assert_int_equal(c.seg[SEG_CS].base, 0x1000);
    assert_int_equal(c.seg[SEG_SS].base, 0x20000);
    assert_int_equal(c.seg[SEG_ES].base, 0x30000);
    assert_int_equal(c.seg[SEG_GS].base, 0x60000);
    assert_true(c.rflags & FL_VM);
    assert_int_equal(run(&c, "cd 21"), MOCK_NO_FAULT);
    assert_false(c.rflags & (FL_VM | FL_IF));
    assert_int_equal(c.cpl, 0);
    assert_int_equal(c.gpr[RSP], 0x9000 - 36);
    assert_int_equal(get(0x9000 - 4, 4), 0x6000);
    assert_int_equal(get(0x9000 - 36, 4), 0x12);
    assert_true(c.seg[SEG_DS].attr & SEG_ATTR_UNUSABLE);
    assert_int_equal(run(&c, "cf"), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x12);
    c.rflags &= ~FL_IOPL;
    assert_int_equal(run(&c, "cd 21"), VEC_GP);
}

static void test_merge(void **state)
{
    (void)state;
    assert_int_equal(deliver_merge(VEC_GP, VEC_NP), VEC_DF);
    assert_int_equal(deliver_merge(VEC_PF, VEC_PF), VEC_DF);
    assert_int_equal(deliver_merge(VEC_PF, VEC_GP), VEC_DF);
    assert_int_equal(deliver_merge(VEC_GP, VEC_PF), VEC_PF);
    assert_int_equal(deliver_merge(VEC_UD, VEC_GP), VEC_GP);
    assert_int_equal(deliver_merge(VEC_DF, VEC_GP), -1);
    assert_int_equal(deliver_merge(VEC_DF, VEC_PF), -1);
    assert_int_equal(deliver_merge(-1, VEC_PF), VEC_PF);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_long_same_level),
    cmocka_unit_test(test_long_to_kernel_and_back),
    cmocka_unit_test(test_long_ist),
    cmocka_unit_test(test_long_refusals),
    cmocka_unit_test(test_long_to_compat),
    cmocka_unit_test(test_iret_refusals),
    cmocka_unit_test(test_real),
    cmocka_unit_test(test_protected_inner),
    cmocka_unit_test(test_protected_bad_stack),
    cmocka_unit_test(test_v86_and_back),
    cmocka_unit_test(test_merge),
};
UNIT_MAIN(tests)
