/*
 * The live state of one translated vCPU.
 *
 * While translated code runs, the guest's registers are the host's: RAX..R13 (and RSP) in place, R14 and R15 in
 * gpr[] (the host's R14 and R15 are the translator's scratch), the arithmetic flags in the host's flags, vector and
 * x87 state in the host's. gs points at the current address table, with this struct right below it.
 *
 * A helper called from translated code finds everything in here: gpr[], rip (of the instruction itself), rflags
 * (complete). Vector state stays in the host's registers. So code is of two kinds:
 *   light: compiled with -mgeneral-regs-only, calls nothing outside this folder's light files (no libc: even memcpy
 *          uses vector registers), takes no locks that are held for long. All sys_*.c are light.
 *   heavy: everything else. A light helper reaches heavy code through heavy_call(), which saves the vector state.
 * A helper that faults calls raise*() which does not return: the run loop delivers the exception.
 */
#ifndef BT_CPU_H
#define BT_CPU_H

#include <stdnoreturn.h>
#include "accel/accel.h"
#include "accel/bt/insn.h"

/* What translated code may assume; part of every block's key. */
enum cpu_mode {
    MODE_CODE16 = 0, MODE_CODE32 = 1, MODE_CODE64 = 2, MODE_CODE_MASK = 3,
    MODE_USER = 4,         /* CPL 3 */
    MODE_SEGS = 8,         /* 16/32-bit: some of ES, SS, DS is not flat (base 0, limit 4 GiB, writable): full checks */
    MODE_STACK16 = 0x10,   /* SS.B = 0 outside 64-bit mode */
    MODE_CSBASE = 0x20,    /* CS base is not 0 */
    MODE_DF = 0x40,        /* direction flag is set */
    MODE_TF = 0x80,        /* single step */
    MODE_NOFPU = 0x100,    /* CR0.EM or TS: x87/MMX/SSE instructions fault */
    MODE_NOSSE = 0x200,    /* CR4.OSFXSR = 0 */
    MODE_NOAVX = 0x400,    /* CR4.OSXSAVE = 0 or XCR0.AVX = 0 */
    MODE_NOAVX512 = 0x800,
    MODE_ALIGN = 0x1000,   /* alignment checks are on (CPL 3, CR0.AM, AC) */
    MODE_CAREFUL = 0x2000, /* every memory access goes through the slow path; one instruction per block */
    MODE_AC = 0x4000,      /* CPL < 3 and (SMAP off or AC set): user pages are reachable */
    MODE_REAL = 0x8000,    /* real or virtual-8086 mode */
    MODE_TSD = 0x20000,    /* CR4.TSD: rdtsc is privileged */
    MODE_DEBUG = 0x40000,  /* DR7 enables a breakpoint: every access and fetch is compared */
    MODE_NOWINDOW = 0x10000, /* only in block keys: translated without windows, see window.c */
};

enum cpu_exit { EXIT_NONE, EXIT_EXCEPTION, EXIT_REDECODE /* run loop looks up rip again */, EXIT_HALT, EXIT_SHUTDOWN, EXIT_CAREFUL };

struct cpu {
    u64 gpr[X86_GPRS];
    u64 rip;
    u64 rflags;            /* in a helper: complete. While code runs: all but FL_ARITH */
    struct cpu *self;      /* the address that C code uses (generated code sees this struct under several) */
    u32 mode;              /* enum cpu_mode, kept by cpu_update_mode() */
    volatile u32 events;   /* != 0: leave translated code at the next poll (enum vcpu_event, or bt's own bits) */
    bool rip_set;          /* the helper has set rip: do not step over the instruction */
    u8 cpl;
    u8 shadow;             /* interrupts are inhibited for the next instruction: 1 = sti, 2 = mov ss */
    u8 nmi_masked, nmi_pending;
    u8 activity;           /* enum x86_activity */
    /* Pending exception, set by raise*() */
    u8 exc_vector, exc_has_error, exc_soft; /* soft: INT n, INT3, INTO: rip to push is past the insn */
    u32 exc_error;
    u8 delivering;         /* vector being delivered + 1, for double faults (0 = none) */
    u8 pinned;             /* a task switch is half done: it cannot begin again (absent.c) */

    struct x86_seg seg[X86_SEGS], ldt, tr;
    struct x86_dtable gdt, idt;
    u64 cr0, cr2, cr3, cr4, xcr0;
    u64 dr[4], dr6, dr7;
    u64 dr_hits;           /* DR6 bits of watched accesses by the current instruction */
    struct x86_msrs msr;
    s64 tsc_offset;

    unsigned index;
    struct bt *bt;
    struct accel_machine *m;
    const struct cpu_model *model;
    void *xsave;           /* 64-byte aligned; holds the vector state while heavy code runs */
    bool vec_saved;        /* heavy code is running, the vector state is in xsave */
    struct vcpu *vcpu;     /* translator-private part: tables, code cache, see vcpu.h */

    u64 priv[64];          /* fields of the generated code and its glue; named in emit.h */
};

/* --- exceptions (light). They end the current instruction; nothing of it may have been committed. --- */
noreturn void raise_exception(struct cpu *c, enum x86_vector vector);
noreturn void raise_error(struct cpu *c, enum x86_vector vector, u32 error);
noreturn void raise_page_fault(struct cpu *c, u64 lin, u32 error);

/* --- memory by linear address (light). Page by page, as the current CPL and mode allow; raise #PF. --- */
enum mem_as {
    AS_CPL,    /* an explicit access of the instruction: current CPL, SMAP with AC */
    AS_SYSTEM, /* implicit supervisor access: descriptor tables, TSS, IDT; ignores CPL, SMAP applies */
};
u64 mem_load(struct cpu *c, u64 lin, unsigned size, enum mem_as as); /* size 1, 2, 4, 8 */
void mem_store(struct cpu *c, u64 lin, unsigned size, u64 value, enum mem_as as);
void mem_read(struct cpu *c, u64 lin, void *buf, unsigned len, enum mem_as as);
void mem_write(struct cpu *c, u64 lin, const void *buf, unsigned len, enum mem_as as);
/* Raises what a write (or read) of [lin, lin+len) would raise, without doing it. */
void mem_probe(struct cpu *c, u64 lin, unsigned len, bool write, enum mem_as as);
/* Host pointer to guest RAM at lin, contiguous for *ret_len bytes (up to the end of the page, at least 1); NULL when the
 * page is not plain RAM for this access (device memory, or code that is translated): then use mem_load/mem_store. Raises #PF. */
void *mem_span(struct cpu *c, u64 lin, bool write, unsigned *ret_len, enum mem_as as);

/* --- things a system instruction changes (light) --- */
void cpu_update_mode(struct cpu *c);      /* after any change of CPL, CR0, CR4, EFER, XCR0, segments, DF, TF, AC */
void mmu_set_cr3(struct cpu *c, u64 cr3, bool keep); /* after checks: new address space; keep: do not flush (PCID, bit 63) */
void mmu_flush_page(struct cpu *c, u64 lin);         /* INVLPG */
void mmu_flush_all(struct cpu *c, bool global);      /* CR0/CR4 changes: everything, with or without global pages */
void mmu_flush_pcid(struct cpu *c, u16 pcid, bool one, u64 lin); /* INVPCID 0 and 1 */
/* Runs fn(a, b, c3) as heavy code with the vector state saved; returns its result. */
u64 heavy_call(struct cpu *c, u64 (*fn)(u64 a, u64 b, u64 c3), u64 a, u64 b, u64 c3);
u64 io_read(struct cpu *c, u16 port, unsigned size);  /* to the machine's ports (heavy inside) */
void io_write(struct cpu *c, u16 port, unsigned size, u64 value);

/* --- operands of a decoded instruction (light) --- */
u64 insn_offset(struct cpu *c, const struct insn *in);  /* effective address before the segment, truncated to addrsize */
/* Linear address of seg:offset for an access of `size` bytes; raises #GP or #SS by the segment's type and limit, or when
 * not canonical. size 0: no limit check. */
u64 seg_linear(struct cpu *c, unsigned seg, u64 offset, unsigned size, bool write);
u64 insn_linear(struct cpu *c, const struct insn *in, unsigned size, bool write);
u64 gpr_get(struct cpu *c, unsigned reg, unsigned size);              /* zero-extended; size 1: low byte only */
void gpr_set(struct cpu *c, unsigned reg, unsigned size, u64 value);  /* 4 zero-extends, 1 and 2 merge */
u64 insn_rm_get(struct cpu *c, const struct insn *in, unsigned size); /* register or memory (AH.. without REX handled) */
void insn_rm_set(struct cpu *c, const struct insn *in, unsigned size, u64 value);
void push(struct cpu *c, unsigned size, u64 value);   /* through SS, by the stack's width */
u64 pop(struct cpu *c, unsigned size);

static inline bool long_mode(const struct cpu *c) { return c->msr.efer & EFER_LMA; }
static inline bool code64(const struct cpu *c) { return (c->mode & MODE_CODE_MASK) == MODE_CODE64; }
static inline bool protected_mode(const struct cpu *c) { return (c->cr0 & CR0_PE) && !(c->rflags & FL_VM); }

#endif
