/*
 * Exceptions are precise: vector, error code, saved instruction pointer and cr2 of each that an operating system meets
 * (SDM 3A 6.15). Long mode.
 */
#include "payload.h"

#define PF_P 1
#define PF_W 2
#define PF_U 4
#define PF_RSVD 8
#define PF_I 16

#define UNMAPPED 0x10000000000ul /* PML4 slot 2 is empty */
#define NON_CANONICAL 0x800000000000ul

static void check_arithmetic(void)
{
    TRY("div %0", "r"(0ul), "a"(1ul), "d"(0ul));
    report_trap(VEC_DE, 0, "#DE: division by zero");
    TRY("divb %b0", "r"(1ul), "a"(0x1000ul));
    report_trap(VEC_DE, 0, "#DE: quotient of 8-bit div too large");
    TRY("idivl %k0", "r"(-1), "a"(0x80000000u), "d"(-1));
    report_trap(VEC_DE, 0, "#DE: idiv of the smallest number by -1");
    TRY("idivq %0", "r"(-1l), "a"(1ul << 63), "d"(-1l));
    report_trap(VEC_DE, 0, "#DE: 64-bit idiv of the smallest number by -1");
    TRY("divq %0", "r"(5ul), "a"(0ul), "d"(5ul));
    report_trap(VEC_DE, 0, "#DE: 64-bit div, high half not below the divisor");
    report(trap.ax == 0 && trap.dx == 5, "#DE leaves the registers as they were");
    TRY("divq %0", "r"(5ul), "a"(4ul), "d"(4ul));
    report_no_trap("64-bit div with a large dividend");
}

static void check_software(void)
{
    TRY("int3");
    report(trap.vector == VEC_BP && trap.ip == trap_at + 1, "int3: #BP, saved rip is behind it");
    TRY(".byte 0xcd, 3");
    report(trap.vector == VEC_BP && trap.ip == trap_at + 2, "int 3 in two bytes");
    TRY("int $0x81");
    report(trap.vector == 0x81 && trap.ip == trap_at + 2 && trap.error == 0, "int n");
    TRY(".byte 0xf1");
    report(trap.vector == VEC_DB && trap.ip == trap_at + 1,
           "int1 (ICEBP): #DB, saved rip is behind it");
    TRY(".byte 0xce");
    report_trap(VEC_UD, 0, "#UD: into in 64-bit mode");
}

static void check_undefined(void)
{
    TRY("ud2");
    report_trap(VEC_UD, 0, "#UD: ud2");
    TRY(".byte 0x0f, 0xff, 0xc0");
    report_trap(VEC_UD, 0, "#UD: ud0");
    TRY("ud1 %%eax, %%eax");
    report_trap(VEC_UD, 0, "#UD: ud1");
    TRY(".byte 0xf0, 0x90");
    report_trap(VEC_UD, 0, "#UD: lock nop");
    TRY(".byte 0xf0, 0x01, 0xc0");
    report_trap(VEC_UD, 0, "#UD: lock with a register destination");
    TRY(".byte 0xf0, 0x8b, 0x04, 0x24");
    report_trap(VEC_UD, 0, "#UD: lock mov");
    TRY(".byte 0x06");
    report_trap(VEC_UD, 0, "#UD: push es in 64-bit mode");
    TRY(".byte 0x27");
    report_trap(VEC_UD, 0, "#UD: daa in 64-bit mode");
    TRY(".byte 0x9a, 0, 0, 0, 0, 0, 0");
    report_trap(VEC_UD, 0, "#UD: direct far call in 64-bit mode");
    TRY(".byte 0x8e, 0xc8");
    report_trap(VEC_UD, 0, "#UD: mov to cs");
    TRY(".byte 0x8d, 0xc0");
    report_trap(VEC_UD, 0, "#UD: lea with a register");
    TRY(".byte 0x0f, 0x20, 0xc8");
    report_trap(VEC_UD, 0, "#UD: mov from cr1");
    TRY(".byte 0xff, 0xf8");
    report_trap(VEC_UD, 0, "#UD: opcode ff /7");
    /* 15 bytes are the most; segment prefixes fill up the rest. */
    TRY(".fill 14, 1, 0x2e; nop");
    report_no_trap("an instruction of 15 bytes");
    TRY(".fill 15, 1, 0x2e; nop");
    report_trap(VEC_GP, 0, "#GP: an instruction of 16 bytes");
}

static void check_general(void)
{
    TRY("mov (%0), %%al", "r"(NON_CANONICAL));
    report_trap(VEC_GP, 0, "#GP: load from a non-canonical address");
    TRY("mov %%al, (%0)", "r"(NON_CANONICAL));
    report_trap(VEC_GP, 0, "#GP: store to a non-canonical address");
    TRY("mov (%0), %%rax", "r"(NON_CANONICAL - 4));
    report(trap.vector == VEC_GP || trap.vector == VEC_PF,
           "a load across the canonical limit faults");
    TRY_LABEL("mov %%rsp, %%r8; mov %0, %%rsp; 1: push %%rax; mov %%r8, %%rsp",
              "r"(NON_CANONICAL + 64));
    report_trap(VEC_SS, 0, "#SS: push to a non-canonical address");
    TRY_LABEL("mov %0, %%rbp; 1: mov (%%rbp), %%al", "r"(NON_CANONICAL));
    report_trap(VEC_SS, 0, "#SS: load through rbp from a non-canonical address");
    TRY("jmp *%0", "r"(NON_CANONICAL));
    /* A translator may notice only at the target: rip is the one or the other. */
    report(trap.vector == VEC_GP && trap.error == 0, "#GP: jmp to a non-canonical address");
    TRY("mov %k0, %%ds", "r"(0x1ff0));
    report_trap(VEC_GP, 0x1ff0, "#GP: selector beyond the GDT");
    TRY("mov %k0, %%ss", "r"(0));
    report_no_trap("null ss in ring 0 of 64-bit mode");
    TRY("mov %k0, %%ss", "r"(SEL_CODE));
    report_trap(VEC_GP, SEL_CODE, "#GP: code segment in ss");
    gdt_set(SEL_FREE, 0, 0xfffff, 0xc013);
    TRY("mov %k0, %%ds", "r"(SEL_FREE));
    report_trap(VEC_NP, SEL_FREE, "#NP: data segment not present");
    TRY("mov %k0, %%ss", "r"(SEL_FREE));
    report_trap(VEC_SS, SEL_FREE, "#SS: stack segment not present");
    TRY("mov %0, %%cr8", "r"(16ul));
    report_trap(VEC_GP, 0, "#GP: reserved bits of cr8");
    TRY("rdmsr", "c"(0x12345));
    report_trap(VEC_GP, 0, "#GP: rdmsr of a register there is not");
    TRY("wrmsr", "c"(0x12345), "a"(0), "d"(0));
    report_trap(VEC_GP, 0, "#GP: wrmsr of a register there is not");
    TRY("wrmsr", "c"(0xc0000082), "a"(0), "d"(0x8000));
    report_trap(VEC_GP, 0, "#GP: non-canonical LSTAR");
    TRY("int $0x40", "a"(0));
    report(trap.vector == 0x40, "int through a gate");
    idt[0x40].type = 0;
    TRY("int $0x40", "a"(0));
    report_trap(VEC_GP, 0x40 * 8 + 2, "#GP: int through an entry that is no gate");
    idt[0x40].type = GATE_INT & ~0x80;
    TRY("int $0x40", "a"(0));
    report_trap(VEC_NP, 0x40 * 8 + 2, "#NP: int through a gate not present");
    idt[0x40].type = GATE_INT;
    idt[0x40].sel = SEL_DATA;
    TRY("int $0x40", "a"(0));
    report_trap(VEC_GP, SEL_DATA, "#GP: gate to a data segment");
    idt[0x40].sel = 0;
    TRY("int $0x40", "a"(0));
    report_trap(VEC_GP, 0, "#GP: gate with a null selector");
    idt[0x40].sel = SEL_CODE;
}

static void check_page_faults(void)
{
    u8 *p = (u8 *)UNMAPPED;

    TRY("mov (%0), %%al", "r"(p + 0x123));
    report_page_fault(0, UNMAPPED + 0x123, "#PF: load, not present");
    TRY("mov %%al, (%0)", "r"(p + 0x456));
    report_page_fault(PF_W, UNMAPPED + 0x456, "#PF: store, not present");
    TRY("addl $1, (%0)", "r"(p));
    report_page_fault(PF_W, UNMAPPED, "#PF: read-modify-write counts as a write");
    TRY("lock cmpxchg %%ecx, (%0)", "r"(p));
    report_page_fault(PF_W, UNMAPPED, "#PF: cmpxchg counts as a write");
    TRY("cmpl $1, (%0)", "r"(p));
    report_page_fault(0, UNMAPPED, "#PF: cmp counts as a read");
    TRY("movups (%0), %%xmm0", "r"(p + 8));
    report_page_fault(0, UNMAPPED + 8, "#PF: SSE load");
    TRY("movups %%xmm0, (%0)", "r"(p + 8));
    report_page_fault(PF_W, UNMAPPED + 8, "#PF: SSE store");
    TRY("fldl (%0)", "r"(p + 16));
    report_page_fault(0, UNMAPPED + 16, "#PF: x87 load");
    TRY("pushq (%0)", "r"(p));
    report_page_fault(0, UNMAPPED, "#PF: push from memory");
    TRY_LABEL("mov %%rsp, %%r8; mov %0, %%rsp; 1: push %%rax; mov %%r8, %%rsp", "r"(p + 64));
    report_page_fault(PF_W, UNMAPPED + 56, "#PF: push");
    report(trap.sp == UNMAPPED + 64, "a push that faults leaves rsp alone");
    TRY_LABEL("mov %%rsp, %%r8; mov %0, %%rsp; 1: call 3f; 3: mov %%r8, %%rsp", "r"(p + 64));
    report_page_fault(PF_W, UNMAPPED + 56, "#PF: call");
    TRY_LABEL("mov %%rsp, %%r8; mov %0, %%rsp; 1: pop %%rax; mov %%r8, %%rsp", "r"(p + 64));
    report_page_fault(0, UNMAPPED + 64, "#PF: pop");
    TRY_LABEL("mov %%rsp, %%r8; mov %0, %%rsp; 1: ret; mov %%r8, %%rsp", "r"(p + 64));
    report_page_fault(0, UNMAPPED + 64, "#PF: ret");
    trap_clear();
    TRY("call *%0", "r"(p));
    report(trap.vector == VEC_PF && trap.error == PF_I && trap.ip == UNMAPPED &&
               trap.cr2 == UNMAPPED,
           "#PF: fetch, not present; rip is the target");
    TRY("xlatb", "b"(p), "a"(5));
    report_page_fault(0, UNMAPPED + 5, "#PF: xlat");
    TRY("cmpxchg16b (%0)", "r"(p));
    report_page_fault(PF_W, UNMAPPED, "#PF: cmpxchg16b");
    TRY("lgdt (%0)", "r"(p));
    report_page_fault(0, UNMAPPED, "#PF: lgdt");
    TRY("sgdt (%0)", "r"(p));
    report(trap.vector == VEC_PF && trap.error == PF_W, "#PF: sgdt");
    TRY("fxsave (%0)", "r"(p));
    report_page_fault(PF_W, UNMAPPED, "#PF: fxsave");
    TRY("mov (%0), %%eax", "r"(p - 2 + 0x0));
    report(trap.vector == VEC_PF, "#PF: load across into an unmapped page");
}

static void check_alignment_of_sse(void)
{
    u8 *page = page_alloc();

    TRY("movaps (%0), %%xmm0", "r"(page + 16));
    report_no_trap("movaps, aligned");
    TRY("movaps (%0), %%xmm0", "r"(page + 8));
    report_trap(VEC_GP, 0, "#GP: movaps load, misaligned");
    TRY("movaps %%xmm0, (%0)", "r"(page + 8));
    report_trap(VEC_GP, 0, "#GP: movaps store, misaligned");
    TRY("paddd (%0), %%xmm0", "r"(page + 8));
    report_trap(VEC_GP, 0, "#GP: SSE operand, misaligned");
    TRY("cmpxchg16b (%0)", "r"(page + 8));
    report_trap(VEC_GP, 0, "#GP: cmpxchg16b, misaligned");
    TRY("fxsave (%0)", "r"(page + 8));
    report_trap(VEC_GP, 0, "#GP: fxsave, misaligned");
    TRY("movaps (%0), %%xmm0", "r"((u8 *)UNMAPPED + 8));
    report_trap(VEC_GP, 0, "alignment comes before the page fault");
}

static void check_device_not_available(void)
{
    write_cr0(read_cr0() | CR0_TS);
    TRY("fld1");
    report_trap(VEC_NM, 0, "#NM: x87 with TS");
    TRY("movaps %%xmm0, %%xmm1");
    report_trap(VEC_NM, 0, "#NM: SSE with TS");
    TRY("fwait");
    report_trap(VEC_NM, 0, "#NM: fwait with TS and MP");
    write_cr0(read_cr0() & ~CR0_MP);
    TRY("fwait");
    report_no_trap("fwait with TS, without MP");
    asm volatile("clts");
    TRY("fninit");
    report_no_trap("x87 after clts");
    write_cr0(read_cr0() | CR0_EM);
    TRY("fninit");
    report_trap(VEC_NM, 0, "#NM: x87 with EM");
    TRY("movaps %%xmm0, %%xmm1");
    report_trap(VEC_UD, 0, "#UD: SSE with EM");
    write_cr0((read_cr0() & ~CR0_EM) | CR0_MP);
    write_cr4(read_cr4() & ~CR4_OSFXSR);
    TRY("movaps %%xmm0, %%xmm1");
    report_trap(VEC_UD, 0, "#UD: SSE without OSFXSR");
    write_cr4(read_cr4() | CR4_OSFXSR);
}

/* QEMU's TCG lets some of these through and is lost then, so they come last. */
static void check_reserved(void)
{
    TRY("mov %0, %%cr4", "r"(read_cr4() | 1ul << 40));
    report_trap(VEC_GP, 0, "#GP: reserved bits of cr4");
    TRY("mov %0, %%cr0", "r"(read_cr0() & ~CR0_PE));
    report_trap(VEC_GP, 0, "#GP: cr0 with PG but without PE");
    TRY("mov %0, %%cr4", "r"(read_cr4() & ~CR4_PAE));
    report_trap(VEC_GP, 0, "#GP: PAE off in long mode");
    TRY("mov %k0, %%ss", "r"(3));
    report_trap(VEC_GP, 0, "#GP: null ss with RPL 3 in ring 0");
}

void payload_main(void)
{
    /* Some cases fault on their stack: these need one of their own. */
    idt[VEC_SS].ist = idt[VEC_GP].ist = idt[VEC_PF].ist = idt[VEC_DF].ist = 1;
    check_arithmetic();
    check_software();
    check_undefined();
    check_general();
    check_page_faults();
    check_alignment_of_sse();
    check_device_not_available();
    check_reserved();
}
