/*
 * Runs a case on the host's own processor, in this process.
 *
 * Registers are loaded and stored by the kernel: an INT3 in diff_run_native() raises SIGTRAP, whose handler keeps the
 * interrupted context and puts the case's registers in its place; the code runs until it faults or meets the INT3 behind
 * it, and the handler of that signal takes the result and puts the kept context back. So no code of ours stands between
 * the case and the processor. Vector registers travel in the signal frame's XSAVE area (SDM 1, 13.4; the kernel's
 * struct _xstate). Main thread only.
 */
#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "native.h"

#define FRAME_MAX 16384u
#define SW_XFEATURES 472 /* of struct _fpx_sw_bytes, in the reserved bytes of the FXSAVE area */
#define SW_SIZE 480
#define XSTATE_BV 512
#define AVX_AT 576
#define LINUX_CS32 0x23ull /* selectors that Linux has for every process */
#define LINUX_SS 0x2bull
#define X87_BIT 1u
#define SSE_BIT 2u
#define AVX_BIT 4u
#define AVX512_BITS 0xe0u

static struct {
    const struct diff_case *now; /* the case to load at the next trap, NULL when it is running */
    struct diff_result *result;
    ucontext_t kept;
    u8 kept_frame[FRAME_MAX];
    bool ready;
} run;

static const int gregs_of[X86_GPRS] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                       REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                       REG_R12, REG_R13, REG_R14, REG_R15};

static u64 read64(const u8 *p)
{
    u64 v;

    memcpy(&v, p, 8);
    return v;
}

static u32 frame_bytes(const u8 *frame)
{
    u32 n;

    memcpy(&n, frame + SW_SIZE, 4);
    return n < FRAME_MAX ? n : FRAME_MAX;
}

/* The parts of AVX-512 in an XSAVE area: mask registers, upper halves, upper registers. SDM 1, 13.4. */
static const struct {
    unsigned component, in_regs, len;
} parts[] = {
    {5, offsetof(struct diff_regs, mask), sizeof(((struct diff_regs *)0)->mask)},
    {6, offsetof(struct diff_regs, zmm_high), sizeof(((struct diff_regs *)0)->zmm_high)},
    {7, offsetof(struct diff_regs, zmm16), sizeof(((struct diff_regs *)0)->zmm16)},
};

/* Where component i lies, 0 if there is none. */
static unsigned part_at(unsigned i)
{
    static unsigned at[ARRAY_LEN(parts)];
    unsigned a, b = 0, c, d;

    if (!at[i] && __builtin_cpu_supports("avx512f") &&
        __get_cpuid_count(0xd, parts[i].component, &a, &b, &c, &d))
        at[i] = b;
    return at[i];
}

void native_put_vectors(u8 *area, const struct diff_regs *r, bool with_avx512)
{
    u64 bv = X87_BIT | SSE_BIT | AVX_BIT;

    memcpy(area, r->fx, 464); /* what follows is the kernel's */
    memcpy(area + AVX_AT, r->ymm_high, sizeof(r->ymm_high));
    for (unsigned i = 0; with_avx512 && i < ARRAY_LEN(parts); i++)
        if (part_at(i)) {
            bv |= AVX512_BITS;
            memcpy(area + part_at(i), (const u8 *)r + parts[i].in_regs, parts[i].len);
        }
    memcpy(area + XSTATE_BV, &bv, 8);
}

void native_vectors(const u8 *area, struct diff_regs *r)
{
    u64 bv = read64(area + XSTATE_BV);

    memset(r->fx, 0, sizeof(r->fx));
    memcpy(r->fx, area, 464);
    if (!(bv & X87_BIT)) {
        memset(r->fx, 0, 24);
        memset(r->fx + 32, 0, 128);
        r->fx[0] = 0x7f;
        r->fx[1] = 3;
    }
    if (!(bv & SSE_BIT))
        memset(r->fx + 160, 0, 256);
    memset(r->ymm_high, 0, sizeof(r->ymm_high));
    if (bv & AVX_BIT)
        memcpy(r->ymm_high, area + AVX_AT, sizeof(r->ymm_high));
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        u8 *part = (u8 *)r + parts[i].in_regs;

        memset(part, 0, parts[i].len);
        if (part_at(i) && bv >> parts[i].component & 1)
            memcpy(part, area + part_at(i), parts[i].len);
    }
}

static void load_case(ucontext_t *uc, unsigned mode, const struct diff_regs *r)
{
    greg_t *g = uc->uc_mcontext.gregs;

    for (unsigned i = 0; i < X86_GPRS; i++)
        g[gregs_of[i]] = (greg_t)r->gpr[i];
    g[REG_RIP] = (greg_t)r->rip;
    g[REG_EFL] = (greg_t)r->rflags;
    if (mode == 32)
        g[REG_CSGSFS] = (g[REG_CSGSFS] & 0x0000ffffffff0000) | (greg_t)LINUX_SS << 48 | LINUX_CS32;
    native_put_vectors((u8 *)uc->uc_mcontext.fpregs, r, true);
}

static void store_result(const ucontext_t *uc, struct diff_result *res)
{
    const greg_t *g = uc->uc_mcontext.gregs;

    for (unsigned i = 0; i < X86_GPRS; i++)
        res->regs.gpr[i] = (u64)g[gregs_of[i]];
    res->regs.rip = (u64)g[REG_RIP];
    res->regs.rflags = (u64)g[REG_EFL];
    native_vectors((const u8 *)uc->uc_mcontext.fpregs, &res->regs);
    res->end.vector = (u8)g[REG_TRAPNO];
    res->end.error = res->end.vector == VEC_PF ? (u32)g[REG_ERR] & 7 : 0;
    res->end.address = res->end.vector == VEC_PF ? (u64)g[REG_CR2] : 0;
}

static void keep_context(const ucontext_t *uc)
{
    const u8 *frame = (const u8 *)uc->uc_mcontext.fpregs;

    run.kept = *uc;
    memcpy(run.kept_frame, frame, frame_bytes(frame));
}

static void put_context_back(ucontext_t *uc)
{
    u8 *frame = (u8 *)uc->uc_mcontext.fpregs;

    memcpy(uc->uc_mcontext.gregs, run.kept.uc_mcontext.gregs, sizeof(uc->uc_mcontext.gregs));
    memcpy(frame, run.kept_frame, frame_bytes(frame));
}

static void on_signal(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    if (run.now) {
        const struct diff_case *c = run.now;

        run.now = NULL;
        keep_context(uc);
        load_case(uc, c->mode, &c->regs);
    } else if (run.result) {
        store_result(uc, run.result);
        run.result = NULL;
        put_context_back(uc);
    } else {
        signal(sig, SIG_DFL); /* a fault of the test program itself: happens again, and kills */
    }
    (void)info;
}

static bool map_at(u64 addr, size_t len, int prot)
{
    void *p = mmap((void *)(uintptr_t)addr, len, prot,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0);

    return p == (void *)(uintptr_t)addr;
}

static int prepare(void)
{
    if (!__builtin_cpu_supports("avx2"))
        return -ENOTSUP;
    if (!map_at(DIFF_CODE, DIFF_PAGE, PROT_READ | PROT_WRITE | PROT_EXEC) ||
        !map_at(DIFF_DATA, DIFF_DATA_BYTES, PROT_READ | PROT_WRITE) ||
        !map_at(DIFF_STACK, DIFF_PAGE, PROT_READ | PROT_WRITE))
        return -ENOTSUP;
    mprotect((void *)(uintptr_t)DIFF_RO_ADDR, DIFF_PAGE, PROT_READ);
    /* 64-bit code does without; 32-bit code will need them. */
    __asm__ volatile("mov %0, %%ds; mov %0, %%es" ::"r"((u32)LINUX_SS));
    run.ready = true;
    return 0;
}

static const int signals[] = {SIGTRAP, SIGSEGV, SIGILL, SIGFPE, SIGBUS};

/* The translator has handlers for the same signals: ours are there only while a case runs. */
struct handlers {
    struct sigaction action[ARRAY_LEN(signals)];
    stack_t stack;
};

static void swap_handlers(const struct handlers *in, struct handlers *ret_old)
{
    sigaltstack(&in->stack, ret_old ? &ret_old->stack : NULL);
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        sigaction(signals[i], &in->action[i], ret_old ? &ret_old->action[i] : NULL);
}

static void own_handlers(struct handlers *ret)
{
    static u8 stack[65536];

    ret->stack = (stack_t){.ss_sp = stack, .ss_size = sizeof(stack)};
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        ret->action[i] =
            (struct sigaction){.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
}

bool native_has_masks(void)
{
    return part_at(0) != 0;
}

void native_protect(u64 addr, int prot)
{
    mprotect((void *)(uintptr_t)addr, DIFF_PAGE, prot);
}

int native_run(const struct diff_case *c, struct diff_result *ret)
{
    int r = run.ready ? 0 : prepare();
    struct handlers own, old;

    if (r)
        return r;
    memset((void *)(uintptr_t)DIFF_CODE, 0xcc, DIFF_PAGE);
    memcpy((void *)(uintptr_t)DIFF_CODE, c->code, c->len);
    run.result = ret;
    run.now = c;
    own_handlers(&own);
    swap_handlers(&own, &old);
    __asm__ volatile("int3" ::: "memory");
    swap_handlers(&old, NULL);
    return 0;
}

int diff_run_native(const struct diff_case *c, struct diff_result *ret)
{
    u8 *data = (u8 *)(uintptr_t)DIFF_DATA, *stack = (u8 *)(uintptr_t)DIFF_STACK;
    int r = run.ready ? 0 : prepare();

    if (r)
        return r;
    native_protect(DIFF_RO_ADDR, PROT_READ | PROT_WRITE);
    diff_fill(c->memory_seed, data, DIFF_DATA_BYTES);
    native_protect(DIFF_RO_ADDR, PROT_READ);
    diff_fill(c->memory_seed + 1, stack, DIFF_PAGE);
    r = native_run(c, ret);
    memcpy(ret->data, data, DIFF_DATA_BYTES);
    memcpy(ret->stack, stack, DIFF_PAGE);
    return r;
}
