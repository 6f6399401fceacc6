/*
 * What a payload is written with: a flat guest program that checks one area of the processor and reports each case as
 * a TAP line on the debug port, then leaves through the debug-exit port. It runs on any machine that has those two
 * ports: our runner (tests/payload), `trapeze run --kernel`, or QEMU as the oracle.
 */
#ifndef PAYLOAD_H
#define PAYLOAD_H

#include "base/types.h"
#include "gdt.h"
#include "x86/cpu.h"

#define PORT_DEBUG 0xe9 /* bytes written here are the output */
#define PORT_EXIT 0xf4  /* a write ends the run: 0 = all is well */

typedef unsigned long word; /* a register's width in this payload: 32 or 64 bits */
_Static_assert(sizeof(word) == sizeof(void *), "a word holds an address");

/* --- reporting --- */
void say(const char *fmt, ...)
    __attribute__((format(printf, 1, 2))); /* %s %d %u %x %lx %lu %c only */
void report(bool ok, const char *name);
/* A case that this processor or machine does not have. */
void report_skip(const char *name, const char *why);
/* Prints the plan and ends the run. */
_Noreturn void finish(void);
/* Tells the runner that the rest of the run must end in a triple fault. The plan is printed; failures count. */
void expect_shutdown(void);

/* --- traps: every vector ends in one handler --- */
struct trap {
    word vector, error, ip, cs, flags, sp,
        ss; /* sp, ss: 32-bit code sees them only on a change of ring */
    word cr2;
    word ax, bx, cx, dx, si, di, bp;
    unsigned count; /* traps since trap_clear() */
};
extern volatile struct trap trap; /* the last one */
/* Where TRY expects the trap, and where it goes on after it. */
extern word trap_at, trap_resume_ip, trap_resume_sp;

/* What the stub has pushed; changing it changes what iret restores. */
struct trap_frame {
#ifdef __x86_64__
    word r15, r14, r13, r12, r11, r10, r9, r8, bp, di, si, dx, cx, bx, ax;
    word vector, error, ip, cs, flags, sp, ss;
#else
    word di, si, bp, unused_sp, bx, dx, cx, ax;
    word vector, error, ip, cs, flags, sp, ss;
#endif
};
/* Called first for every trap; true: handled, return to the (possibly changed) frame. May be NULL. */
extern bool (*trap_hook)(struct trap_frame *f);

#define VEC_NONE 0xffff
#define VEC_USER_EXIT 0x80

static inline void trap_clear(void)
{
    trap.vector = VEC_NONE;
    trap.count = 0;
}
/* Did the last TRY trap with this vector and error code, at its first instruction? */
bool trapped(unsigned vector, word error);
/* report(trapped(...)), with what came instead when it did not. */
void report_trap(unsigned vector, word error, const char *name);
/* The same for a #PF, with the address. */
void report_page_fault(word error, word addr, const char *name);
void report_no_trap(const char *name);

/* Runs assembly whose label 1 is the instruction that may trap: all of the text, unless it defines its own label with
 * TRY_LABEL. Inputs are register operands; the text may change any register but rsp (or bring rsp back itself), and results go
 * through memory or the trap's record. */
#ifdef __x86_64__
#define TRY_LABEL(text, ...)                                                                      \
    ({                                                                                            \
        trap_clear();                                                                             \
        asm volatile(                                                                             \
            "push %%rax; push %%rbx; push %%rcx; push %%rdx; push %%rsi; push %%rdi; push %%rbp;" \
            "lea 2f(%%rip), %%r11; mov %%r11, trap_resume_ip(%%rip); mov %%rsp, "                 \
            "trap_resume_sp(%%rip);"                                                              \
            "lea 1f(%%rip), %%r11; mov %%r11, trap_at(%%rip);" text                               \
            "\n2: cld; movq $0, trap_resume_ip(%%rip);"                                           \
            "pop %%rbp; pop %%rdi; pop %%rsi; pop %%rdx; pop %%rcx; pop %%rbx; pop %%rax"         \
            :                                                                                     \
            : __VA_ARGS__                                                                         \
            : "r8", "r9", "r10", "r11", "memory", "cc");                                          \
    })
#else
#define TRY_LABEL(text, ...)                                                                      \
    ({                                                                                            \
        trap_clear();                                                                             \
        asm volatile(                                                                             \
            "pusha; movl $2f, trap_resume_ip; mov %%esp, trap_resume_sp; movl $1f, trap_at;" text \
            "\n2: cld; movl $0, trap_resume_ip; popa"                                             \
            :                                                                                     \
            : __VA_ARGS__                                                                         \
            : "memory", "cc");                                                                    \
    })
#endif
#define TRY(text, ...) TRY_LABEL("1: " text, ##__VA_ARGS__)

/* Runs fn(arg) in ring 3 through iret; returns when a trap comes from there that no hook takes (int 0x80 when fn
 * returns). 64-bit: fn is entered at its user alias (see USER_ALIAS), so it must be position independent, and may
 * touch data through rip-relative operands or user_ptr() only. */
void user_call(void (*fn)(word arg), word arg);
/* The same with other selectors and flags. */
void user_call_as(void (*fn)(word arg), word arg, word cs, word ss, word flags);
extern u8 user_stack_top[];

#ifdef __x86_64__
/* The first GiB appears again, open to ring 3, at this address; at its own address it is supervisor memory. */
#define USER_ALIAS 0x8000000000ul
#else
#define USER_ALIAS 0ul
#endif
#define user_ptr(p) ((__typeof__(p))((word)(p) + USER_ALIAS))

/* --- memory --- */
/* A zeroed page of physical memory, mapped at its own address. */
void *page_alloc(void);
void *pages_alloc(unsigned pages);
void *memset(void *dst, int c, size_t n);
void *memcpy(void *dst, const void *src, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* --- the processor --- */
static inline void outb(u16 port, u8 v)
{
    asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}
static inline void outl(u16 port, u32 v)
{
    asm volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}
static inline u8 inb(u16 port)
{
    u8 v;
    asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline u64 rdmsr(u32 msr)
{
    u32 lo, hi;
    asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return (u64)hi << 32 | lo;
}
static inline void wrmsr(u32 msr, u64 v)
{
    asm volatile("wrmsr" : : "c"(msr), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}
static inline u64 rdtsc(void)
{
    u32 lo, hi;
    asm volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    return (u64)hi << 32 | lo;
}
struct cpuid_regs {
    u32 eax, ebx, ecx, edx;
};
static inline struct cpuid_regs cpuid(u32 leaf, u32 subleaf)
{
    struct cpuid_regs r;
    asm volatile("cpuid"
                 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                 : "a"(leaf), "c"(subleaf));
    return r;
}
#define DEFINE_REG(reg)                                            \
    static inline word read_##reg(void)                            \
    {                                                              \
        word v;                                                    \
        asm volatile("mov %%" #reg ", %0" : "=r"(v) : : "memory"); \
        return v;                                                  \
    }                                                              \
    static inline void write_##reg(word v)                         \
    {                                                              \
        asm volatile("mov %0, %%" #reg : : "r"(v) : "memory");     \
    }
DEFINE_REG(cr0)
DEFINE_REG(cr2)
DEFINE_REG(cr3)
DEFINE_REG(cr4)
DEFINE_REG(dr0)
DEFINE_REG(dr1)
DEFINE_REG(dr2)
DEFINE_REG(dr3)
DEFINE_REG(dr6)
DEFINE_REG(dr7)
static inline word read_flags(void)
{
    word v;
    asm volatile("pushf; pop %0" : "=r"(v) : : "memory");
    return v;
}
static inline void write_flags(word v)
{
    asm volatile("push %0; popf" : : "r"(v) : "memory", "cc");
}
static inline void invlpg(const void *p)
{
    asm volatile("invlpg %0" : : "m"(*(const char *)p) : "memory");
}

/* --- descriptor tables, changeable by tests --- */
extern u64 gdt[GDT_ENTRIES];
struct idt_entry {
    u16 offset_low, sel;
    u8 ist, type; /* type: P, DPL, gate type */
    u16 offset_mid;
#ifdef __x86_64__
    u32 offset_high, reserved;
#endif
};
extern struct idt_entry idt[256];
void idt_set(unsigned vector, const void *entry, u16 sel, u8 type);
#define GATE_INT 0x8e
#define GATE_TRAP 0x8f
/* Loads a code or data descriptor into slot sel / 8. */
void gdt_set(u16 sel, u32 base, u32 limit, u16 attr); /* attr as struct x86_seg's */
#ifdef __x86_64__
struct tss {
    u32 reserved0;
    u64 rsp[3] __attribute__((packed));
    u64 ist[8] __attribute__((packed)); /* ist[0] is reserved */
    u64 reserved1 __attribute__((packed));
    u16 reserved2, iomap;
} __attribute__((packed));
#else
struct tss {
    u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi,
        edi, es, cs, ss, ds, fs, gs, ldt;
    u16 trap, iomap;
};
#endif
extern struct tss tss;
extern u8 tss_iomap[8192 + 1]; /* right behind tss; all ones after start */
static inline void load_tr(u16 sel)
{
    asm volatile("ltr %0" : : "r"(sel) : "memory");
}

void payload_main(void); /* each payload's own */

#endif
