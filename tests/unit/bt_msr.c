/* MSRs, the paravirtual clock, time stamps, CPUID and reset of a translated processor. */
#include "bt_mock.h"

static struct gmem guest;
static struct accel_machine machine;

static struct cpu boot(void)
{
    struct cpu c = mock_long(0);
    struct err err = ERR_INIT;

    if (!guest.base)
        assert_int_equal(gmem_init(&guest, 2 * MiB, &err), 0);
    machine = (struct accel_machine){.ram = &guest, .model = &mock_model, .cpus = 1};
    c.m = &machine;
    return c;
}

static int write_msr(struct cpu *c, u32 nr, u64 value)
{
    c->gpr[RCX] = nr;
    c->gpr[RAX] = (u32)value;
    c->gpr[RDX] = value >> 32;
    return run(c, "0f 30");
}

static int read_msr(struct cpu *c, u32 nr, u64 *ret_value)
{
    int vector;

    c->gpr[RCX] = nr;
    vector = run(c, "0f 32");
    *ret_value = c->gpr[RAX] | c->gpr[RDX] << 32;
    return vector;
}

static void check_kept(struct cpu *c, u32 nr, u64 value)
{
    u64 read;

    assert_int_equal(write_msr(c, nr, value), MOCK_NO_FAULT);
    assert_int_equal(read_msr(c, nr, &read), MOCK_NO_FAULT);
    assert_int_equal(read, value);
}

static void test_kept(void **state)
{
    struct cpu c = boot();

    (void)state;
    check_kept(&c, 0xc0000081, 0x23001000000000ull);
    check_kept(&c, 0xc0000082, 0xffffffff81000000ull);
    check_kept(&c, 0xc0000102, 0xffff888000000000ull);
    check_kept(&c, 0x277, 0x0407050600070106ull);
    check_kept(&c, 0x200, 0x80000006);
    check_kept(&c, 0x20f, 0xfff800);
    check_kept(&c, 0x250, 0x0606060606060606ull);
    check_kept(&c, 0x26f, 5);
    check_kept(&c, 0x2ff, 0xc06);
    check_kept(&c, 0x48, 1);
    assert_int_equal(c.msr.mtrr_mask[7], 0xfff800);
    assert_int_equal(c.msr.mtrr_fixed[10], 5);
}

static void test_refused(void **state)
{
    static const struct {
        u32 nr;
        u64 value;
    } bad[] = {
        {0xc0000082, 0x0000800000000000ull}, /* not canonical */
        {0xc0000080, BIT(9)},
        {0x277, 2}, /* no such memory type */
        {0x2ff, BIT(8)},
        {0x200, BIT(60)},
        {0x48, BIT(20)},
        {0x10a, 0}, /* read-only */
        {0xfe, 0},
        {0x3a, 5},
        {0x12345678, 0},
    };
    struct cpu c = boot();
    u64 value;

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(write_msr(&c, bad[i].nr, bad[i].value), VEC_GP);
    assert_int_equal(read_msr(&c, 0x49, &value), VEC_GP); /* write-only */
    assert_int_equal(read_msr(&c, 0x1b, &value), VEC_GP); /* no controller here */
    c.cpl = 3;
    assert_int_equal(read_msr(&c, 0xc0000082, &value), VEC_GP);
}

static void test_tsc(void **state)
{
    struct cpu c = boot();
    u64 value;

    (void)state;
    assert_int_equal(write_msr(&c, 0x10, 1000), MOCK_NO_FAULT);
    assert_int_equal(run(&c, "0f 31"), MOCK_NO_FAULT);
    value = c.gpr[RAX] | c.gpr[RDX] << 32;
    assert_in_range(value, 1000, 1000 + (u64)mock_model.tsc_khz * 10000);
    assert_int_equal(read_msr(&c, 0x3b, &value), MOCK_NO_FAULT);
    assert_int_equal(value, (u64)c.tsc_offset); /* all of the offset is the guest's doing */
    assert_int_equal(write_msr(&c, 0x3b, 0), MOCK_NO_FAULT);
    assert_int_equal(c.tsc_offset, 0);
    c.cpl = 3;
    c.cr4 |= CR4_TSD;
    assert_int_equal(run(&c, "0f 31"), VEC_GP);
}

struct time_info {
    u32 version, pad;
    u64 tsc_timestamp, system_time;
    u32 mul;
    s8 shift;
    u8 flags, pad2[2];
};

static void test_clock_page(void **state)
{
    struct cpu c = boot();
    struct time_info t;

    (void)state;
    assert_int_equal(write_msr(&c, 0x4b564d01, 0x8000 | 1), MOCK_NO_FAULT);
    assert_int_equal(gmem_read(&guest, 0x8000, &t, sizeof(t)), 0);
    assert_int_equal(t.version, 2);
    assert_int_equal(t.flags, 1);
    /* a second's worth of TSC is a second */
    u64 tsc = (u64)mock_model.tsc_khz * 1000;
    tsc = t.shift < 0 ? tsc >> -t.shift : tsc << t.shift;
    assert_in_range((u64)((unsigned __int128)tsc * t.mul >> 32), NS_PER_S - 10, NS_PER_S + 10);
    assert_int_equal(write_msr(&c, 0x3b, 12345), MOCK_NO_FAULT);
    assert_int_equal(gmem_read(&guest, 0x8000, &t, sizeof(t)), 0);
    assert_int_equal(t.version, 4);
    assert_int_equal(t.tsc_timestamp, 12345);
    assert_int_equal(write_msr(&c, 0x4b564d01, (1ull << 40) | 1), MOCK_NO_FAULT); /* outside RAM */
}

static void test_clock_wall(void **state)
{
    struct cpu c = boot();
    u32 wall[3];

    (void)state;
    c.tsc_offset = -(s64)__builtin_ia32_rdtsc();
    assert_int_equal(write_msr(&c, 0x4b564d00, 0x9000), MOCK_NO_FAULT);
    assert_int_equal(gmem_read(&guest, 0x9000, wall, sizeof(wall)), 0);
    assert_int_equal(wall[0], 2);
    assert_in_range(wall[1], 1600000000u, 0xffffffffu);
    assert_in_range(wall[2], 0, NS_PER_S - 1);
}

static void test_reset(void **state)
{
    struct cpu c = boot();

    (void)state;
    cpu_power_on(&c, true);
    assert_int_equal(c.msr.pat, 0x0007040600070406ull);
    assert_int_equal(c.cr0, CR0_CD | CR0_NW | CR0_ET);
    assert_int_equal(c.rip, 0xfff0);
    assert_int_equal(c.seg[SEG_CS].base, 0xffff0000);
    assert_int_equal(c.activity, X86_RUNNING);
    c.msr.pat = 0x0606060606060606ull;
    c.cr0 = CR0_PE | CR0_PG;
    c.cpl = 3;
    cpu_reset(&c, false);
    assert_int_equal(c.msr.pat, 0x0606060606060606ull); /* INIT keeps it */
    assert_int_equal(c.cr0, CR0_ET);
    assert_int_equal(c.cpl, 0);
    assert_int_equal(c.activity, X86_WAIT_SIPI);
    cpu_start_at(&c, 0x9a);
    assert_int_equal(c.seg[SEG_CS].base, 0x9a000);
    assert_int_equal(c.seg[SEG_CS].sel, 0x9a00);
    assert_int_equal(c.rip, 0);
    assert_int_equal(c.activity, X86_RUNNING);
}

static void test_xcr0(void **state)
{
    struct cpu c = boot();

    (void)state;
    c.gpr[RAX] = 7;
    assert_int_equal(run(&c, "0f 01 d1"), VEC_UD);
    c.cr4 |= CR4_OSXSAVE;
    if (!(mock_model.xcr0_mask & 4))
        UNIT_SKIP("this host has no AVX");
    assert_int_equal(run(&c, "0f 01 d1"), MOCK_NO_FAULT);
    assert_int_equal(c.xcr0, 7);
    c.gpr[RAX] = 5; /* AVX without SSE */
    assert_int_equal(run(&c, "0f 01 d1"), VEC_GP);
    c.gpr[RAX] = 6;
    assert_int_equal(run(&c, "0f 01 d1"), VEC_GP);
    c.gpr[RAX] = 7 | BIT(9);
    assert_int_equal(run(&c, "0f 01 d1"), VEC_GP);
    assert_int_equal(run(&c, "0f 01 d0"), MOCK_NO_FAULT);
    assert_int_equal(c.gpr[RAX], 7);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_kept),       cmocka_unit_test(test_refused),
    cmocka_unit_test(test_tsc),        cmocka_unit_test(test_clock_page),
    cmocka_unit_test(test_clock_wall), cmocka_unit_test(test_reset),
    cmocka_unit_test(test_xcr0),
};
UNIT_MAIN(tests)
