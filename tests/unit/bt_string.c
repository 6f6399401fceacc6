/*
 * String instructions: results against a byte-by-byte model, with overlap, both directions, page ends, pages without host
 * pointer; registers at faults and at interruption.
 */
#include "bt_mock.h"

static u8 before[MOCK_RAM];

static void fill(u64 at, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        mock_ram[at + i] = (u8)(i * 7 + 3);
}

/* What REP MOVS does, one byte or element at a time. */
static void model_movs(u64 src, u64 dst, u64 n, unsigned size, bool down)
{
    for (u64 i = 0; i < n; i++) {
        u64 off = down ? 0 - i * size : i * size;
        memmove(&before[dst + off], &before[src + off], size);
    }
}

static void check_movs(u64 src, u64 dst, u64 n, unsigned size, bool down)
{
    static const char *const hex[] = {
        [1] = "f3 a4", [2] = "66 f3 a5", [4] = "f3 a5", [8] = "f3 48 a5"};
    struct cpu c = mock_long(0);
    u64 bytes = n * size;

    fill(0x10000, 0x10000);
    mock_slow = 0x15000;
    memcpy(before, mock_ram, sizeof(before));
    c.gpr[RSI] = src;
    c.gpr[RDI] = dst;
    c.gpr[RCX] = n;
    c.rflags |= down ? FL_DF : 0;
    assert_int_equal(run_with(&c, hex[size], sys_string), MOCK_NO_FAULT);
    model_movs(src, dst, n, size, down);
    assert_memory_equal(before, mock_ram, sizeof(before));
    assert_int_equal(c.gpr[RCX], 0);
    assert_int_equal(c.gpr[RSI], down ? src - bytes : src + bytes);
    assert_int_equal(c.gpr[RDI], down ? dst - bytes : dst + bytes);
    assert_int_equal(c.rip_set, false);
}

static void test_movs(void **state)
{
    static const s64 apart[] = {1, 2, 3, 8, 64, 0x1000, 0x2003, -1, -3, -8, -0x1001};

    (void)state;
    for (unsigned size = 1; size <= 8; size *= 2)
        for (unsigned i = 0; i < ARRAY_LEN(apart); i++) {
            check_movs(0x14ff1, 0x14ff1 + (u64)apart[i], 700, size, false);
            check_movs(0x15ff1, 0x15ff1 + (u64)apart[i], 700, size, true);
        }
    check_movs(0x18000, 0x12000, 64, 1, false);
}

static void test_movs_fault(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    fill(0x10000, 0x4000);
    mock_hole = 0x21000;
    c.rip = 0x77;
    c.gpr[RSI] = 0x10010;
    c.gpr[RDI] = 0x20ff8;
    c.gpr[RCX] = 100;
    assert_int_equal(run_with(&c, "f3 a4", sys_string), VEC_PF);
    assert_int_equal(c.cr2, 0x21000);
    assert_int_equal(c.gpr[RCX], 92);
    assert_int_equal(c.gpr[RSI], 0x10018);
    assert_int_equal(c.gpr[RDI], 0x21000);
    assert_int_equal(c.rip, 0x77);
    assert_memory_equal(&mock_ram[0x20ff8], &mock_ram[0x10010], 8);
}

static void test_fault_going_down(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    mock_hole = 0x20000;
    c.rflags |= FL_DF;
    c.gpr[RSI] = 0x30100;
    c.gpr[RDI] = 0x21007;
    c.gpr[RCX] = 100;
    assert_int_equal(run_with(&c, "f3 a4", sys_string), VEC_PF);
    assert_int_equal(c.cr2, 0x20fff);
    assert_int_equal(c.gpr[RCX], 92);
    assert_int_equal(c.gpr[RDI], 0x20fff);
}

static void test_interrupted(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    c.rip = 0x77;
    c.gpr[RSI] = 0x10000;
    c.gpr[RDI] = 0x20000;
    c.gpr[RCX] = 0x3000;
    c.events = 1;
    assert_int_equal(run_with(&c, "f3 a4", sys_string), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RCX], 0x2000);
    assert_int_equal(c.rip, 0x77);
    c.events = 0;
    assert_int_equal(run_with(&c, "f3 a4", sys_string), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RCX], 0);
    assert_int_equal(c.rip, 0x79);
}

static void test_address_sizes(void **state)
{
    struct cpu c = mock_real();

    (void)state;
    fill(0x10000, 0x100);
    c.seg[SEG_ES].base = 0x20000;
    c.seg[SEG_DS].base = 0x10000;
    c.gpr[RSI] = 0xaaaa0000;
    c.gpr[RDI] = 0xbbbbfffe; /* wraps within the segment */
    c.gpr[RCX] = 0xcccc0006;
    assert_int_equal(run_with(&c, "f3 a4", sys_string), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RSI], 0xaaaa0006);
    assert_int_equal(c.gpr[RDI], 0xbbbb0004);
    assert_int_equal(c.gpr[RCX], 0xcccc0000);
    assert_memory_equal(&mock_ram[0x2fffe], &mock_ram[0x10000], 2);
    assert_memory_equal(&mock_ram[0x20000], &mock_ram[0x10002], 4);
}

static void test_segment_limit(void **state)
{
    struct cpu c = mock_protected(0);

    (void)state;
    c.seg[SEG_ES].limit = 0x200ff;
    c.gpr[RDI] = 0x200f0;
    c.gpr[RCX] = 64;
    assert_int_equal(run_with(&c, "f3 aa", sys_string), VEC_GP);
    assert_int_equal(c.gpr[RDI], 0x20100);
    assert_int_equal(c.gpr[RCX], 48);
}

static void test_stos_and_lods(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    c.gpr[RAX] = 0x1122334455667788ull;
    c.gpr[RDI] = 0x20ffe;
    c.gpr[RCX] = 3;
    assert_int_equal(run_with(&c, "f3 48 ab", sys_string), MOCK_NO_FAULT);
    assert_int_equal(get(0x20ffe + 16, 8), 0x1122334455667788ull);
    assert_int_equal(c.gpr[RDI], 0x20ffe + 24);
    c.gpr[RSI] = 0x20ffe;
    c.gpr[RAX] = ~0ull;
    assert_int_equal(run_with(&c, "ad", sys_string), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RAX], 0x55667788);
    assert_int_equal(c.gpr[RSI], 0x21002);
}

static void test_scas(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    mock_ram[0x22345] = 0x5a;
    c.gpr[RAX] = 0x5a;
    c.gpr[RDI] = 0x20000;
    c.gpr[RCX] = 0x10000;
    c.events = 1; /* found in the third page: goes on twice */
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(run_with(&c, "f2 ae", sys_string), MOCK_NO_FAULT);
        assert_true(c.rip_set);
    }
    assert_int_equal(run_with(&c, "f2 ae", sys_string), MOCK_NO_FAULT);
    assert_false(c.rip_set);
    assert_int_equal(c.gpr[RDI], 0x22346);
    assert_true(c.rflags & FL_ZF);
    c.gpr[RCX] = 0;
    c.rflags = 2;
    assert_int_equal(run_with(&c, "f2 ae", sys_string), MOCK_NO_FAULT);
    assert_int_equal(c.rflags, 2);
}

static void test_cmps(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    fill(0x10000, 0x3000);
    fill(0x20000, 0x3000);
    mock_ram[0x21801] = 0;
    c.gpr[RSI] = 0x10000;
    c.gpr[RDI] = 0x20000;
    c.gpr[RCX] = 0x3000;
    assert_int_equal(run_with(&c, "f3 a6", sys_string), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RDI], 0x21802);
    assert_int_equal(c.gpr[RCX], 0x3000 - 0x1802);
    assert_false(c.rflags & (FL_ZF | FL_CF));
    mock_slow = 0x20000;
    c.gpr[RSI] = 0x10000;
    c.gpr[RDI] = 0x20000;
    c.gpr[RCX] = 16;
    assert_int_equal(run_with(&c, "f3 48 a7", sys_string), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RCX], 0);
    assert_true(c.rflags & FL_ZF);
}

static void test_single_step(void **state)
{
    struct cpu c = mock_long(0);

    (void)state;
    c.rflags |= FL_TF;
    c.rip = 0x77;
    c.gpr[RDI] = 0x20ffe;
    c.gpr[RCX] = 4;
    assert_int_equal(run_with(&c, "f3 aa", sys_string), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RCX], 3);
    assert_int_equal(c.rip, 0x77);
}

static void test_ports(void **state)
{
    struct cpu c = mock_long(3);

    (void)state;
    c.gpr[RDX] = 0x3f8;
    assert_int_equal(run(&c, "ec"), VEC_GP);
    put(MOCK_TSS + 102, 2, 0x68);
    c.tr.limit = 0x68 + 0x80;
    assert_int_equal(run(&c, "ec"), MOCK_NO_FAULT);
    mock_ram[MOCK_TSS + 0x68 + 0x7f] = 4;
    c.gpr[RDX] = 0x3f9;
    assert_int_equal(run(&c, "ec"), MOCK_NO_FAULT);
    assert_int_equal(run(&c, "66 ed"), VEC_GP);
    c.rflags |= FL_IOPL;
    mock_port_value = 0x41;
    c.gpr[RDI] = 0x20000;
    c.gpr[RCX] = 3;
    assert_int_equal(run(&c, "f3 6c"), MOCK_NO_FAULT);
    assert_memory_equal(&mock_ram[0x20000], "ABC", 4);
    c.gpr[RAX] = ~0ull;
    assert_int_equal(run(&c, "e5 71"), MOCK_NO_FAULT);
    assert_int_equal(mock_port, 0x71);
    assert_int_equal(c.gpr[RAX], 0x44);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_movs),
    cmocka_unit_test(test_movs_fault),
    cmocka_unit_test(test_fault_going_down),
    cmocka_unit_test(test_interrupted),
    cmocka_unit_test(test_address_sizes),
    cmocka_unit_test(test_segment_limit),
    cmocka_unit_test(test_stos_and_lods),
    cmocka_unit_test(test_scas),
    cmocka_unit_test(test_cmps),
    cmocka_unit_test(test_single_step),
    cmocka_unit_test(test_ports),
};
UNIT_MAIN(tests)
