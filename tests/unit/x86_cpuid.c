/* CPU models: feature levels, leaves that depend on the processor or its registers, and refusals. */
#include "unit.h"

#include "x86/cpu.h"
#include "x86/cpuid.h"

struct regs {
    u32 r[4];
};

static struct regs cpuid(const struct cpu_model *m, u32 leaf, u32 subleaf)
{
    struct regs v;

    cpu_model_cpuid(m, 3, leaf, subleaf, CR4_OSXSAVE, 7, v.r);
    return v;
}

static struct cpu_model model(const char *name, unsigned cpus)
{
    struct cpu_model m;
    struct err err = ERR_INIT;

    if (cpu_model_init(&m, name, cpus, &err) == -ENOTSUP)
        UNIT_SKIP("this host cannot do the model");
    return m;
}

static void test_names(void **state)
{
    struct cpu_model m;
    struct err err = ERR_INIT;

    (void)state;
    assert_int_equal(cpu_model_init(&m, "pentium", 1, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "x86-64-v3"));
    assert_int_equal(cpu_model_init(&m, "default", 1, &err), 0);
    assert_true(!strcmp(m.name, "x86-64-v3") || !strcmp(m.name, "x86-64-v2"));
}

static void test_sorted(void **state)
{
    struct cpu_model m = model("default", 4);

    (void)state;
    assert_true(m.nleaves < CPUID_LEAVES - 1);
    for (unsigned i = 1; i < m.nleaves; i++) {
        const struct cpuid_leaf *a = &m.leaf[i - 1], *b = &m.leaf[i];
        assert_true(a->leaf < b->leaf || (a->leaf == b->leaf && a->subleaf < b->subleaf));
    }
}

static void test_never_promised(void **state)
{
    struct cpu_model m = model("host", 1);

    (void)state;
    assert_false(cpuid(&m, 1, 0).r[2] & (BIT(3) | BIT(5)));            /* monitor, vmx */
    assert_false(cpuid(&m, 7, 0).r[1] & (BIT(4) | BIT(11) | BIT(14))); /* hle, rtm, mpx */
    assert_false(cpuid(&m, 7, 0).r[2] & (BIT(3) | BIT(16)));           /* pku, la57 */
    assert_false(cpuid(&m, 0xd, 1).r[0] & 8);                          /* xsaves */
}

static void test_v3(void **state)
{
    struct cpu_model m = model("x86-64-v3", 4);
    struct regs r = cpuid(&m, 0, 0);

    (void)state;
    assert_memory_equal(&r.r[1], "Genu", 4);
    assert_true(cpuid(&m, 7, 0).r[1] & BIT(5));
    assert_int_equal(m.xcr0_mask, 7);
    assert_int_equal(m.xsave_bytes, 832);
    r = cpuid(&m, 0xd, 0);
    assert_int_equal(r.r[0], 7);
    assert_int_equal(r.r[1], 832);
    cpu_model_cpuid(&m, 0, 0xd, 0, 0, 1, r.r);
    assert_int_equal(r.r[1], 576);
    assert_true(m.cr4_mask & CR4_OSXSAVE);
}

static void test_v2_has_no_avx(void **state)
{
    struct cpu_model m = model("x86-64-v2", 1);

    (void)state;
    assert_false(cpuid(&m, 1, 0).r[2] & (BIT(26) | BIT(28)));
    assert_false(cpuid(&m, 7, 0).r[1] & BIT(5));
    assert_false(m.cr4_mask & CR4_OSXSAVE);
}

static void test_topology_and_state(void **state)
{
    struct cpu_model m = model("default", 6);
    struct regs r = cpuid(&m, 1, 0);

    (void)state;
    assert_int_equal(r.r[1] >> 24, 3);
    assert_int_equal(r.r[1] >> 16 & 0xff, 8);
    assert_true(r.r[2] & BIT(27));
    r = cpuid(&m, 0xb, 1);
    assert_int_equal(r.r[0], 3);
    assert_int_equal(r.r[1], 6);
    assert_int_equal(r.r[2], 0x201);
    assert_int_equal(r.r[3], 3);
    assert_int_equal(cpuid(&m, 0xb, 2).r[1], 0);
}

static void test_hypervisor_and_limits(void **state)
{
    struct cpu_model m = model("default", 1);
    struct regs r = cpuid(&m, 0x40000000, 0), last = cpuid(&m, 0x16, 0);

    (void)state;
    assert_memory_equal(&r.r[1], "KVMKVMKVM\0\0\0", 12);
    assert_int_equal(cpuid(&m, 0x40000010, 0).r[0], m.tsc_khz);
    r = cpuid(&m, 0x15, 0);
    assert_int_equal((u64)r.r[2] * r.r[1] / r.r[0] / 1000, m.tsc_khz);
    r = cpuid(&m, 0x1234, 0); /* beyond the last leaf: like the last one */
    assert_memory_equal(&r, &last, sizeof(r));
    r = cpuid(&m, 0x80000009, 0);
    assert_memory_equal(&r, &last, sizeof(r));
    assert_int_equal(cpuid(&m, 0x80000008, 0).r[0], 48u << 8 | m.phys_bits);
}

static void test_frequency_is_plausible(void **state)
{
    u32 khz = host_tsc_khz();

    (void)state;
    assert_in_range(khz, 100000, 10000000);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_names),
    cmocka_unit_test(test_sorted),
    cmocka_unit_test(test_never_promised),
    cmocka_unit_test(test_v3),
    cmocka_unit_test(test_v2_has_no_avx),
    cmocka_unit_test(test_topology_and_state),
    cmocka_unit_test(test_hypervisor_and_limits),
    cmocka_unit_test(test_frequency_is_plausible),
};
UNIT_MAIN(tests)
