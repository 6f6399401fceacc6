/*
 * Helpers on vector state, against the host's own instructions on the same registers and memory: gathers, masked moves, and
 * the areas of FXSAVE and XSAVE. The registers are set and read in `with_registers`, around nothing but the helper.
 */
#include "bt_mock.h"

#define AT 0x10000 /* of the memory operand; the base register's value */

static u8 ymm[3][32] __attribute__((aligned(32))); /* data (ymm1), mask (ymm2), index (ymm3) */
static sys_fn *helper;

#define SET_REGISTERS                         \
    __asm__ volatile("vmovdqu %0, %%ymm1\n\t" \
                     "vmovdqu %1, %%ymm2\n\t" \
                     "vmovdqu %2, %%ymm3"     \
                     :                        \
                     : "m"(ymm[0]), "m"(ymm[1]), "m"(ymm[2]))
#define GET_REGISTERS                         \
    __asm__ volatile("vmovdqu %%ymm1, %0\n\t" \
                     "vmovdqu %%ymm2, %1"     \
                     : "=m"(ymm[0]), "=m"(ymm[1]))

static void with_registers(struct cpu *c, const struct insn *in)
{
    SET_REGISTERS;
    helper(c, in);
    GET_REGISTERS;
}

static struct cpu machine(void)
{
    struct cpu c = mock_long(0);

    if (!(mock_model.xcr0_mask & 4))
        UNIT_SKIP("this host has no AVX2");
    c.cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
    c.xcr0 = 7;
    for (unsigned i = 0; i < 0x2000; i++)
        mock_ram[AT - 0x1000 + i] = (u8)(i * 13 + 5);
    c.gpr[RAX] = AT;
    c.gpr[RDI] = AT;
    return c;
}

static void set_inputs(void)
{
    static const s32 index[8] = {0, -3, 17, 100, -200, 5, 6, 77};

    memset(ymm, 0x5a, sizeof(ymm));
    for (unsigned i = 0; i < 32; i++)
        ymm[1][i] = (u8)(i * 37);
    memcpy(ymm[2], index, sizeof(index));
}

static void run_helper(struct cpu *c, const char *hex)
{
    struct insn in = mock_decode(c, hex);

    assert_non_null(in.form->sys);
    helper = in.form->sys;
    assert_int_equal(mock_execute(c, &in, with_registers), MOCK_NO_FAULT);
}

/* The same instruction on the host with rax = rdi = the memory's address; registers compared afterwards. */
#define DIFFERS(hex, text)                                               \
    do {                                                                 \
        struct cpu c = machine();                                        \
        static u8 want[2][32], left[0x2000];                             \
        void *at = &mock_ram[AT];                                        \
        set_inputs();                                                    \
        SET_REGISTERS;                                                   \
        __asm__ volatile(text : : "a"(at), "D"(at) : "memory");          \
        GET_REGISTERS;                                                   \
        memcpy(want, ymm, sizeof(want));                                 \
        memcpy(left, &mock_ram[AT - 0x1000], sizeof(left));              \
        c = machine();                                                   \
        set_inputs();                                                    \
        run_helper(&c, hex);                                             \
        assert_memory_equal(ymm, want, sizeof(want));                    \
        assert_memory_equal(left, &mock_ram[AT - 0x1000], sizeof(left)); \
    } while (0)

static void test_gathers(void **state)
{
    (void)state;
    machine();
    DIFFERS("c4 e2 6d 90 0c 98", "vpgatherdd %%ymm2, (%%rax,%%ymm3,4), %%ymm1");
    DIFFERS("c4 e2 69 90 0c 98", "vpgatherdd %%xmm2, (%%rax,%%xmm3,4), %%xmm1");
    DIFFERS("c4 e2 ed 90 0c 58", "vpgatherdq %%ymm2, (%%rax,%%xmm3,2), %%ymm1");
    DIFFERS("c4 e2 ed 92 4c 18 08", "vgatherdpd %%ymm2, 8(%%rax,%%xmm3,1), %%ymm1");
}

static void test_gathers_by_quadwords(void **state)
{
    struct cpu c = machine();
    s64 index[4] = {-40, 2, 33, 1000};
    u32 want[4];

    (void)state;
    set_inputs();
    memcpy(ymm[2], index, sizeof(index));
    memset(ymm[1], 0xff, sizeof(ymm[1]));
    for (unsigned i = 0; i < 4; i++)
        want[i] = (u32)get(AT + (u64)index[i], 4);
    run_helper(&c, "c4 e2 6d 91 0c 18"); /* vpgatherqd xmm1, [rax+ymm3], xmm2 */
    assert_memory_equal(ymm[0], want, 16);
    for (unsigned i = 16; i < 32; i++)
        assert_int_equal(ymm[0][i], 0);
}

static void test_gather_fault(void **state)
{
    struct cpu c = machine();
    struct insn in = mock_decode(&c, "c4 e2 6d 90 0c 98");

    (void)state;
    set_inputs();
    mock_hole = AT - 0x1000;
    helper = in.form->sys;
    assert_int_equal(mock_execute(&c, &in, with_registers), VEC_PF);
}

static void test_masked_moves(void **state)
{
    (void)state;
    machine();
    DIFFERS("c4 e2 6d 2c 08", "vmaskmovps (%%rax), %%ymm2, %%ymm1");
    DIFFERS("c4 e2 69 2d 08", "vmaskmovpd (%%rax), %%xmm2, %%xmm1");
    DIFFERS("c4 e2 6d 2e 08", "vmaskmovps %%ymm1, %%ymm2, (%%rax)");
    DIFFERS("c4 e2 ed 8e 08", "vpmaskmovq %%ymm1, %%ymm2, (%%rax)");
    DIFFERS("c4 e2 ed 8c 08", "vpmaskmovq (%%rax), %%ymm2, %%ymm1");
    DIFFERS("66 0f f7 ca", "maskmovdqu %%xmm2, %%xmm1");
}

static void test_masked_move_does_not_touch(void **state)
{
    struct cpu c = machine();

    (void)state;
    set_inputs();
    memset(ymm[1], 0, sizeof(ymm[1]));
    ymm[1][3] = 0x80; /* the first element only; the rest lies in a hole */
    mock_hole = AT;
    c.gpr[RAX] = AT - 4;
    run_helper(&c, "c4 e2 6d 2c 08");
    assert_memory_equal(ymm[0], &mock_ram[AT - 4], 4);
}

/* --- saved areas --- */

static void test_fxsave(void **state)
{
    struct cpu c = machine();
    struct insn save = mock_decode(&c, "48 0f ae 00"), restore = mock_decode(&c, "48 0f ae 08");

    (void)state;
    set_inputs();
    put(AT + 8, 8, ~0ull);
    helper = save.form->sys;
    assert_int_equal(mock_execute(&c, &save, with_registers), MOCK_NO_FAULT);
    assert_memory_equal(&mock_ram[AT + 160 + 16], ymm[0], 16);
    assert_int_equal(get(AT + 8, 8), 0);                         /* nothing of the host */
    assert_int_equal(get(AT + 24, 4) & ~0x3full, 0x1f80);        /* but for sticky bits */
    assert_int_equal(mock_ram[AT + 511], (u8)(0x11ff * 13 + 5)); /* the software's part */
    memset(&mock_ram[AT + 160 + 16], 0x77, 16);
    helper = restore.form->sys;
    assert_int_equal(mock_execute(&c, &restore, with_registers), MOCK_NO_FAULT);
    assert_int_equal(ymm[0][15], 0x77);
    put(AT + 24, 4, 0x11f80);
    assert_int_equal(mock_execute(&c, &restore, restore.form->sys), VEC_GP);
    c.gpr[RAX] = AT + 8;
    assert_int_equal(mock_execute(&c, &restore, restore.form->sys), VEC_GP);
    c.cr0 |= CR0_TS;
    assert_int_equal(mock_execute(&c, &save, save.form->sys), VEC_NM);
}

static void xsave_and_back(const char *save_hex)
{
    struct cpu c = machine();
    struct insn save = mock_decode(&c, save_hex), restore = mock_decode(&c, "48 0f ae 2f");
    u8 want[32];

    set_inputs();
    memcpy(want, ymm[0], sizeof(want));
    memset(&mock_ram[AT], 0, 1024);
    c.gpr[RAX] = 7;
    c.gpr[RDX] = 0;
    c.gpr[RDI] = AT;
    helper = save.form->sys;
    assert_int_equal(mock_execute(&c, &save, with_registers), MOCK_NO_FAULT);
    assert_int_equal(get(AT + 512, 8) & 6, 6);
    assert_memory_equal(&mock_ram[AT + 576 + 16], &want[16], 16);
    memset(ymm, 0, sizeof(ymm));
    helper = restore.form->sys;
    assert_int_equal(mock_execute(&c, &restore, with_registers), MOCK_NO_FAULT);
    assert_memory_equal(ymm[0], want, sizeof(want));
    put(AT + 512, 8, 1); /* AVX and SSE in their initial state */
    memset(ymm, 0x33, sizeof(ymm));
    assert_int_equal(mock_execute(&c, &restore, with_registers), MOCK_NO_FAULT);
    assert_int_equal(ymm[0][0] | ymm[0][31], 0);
}

static void test_xsave(void **state)
{
    (void)state;
    machine();
    xsave_and_back("48 0f ae 27"); /* xsave64 [rdi] */
    xsave_and_back("48 0f ae 37"); /* xsaveopt64 */
    xsave_and_back("48 0f c7 27"); /* xsavec64 */
}

static void test_xsave_keeps_the_rest(void **state)
{
    struct cpu c = machine();

    (void)state;
    set_inputs();
    memset(&mock_ram[AT], 0xee, 1024);
    c.gpr[RAX] = 4; /* AVX only */
    put(AT + 512, 8, 3);
    struct insn save = mock_decode(&c, "48 0f ae 27");
    helper = save.form->sys;
    assert_int_equal(mock_execute(&c, &save, with_registers), MOCK_NO_FAULT);
    assert_int_equal(get(AT, 8), 0xeeeeeeeeeeeeeeeeull);
    assert_int_equal(get(AT + 160, 8), 0xeeeeeeeeeeeeeeeeull);
    assert_int_equal(get(AT + 512, 8), 7);
    assert_int_equal(get(AT + 520, 8), 0xeeeeeeeeeeeeeeeeull);
}

static void test_xrstor_header(void **state)
{
    struct cpu c = machine();

    (void)state;
    c.gpr[RAX] = 7;
    memset(&mock_ram[AT], 0, 1024);
    put(AT + 24, 4, 0x1f80);
    put(AT + 512, 8, 8); /* not in XCR0 */
    assert_int_equal(run(&c, "48 0f ae 2f"), VEC_GP);
    put(AT + 512, 8, 0);
    put(AT + 536, 8, 1);
    assert_int_equal(run(&c, "48 0f ae 2f"), VEC_GP);
    put(AT + 536, 8, 0);
    put(AT + 520, 8, BIT(63) | 3);
    put(AT + 512, 8, 7);
    assert_int_equal(run(&c, "48 0f ae 2f"), VEC_GP);
    put(AT + 520, 8, 0);
    put(AT + 24, 4, BIT(20));
    assert_int_equal(run(&c, "48 0f ae 2f"), VEC_GP);
    c.gpr[RDI] = AT + 32;
    assert_int_equal(run(&c, "48 0f ae 2f"), VEC_GP);
    c.cr4 &= ~CR4_OSXSAVE;
    assert_int_equal(run(&c, "48 0f ae 2f"), VEC_UD);
}

static void test_x87_environment(void **state)
{
    struct cpu c = machine();

    (void)state;
    __asm__ volatile("fninit; fld1; fldpi");
    assert_int_equal(run(&c, "dd 37"), MOCK_NO_FAULT); /* fnsave [rdi] */
    __asm__ volatile("fninit");
    assert_int_equal(get(AT, 2), 0x37f);
    assert_int_equal(get(AT + 12, 8), 0);
    assert_int_equal(get(AT + 20, 4) & 0xffff, 0);
    assert_int_equal(get(AT + 28 + 10 + 8, 2), 0x3fff); /* ST1 = 1.0 */
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_gathers),
    cmocka_unit_test(test_gathers_by_quadwords),
    cmocka_unit_test(test_gather_fault),
    cmocka_unit_test(test_masked_moves),
    cmocka_unit_test(test_masked_move_does_not_touch),
    cmocka_unit_test(test_fxsave),
    cmocka_unit_test(test_xsave),
    cmocka_unit_test(test_xsave_keeps_the_rest),
    cmocka_unit_test(test_xrstor_header),
    cmocka_unit_test(test_x87_environment),
};
UNIT_MAIN(tests)
