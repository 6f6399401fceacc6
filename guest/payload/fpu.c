/* x87, SSE and AVX: exceptions, control registers, saving and restoring. Long mode. The arithmetic itself is the business of
 * the differential tests. */
#include "payload.h"

#define MXCSR_DEFAULT 0x1f80u
#define XCR0_X87 1u
#define XCR0_SSE 2u
#define XCR0_AVX 4u

static u8 area[4096] __attribute__((aligned(64)));
static u8 area2[4096] __attribute__((aligned(64)));

static void load_mxcsr(u32 v)
{
    asm volatile("ldmxcsr %0" : : "m"(v));
}

static u32 read_mxcsr(void)
{
    u32 v;

    asm volatile("stmxcsr %0" : "=m"(v));
    return v;
}

static u16 read_status(void)
{
    u16 v;

    asm volatile("fnstsw %0" : "=am"(v));
    return v;
}

static void check_x87(void)
{
    static u16 unmasked = 0x37b; /* division by zero */
    u16 control;

    asm volatile("fninit; fnstcw %0" : "=m"(control));
    report(control == 0x37f && read_status() == 0, "fninit");
    asm volatile("fld1; fldz; fdivrp" : : : "memory");
    report((read_status() & 0xff) == 4, "a masked division by zero sets ZE");
    asm volatile("fnclex; fldcw %0; fld1; fldz; fdivrp %%st, %%st(1)" : : "m"(unmasked));
    report((read_status() & 0x8084) == 0x8084, "unmasked: ES and B, no trap yet");
    TRY("fld1");
    report_trap(VEC_MF, 0, "#MF at the next x87 instruction");
    TRY("fwait");
    report_trap(VEC_MF, 0, "#MF at fwait");
    TRY("fnstsw %%ax", "a"(0));
    report_no_trap("fnstsw does not wait");
    TRY("movaps %%xmm0, %%xmm1");
    report_no_trap("nor does SSE");
    asm volatile("fnclex; fninit");
    asm volatile("fld1; fldpi; fldl2e");
    report((read_status() >> 11 & 7) == 5, "three loads: the top is 5");
    asm volatile("emms");
    asm volatile("fninit");
}

static void check_sse(void)
{
    static const float one = 1.0f, zero = 0.0f;

    load_mxcsr(MXCSR_DEFAULT);
    asm volatile("movss %0, %%xmm0; divss %1, %%xmm0" : : "m"(one), "m"(zero));
    report(read_mxcsr() == (MXCSR_DEFAULT | 4), "a masked division by zero sets ZE");
    load_mxcsr(MXCSR_DEFAULT & ~0x200u);
    TRY_LABEL("movss (%0), %%xmm0; 1: divss (%1), %%xmm0", "r"(&one), "r"(&zero));
    report_trap(VEC_XM, 0, "#XM when it is not masked");
    write_cr4(read_cr4() & ~CR4_OSXMMEXCPT);
    TRY_LABEL("movss (%0), %%xmm0; 1: divss (%1), %%xmm0", "r"(&one), "r"(&zero));
    report_trap(VEC_UD, 0, "#UD without OSXMMEXCPT");
    write_cr4(read_cr4() | CR4_OSXMMEXCPT);
    load_mxcsr(MXCSR_DEFAULT);
    *(u32 *)area = 0xffff0000;
    TRY("ldmxcsr (%0)", "r"(area));
    report_trap(VEC_GP, 0, "#GP: reserved bits of MXCSR");
    report(read_mxcsr() == MXCSR_DEFAULT, "which leaves it alone");
}

static void check_fxsave(void)
{
    asm volatile(
        "fninit; fld1; fldpi; pcmpeqd %%xmm0, %%xmm0; pcmpeqd %%xmm15, %%xmm15; pslld $4, %%xmm15"
        :
        :
        : "memory");
    load_mxcsr(MXCSR_DEFAULT | 0x8000);
    asm volatile("fxsave64 %0" : "=m"(area));
    asm volatile("fninit; pxor %%xmm0, %%xmm0; pxor %%xmm15, %%xmm15" : : : "memory");
    load_mxcsr(MXCSR_DEFAULT);
    report(*(u16 *)area == 0x37f && (*(u16 *)(area + 2) >> 11 & 7) == 6 && area[4] == 0xc0,
           "fxsave: control, status, tags");
    report(*(u32 *)(area + 24) == (MXCSR_DEFAULT | 0x8000), "fxsave: MXCSR");
    report(*(u64 *)(area + 160) == ~0ul && *(u32 *)(area + 160 + 15 * 16) == 0xfffffff0,
           "fxsave: xmm0 and xmm15");
    report(*(u16 *)(area + 32 + 8) == 0x4000 && *(u16 *)(area + 48 + 8) == 0x3fff,
           "fxsave: st0 and st1");
    asm volatile("fxrstor64 %0; fxsave64 %1" : : "m"(area), "m"(area2) : "memory");
    report(!memcmp(area, area2, 464), "fxrstor and fxsave again: the same");
    asm volatile("fninit");
    load_mxcsr(MXCSR_DEFAULT);
}

static void xsave(void *to, u32 mask)
{
    asm volatile("xsave64 (%0)" : : "r"(to), "a"(mask), "d"(0) : "memory");
}

static void xrstor(const void *from, u32 mask)
{
    asm volatile("xrstor64 (%0)" : : "r"(from), "a"(mask), "d"(0) : "memory");
}

static void check_xsave_faults(void)
{
    TRY("xgetbv", "c"(0));
    report_trap(VEC_UD, 0, "#UD: xgetbv without OSXSAVE");
    report(!(cpuid(1, 0).ecx & BIT(27)), "CPUID shows OSXSAVE clear");
    write_cr4(read_cr4() | CR4_OSXSAVE);
    report(cpuid(1, 0).ecx & BIT(27), "and set, with CR4");
    TRY("xsetbv", "c"(0), "a"(2), "d"(0));
    report_trap(VEC_GP, 0, "#GP: XCR0 without x87");
    TRY("xsetbv", "c"(0), "a"(5), "d"(0));
    report_trap(VEC_GP, 0, "#GP: XCR0 with AVX but not SSE");
    TRY("xsetbv", "c"(1), "a"(1), "d"(0));
    report_trap(VEC_GP, 0, "#GP: xsetbv of another register");
    TRY("xsetbv", "c"(0), "a"(1), "d"(0x80000000));
    report_trap(VEC_GP, 0, "#GP: reserved bit of XCR0");
}

static void check_xsave(void)
{
    struct cpuid_regs before, after;
    u32 lo, hi;

    if (!(cpuid(1, 0).ecx & BIT(26))) {
        report_skip("xsave", "not in CPUID");
        return;
    }
    check_xsave_faults();
    asm volatile("xsetbv" : : "c"(0), "a"(XCR0_X87 | XCR0_SSE), "d"(0));
    asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    report(lo == 3 && hi == 0, "xgetbv gives back what xsetbv set");
    before = cpuid(0xd, 0);
    report(before.ebx == 576, "CPUID: the area is 576 bytes for x87 and SSE");
    memset(area, 0xcc, sizeof(area));
    memset(area + 512, 0, 64);
    asm volatile("pcmpeqd %%xmm3, %%xmm3" : : : "memory");
    xsave(area, 3);
    report((*(u64 *)(area + 512) & 2) && *(u64 *)(area + 160 + 48) == ~0ul, "xsave stores xmm3");
    report(area[576] == 0xcc, "and no more");
    asm volatile("pxor %%xmm3, %%xmm3" : : : "memory");
    xrstor(area, 3);
    asm volatile("movq %%xmm3, (%0)" : : "r"(area2) : "memory");
    report(*(u64 *)area2 == ~0ul, "xrstor brings it back");
    *(u64 *)(area + 512) = 0;
    xrstor(area, 3);
    asm volatile("movq %%xmm3, (%0)" : : "r"(area2) : "memory");
    report(*(u64 *)area2 == 0, "a component that is not in the header comes as initial");
    *(u64 *)(area + 512) = 1ul << 62;
    TRY("xrstor64 (%0)", "r"(area), "a"(3), "d"(0));
    report_trap(VEC_GP, 0, "#GP: xrstor of a component that is not enabled");
    *(u64 *)(area + 512) = 3;
    area[512 + 30] = 1;
    TRY("xrstor64 (%0)", "r"(area), "a"(3), "d"(0));
    report_trap(VEC_GP, 0, "#GP: xrstor, reserved bytes of the header");
    area[512 + 30] = 0;
    TRY("xsave64 (%0)", "r"(area + 16), "a"(3), "d"(0));
    report_trap(VEC_GP, 0, "#GP: xsave, not aligned to 64 bytes");
    write_cr0(read_cr0() | CR0_TS);
    TRY("xsave64 (%0)", "r"(area), "a"(3), "d"(0));
    report_trap(VEC_NM, 0, "#NM: xsave with TS");
    asm volatile("clts");
    after = cpuid(0xd, 0);
    report(after.ecx >= after.ebx && (after.eax & 3) == 3, "CPUID 0xd is consistent");
}

static void check_avx(void)
{
    if (!(cpuid(1, 0).ecx & BIT(28)) || !(read_cr4() & CR4_OSXSAVE)) {
        report_skip("AVX", "not in CPUID");
        return;
    }
    TRY("vpxor %%xmm0, %%xmm0, %%xmm0");
    report_trap(VEC_UD, 0, "#UD: AVX without XCR0.AVX");
    asm volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
    report(cpuid(0xd, 0).ebx == 832 && cpuid(0xd, 2).eax == 256 && cpuid(0xd, 2).ebx == 576,
           "CPUID: AVX's part of the area");
    TRY("vpxor %%xmm0, %%xmm0, %%xmm0");
    report_no_trap("AVX with XCR0.AVX");
    asm volatile("vpcmpeqd %%xmm1, %%xmm1, %%xmm1; vinsertf128 $1, %%xmm1, %%ymm1, %%ymm1; vmovups "
                 "%%ymm1, (%0)"
                 :
                 : "r"(area)
                 : "memory");
    report(*(u64 *)area == ~0ul && *(u64 *)(area + 24) == ~0ul, "256 bits");
    asm volatile("vpxor %%xmm1, %%xmm1, %%xmm1; vmovups %%ymm1, (%0)" : : "r"(area) : "memory");
    report(*(u64 *)(area + 24) == 0, "VEX.128 clears the upper half");
    asm volatile("vinsertf128 $1, %0, %%ymm1, %%ymm1; pxor %%xmm1, %%xmm1; vmovups %%ymm1, (%1)"
                 :
                 : "m"(*(u8(*)[16])area2), "r"(area)
                 : "memory");
    memset(area, 0, 1024);
    asm volatile("vpcmpeqd %%xmm5, %%xmm5, %%xmm5; vinsertf128 $1, %%xmm5, %%ymm5, %%ymm5"
                 :
                 :
                 : "memory");
    xsave(area, 7);
    asm volatile("vzeroall" : : : "memory");
    xrstor(area, 7);
    asm volatile("vmovups %%ymm5, (%0)" : : "r"(area2) : "memory");
    report(*(u64 *)(area + 576 + 5 * 16) == ~0ul && *(u64 *)(area2 + 24) == ~0ul,
           "xsave and xrstor of the upper halves");
    write_cr0(read_cr0() | CR0_TS);
    TRY("vpxor %%xmm0, %%xmm0, %%xmm0");
    report_trap(VEC_NM, 0, "#NM: AVX with TS");
    asm volatile("clts; vzeroupper");
    TRY("vmovaps (%0), %%ymm0", "r"(area + 16));
    report_trap(VEC_GP, 0, "#GP: vmovaps, misaligned");
    TRY("vpaddd (%0), %%ymm0, %%ymm0", "r"(area + 1));
    report_no_trap("other VEX operands need no alignment");
    write_cr4(read_cr4() & ~CR4_OSXSAVE);
    TRY("vpxor %%xmm0, %%xmm0, %%xmm0");
    report_trap(VEC_UD, 0, "#UD: AVX without OSXSAVE");
}

void payload_main(void)
{
    check_x87();
    check_sse();
    check_fxsave();
    check_xsave();
    check_avx();
}
