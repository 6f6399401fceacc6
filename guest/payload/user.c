/* Ring 3 and the ways in and out of it: iret, int, syscall and sysret, sysenter and sysexit, in 64-bit and compatibility mode. */
#include "lib/map64.h"

#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_CSTAR 0xc0000083
#define MSR_SFMASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_SYSENTER_CS 0x174
#define MSR_SYSENTER_ESP 0x175
#define MSR_SYSENTER_EIP 0x176

/* What the entry points below have seen. */
struct entry_record {
    word ip, flags, sp, flags_now, cs, ss, arg, count;
};
volatile struct entry_record syscall_record, sysenter_record;

static u8 kernel_stack[4096] __attribute__((aligned(16), used));

/* SYSCALL: records, then goes back by sysretq; ax = 99 ends in a trap instead. */
void syscall_entry(void);
asm("syscall_entry:\n"
    "    mov %rcx, syscall_record(%rip)\n"
    "    mov %r11, syscall_record + 8(%rip)\n"
    "    mov %rsp, syscall_record + 16(%rip)\n"
    "    lea kernel_stack + 4096(%rip), %rsp\n"
    "    pushf\n"
    "    pop syscall_record + 24(%rip)\n"
    "    mov %cs, syscall_record + 32(%rip)\n"
    "    mov %ss, syscall_record + 40(%rip)\n"
    "    mov %rax, syscall_record + 48(%rip)\n"
    "    incq syscall_record + 56(%rip)\n"
    "    mov syscall_record + 16(%rip), %rsp\n"
    "    cmp $99, %eax\n"
    "    je 1f\n"
    "    cmp $98, %eax\n"
    "    je 2f\n"
    "    sysretq\n"
    "2:  sysretl\n"
    "1:  lea kernel_stack + 4096(%rip), %rsp\n"
    "    int $0x81\n");

/* SYSENTER: rdx and rcx say where to go back to, as programs of the 32-bit kind do. */
void sysenter_entry(void);
asm("sysenter_entry:\n"
    "    mov %rdx, sysenter_record(%rip)\n"
    "    mov %rcx, sysenter_record + 16(%rip)\n"
    "    pushf\n"
    "    pop sysenter_record + 24(%rip)\n"
    "    mov %cs, sysenter_record + 32(%rip)\n"
    "    mov %ss, sysenter_record + 40(%rip)\n"
    "    mov %rsp, sysenter_record + 48(%rip)\n"
    "    incq sysenter_record + 56(%rip)\n"
    "    cmp $64, %eax\n"
    "    je 1f\n"
    "    sysexitl\n"
    "1:  sysexitq\n");

/* --- run in ring 3 --- */
void user_syscall(word arg), user_sysenter(word arg), user_regs(word arg),
    user_syscall_trap(word arg);
extern const char user_syscall_after[];
asm("user_syscall:\n"
    "    mov %rdi, %rax\n"
    "    mov $0x1234, %ebx\n"
    "    stc\n"
    "    syscall\n"
    "user_syscall_after:\n"
    "    mov %cs, %esi\n"
    "    mov %ss, %edi\n"
    "    pushf\n"
    "    pop %rdx\n"
    "    int $0x80\n"
    "user_sysenter:\n"
    "    mov %rdi, %rax\n"
    "    lea 1f(%rip), %rdx\n"
    "    mov %rsp, %rcx\n"
    "    sysenter\n"
    "1:  mov %cs, %esi\n"
    "    mov %ss, %edi\n"
    "    int $0x80\n"
    "user_regs:\n"
    "    mov %cs, %eax\n"
    "    mov %ss, %ebx\n"
    "    pushf\n"
    "    pop %rcx\n"
    "    int $0x80\n");

static void check_entry(void)
{
    user_call(user_regs, 0);
    report(trap.vector == VEC_USER_EXIT && trap.ax == SEL_UCODE64 && trap.bx == SEL_UDATA,
           "iretq to ring 3");
    report(trap.cs == SEL_UCODE64 && trap.ss == SEL_UDATA && trap.sp > USER_ALIAS,
           "int from ring 3 saves cs, ss, rsp");
    report((trap.cx & ~FL_ARITH) == 2, "flags in ring 3");
    user_call_as(user_regs, 0, SEL_UCODE64, SEL_UDATA, 2 | FL_IF | FL_AC | FL_ID | FL_IOPL);
    report((trap.flags & ~FL_ARITH) == (2 | FL_IF | FL_AC | FL_ID | FL_IOPL),
           "iretq in ring 0 loads IF, AC, ID, IOPL");
    report(!(read_flags() & FL_IF), "an interrupt gate clears IF");
    TRY_LABEL(
        "push $0x10; push %%rsp; pushf; push %0; lea 3f(%%rip), %%rax; push %%rax; 1: iretq; 3:",
        "r"((word)SEL_UDATA));
    report_trap(VEC_GP, SEL_UDATA & ~3u, "#GP: iretq to a data segment");
    TRY_LABEL(
        "push $0x10; push %%rsp; pushf; push %0; mov $0x800000000000, %%rax; push %%rax; 1: iretq",
        "r"((word)SEL_CODE));
    report(trap.vector == VEC_GP && trap.error == 0, "#GP: iretq to a non-canonical address");
}

static void setup_syscall(void)
{
    wrmsr(MSR_STAR, (u64)SEL_CODE << 32 | (u64)(SEL_UCODE32) << 48);
    wrmsr(MSR_LSTAR, (word)syscall_entry);
    wrmsr(MSR_SFMASK, FL_IF | FL_CF | FL_TF | FL_DF | FL_AC);
}

static void check_syscall(void)
{
    word sp;

    setup_syscall();
    user_call_as(user_syscall, 1, SEL_UCODE64, SEL_UDATA, 2 | FL_IF | FL_ID);
    report(trap.vector == VEC_USER_EXIT && syscall_record.count == 1, "syscall and sysretq");
    report(syscall_record.ip == (word)user_syscall_after + USER_ALIAS,
           "rcx is the address behind it");
    report((syscall_record.flags & (FL_IF | FL_CF | FL_ID)) == (FL_IF | FL_CF | FL_ID),
           "r11 has the flags");
    report(!(syscall_record.flags_now & (FL_IF | FL_CF)) && (syscall_record.flags_now & FL_ID),
           "SFMASK clears flags");
    report((syscall_record.cs & 0xffff) == SEL_CODE && (syscall_record.ss & 0xffff) == SEL_DATA,
           "cs and ss in the kernel");
    report(syscall_record.arg == 1 && trap.bx == 0x1234, "other registers are kept");
    report(trap.si == SEL_UCODE64 && trap.di == SEL_UDATA, "cs and ss after sysretq");
    report((trap.dx & (FL_IF | FL_CF | FL_ID)) == (FL_IF | FL_CF | FL_ID),
           "sysretq restores the flags from r11");
    sp = syscall_record.sp;
    report(sp > USER_ALIAS && sp < USER_ALIAS + PAGE_1G, "syscall leaves rsp alone");
    user_call(user_syscall, 99);
    report(trap.vector == 0x81 && trap.cs == SEL_CODE, "a trap in the kernel's part");
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~EFER_SCE);
    user_call(user_syscall, 1);
    report(trap.vector == VEC_UD && trap.cs == SEL_UCODE64, "#UD: syscall without EFER.SCE");
    TRY("sysretq");
    report_trap(VEC_UD, 0, "#UD: sysret without EFER.SCE");
    wrmsr(0xc0000080, rdmsr(0xc0000080) | EFER_SCE);
}

static void user_privileged(word index)
{
    switch (index) {
    case 0:
        asm volatile("hlt" : :);
        break;
    case 1:
        asm volatile("cli");
        break;
    case 2:
        asm volatile("sti");
        break;
    case 3:
        asm volatile("mov %%cr0, %%rax" : : : "rax");
        break;
    case 4:
        asm volatile("mov %%rax, %%cr3" : : : "memory");
        break;
    case 5:
        asm volatile("rdmsr" : : "c"(MSR_STAR) : "rax", "rdx");
        break;
    case 6:
        asm volatile("wrmsr" : : "c"(MSR_STAR), "a"(0), "d"(0));
        break;
    case 7:
        asm volatile("lgdt (%%rsp)" : : : "memory");
        break;
    case 8:
        asm volatile("lidt (%%rsp)" : : : "memory");
        break;
    case 9:
        asm volatile("ltr %%ax" : : "a"(SEL_TSS));
        break;
    case 10:
        asm volatile("invlpg (%%rsp)" : : : "memory");
        break;
    case 11:
        asm volatile("wbinvd");
        break;
    case 12:
        asm volatile("clts");
        break;
    case 13:
        asm volatile("swapgs");
        break;
    case 14:
        asm volatile("mov %%rax, %%dr7" : : "a"(0));
        break;
    case 15:
        asm volatile("sysretq" : : "c"(0), "a"(0));
        break;
    case 16:
        asm volatile("in $0x80, %%al" : : : "rax");
        break;
    case 17:
        asm volatile("out %%al, $0x80" : : "a"(0));
        break;
    case 18:
        asm volatile("int $0x20");
        break;
    case 19:
        asm volatile("xsetbv" : : "a"(1), "c"(0), "d"(0));
        break;
    case 20:
        asm volatile("lmsw %%ax" : : "a"(1));
        break;
    case 21:
        asm volatile("lldt %%ax" : : "a"(0));
        break;
    case 22:
        asm volatile("mov %%cr8, %%rax" : : : "rax");
        break;
    case 23:
        asm volatile("sysexitq");
        break;
    }
}

static const char *const privileged_names[] = {
    "#GP in ring 3: hlt",
    "#GP in ring 3: cli",
    "#GP in ring 3: sti",
    "#GP in ring 3: mov from cr0",
    "#GP in ring 3: mov to cr3",
    "#GP in ring 3: rdmsr",
    "#GP in ring 3: wrmsr",
    "#GP in ring 3: lgdt",
    "#GP in ring 3: lidt",
    "#GP in ring 3: ltr",
    "#GP in ring 3: invlpg",
    "#GP in ring 3: wbinvd",
    "#GP in ring 3: clts",
    "#GP in ring 3: swapgs",
    "#GP in ring 3: mov to dr7",
    "#GP in ring 3: sysret",
    "#GP in ring 3: in",
    "#GP in ring 3: out",
    "#GP in ring 3: int to a gate of ring 0",
    "#GP in ring 3: xsetbv",
    "#GP in ring 3: lmsw",
    "#GP in ring 3: lldt",
    "#GP in ring 3: mov from cr8",
    "#GP in ring 3: sysexit",
};

static void check_privileged(void)
{
    if (cpuid(1, 0).ecx & BIT(26))
        write_cr4(read_cr4() | CR4_OSXSAVE);
    for (unsigned i = 0; i < ARRAY_LEN(privileged_names); i++) {
        word error = i == 18 ? 0x20 * 8 + 2 : 0;

        if (i == 19 && !(read_cr4() & CR4_OSXSAVE)) {
            report_skip("xsetbv", "no XSAVE");
            continue;
        }
        user_call(user_privileged, i);
        if (i == 23 && trap.vector == VEC_UD) {
            report_skip(privileged_names[i], "AMD has none in long mode");
            continue;
        }
        if (trap.vector != VEC_GP || trap.error != error)
            say("# got vector %lu error 0x%lx\n", trap.vector, trap.error);
        report(trap.vector == VEC_GP && trap.error == error && trap.cs == SEL_UCODE64,
               privileged_names[i]);
    }
    tss_iomap[0x80 / 8] &= ~1;
    user_call(user_privileged, 17);
    report(trap.vector == VEC_USER_EXIT, "out through the I/O permission bitmap");
    tss_iomap[0x80 / 8] |= 1;
    user_call_as(user_privileged, 17, SEL_UCODE64, SEL_UDATA, 2 | FL_IOPL);
    report(trap.vector == VEC_USER_EXIT, "out with IOPL 3");
    user_call_as(user_privileged, 1, SEL_UCODE64, SEL_UDATA, 2 | FL_IOPL | FL_IF);
    report(trap.vector == VEC_USER_EXIT && !(trap.flags & FL_IF), "cli with IOPL 3");
}

static void user_popf(word flags)
{
    asm volatile("push %0; popf; pushf; pop %%rax; int $0x80" : : "r"(flags) : "rax");
}

static void check_popf(void)
{
    user_call_as(user_popf, 0xed7 | FL_AC | FL_ID | FL_IOPL, SEL_UCODE64, SEL_UDATA, 2 | FL_IF);
    report(trap.ax == (0xed7ul | FL_AC | FL_ID), "popf in ring 3 changes neither IF nor IOPL");
    user_call_as(user_popf, 2, SEL_UCODE64, SEL_UDATA, 2 | FL_IF);
    report(trap.ax == (2 | FL_IF), "and keeps IF");
}

static void user_umip(word index)
{
    u8 room[16];

    switch (index) {
    case 0:
        asm volatile("sgdt %0" : : "m"(room) : "memory");
        break;
    case 1:
        asm volatile("sidt %0" : : "m"(room) : "memory");
        break;
    case 2:
        asm volatile("sldt %%eax" : : : "rax");
        break;
    case 3:
        asm volatile("str %%eax" : : : "rax");
        break;
    case 4:
        asm volatile("smsw %%eax" : : : "rax");
        break;
    }
}

static void check_umip(void)
{
    static const char *const names[] = {"UMIP: sgdt", "UMIP: sidt", "UMIP: sldt", "UMIP: str",
                                        "UMIP: smsw"};

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        user_call(user_umip, i);
        if (trap.vector != VEC_USER_EXIT)
            report(false, names[i]);
    }
    report(true, "sgdt, sidt, sldt, str, smsw in ring 3 without UMIP");
    if (!(cpuid(7, 0).ecx & BIT(2))) {
        report_skip("UMIP", "not in CPUID");
        return;
    }
    write_cr4(read_cr4() | CR4_UMIP);
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        user_call(user_umip, i);
        report(trap.vector == VEC_GP && trap.error == 0, names[i]);
    }
    write_cr4(read_cr4() & ~CR4_UMIP);
}

static void check_gs(void)
{
    static u64 values[2] = {0x1111, 0x2222};
    u64 seen;

    wrmsr(MSR_GS_BASE, (word)&values[0]);
    wrmsr(MSR_KERNEL_GS_BASE, (word)&values[1]);
    asm volatile("mov %%gs:0, %0" : "=r"(seen));
    report(seen == 0x1111, "GS base by MSR");
    asm volatile("swapgs; mov %%gs:0, %0" : "=r"(seen));
    report(seen == 0x2222 && rdmsr(MSR_KERNEL_GS_BASE) == (word)&values[0], "swapgs");
    asm volatile("swapgs");
    wrmsr(MSR_FS_BASE, (word)values - 16);
    asm volatile("mov %%fs:24, %0" : "=r"(seen));
    report(seen == 0x2222, "FS base by MSR");
    asm volatile("mov %0, %%fs" : : "r"(SEL_UDATA));
    report(rdmsr(MSR_FS_BASE) == 0, "loading fs loads its base from the descriptor");
    if (!(cpuid(7, 0).ebx & 1)) {
        report_skip("FSGSBASE", "not in CPUID");
        return;
    }
    TRY("rdfsbase %%rax");
    report_trap(VEC_UD, 0, "#UD: rdfsbase without CR4.FSGSBASE");
    write_cr4(read_cr4() | CR4_FSGSBASE);
    asm volatile("wrfsbase %0" : : "r"(values));
    asm volatile("rdfsbase %0" : "=r"(seen));
    report(seen == (word)values && rdmsr(MSR_FS_BASE) == seen, "wrfsbase and rdfsbase");
    asm volatile("wrgsbase %0; mov %%gs:8, %1" : "+r"(seen), "=r"(values[0]));
    report(values[0] == 0x2222, "wrgsbase");
    TRY("wrgsbase %0", "r"(0x800000000000ul));
    report_trap(VEC_GP, 0, "#GP: wrgsbase, not canonical");
    write_cr4(read_cr4() & ~CR4_FSGSBASE);
}

static void check_sysenter(void)
{
    static u8 stack[4096] __attribute__((aligned(16)));

    wrmsr(MSR_SYSENTER_CS, 0);
    user_call(user_sysenter, 64);
    if (trap.vector == VEC_UD) {
        report_skip("sysenter", "AMD has none in long mode");
        return;
    }
    report(trap.vector == VEC_GP && trap.error == 0, "#GP: sysenter with a null MSR");
    wrmsr(MSR_SYSENTER_CS, SEL_SYSENTER);
    wrmsr(MSR_SYSENTER_ESP, (word)(stack + sizeof(stack)));
    wrmsr(MSR_SYSENTER_EIP, (word)sysenter_entry);
    user_call_as(user_sysenter, 64, SEL_UCODE64, SEL_UDATA, 2 | FL_IF);
    report(trap.vector == VEC_USER_EXIT && sysenter_record.count == 1,
           "sysenter and sysexit, 64 bits");
    report((sysenter_record.cs & 0xffff) == SEL_SYSENTER &&
               (sysenter_record.ss & 0xffff) == SEL_SYSENTER + 8,
           "cs and ss in the kernel");
    report(sysenter_record.arg == (word)(stack + sizeof(stack)) &&
               !(sysenter_record.flags_now & FL_IF),
           "rsp and IF");
    report(trap.si == (SEL_SYSENTER + 32) + 3 && trap.di == (SEL_SYSENTER + 40) + 3,
           "cs and ss after sysexit");
}

/* Code and stack of compatibility mode must be below 4 GiB: opens the first 64 MiB to ring 3. */
static void open_low_memory(void)
{
    for (word at = 0; at < 32 * PAGE_2M; at += PAGE_2M)
        *entry_of(page_tables, at, 2) |= PTE_U;
    *entry_of(page_tables, 0, 3) |= PTE_U;
    *entry_of(page_tables, 0, 4) |= PTE_U;
    write_cr3(read_cr3());
}

/* Compatibility mode: code of 32 bits, below 4 GiB, in a page of its own. */
static void check_compat(void)
{
    static const u8 code[] = {
        0x8c, 0xc8,                   /* mov %cs, %eax */
        0x40,                         /* inc %eax: a prefix in 64-bit mode */
        0xbb, 0x78, 0x56, 0x34, 0x12, /* mov $0x12345678, %ebx */
        0x53,                         /* push %ebx */
        0x89, 0xe1,                   /* mov %esp, %ecx */
        0x5a,                         /* pop %edx */
        0x60, 0x61,                   /* pusha; popa */
        0xcd, 0x80,
    };
    u8 *page = page_alloc();

    memcpy(page, code, sizeof(code));
    open_low_memory();
    user_call_as((void (*)(word))(word)(page - USER_ALIAS), 0, SEL_UCODE32, SEL_UDATA, 2);
    if (trap.vector != VEC_USER_EXIT)
        say("# got vector %lu error 0x%lx ip 0x%lx cr2 0x%lx\n", trap.vector, trap.error, trap.ip,
            trap.cr2);
    report(trap.vector == VEC_USER_EXIT, "compatibility mode is entered");
    report(trap.vector == VEC_USER_EXIT && trap.ax == SEL_UCODE32 + 1 && trap.cs == SEL_UCODE32,
           "it runs 32-bit code");
    report(trap.dx == 0x12345678 && (trap.cx >> 32) == 0, "with a 32-bit stack");
}

void payload_main(void)
{
    check_entry();
    check_syscall();
    check_privileged();
    check_popf();
    check_umip();
    check_gs();
    check_sysenter();
    check_compat();
}
