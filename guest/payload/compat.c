/*
 * Long mode's other half: compatibility code of 32 and 16 bits in ring 3 and ring 0, the ways in and out of it, far transfers
 * and call gates of 64 bits (SDM 3A 3.2.4, 5.8.3.1).
 */
#include "lib/map64.h"

#define SEL_GATE64 SEL_FREE /* two slots */
#define SEL_UCODE16 (SEL_FREE + 0x10)
#define SEL_GATE_U (SEL_FREE + 0x18) /* two slots */
#define SEL_LOW_STACK (SEL_FREE + 0x28)

void compat_regs(void), compat_wrap(void), compat_syscall(void), compat_sysenter(void),
    compat_fault(void);
void compat_kernel(void), compat_16(void), compat_string(void), cstar_entry(void),
    sysenter32_entry(void);
volatile u64 entry_seen[2];

/* Code and stack of compatibility mode must be below 4 GiB: opens the first 64 MiB to ring 3. */
static void open_low_memory(void)
{
    for (word at = 0; at < 32 * PAGE_2M; at += PAGE_2M)
        *entry_of(page_tables, at, 2) |= PTE_U;
    *entry_of(page_tables, 0, 3) |= PTE_U;
    *entry_of(page_tables, 0, 4) |= PTE_U;
    write_cr3(read_cr3());
}

static void run(void (*fn)(void), word cs)
{
    user_call_as((void (*)(word))((word)fn - USER_ALIAS), 0, cs, SEL_UDATA, 2);
    if (trap.vector != VEC_USER_EXIT)
        say("# vector %lu error 0x%lx ip 0x%lx cr2 0x%lx\n", trap.vector, trap.error, trap.ip,
            trap.cr2);
}

static void check_code(void)
{
    run(compat_regs, SEL_UCODE32);
    report(trap.vector == VEC_USER_EXIT && trap.cs == SEL_UCODE32 && trap.si == SEL_UCODE32,
           "32-bit code runs");
    report(trap.dx == 0x12345678, "with a stack of 32-bit words");
    run(compat_wrap, SEL_UCODE32);
    report(trap.vector == VEC_USER_EXIT && trap.bx == 0xfeedface, "addresses wrap at 4 GiB");
    run(compat_string, SEL_UCODE32);
    report(trap.bx == 0xfeedface && trap.cx == 0, "string instructions");
    run(compat_fault, SEL_UCODE32);
    report(trap.vector == VEC_GP && trap.ip == (word)compat_fault + 5 && trap.bx == 0x10,
           "a fault in 32-bit code");
    report(trap.ss == SEL_UDATA && trap.sp < 1ul << 32, "its frame has ss and rsp");
}

static void check_16bit(void)
{
    word base = (word)compat_16;

    gdt_set(SEL_UCODE16, (u32)base, 0xffff, 0x00fb);
    user_call_as((void (*)(word))(0 - USER_ALIAS), 0, SEL_UCODE16 | 3, SEL_UDATA, 2);
    report(trap.vector == VEC_USER_EXIT && (trap.bx & 0xffff) == 0x1234 &&
               (u32)trap.cx == 0x55667788,
           "16-bit code with a base runs under long mode");
    report(trap.cs == (SEL_UCODE16 | 3) && trap.ip < 64, "its rip is relative to the base");
}

static void check_syscall(void)
{
    wrmsr(0xc0000081, (u64)SEL_CODE << 32 | (u64)SEL_UCODE32 << 48);
    wrmsr(0xc0000083, (word)cstar_entry);
    wrmsr(0xc0000084, 0);
    entry_seen[0] = 0;
    user_call_as((void (*)(word))((word)compat_syscall - USER_ALIAS), 0, SEL_UCODE32, SEL_UDATA, 2);
    if (trap.vector == VEC_UD)
        report_skip("syscall from 32-bit code", "Intel has none");
    else
        report(trap.vector == VEC_USER_EXIT && entry_seen[0] == 77 && trap.bx == SEL_UCODE32,
               "syscall from 32-bit code");
    wrmsr(0x174, SEL_SYSENTER);
    wrmsr(0x175, (word)page_alloc() + PAGE);
    wrmsr(0x176, (word)sysenter32_entry);
    user_call_as((void (*)(word))((word)compat_sysenter - USER_ALIAS), 0, SEL_UCODE32, SEL_UDATA,
                 2);
    if (trap.vector == VEC_UD) {
        report_skip("sysenter from 32-bit code", "AMD has none in long mode");
        return;
    }
    report(trap.vector == VEC_USER_EXIT && entry_seen[0] == 32 && trap.bx == SEL_SYSENTER + 16 + 3,
           "sysenter and sysexit from 32-bit code");
}

static void check_far(void)
{
    struct __attribute__((packed)) {
        u32 offset;
        u16 sel;
    } to_compat = {(u32)(word)compat_kernel, SEL_CODE32}, to_data = {0, SEL_DATA};
    u64 cs = 0;

    asm volatile("lcall *(%1)" : "=a"(cs) : "r"(&to_compat) : "rdx", "memory");
    report((cs & 0xffff) == SEL_CODE32,
           "far call from 64-bit code to ring 0's 32-bit code, and back");
    TRY("lcall *(%0)", "r"(&to_data));
    report_trap(VEC_GP, SEL_DATA, "#GP: far call to a data segment");
    asm volatile("push %1; lea 1f(%%rip), %%rax; push %%rax; lretq; 1: mov %%cs, %0"
                 : "=r"(cs)
                 : "r"((word)SEL_CODE)
                 : "rax", "memory");
    report((cs & 0xffff) == SEL_CODE, "far return of 64 bits");
}

/* --- call gates of 64 bits --- */
static volatile word gate_cs, gate_sp, gate_count;
void gate64_entry(void);
asm("gate64_entry:\n"
    "    mov %cs, gate_cs(%rip)\n"
    "    mov %rsp, gate_sp(%rip)\n"
    "    incq gate_count(%rip)\n"
    "    lretq\n");

void user_gate(word arg);
asm("user_gate:\n"
    "    lcall *(%rdi)\n"
    "    int $0x80\n");

static void set_gate(u16 sel, word entry, u8 type_dpl)
{
    gdt[sel / 8] =
        (entry >> 16 & 0xffff) << 48 | (u64)type_dpl << 40 | (u64)SEL_CODE << 16 | (entry & 0xffff);
    gdt[sel / 8 + 1] = entry >> 32;
}

static void check_gates(void)
{
    static struct __attribute__((packed)) {
        u32 offset;
        u16 sel;
    } through = {0x11111111, SEL_GATE64}, from_user = {0, SEL_GATE_U | 3};

    set_gate(SEL_GATE64, (word)gate64_entry, 0x8c);
    TRY("lcall *(%0)", "r"(&through));
    report(trap.vector == VEC_NONE && gate_count == 1, "call gate of 64 bits, same ring");
    set_gate(SEL_GATE_U, (word)gate64_entry, 0xec);
    user_call(user_gate, (word)user_ptr(&from_user));
    report(trap.vector == VEC_USER_EXIT && gate_count == 2 && (gate_cs & 0xffff) == SEL_CODE,
           "call gate from ring 3");
    report(gate_sp == tss.rsp[0] - 32 && trap.cs == SEL_UCODE64,
           "on the stack of the TSS, and back");
    user_call(user_gate, (word)user_ptr(&through));
    report(trap.vector == VEC_GP && trap.error == SEL_GATE64,
           "#GP: a gate that ring 3 may not use");
    set_gate(SEL_GATE64, 1ul << 47, 0x8c);
    TRY("lcall *(%0)", "r"(&through));
    report(trap.vector == VEC_GP, "#GP: a gate to a non-canonical address");
}

/* iretq into 32-bit code of ring 0 and back through a software interrupt. */
static void check_iret(void)
{
    word flags = 2;

    TRY_LABEL("mov %%rsp, %%r8; push %2; push %%r8; push %0; push %1; lea 3f(%%rip), %%rax; push "
              "%%rax; 1: iretq;"
              ".code32; 3: mov %%cs, %%eax; int $0x81; .code64",
              "r"(flags), "r"((word)SEL_CODE32), "r"((word)SEL_DATA));
    report(trap.vector == 0x81 && trap.cs == SEL_CODE32 && trap.ax == SEL_CODE32,
           "iretq to 32-bit code of ring 0");
    TRY_LABEL("mov %%rsp, %%r8; push %1; push %%r8; push %0; push $0x1008; lea 3f(%%rip), %%rax; "
              "push %%rax; 1: iretq; 3:",
              "r"(flags), "r"((word)SEL_DATA));
    report_trap(VEC_GP, 0x1008, "#GP: iretq to a selector past the GDT");
}

void payload_main(void)
{
    check_far();
    check_gates();
    check_iret();
    open_low_memory();
    check_code();
    check_16bit();
    check_syscall();
}
