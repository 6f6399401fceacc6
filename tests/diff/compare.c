/* Comparing two results, and showing what differs. */
#include <Zydis/Zydis.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "diff.h"
#include "random.h"

#define FLAGS_COMPARED (FL_ARITH | FL_DF | FL_AC | FL_ID)

static const char *const names[X86_GPRS] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                            "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

/* From a pool that is made once: this runs several times for every case. */
void diff_fill(u64 seed, u8 *bytes, size_t len)
{
    static u64 pool[8 * DIFF_PAGE];
    struct random r;

    if (!pool[0]) {
        random_init(&r, 0x66696c6c, 0);
        for (size_t i = 0; i < ARRAY_LEN(pool); i++)
            pool[i] = random_value(&r);
        pool[0] |= 1;
    }
    random_init(&r, seed, len);
    memcpy(bytes, pool + random_below(&r, (unsigned)(ARRAY_LEN(pool) - len / 8)), len);
}

static const char *say(const char *format, ...)
{
    static char text[200];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    return text;
}

static const char *compare_end(const struct diff_result *a, const struct diff_result *b)
{
    if (a->end.vector != b->end.vector)
        return say("vector %u, not %u", b->end.vector, a->end.vector);
    if (a->regs.rip != b->regs.rip)
        return say("rip %#lx, not %#lx", (long)b->regs.rip, (long)a->regs.rip);
    if (a->end.error != b->end.error)
        return say("error code %#x, not %#x", b->end.error, a->end.error);
    if (a->end.address != b->end.address)
        return say("fault address %#lx, not %#lx", (long)b->end.address, (long)a->end.address);
    return NULL;
}

static const char *compare_bytes(const char *what, const void *a, const void *b, size_t len)
{
    const u8 *x = a, *y = b;

    for (size_t i = 0; i < len; i++)
        if (x[i] != y[i])
            return say("%s, byte %zu: %02x, not %02x", what, i, y[i], x[i]);
    return NULL;
}

/* The FXSAVE image without the last instruction and data pointers, and without what is reserved. */
static const char *compare_vectors(unsigned mode, bool avx512, const struct diff_regs *a,
                                   const struct diff_regs *b)
{
    /* The others do not exist in 32-bit code; VZEROUPPER and VZEROALL leave them alone there, their copies do not. */
    unsigned n = mode == 64 ? 16 : 8;

    const char *wrong = compare_bytes("x87 control, status and tags", a->fx, b->fx, 5);

    if (!wrong)
        wrong = compare_bytes("mxcsr", a->fx + 24, b->fx + 24, 4);
    for (unsigned i = 0; i < 8 && !wrong; i++)
        wrong = compare_bytes(say("st%u", i), a->fx + 32 + 16 * i, b->fx + 32 + 16 * i, 10);
    if (!wrong)
        wrong = compare_bytes("xmm", a->fx + 160, b->fx + 160, n * 16);
    if (!wrong)
        wrong = compare_bytes("ymm high", a->ymm_high, b->ymm_high, n * 16);
    if (wrong || !avx512)
        return wrong;
    wrong = compare_bytes("mask registers", a->mask, b->mask, sizeof(a->mask));
    if (!wrong)
        wrong = compare_bytes("zmm high", a->zmm_high, b->zmm_high, n * 32);
    if (!wrong && mode == 64)
        wrong = compare_bytes("zmm16", a->zmm16, b->zmm16, sizeof(a->zmm16));
    return wrong;
}

const char *diff_compare(const struct diff_case *c, const struct diff_result *want,
                         const struct diff_result *got)
{
    const char *wrong = compare_end(want, got);
    u64 flags = (want->regs.rflags ^ got->regs.rflags) & FLAGS_COMPARED & ~c->undefined_flags;

    /* A translator may have dropped flags that are overwritten before anything reads them when the instruction that
     * faulted is done again. */
    if (want->end.vector != VEC_BP)
        flags &= ~(u64)FL_ARITH;

    /* 32-bit code cannot see more, and need not keep the rest. */
    u64 seen = c->mode == 64 ? ~0ull : 0xffffffff;

    for (unsigned i = 0; i < (c->mode == 64 ? X86_GPRS : 8u) && !wrong; i++)
        if ((want->regs.gpr[i] ^ got->regs.gpr[i]) & seen)
            wrong =
                say("%s %#lx, not %#lx", names[i], (long)got->regs.gpr[i], (long)want->regs.gpr[i]);
    if (!wrong && flags)
        wrong = say("flags %#lx, not %#lx (differ in %#lx)", (long)got->regs.rflags,
                    (long)want->regs.rflags, (long)flags);
    if (!wrong && !c->undefined_vector)
        wrong = compare_vectors(c->mode, c->avx512, &want->regs, &got->regs);
    if (!wrong)
        wrong = compare_bytes("data", want->data, got->data, sizeof(want->data));
    if (!wrong)
        wrong = compare_bytes("stack", want->stack, got->stack, sizeof(want->stack));
    return wrong;
}

static void print_code(const struct diff_case *c)
{
    ZydisMachineMode mode =
        c->mode == 64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LEGACY_32;
    ZydisDisassembledInstruction d;
    unsigned at = 0;

    while (at < c->len && ZYAN_SUCCESS(ZydisDisassembleIntel(mode, DIFF_CODE + at, c->code + at,
                                                             c->len - at, &d))) {
        printf("#   %#llx ", DIFF_CODE + at);
        for (unsigned i = 0; i < 12; i++)
            i < d.info.length ? printf(" %02x", c->code[at + i]) : printf("   ");
        printf("  %s\n", d.text);
        at += d.info.length;
    }
}

void diff_print(const struct diff_case *c, const struct diff_result *want,
                const struct diff_result *got)
{
    printf("# case %lu\n", (unsigned long)c->number);
    print_code(c);
    for (unsigned i = 0; i < X86_GPRS; i++)
        printf("#   %-3s %016lx -> %016lx%s%016lx\n", names[i], (long)c->regs.gpr[i],
               (long)want->regs.gpr[i],
               want->regs.gpr[i] == got->regs.gpr[i] ? "    " : " != ", (long)got->regs.gpr[i]);
    printf("#   flags %05lx -> %05lx, %05lx; vector %u, %u; rip %#lx, %#lx; address %#lx, %#lx\n",
           (long)c->regs.rflags, (long)want->regs.rflags, (long)got->regs.rflags, want->end.vector,
           got->end.vector, (long)want->regs.rip, (long)got->regs.rip, (long)want->end.address,
           (long)got->end.address);
}
