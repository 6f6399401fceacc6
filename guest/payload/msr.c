/* Model-specific registers, CPUID and the time stamp counter: what is said must agree with what is. Long mode. */
#include "payload.h"

struct msr_case {
    u32 msr;
    u64 value;
    const char *name;
};

static void check_writable(void)
{
    static const struct msr_case cases[] = {
        {0x174, 0x1234, "SYSENTER_CS"},
        {0x175, 0xffff888000001000, "SYSENTER_ESP"},
        {0x176, 0xffffffff81000000, "SYSENTER_EIP"},
        {0x277, 0x0007010600070106, "PAT"},
        {0xc0000081, 0x0023001000000000, "STAR"},
        {0xc0000082, 0xffffffff81000000, "LSTAR"},
        {0xc0000083, 0xffffffff81000000, "CSTAR"},
        {0xc0000084, 0x47700, "SFMASK"},
        {0xc0000100, 0x7fff12345678, "FS_BASE"},
        {0xc0000101, 0xffff888012345678, "GS_BASE"},
        {0xc0000102, 0xffff888087654321, "KERNEL_GS_BASE"},
        {0x2ff, 0xc06, "MTRR_DEF_TYPE"},
        {0x250, 0x0606060606060606, "MTRR_FIX64K_00000"},
    };

    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        u64 old = rdmsr(cases[i].msr);

        wrmsr(cases[i].msr, cases[i].value);
        report(rdmsr(cases[i].msr) == cases[i].value, cases[i].name);
        wrmsr(cases[i].msr, old);
    }
}

static void check_refused(void)
{
    TRY("wrmsr", "c"(0xc0000082), "a"(0), "d"(0x8000));
    report_trap(VEC_GP, 0, "#GP: LSTAR not canonical");
    TRY("wrmsr", "c"(0xc0000100), "a"(0), "d"(0x8000));
    report_trap(VEC_GP, 0, "#GP: FS_BASE not canonical");
    TRY("wrmsr", "c"(0x277), "a"(2), "d"(0));
    report_trap(VEC_GP, 0, "#GP: PAT with a reserved type");
    TRY("wrmsr", "c"(0xc0000080), "a"(0xffffffff), "d"(0xffffffff));
    report_trap(VEC_GP, 0, "#GP: reserved bits of EFER");
    TRY("wrmsr", "c"(0xc0000080), "a"((u32)rdmsr(0xc0000080) & ~(u32)EFER_LME), "d"(0));
    report_trap(VEC_GP, 0, "#GP: LME changed while paging is on");
    TRY("wrmsr", "c"(0xfe), "a"(0), "d"(0));
    report_trap(VEC_GP, 0, "#GP: a register that can only be read");
    TRY("rdmsr", "c"(0xdeadbeef));
    report_trap(VEC_GP, 0, "#GP: a register that is not there");
    report(rdmsr(0xc0000080) & EFER_LMA, "EFER.LMA in long mode");
}

static void check_cpuid(void)
{
    struct cpuid_regs max = cpuid(0, 0), one = cpuid(1, 0), ext = cpuid(0x80000000, 0),
                      sizes = cpuid(0x80000008, 0);
    u32 needed = BIT(0) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(13) | BIT(15) | BIT(24) |
                 BIT(25) | BIT(26);

    report(max.eax >= 7 && ext.eax >= 0x80000008, "leaves up to 7 and 0x80000008");
    report((one.edx & needed) == needed, "FPU TSC MSR PAE CX8 PGE CMOV FXSR SSE SSE2");
    report(cpuid(0x80000001, 0).edx & BIT(29), "long mode");
    report((sizes.eax & 0xff) >= 36 && (sizes.eax >> 8 & 0xff) >= 48,
           "physical and linear address sizes");
    report(one.ecx & BIT(31), "a hypervisor is there");
    report(!(one.ecx & BIT(28)) || (one.ecx & BIT(26)), "AVX comes with XSAVE");
    report(!(cpuid(7, 0).ebx & BIT(5)) || (one.ecx & BIT(28)), "AVX2 comes with AVX");
    report(!(one.ecx & BIT(12)) || (one.ecx & BIT(28)), "FMA comes with AVX");
    asm volatile("mov $0xffffffff00000000, %%rax; mov %%rax, %%rbx; mov %%rax, %%rcx; mov %%rax, "
                 "%%rdx; cpuid; mov %%rbx, %0"
                 : "=m"(max)
                 :
                 : "rax", "rbx", "rcx", "rdx");
    report(*((u32 *)&max + 1) == 0, "CPUID clears the upper halves");
}

static void check_tsc(void)
{
    u64 last = rdtsc(), before, after;
    bool ok = true;
    u32 aux, lo, hi;

    for (int i = 0; i < 10000; i++) {
        u64 now = rdtsc();

        ok &= now >= last;
        last = now;
    }
    report(ok, "the TSC does not run backwards");
    before = rdtsc();
    after = rdmsr(0x10);
    report(after >= before && after - before < (1ul << 40), "MSR 0x10 is the TSC");
    wrmsr(0x10, after + (1ul << 44));
    report(rdtsc() - after >= (1ul << 44), "the TSC can be set");
    write_cr4(read_cr4() | CR4_TSD);
    TRY("rdtsc");
    report_no_trap("rdtsc in ring 0 with TSD");
    write_cr4(read_cr4() & ~CR4_TSD);
    if (!(cpuid(0x80000001, 0).edx & BIT(27))) {
        report_skip("rdtscp", "not in CPUID");
        return;
    }
    wrmsr(0xc0000103, 0x1234567);
    asm volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
    report(aux == 0x1234567, "rdtscp and TSC_AUX");
}

static void user_rdtsc(word arg)
{
    asm volatile("rdtsc" : : : "rax", "rdx");
}

static void check_user_tsc(void)
{
    user_call(user_rdtsc, 0);
    report(trap.vector == VEC_USER_EXIT, "rdtsc in ring 3");
    write_cr4(read_cr4() | CR4_TSD);
    user_call(user_rdtsc, 0);
    report(trap.vector == VEC_GP && trap.error == 0, "#GP: rdtsc in ring 3 with TSD");
    write_cr4(read_cr4() & ~CR4_TSD);
}

/* An instruction that CPUID does not announce must not be there. */
static void check_hidden(void)
{
    u32 features = cpuid(7, 0).ebx;

    if (!(features & BIT(3))) {
        TRY("andn %%eax, %%eax, %%eax", "a"(0));
        report_trap(VEC_UD, 0, "#UD: andn without BMI1");
    }
    if (!(features & BIT(19))) {
        TRY(".byte 0x66, 0x0f, 0x38, 0xf6, 0xc0", "a"(0));
        report_trap(VEC_UD, 0, "#UD: adcx without ADX");
    }
    if (!(cpuid(0x80000001, 0).edx & BIT(27))) {
        TRY("rdtscp", "a"(0));
        report_trap(VEC_UD, 0, "#UD: rdtscp when not announced");
    }
    if (!(cpuid(1, 0).ecx & BIT(5))) {
        TRY("vmxoff");
        report_trap(VEC_UD, 0, "#UD: vmxoff without VMX");
    }
    TRY("rsm");
    report_trap(VEC_UD, 0, "#UD: rsm outside SMM");
    TRY("vmread %%rax, %%rax", "a"(0));
    report(trap.vector == VEC_UD, "#UD: vmread outside VMX operation");
}

void payload_main(void)
{
    check_writable();
    check_refused();
    check_cpuid();
    check_tsc();
    check_user_tsc();
    check_hidden();
}
