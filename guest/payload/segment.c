/* Segments in 32-bit protected mode: limits, types, privileges, call gates, the LDT, 16-bit code, rings (SDM 3A, chapters 3 and 5). */
#include "payload.h"

#define SEL_SMALL (SEL_FREE)        /* data, 4 KiB of bytes */
#define SEL_PAGES (SEL_FREE + 0x08) /* data, page granular */
#define SEL_DOWN (SEL_FREE + 0x10)  /* expand-down */
#define SEL_READ (SEL_FREE + 0x18)  /* read-only */
#define SEL_EXEC (SEL_FREE + 0x20)  /* execute-only */
#define SEL_BASED (SEL_FREE + 0x28) /* data with a base */
#define SEL_GATE (SEL_FREE + 0x30)  /* call gate */
#define SEL_LDT (SEL_FREE + 0x38)
#define SEL_CONF (SEL_FREE + 0x40) /* conforming code */
#define SEL_ABSENT (SEL_FREE + 0x48)
#define SEL_GATE_IN (SEL_FREE + 0x50) /* call gate for ring 3 into ring 0 */
#define SEL_STACK (SEL_FREE + 0x58)   /* a small stack for ring 3 */

static u32 words[4096] __attribute__((aligned(4096)));

/* Runs text with %es = sel; %0 is the offset. */
#define TRY_ES(text, sel, offset) \
    TRY_LABEL("mov %1, %%es; 1: " text "\nmov $0x10, %%eax; mov %%eax, %%es", "r"(offset), "r"(sel))

void user_push(word arg);
asm("user_push: push %eax\n"
    "int $0x80\n");

static void check_limits(void)
{
    gdt_set(SEL_SMALL, (u32)words, 0xfff, 0x4093);
    gdt_set(SEL_PAGES, (u32)words, 1, 0xc093);
    gdt_set(SEL_DOWN, (u32)words, 0xfff, 0x4097);
    gdt_set(SEL_BASED, (u32)&words[16], 0xfffff, 0xc093);
    words[16] = 0x1234;
    TRY_ES("mov %%es:(%0), %%eax", SEL_SMALL, 0xffc);
    report_no_trap("the last word within the limit");
    TRY_ES("mov %%es:(%0), %%eax", SEL_SMALL, 0xffd);
    report_trap(VEC_GP, 0, "#GP: a word that ends past the limit");
    TRY_ES("mov %%es:(%0), %%al", SEL_SMALL, 0x1000);
    report_trap(VEC_GP, 0, "#GP: a byte past the limit");
    TRY_ES("mov %%es:(%0), %%eax", SEL_SMALL, 0xfffffffe);
    report_trap(VEC_GP, 0, "#GP: a word that wraps around");
    TRY_ES("movb $1, %%es:(%0)", SEL_PAGES, 0x1fff);
    report_no_trap("page granularity: the last byte");
    TRY_ES("movb $1, %%es:(%0)", SEL_PAGES, 0x2000);
    report_trap(VEC_GP, 0, "#GP: page granularity, past the limit");
    TRY_ES("mov %%es:(%0), %%al", SEL_DOWN, 0xfff);
    report_trap(VEC_GP, 0, "#GP: expand-down, below the limit");
    TRY_ES("mov %%es:(%0), %%al", SEL_DOWN, 0x1000);
    report_no_trap("expand-down, above the limit");
    TRY_LABEL("mov %0, %%fs; mov %%fs:0, %%eax; mov %%eax, (%1); 1: nop", "r"(SEL_BASED),
              "r"(&words[0]));
    report(trap.vector == VEC_NONE && words[0] == 0x1234, "a segment's base is added");
    TRY_LABEL("mov %0, %%gs; mov %%gs:-64, %%eax; mov %%eax, (%1); 1: nop", "r"(SEL_BASED),
              "r"(&words[1]));
    gdt_set(SEL_STACK, 0, 0xfff, 0x40f3);
    user_call_as(user_push, 0, SEL_UCODE32, SEL_STACK | 3, 2);
    report(trap.vector == VEC_SS && trap.error == 0 && trap.ip == (word)user_push,
           "#SS: a push past the stack's limit");
}

static void check_types(void)
{
    gdt_set(SEL_READ, 0, 0xfffff, 0xc091);
    gdt_set(SEL_EXEC, 0, 0xfffff, 0xc099);
    gdt_set(SEL_ABSENT, 0, 0xfffff, 0xc013);
    TRY_ES("movb $1, %%es:(%0)", SEL_READ, words);
    report_trap(VEC_GP, 0, "#GP: store into a read-only segment");
    TRY_ES("mov %%es:(%0), %%al", SEL_READ, words);
    report_no_trap("load from a read-only segment");
    TRY_LABEL("1: mov %0, %%es", "r"(SEL_EXEC));
    report_trap(VEC_GP, SEL_EXEC, "#GP: execute-only code in es");
    TRY_ES("mov %%es:(%0), %%al", SEL_CODE32, words);
    report_no_trap("readable code in es");
    TRY_ES("movb $1, %%es:(%0)", SEL_CODE32, words);
    report_trap(VEC_GP, 0, "#GP: store through a code segment");
    TRY("movb $1, %%cs:(%0)", "r"(words));
    report_trap(VEC_GP, 0, "#GP: store through cs");
    TRY("mov %0, %%ss", "r"(SEL_READ));
    report_trap(VEC_GP, SEL_READ, "#GP: read-only segment in ss");
    TRY("mov %0, %%ss", "r"(0));
    report_trap(VEC_GP, 0, "#GP: null selector in ss");
    TRY("mov %0, %%es", "r"(SEL_ABSENT));
    report_trap(VEC_NP, SEL_ABSENT, "#NP: absent segment");
    TRY("mov %0, %%ss", "r"(SEL_ABSENT));
    report_trap(VEC_SS, SEL_ABSENT, "#SS: absent stack segment");
    TRY_ES("mov %%es:(%0), %%al", 0, words);
    report_trap(VEC_GP, 0, "#GP: load through a null selector");
    TRY("mov %0, %%es", "r"(GDT_ENTRIES * 8));
    report_trap(VEC_GP, GDT_ENTRIES * 8, "#GP: selector past the GDT's limit");
    TRY("mov %0, %%es", "r"(0x0c));
    report(trap.vector == VEC_GP && trap.error == 0x0c, "#GP: selector of an LDT there is not");
    gdt[SEL_PAGES / 8] &= ~(1ull << 40);
    TRY_ES("mov %%es:(%0), %%al", SEL_PAGES, 0);
    report(gdt[SEL_PAGES / 8] >> 40 & 1, "loading a segment sets its accessed bit");
}

static void check_inspection(void)
{
    u32 value = 0;
    u8 ok;

    asm volatile("lar %2, %0; setz %1" : "=r"(value), "=q"(ok) : "r"(SEL_DATA));
    report(ok && (value & 0xf0ff00) == 0xc09300, "lar");
    asm volatile("lsl %2, %0; setz %1" : "=r"(value), "=q"(ok) : "r"(SEL_PAGES));
    report(ok && value == 0x1fff, "lsl, page granular");
    asm volatile("lsl %2, %0; setz %1" : "=r"(value), "=q"(ok) : "r"(SEL_SMALL));
    report(ok && value == 0xfff, "lsl, in bytes");
    asm volatile("lar %1, %%eax; setz %0" : "=q"(ok) : "r"(0x1ff8) : "eax");
    report(!ok, "lar of a selector past the table");
    asm volatile("verr %w1; setz %0" : "=q"(ok) : "r"(SEL_EXEC));
    report(!ok, "verr of an execute-only segment");
    asm volatile("verw %w1; setz %0" : "=q"(ok) : "r"(SEL_DATA));
    report(ok, "verw of data");
    asm volatile("verw %w1; setz %0" : "=q"(ok) : "r"(SEL_CODE32));
    report(!ok, "verw of code");
    value = SEL_DATA;
    asm volatile("arpl %w2, %w0; setz %1" : "+r"(value), "=q"(ok) : "r"(3));
    report(ok && value == (SEL_DATA | 3), "arpl raises the requested privilege");
}

static void check_legacy(void)
{
    static const s32 bounds[2] = {10, 20};
    u32 value;

    TRY("bound %0, (%1)", "r"(15), "r"(bounds));
    report_no_trap("bound within");
    TRY("bound %0, (%1)", "r"(21), "r"(bounds));
    report_trap(VEC_BR, 0, "#BR: bound");
    TRY_LABEL("mov $0x7fffffff, %%eax; inc %%eax; 1: into", "r"(0));
    report(trap.vector == VEC_OF && trap.ip == trap_at + 1, "#OF: into, saved eip is behind it");
    TRY_LABEL("xor %%eax, %%eax; 1: into", "r"(0));
    report_no_trap("into without overflow");
    asm volatile("add $0x35, %%al; daa" : "=a"(value) : "a"(0x27) : "cc");
    report((value & 0xff) == 0x62, "daa");
    asm volatile("aam" : "=a"(value) : "a"(75) : "cc");
    report((value & 0xffff) == 0x0705, "aam");
    asm volatile("aad" : "=a"(value) : "a"(0x0705) : "cc");
    report((value & 0xffff) == 75, "aad");
    TRY(".byte 0xd4, 0", "a"(5));
    report_trap(VEC_DE, 0, "#DE: aam 0");
    asm volatile("mov %%esp, %%ecx; pusha; mov %%esp, %%eax; popa; sub %%eax, %%ecx"
                 : "=c"(value)
                 :
                 : "eax");
    asm volatile("stc; .byte 0xd6" : "=a"(value) : : "cc");
    report((value & 0xff) == 0xff, "salc");
    asm volatile("les (%1), %%eax; mov %%es, %%ecx; mov $0x10, %%edx; mov %%edx, %%es"
                 : "=c"(value)
                 : "r"("\x78\x56\x34\x12\x10\x00")
                 : "eax", "edx");
    report((value & 0xffff) == 0x10, "les");
}

/* --- gates and rings --- */
static volatile u32 gate_args[4];
static volatile u32 gate_cs, gate_count;

void gate_entry(void), gate_entry_far(void);
asm("gate_entry:\n" /* two dwords were copied: above eip and cs */
    "    mov 8(%esp), %eax\n"
    "    mov %eax, gate_args\n"
    "    mov 12(%esp), %eax\n"
    "    mov %eax, gate_args + 4\n"
    "    mov %cs, gate_cs\n"
    "    incl gate_count\n"
    "    lret $8\n");

static void set_gate(u16 sel, void (*entry)(void), u16 target, u8 type_dpl, u8 params)
{
    gdt[sel / 8] = (u64)((u32)entry >> 16) << 48 | (u64)type_dpl << 40 | (u64)params << 32 |
                   (u64)target << 16 | ((u32)entry & 0xffff);
}

static void user_gate(word arg)
{
    asm volatile("push $0x2222; push $0x1111; lcall %0, $0"
                 :
                 : "i"(SEL_GATE_IN | 3)
                 : "eax", "memory");
}

static void user_load_es(word sel)
{
    asm volatile("mov %0, %%es" : : "r"(sel));
}

static void user_io(word port)
{
    asm volatile("in %%dx, %%al" : : "d"(port) : "eax");
}

static void check_gates(void)
{
    set_gate(SEL_GATE, gate_entry, SEL_CODE32, 0x8c, 2);
    TRY("push $0x44; push $0x33; lcall %0, $0x12345678", "i"(SEL_GATE));
    report(trap.vector == VEC_NONE && gate_count == 1 && gate_args[0] == 0x33 &&
               gate_args[1] == 0x44,
           "call gate to the same ring");
    set_gate(SEL_GATE_IN, gate_entry, SEL_CODE32, 0xec, 2);
    user_call(user_gate, 0);
    report(trap.vector == VEC_USER_EXIT && gate_count == 2 && gate_args[0] == 0x1111 &&
               gate_args[1] == 0x2222,
           "call gate from ring 3 to ring 0 copies its parameters");
    report((gate_cs & 0xffff) == SEL_CODE32 && trap.cs == SEL_UCODE32,
           "and comes back by a far return");
    set_gate(SEL_GATE_IN, gate_entry, SEL_CODE32, 0x8c, 2);
    user_call(user_gate, 0);
    report(trap.vector == VEC_GP && trap.error == SEL_GATE_IN,
           "#GP: call gate that ring 3 may not use");
    set_gate(SEL_GATE_IN, gate_entry, SEL_CODE32, 0x6c, 2);
    user_call(user_gate, 0);
    report(trap.vector == VEC_NP && trap.error == SEL_GATE_IN, "#NP: absent call gate");
    user_call(user_load_es, SEL_DATA);
    report(trap.vector == VEC_GP && trap.error == SEL_DATA,
           "#GP: ring 3 loads a segment of ring 0");
    user_call(user_load_es, SEL_UDATA);
    report(trap.vector == VEC_USER_EXIT, "ring 3 loads its own");
    user_call(user_io, 0x80);
    report(trap.vector == VEC_GP, "#GP: in from ring 3");
    tss_iomap[0x80 / 8] &= ~1;
    user_call(user_io, 0x80);
    report(trap.vector == VEC_USER_EXIT, "in allowed by the I/O permission bitmap");
    tss_iomap[0x80 / 8] |= 1;
}

static void check_far(void)
{
    u32 cs = 0;

    asm volatile("lcall %1, $1f; jmp 2f; 1: mov 4(%%esp), %0; lret; 2:"
                 : "=r"(cs)
                 : "i"(SEL_CODE32)
                 : "memory");
    report((cs & 0xffff) == SEL_CODE32, "far call and return");
    asm volatile("ljmp %1, $1f; 1: mov %%cs, %0" : "=r"(cs) : "i"(SEL_CODE32));
    report((cs & 0xffff) == SEL_CODE32, "far jump");
    gdt_set(SEL_CONF, 0, 0xfffff, 0xc09f);
    asm volatile("ljmp %1, $1f; 1: mov %%cs, %0; ljmp %2, $2f; 2:"
                 : "=r"(cs)
                 : "i"(SEL_CONF), "i"(SEL_CODE32));
    report((cs & 0xffff) == SEL_CONF, "conforming code");
    TRY("ljmp %0, $0", "i"(SEL_DATA));
    report_trap(VEC_GP, SEL_DATA, "#GP: far jump to data");
    TRY("ljmp %0, $0", "i"(SEL_UCODE32 & ~3));
    report_trap(VEC_GP, SEL_UCODE32 & ~3, "#GP: far jump to another ring's code");
    gdt_set(SEL_LDT, (u32)words, 0xff, 0x82);
    words[2] = 0x0000ffff;
    words[3] = 0x00cf9300;
    asm volatile("lldt %w0" : : "r"(SEL_LDT));
    TRY_ES("mov %%es:(%0), %%al", 0x0c, words);
    report_no_trap("a segment of the LDT");
    TRY("mov %0, %%es", "r"(0x104));
    report_trap(VEC_GP, 0x104, "#GP: selector past the LDT");
    asm volatile("lldt %w0" : : "r"(0));
}

void payload_main(void)
{
    check_limits();
    check_types();
    check_inspection();
    check_legacy();
    check_far();
    check_gates();
}
