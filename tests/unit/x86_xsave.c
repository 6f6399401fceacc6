/* Vector state in the canonical layout: from this host's and back, and from a host that lays it out otherwise. */
#include "unit.h"

#include "x86/cpuid.h"
#include "x86/xsave.h"

#include <cpuid.h>
#include <immintrin.h>

#define HOST_BYTES 4096

/* AMD's processors with AVX-512 have no room for MPX between. */
static const struct xsave_part other[XSAVE_PARTS] = {
    {2, 576, 256}, {5, 832, 64}, {6, 896, 512}, {7, 1408, 1024}, {9, 2432, 8},
};

static void fill(u8 *area, const struct xsave_part *parts, u64 components)
{
    u32 mxcsr = 0x1fa0;

    memset(area, 0, HOST_BYTES);
    for (unsigned i = 0; i < 24; i++)
        area[i] = (u8)(i + 1);
    memcpy(area + XSAVE_MXCSR, &mxcsr, 4);
    for (unsigned i = 0; i < 8; i++)
        memset(area + 32 + 16 * i, (int)(0x30 + i), 10);
    for (unsigned i = 160; i < 416; i++)
        area[i] = (u8)(i * 7);
    memcpy(area + XSAVE_BV, &components, 8);
    for (unsigned i = 0; i < XSAVE_PARTS; i++)
        if (components & BIT(parts[i].bit))
            for (unsigned k = 0; k < parts[i].size; k++)
                area[parts[i].offset + k] = (u8)(parts[i].bit * 16 + k * 3);
}

static void test_another_hosts_layout(void **state)
{
    static u8 theirs[HOST_BYTES], canonical[X86_XSAVE_BYTES], want[HOST_BYTES], back[HOST_BYTES];

    fill(theirs, other, 0x2e7);
    fill(want, xsave_parts, 0x2e7);
    xsave_convert(canonical, xsave_parts, theirs, other);
    assert_memory_equal(canonical, want, X86_XSAVE_BYTES);
    xsave_convert(back, other, canonical, xsave_parts);
    assert_memory_equal(back, theirs, 2440);
}

/* The bytes of what is not in use may be anything in memory; in a file they are nothing. */
static void test_initial_states_are_one(void **state)
{
    static u8 area[HOST_BYTES], canonical[X86_XSAVE_BYTES];
    u64 none = 0;

    fill(area, xsave_parts, 0x2e7);
    memcpy(area + XSAVE_BV, &none, 8);
    xsave_convert(canonical, xsave_parts, area, xsave_parts);
    for (unsigned i = 0; i < X86_XSAVE_BYTES; i++) {
        bool fcw = i < 2, mxcsr = i == XSAVE_MXCSR || i == XSAVE_MXCSR + 1;

        assert_int_equal(canonical[i], fcw ? (i ? 0x03 : 0x7f) : mxcsr ? area[i] : 0);
    }
}

static void test_what_a_host_lacks_is_left_out(void **state)
{
    static u8 area[HOST_BYTES], canonical[X86_XSAVE_BYTES];
    struct xsave_part few[XSAVE_PARTS] = {
        {2, 576, 256}, {5, 0, 0}, {6, 0, 0}, {7, 0, 0}, {9, 0, 0}};
    u64 components;

    fill(area, xsave_parts, 0x2e7);
    xsave_convert(canonical, few, area, xsave_parts);
    memcpy(&components, canonical + XSAVE_BV, 8);
    assert_int_equal(components, 7);
}

/* What guests see of XSAVE is the same wherever a named model runs. */
static void test_named_models_are_laid_out_alike(void **state)
{
    static struct cpu_model model;
    struct err err = ERR_INIT;
    u32 r[4];

    if (cpu_model_init(&model, "x86-64-v3", 1, &err))
        UNIT_SKIP("the host cannot be an x86-64-v3");
    assert_int_equal(model.xcr0_mask, 7);
    assert_int_equal(model.xsave_bytes, 832);
    cpu_model_cpuid(&model, 0, 0xd, 2, CR4_OSXSAVE, 7, r);
    assert_int_equal(r[0], 256);
    assert_int_equal(r[1], 576);
    for (u32 i = 3; i < 63; i++) {
        cpu_model_cpuid(&model, 0, 0xd, i, CR4_OSXSAVE, 7, r);
        assert_int_equal(r[0], 0);
    }
    assert_int_equal(cpu_model_init(&model, "x86-64-v2", 1, &err), 0);
    assert_int_equal(model.xcr0_mask, 1);
}

static u64 host_xcr0(void)
{
    u32 a, b, c, d;

    __cpuid(1, a, b, c, d);
    if (!(c & bit_OSXSAVE))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

/* What the host's own XSAVE writes comes back the same through the canonical form. */
static void test_this_host(void **state)
{
    static u8 area[HOST_BYTES] __attribute__((aligned(64))), back[HOST_BYTES],
        canonical[X86_XSAVE_BYTES];
    u64 xcr0 = host_xcr0() & 0x2e7;
    u32 lo = (u32)xcr0;

    if (!(xcr0 & 4))
        UNIT_SKIP("the host has no AVX");
    __asm__ volatile("vpcmpeqb %%ymm3, %%ymm3, %%ymm3; xsave64 (%0); vzeroupper"
                     :
                     : "r"(area), "a"(lo), "d"(0)
                     : "memory", "xmm3");
    memset(area + 464, 0, 48);
    memset(area + 28, 0, 4); /* MXCSR_MASK is no state */
    memset(area + 8, 0, 16); /* nor has anybody used the x87 unit */
    xsave_from_host(canonical, area, sizeof(area));
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(canonical[160 + 3 * 16 + i], 0xff);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(canonical[576 + 3 * 16 + i], 0xff);
    xsave_to_host(canonical, back, sizeof(back));
    xsave_from_host(area, back, sizeof(back));
    assert_memory_equal(area, canonical, X86_XSAVE_BYTES);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_another_hosts_layout),
    cmocka_unit_test(test_initial_states_are_one),
    cmocka_unit_test(test_what_a_host_lacks_is_left_out),
    cmocka_unit_test(test_named_models_are_laid_out_alike),
    cmocka_unit_test(test_this_host),
};

UNIT_MAIN(tests)
