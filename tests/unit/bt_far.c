/* Segment registers, far transfers through every kind of descriptor, task switches, system calls. */
#include "bt_mock.h"

static void test_loads(void **state)
{
    struct cpu c = mock_protected(0);

    (void)state;
    c.gpr[RAX] = SEL_DATA16;
    assert_int_equal(run(&c, "8e d8"), MOCK_NO_FAULT);
    assert_int_equal(c.seg[SEG_DS].base, 0x10000);
    assert_int_equal(c.seg[SEG_DS].limit, 0xffff);
    assert_int_equal(get(MOCK_GDT + SEL_DATA16 + 5, 1), 0x93); /* accessed */
    c.gpr[RAX] = SEL_ABSENT;
    assert_int_equal(run(&c, "8e d8"), VEC_NP);
    assert_int_equal(c.exc_error, SEL_ABSENT);
    assert_int_equal(run(&c, "8e d0"), VEC_SS);
    c.gpr[RAX] = 0x1f0;
    assert_int_equal(run(&c, "8e d8"), VEC_GP);
    assert_int_equal(c.exc_error, 0x1f0);
    c.gpr[RAX] = SEL_DATA | 4; /* no LDT */
    assert_int_equal(run(&c, "8e d8"), VEC_GP);
    c.gpr[RAX] = SEL_DATA | 3; /* RPL above DPL */
    assert_int_equal(run(&c, "8e d8"), VEC_GP);
    c.gpr[RAX] = 3;
    assert_int_equal(run(&c, "8e d8"), MOCK_NO_FAULT);
    assert_true(c.seg[SEG_DS].attr & SEG_ATTR_UNUSABLE);
    assert_int_equal(run(&c, "8e d0"), VEC_GP); /* null SS */
    c.gpr[RBX] = 0x8000;
    assert_int_equal(run_with(&c, "ff 33", sys_push), VEC_GP); /* through the null DS */
    assert_int_equal(c.seg[SEG_DS].sel, 3);
}

static void test_ss_shadow(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    c.gpr[RAX] = 0; /* null is fine for 64-bit code below CPL 3 */
    assert_int_equal(run(&c, "8e d0"), MOCK_NO_FAULT);
    assert_int_equal(c.shadow, 2);
}

static void test_unreal(void **state)
{
    struct cpu c = mock_real();

    (void)state;
    c.seg[SEG_DS].limit = 0xffffffff;
    c.gpr[RAX] = 0x1234;
    assert_int_equal(run(&c, "8e d8"), MOCK_NO_FAULT);
    assert_int_equal(c.seg[SEG_DS].base, 0x12340);
    assert_int_equal(c.seg[SEG_DS].limit, 0xffffffff);
}

static void test_looking(void **state)
{
    struct cpu c = mock_protected(3);

    (void)state;
    c.gpr[RAX] = SEL_UDATA;
    assert_int_equal(run(&c, "0f 02 c8"), MOCK_NO_FAULT);
    assert_true(c.rflags & FL_ZF);
    assert_int_equal(c.gpr[RCX], 0xcff200);
    assert_int_equal(run(&c, "0f 03 c8"), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RCX], 0xffffffff);
    c.gpr[RAX] = SEL_DATA;
    assert_int_equal(run(&c, "0f 00 e0"), MOCK_NO_FAULT);
    assert_false(c.rflags & FL_ZF);
    c.gpr[RAX] = SEL_UCODE32;
    assert_int_equal(run(&c, "0f 00 e8"), MOCK_NO_FAULT);
    assert_false(c.rflags & FL_ZF);
    c.gpr[RAX] = 0x10;
    c.gpr[RDX] = 3;
    assert_int_equal(run(&c, "63 d0"), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RAX], 0x13);
}

static void test_dtables(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    put(0x8000, 2, 0x1ff);
    put(0x8002, 8, MOCK_BASE64 + 0x1000);
    c.gpr[RAX] = 0x8000;
    assert_int_equal(run(&c, "0f 01 18"), MOCK_NO_FAULT);
    assert_int_equal(c.idt.limit, 0x1ff);
    assert_int_equal(c.idt.base, MOCK_BASE64 + 0x1000);
    c.gpr[RAX] = 0x8100;
    assert_int_equal(run(&c, "0f 01 08"), MOCK_NO_FAULT);
    assert_int_equal(get(0x8100, 2), 0x1ff);
    assert_int_equal(get(0x8102, 8), MOCK_BASE64 + 0x1000);
    put(MOCK_GDT + SEL_TSS, 8, mock_desc(MOCK_TSS, 0x67, 0x89));
    put(MOCK_GDT + SEL_TSS + 8, 8, 0xffff8000);
    c.gpr[RAX] = SEL_TSS;
    assert_int_equal(run(&c, "0f 00 d8"), MOCK_NO_FAULT);
    assert_int_equal(c.tr.base, 0xffff800000000000ull + MOCK_TSS);
    assert_int_equal(get(MOCK_GDT + SEL_TSS + 5, 1), 0x8b);
    assert_int_equal(run(&c, "0f 00 d8"), VEC_GP); /* busy */
    c.cpl = 3;
    c.cr4 |= CR4_UMIP;
    assert_int_equal(run(&c, "0f 00 c8"), VEC_GP);
}

static void test_far_code(void **state)
{
    struct cpu c = mock_protected(0);

    (void)state;
    c.gpr[RSP] = 0x8000;
    assert_int_equal(run(&c, "9a 44 33 22 11 18 00"), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x11223344);
    assert_int_equal(get(0x7ff8, 4), 7);
    assert_int_equal(get(0x7ffc, 4), SEL_CODE32);
    assert_int_equal(run(&c, "ca 04 00"), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 7);
    assert_int_equal(c.gpr[RSP], 0x8004);
    assert_int_equal(run(&c, "ea 00 01 00 00 38 00"), MOCK_NO_FAULT); /* to 16-bit code */
    assert_int_equal(c.mode & MODE_CODE_MASK, MODE_CODE16);
    assert_int_equal(run(&c, "ea 00 01 10 00"), VEC_GP); /* a data segment */
    assert_int_equal(run(&c, "ea 00 01 20 00"), VEC_GP); /* an outer one */
}

static void test_far_to_long(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    c.seg[SEG_CS] = mock_seg(SEL_CODE32, 0xc09b);
    assert_int_equal(run(&c, "ea 00 01 00 00 08 00"), MOCK_NO_FAULT);
    assert_int_equal(c.mode & MODE_CODE_MASK, MODE_CODE64);
    put(0x8000, 8, 0xffff800012345678ull);
    put(0x8008, 2, SEL_CODE64);
    c.gpr[RAX] = 0x8000;
    assert_int_equal(run(&c, "48 ff 28"), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0xffff800012345678ull);
}

static void test_conforming(void **state)
{
    struct cpu c = mock_protected(3);

    (void)state;
    assert_int_equal(run(&c, "ea 00 01 00 00 50 00"), MOCK_NO_FAULT);
    assert_int_equal(c.seg[SEG_CS].sel, SEL_CONFORMING | 3);
    assert_int_equal(c.cpl, 3);
}

static void test_call_gate(void **state)
{
    struct cpu c = mock_protected(3);

    (void)state;
    put(MOCK_GDT + SEL_GATE, 8, mock_gate(SEL_CODE32, 0x12345678, 12, 3) | 2ull << 32);
    put(MOCK_TSS + 4, 4, 0x9000);
    put(MOCK_TSS + 8, 2, SEL_DATA);
    c.gpr[RSP] = 0x8000;
    put(0x8000, 4, 0x1111);
    put(0x8004, 4, 0x2222);
    c.rip = 0x100;
    assert_int_equal(run(&c, "9a 00 00 00 00 73 00"), MOCK_NO_FAULT);
    assert_int_equal(c.cpl, 0);
    assert_int_equal(c.rip, 0x12345678);
    assert_int_equal(c.gpr[RSP], 0x9000 - 24);
    u32 frame[] = {0x107, SEL_UCODE32, 0x1111, 0x2222, 0x8000, SEL_UDATA};
    assert_memory_equal(&mock_ram[0x9000 - 24], frame, sizeof(frame));
    assert_int_equal(run(&c, "ca 08 00"), MOCK_NO_FAULT);
    assert_int_equal(c.cpl, 3);
    assert_int_equal(c.rip, 0x107);
    assert_int_equal(c.gpr[RSP], 0x8008);
    assert_int_equal(c.seg[SEG_SS].sel, SEL_UDATA);
    assert_int_equal(run(&c, "ea 00 00 00 00 73 00"), VEC_GP); /* JMP cannot go inward */
}

static void test_call_gate_64(void **state)
{
    struct cpu c = mock_long(3);

    (void)state;
    put(MOCK_GDT + SEL_GATE, 8, mock_gate(SEL_CODE64, 0x12345678, 12, 3));
    put(MOCK_GDT + SEL_GATE + 8, 8, 0xffff8000);
    put(MOCK_TSS + 4, 8, 0x9000);
    put(0x8000, 8, 0);
    put(0x8004, 2, SEL_GATE | 3);
    c.gpr[RAX] = 0x8000;
    c.gpr[RSP] = 0x7000;
    assert_int_equal(run(&c, "ff 18"), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0xffff800012345678ull);
    assert_int_equal(c.gpr[RSP], 0x9000 - 32);
    assert_int_equal(c.seg[SEG_SS].sel, 0);
    assert_int_equal(get(0x9000 - 8, 8), SEL_UDATA);
    assert_int_equal(run(&c, "48 cb"), MOCK_NO_FAULT);
    assert_int_equal(c.cpl, 3);
    assert_int_equal(c.gpr[RSP], 0x7000);
}

/* --- tasks --- */

static void make_task(u32 tss, u32 rip)
{
    put(tss + 0x20, 4, rip);
    put(tss + 0x24, 4, 2);
    put(tss + 0x28, 4, 0xa0a0a0a0);  /* EAX */
    put(tss + 0x28 + 16, 4, 0x9000); /* ESP */
    put(tss + 0x48, 4, SEL_DATA);    /* ES */
    put(tss + 0x4c, 4, SEL_CODE32);  /* CS */
    put(tss + 0x50, 4, SEL_DATA);    /* SS */
    put(tss + 0x54, 4, SEL_DATA16);  /* DS */
}

static struct cpu two_tasks(void)
{
    struct cpu c = mock_protected(0);

    put(MOCK_GDT + SEL_TSS, 8, mock_desc(MOCK_TSS, 0x67, 0x8b));
    put(MOCK_GDT + SEL_TSS2, 8, mock_desc(0x4000, 0x67, 0x89));
    put(MOCK_GDT + SEL_TASK_GATE, 8, mock_gate(SEL_TSS2, 0, 5, 0));
    make_task(0x4000, 0x5000);
    c.rip = 0x100;
    c.gpr[RAX] = 0x1234;
    return c;
}

static void test_task_call_and_back(void **state)
{
    struct cpu c = two_tasks();

    (void)state;
    assert_int_equal(run(&c, "9a 00 00 00 00 80 00"), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x5000);
    assert_int_equal(c.gpr[RAX], 0xa0a0a0a0);
    assert_int_equal(c.gpr[RSP], 0x9000);
    assert_int_equal(c.seg[SEG_DS].base, 0x10000);
    assert_int_equal(c.tr.sel, SEL_TSS2);
    assert_true(c.rflags & FL_NT);
    assert_true(c.cr0 & CR0_TS);
    assert_int_equal(get(0x4000, 2), SEL_TSS);
    assert_int_equal(get(MOCK_TSS + 0x20, 4), 0x107);
    assert_int_equal(get(MOCK_GDT + SEL_TSS2 + 5, 1), 0x8b);
    assert_int_equal(run(&c, "cf"), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x107);
    assert_int_equal(c.gpr[RAX], 0x1234);
    assert_int_equal(c.tr.sel, SEL_TSS);
    assert_false(c.rflags & FL_NT);
    assert_int_equal(get(MOCK_GDT + SEL_TSS2 + 5, 1), 0x89);
    assert_int_equal(get(MOCK_GDT + SEL_TSS + 5, 1), 0x8b);
}

static void test_task_gate_fault(void **state)
{
    struct cpu c = two_tasks();

    (void)state;
    put(MOCK_IDT + 8 * 8, 8,
        mock_gate(SEL_TSS2, 0, 5, 0)); /* double faults have a task of their own */
    assert_int_equal(deliver(&c, VEC_DF, true, 0, DELIVER_FAULT), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x5000);
    assert_int_equal(c.gpr[RSP], 0x9000 - 4);
    assert_int_equal(get(MOCK_TSS + 0x20, 4), 0x100);
}

static void test_task_refusals(void **state)
{
    struct cpu c = two_tasks();

    (void)state;
    assert_int_equal(run(&c, "ea 00 00 00 00 60 00"), VEC_GP); /* busy */
    put(MOCK_GDT + SEL_TSS2, 8, mock_desc(0x4000, 0x66, 0x89));
    assert_int_equal(run(&c, "ea 00 00 00 00 88 00"), VEC_TS);
    assert_int_equal(c.tr.sel, SEL_TSS);
    put(MOCK_GDT + SEL_TSS2, 8, mock_desc(0x4000, 0x67, 0x89));
    put(0x4000 + 0x50, 4, SEL_UDATA); /* the new task's own fault */
    assert_int_equal(run(&c, "ea 00 00 00 00 88 00"), VEC_TS);
    assert_int_equal(c.tr.sel, SEL_TSS2);
    assert_int_equal(c.rip, 0x5000);
    assert_int_equal(c.exc_error, SEL_UDATA & ~3);
}

/* --- system calls --- */

static void test_syscall(void **state)
{
    struct cpu c = mock_long(3);

    (void)state;
    c.msr.star = (u64)0x23 << 48 | (u64)SEL_CODE64 << 32;
    c.msr.lstar = 0xffff800000001000ull;
    c.msr.sfmask = FL_IF | FL_TF;
    c.rip = 0x1000;
    c.rflags |= FL_IF | FL_RF | FL_CF;
    assert_int_equal(run(&c, "0f 05"), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0xffff800000001000ull);
    assert_int_equal(c.gpr[RCX], 0x1002);
    assert_int_equal(c.gpr[R11], 2 | FL_IF | FL_CF);
    assert_int_equal(c.rflags, 2 | FL_CF);
    assert_int_equal(c.cpl, 0);
    assert_int_equal(c.seg[SEG_SS].sel, SEL_CODE64 + 8);
    assert_int_equal(run(&c, "48 0f 07"), MOCK_NO_FAULT);
    assert_int_equal(c.rip, 0x1002);
    assert_int_equal(c.cpl, 3);
    assert_int_equal(c.seg[SEG_CS].sel, 0x33);
    assert_int_equal(c.rflags, 2 | FL_IF | FL_CF);
    assert_int_equal(run(&c, "0f 07"), VEC_GP);
    c.cpl = 0;
    c.gpr[RCX] = 0x0000800000000000ull;
    assert_int_equal(run(&c, "48 0f 07"), VEC_GP);
    c.msr.efer &= ~EFER_SCE;
    assert_int_equal(run(&c, "0f 05"), VEC_UD);
}

static void test_control_registers(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    c.gpr[RAX] = c.cr0 & ~CR0_PG;
    assert_int_equal(run(&c, "0f 22 c0"), VEC_GP); /* 64-bit code cannot turn paging off */
    c.gpr[RAX] = c.cr0 | CR0_NW;
    assert_int_equal(run(&c, "0f 22 c0"), VEC_GP);
    c.gpr[RAX] = BIT(23);
    assert_int_equal(run(&c, "0f 22 e0"), VEC_GP);
    c.gpr[RAX] = CR4_PAE | CR4_PCIDE;
    assert_int_equal(run(&c, "0f 22 e0"), MOCK_NO_FAULT);
    c.gpr[RAX] = BIT(63) | 0x5001;
    assert_int_equal(run(&c, "0f 22 d8"), MOCK_NO_FAULT);
    assert_int_equal(c.cr3, 0x5001);
    c.gpr[RCX] = 0xc0000080;
    c.gpr[RAX] = EFER_SCE;
    c.gpr[RDX] = 0;
    assert_int_equal(run(&c, "0f 30"), VEC_GP); /* LME while paging */
    c.gpr[RCX] = 0x12345;
    assert_int_equal(run(&c, "0f 32"), VEC_GP);
    c.gpr[RCX] = 0xc0000100;
    c.gpr[RDX] = 0x8000;
    assert_int_equal(run(&c, "0f 30"), VEC_GP);
    c.dr7 |= BIT(13);
    assert_int_equal(run(&c, "0f 21 c0"), VEC_DB);
    assert_true(c.dr6 & BIT(13));
    c.cpl = 3;
    assert_int_equal(run(&c, "0f 20 c0"), VEC_GP);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_loads),
    cmocka_unit_test(test_ss_shadow),
    cmocka_unit_test(test_unreal),
    cmocka_unit_test(test_looking),
    cmocka_unit_test(test_dtables),
    cmocka_unit_test(test_far_code),
    cmocka_unit_test(test_far_to_long),
    cmocka_unit_test(test_conforming),
    cmocka_unit_test(test_call_gate),
    cmocka_unit_test(test_call_gate_64),
    cmocka_unit_test(test_task_call_and_back),
    cmocka_unit_test(test_task_gate_fault),
    cmocka_unit_test(test_task_refusals),
    cmocka_unit_test(test_syscall),
    cmocka_unit_test(test_control_registers),
};
UNIT_MAIN(tests)
