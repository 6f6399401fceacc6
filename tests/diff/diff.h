/*
 * Differential tests of the translator: the same short piece of code runs on the host's own processor and in a guest,
 * from the same registers and memory, and must leave the same behind, faults included.
 *
 * Code, data and stack lie at fixed low addresses, the same for both:
 *
 *   DIFF_CODE   one page; the case's code, then INT3 up to the end of the page
 *   DIFF_DATA   DIFF_RW_PAGES writable pages, then one that is read-only
 *   DIFF_STACK  one writable page
 *
 * Everything around them is not present. All of it is user memory (CPL 3, IOPL 0), flat segments, 64-bit code or 32-bit
 * code in compatibility mode, CR0.TS and EM clear, CR4.OSFXSR, OSXMMEXCPT and OSXSAVE set, XCR0 = 7, or E7 for models with AVX-512.
 */
#ifndef DIFF_DIFF_H
#define DIFF_DIFF_H

#include "x86/cpu.h"

#define DIFF_PAGE 4096u
#define DIFF_CODE 0x10000000ull
#define DIFF_DATA 0x20000000ull
#define DIFF_STACK 0x30000000ull
#define DIFF_RW_PAGES 2u
#define DIFF_DATA_BYTES ((DIFF_RW_PAGES + 1) * DIFF_PAGE)
#define DIFF_RO_ADDR (DIFF_DATA + DIFF_RW_PAGES * DIFF_PAGE)
#define DIFF_CODE_MAX 192u

/* Registers, as FXSAVE64 and the AVX part of XSAVE lay them out. */
struct diff_regs {
    u64 gpr[X86_GPRS];
    u64 rip;
    u64 rflags;
    u8 fx[512];          /* x87, MXCSR, XMM; bytes 464 and up are not used */
    u8 ymm_high[16][16]; /* upper halves of the YMM registers */
    /* With AVX-512 only, else zero: */
    u64 mask[8];         /* k0..k7 */
    u8 zmm_high[16][32]; /* upper halves of ZMM0..15 */
    u8 zmm16[16][64];    /* ZMM16..31 */
};

struct diff_case {
    unsigned mode;          /* code size: 32 or 64 */
    bool avx512;            /* its registers are compared too */
    u64 number;             /* of the case: together with the seed, enough to make it again */
    u8 code[DIFF_CODE_MAX]; /* runs from DIFF_CODE; ends with INT3 at code[len] */
    unsigned len;
    struct diff_regs regs; /* rip is DIFF_CODE */
    u64 memory_seed;       /* data and stack are filled by diff_fill() */
    u64 undefined_flags;   /* arithmetic flags that need not agree in the end */
    bool undefined_vector; /* the x87 and vector registers need not agree */
};

/* How the piece of code ended. */
struct diff_end {
    u8 vector;   /* enum x86_vector; VEC_BP behind the code is the normal end */
    u32 error;   /* of #PF: bits P, W, U */
    u64 address; /* of #PF */
};

struct diff_result {
    struct diff_end end;
    struct diff_regs regs; /* rip is that of the faulting instruction, or behind the INT3 */
    u8 data[DIFF_DATA_BYTES];
    u8 stack[DIFF_PAGE];
};

/* What data and stack hold before a case; both sides use it. */
void diff_fill(u64 seed, u8 *bytes, size_t len);

/* Runs the case in this process, on this processor. Returns 0, or -ENOTSUP when the host cannot. Not reentrant. */
int diff_run_native(const struct diff_case *c, struct diff_result *ret);

/* Runs the case in a guest. 0, or a negative errno when there is no way to. end.vector is 0xff when it did not end, 0xfe
 * when the processor shut down or failed. */
int diff_run_guest(const struct diff_case *c, struct diff_result *ret);
/* The CPU model of the guest; before the first run. */
void diff_use_model(const char *name);

/* NULL if both did the same, else what differs, in a static buffer. */
const char *diff_compare(const struct diff_case *c, const struct diff_result *want,
                         const struct diff_result *got);
/* The case as lines for a person: code with disassembly, registers that differ. To stdout, as TAP comments. */
void diff_print(const struct diff_case *c, const struct diff_result *want,
                const struct diff_result *got);

#endif
