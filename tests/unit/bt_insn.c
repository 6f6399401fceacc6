/* The translator's decoder: fields of chosen instructions, and agreement with a full Zydis decode
 * of many. */
#include "unit.h"

#include <Zydis/Zydis.h>

#include "accel/bt/sys.h"
#include "x86/cpuid.h"

static void no_helper(struct cpu *c, const struct insn *in)
{
    (void)c;
    (void)in;
}

/* Stand-ins for the real tables, so that specials are found without their code. */
const struct sys_entry sys_system[] = {
    {ZYDIS_MNEMONIC_MOV, no_helper, true},     {ZYDIS_MNEMONIC_CALL, no_helper, true},
    {ZYDIS_MNEMONIC_JMP, no_helper, true},     {ZYDIS_MNEMONIC_RET, no_helper, true},
    {ZYDIS_MNEMONIC_SYSCALL, no_helper, true}, {ZYDIS_MNEMONIC_HLT, no_helper, true},
    {ZYDIS_MNEMONIC_CPUID, no_helper, false},  {0, NULL, false},
};
const struct sys_entry sys_legacy[] = {
    {ZYDIS_MNEMONIC_BT, no_helper, false},
    {ZYDIS_MNEMONIC_BTS, no_helper, false},
    {ZYDIS_MNEMONIC_BOUND, no_helper, false},
    {ZYDIS_MNEMONIC_LES, no_helper, false},
    {0, NULL, false},
};
const struct sys_entry sys_vector[] = {{ZYDIS_MNEMONIC_VPGATHERDD, no_helper, false},
                                       {0, NULL, false}};

static struct cpu_model everything(void)
{
    static const u32 leaves[5][2] = {{1, 0}, {7, 0}, {7, 1}, {0xd, 1}, {0x80000001, 0}};
    struct cpu_model m = {.nleaves = ARRAY_LEN(leaves)};

    for (unsigned i = 0; i < m.nleaves; i++)
        m.leaf[i] = (struct cpuid_leaf){leaves[i][0], leaves[i][1], ~0u, ~0u, ~0u, ~0u, true};
    return m;
}

static struct insn decode(unsigned mode, const char *hex)
{
    struct cpu_model m = everything();
    struct insn in;
    u8 bytes[INSN_MAX] = {0};
    unsigned n = 0, byte;
    int used;

    insn_init(&m);
    for (; sscanf(hex, "%x%n", &byte, &used) == 1; hex += used)
        bytes[n++] = (u8)byte;
    assert_int_equal(insn_decode(bytes, n, mode, &in), INSN_OK);
    assert_int_equal(in.len, n);
    return in;
}

static void test_copies_with_memory(void **state)
{
    struct insn in = decode(64, "4e 8b 6c b4 08"); /* mov r13, [rsp + r14*4 + 8] */

    assert_int_equal(in.form->cls, INSN_COPY);
    assert_int_equal(in.reg, R13);
    assert_int_equal(in.base, RSP);
    assert_int_equal(in.index, R14);
    assert_int_equal(in.scale, 4);
    assert_int_equal(in.disp, 8);
    assert_int_equal(in.seg, SEG_SS);
    assert_int_equal(in.form->mem_bytes, 8);
    assert_int_equal(in.form->mem_acc, ACC_R);
    assert_int_equal(in.form->reg_acc, ACC_W);
    (void)state;
}

static void test_narrow_and_conditional_writes_also_read(void **state)
{
    assert_int_equal(decode(64, "88 d8").form->rm_acc, ACC_RW);       /* mov al, bl */
    assert_int_equal(decode(64, "66 89 d8").form->rm_acc, ACC_RW);    /* mov ax, bx */
    assert_int_equal(decode(64, "89 d8").form->rm_acc, ACC_W);        /* mov eax, ebx */
    assert_int_equal(decode(64, "0f 44 c3").form->reg_acc, ACC_RW);   /* cmovz eax, ebx */
    assert_int_equal(decode(64, "0f bc c3").form->reg_acc, ACC_RW);   /* bsf */
    assert_int_equal(decode(64, "f3 0f bc c3").form->reg_acc, ACC_W); /* tzcnt */
    (void)state;
}

static void test_shift_counts_decide_about_flags(void **state)
{
    assert_int_equal(decode(64, "d3 e0").form->flags_r, FL_ARITH);
    assert_int_equal(decode(64, "c1 e0 01").form->flags_r, 0);
    assert_int_equal(decode(64, "c1 e0 01").form->flags_w, FL_ARITH);
    assert_int_equal(decode(64, "c1 e0 20").form->flags_w, 0);
    assert_int_equal(decode(64, "48 c1 e0 20").form->flags_w, FL_ARITH);
    (void)state;
}

static void test_bit_offsets_in_registers_are_special(void **state)
{
    assert_int_equal(decode(64, "0f a3 08").form->cls, INSN_SPECIAL); /* bt [rax], ecx */
    assert_int_equal(decode(64, "0f a3 c8").form->cls, INSN_COPY);
    assert_int_equal(decode(64, "0f ba 20 05").form->cls, INSN_COPY);
    assert_int_equal(decode(64, "f0 0f ab 08").form->cls, INSN_SPECIAL);
    (void)state;
}

static void test_far_and_system_forms_of_common_mnemonics(void **state)
{
    assert_int_equal(decode(64, "89 d8").form->cls, INSN_COPY);
    assert_int_equal(decode(64, "8e d8").form->cls, INSN_SPECIAL);
    assert_int_equal(decode(64, "0f 22 d8").form->cls, INSN_SPECIAL);
    assert_int_equal(decode(64, "ff d0").form->cls, INSN_CALL);
    assert_int_equal(decode(64, "ff 18").form->cls, INSN_SPECIAL);
    assert_int_equal(decode(32, "ea 78 56 34 12 bc 9a").imm, 0x12345678);
    assert_int_equal(decode(32, "ea 78 56 34 12 bc 9a").imm2, 0x9abc);
    (void)state;
}

static void test_vector_prefixes_outside_64_bit(void **state)
{
    assert_int_equal(decode(32, "c4 08").form->mnemonic, ZYDIS_MNEMONIC_LES);
    assert_int_equal(decode(32, "c5 f8 77").form->mnemonic, ZYDIS_MNEMONIC_VZEROUPPER);
    assert_int_equal(decode(32, "62 08").form->mnemonic, ZYDIS_MNEMONIC_BOUND);
    assert_int_equal(decode(32, "62 f1 7c 48 58 00").form->mnemonic, ZYDIS_MNEMONIC_VADDPS);
    (void)state;
}

static void test_where_processors_and_zydis_differ(void **state)
{
    struct insn in = decode(64, "f3 41 90");

    assert_int_equal(in.form->mnemonic, ZYDIS_MNEMONIC_XCHG);
    assert_int_equal(in.rep, 0);
    assert_int_equal(decode(64, "f3 90").form->cls, INSN_NOP);
    assert_int_equal(decode(64, "c4 e2 79 17 c1").form->flags_w, FL_ARITH); /* vptest */
    assert_int_equal(decode(64, "0f 18 c0").form->cls, INSN_NOP);
    assert_int_equal(decode(64, "d1 f0").form->mnemonic, ZYDIS_MNEMONIC_SHL);
    assert_int_equal(decode(64, "f6 c8 01").form->mnemonic, ZYDIS_MNEMONIC_TEST);
    assert_int_equal(decode(64, "df c1").form->cls, INSN_COPY); /* ffreep */
    assert_int_equal(decode(64, "f2 0f 2c 00").form->need, NEED_SSE);
    (void)state;
}

static void test_16_bit_code_in_64_bit_code(void **state)
{
    assert_true(decode(16, "01 d8").form->flip_66);
    assert_true(decode(16, "66 01 d8").form->flip_66);
    assert_false(decode(16, "00 d8").form->flip_66);
    assert_false(decode(16, "0f ae f0").form->flip_66);
    assert_false(decode(16, "66 0f 6f c1").form->flip_66);
    assert_false(decode(32, "01 d8").form->flip_66);
    assert_int_equal(decode(32, "c4 e1 f9 6e c0").rex_w, 0); /* vmovd: W is ignored */
    assert_int_equal(decode(32, "82 00 01").opcode, 0x80);
    assert_int_equal(decode(64, "82 00").form->cls, INSN_INVALID);
    (void)state;
}

static void test_16_bit_addressing(void **state)
{
    struct insn in = decode(16, "8b 42 fe"); /* mov ax, [bp + si - 2] */

    assert_int_equal(in.base, RBP);
    assert_int_equal(in.index, RSI);
    assert_int_equal(in.disp, -2);
    assert_int_equal(in.seg, SEG_SS);
    assert_int_equal(in.opsize, 2);
    assert_int_equal(in.addrsize, 2);
    (void)state;
}

static void test_short_and_long_input(void **state)
{
    struct cpu_model m = everything();
    struct insn in;
    u8 prefixes[INSN_MAX];

    insn_init(&m);
    memset(prefixes, 0x66, sizeof(prefixes));
    assert_int_equal(insn_decode(prefixes, 15, 64, &in), INSN_TOO_LONG);
    assert_int_equal(insn_decode(prefixes, 14, 64, &in), INSN_TRUNCATED);
    assert_int_equal(insn_decode((const u8[]){0x0f}, 1, 64, &in), INSN_TRUNCATED);
    assert_int_equal(insn_decode((const u8[]){0xe8, 0, 0, 0}, 4, 64, &in), INSN_TRUNCATED);
    (void)state;
}

static void test_what_the_model_lacks_does_not_exist(void **state)
{
    struct cpu_model m = everything();
    struct insn in;

    m.leaf[0].ecx &= ~(u32)BIT(28); /* AVX */
    m.leaf[4].ecx &= ~(u32)BIT(5);  /* LZCNT */
    insn_init(&m);
    assert_int_equal(insn_decode((const u8[]){0xc5, 0xf8, 0x77}, 3, 64, &in), INSN_OK);
    assert_int_equal(in.form->cls, INSN_INVALID);
    assert_int_equal(insn_decode((const u8[]){0xf3, 0x0f, 0xbd, 0xc3}, 4, 64, &in), INSN_OK);
    assert_int_equal(in.form->mnemonic, ZYDIS_MNEMONIC_BSR);
    assert_int_equal(in.rep, 0);
    (void)state;
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_copies_with_memory),
    cmocka_unit_test(test_narrow_and_conditional_writes_also_read),
    cmocka_unit_test(test_shift_counts_decide_about_flags),
    cmocka_unit_test(test_bit_offsets_in_registers_are_special),
    cmocka_unit_test(test_far_and_system_forms_of_common_mnemonics),
    cmocka_unit_test(test_vector_prefixes_outside_64_bit),
    cmocka_unit_test(test_where_processors_and_zydis_differ),
    cmocka_unit_test(test_16_bit_code_in_64_bit_code),
    cmocka_unit_test(test_16_bit_addressing),
    cmocka_unit_test(test_short_and_long_input),
    cmocka_unit_test(test_what_the_model_lacks_does_not_exist),
};

UNIT_MAIN(tests)
