/*
 * Host signals that translated code causes: SIGSEGV (a store to a page that the guest may not write yet or that holds
 * translated code; a non-canonical or misaligned address), SIGBUS (the same with RSP or RBP as base: the host's #SS) and SIGFPE (divide errors, unmasked floating-point
 * exceptions). The handler finds the guest's instruction, stores the guest's registers and sends the thread to
 * bt_stub_fault. The guest's stack pointer is in RSP at that moment: handlers run on a stack of their own, which the
 * kernel takes even if RSP happens to point into it (SS_AUTODISARM).
 * A fault anywhere else is a bug of ours and kills the process as usual.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include "accel/bt/cache.h"

#ifndef SS_AUTODISARM
#define SS_AUTODISARM (1u << 31)
#endif

#define ALTSTACK_BYTES (128 * KiB)

_Thread_local struct vcpu *this_vcpu;

static struct block *block_at_host(struct bt *bt, const u8 *rx)
{
    cache_lock(bt);
    struct block *b = block_of_host(bt, rx);
    cache_unlock(bt);
    return b;
}

static unsigned guest_offset(const struct bt *bt, const struct block *b, const u8 *rx)
{
    u32 host = code_ref_of(bt->cache, rx) - b->start;
    unsigned at = 0;

    for (unsigned i = 0; i < b->ninsns && (b->map[i] >> 12) <= host; i++)
        at = b->map[i] & 0xfff;
    return at;
}

static void store_registers(struct cpu *c, const greg_t *g)
{
    static const u8 order[14] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI,
                                 REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13};

    for (unsigned i = 0; i < ARRAY_LEN(order); i++)
        c->gpr[i] = (u64)g[order[i]];
    c->rflags = (c->rflags & ~(u64)FL_ARITH) | ((u64)g[REG_EFL] & FL_ARITH);
}

static int vector_for(const struct cpu *c, int sig, int trapno, bool careful)
{
    if (sig == SIGSEGV || trapno == VEC_SS)
        return careful ? VEC_GP : VEC_PF; /* VEC_PF: light_fault() tries again carefully */
    if (sig == SIGILL)
        return VEC_UD;
    return trapno == 0 ? VEC_DE : trapno == 16 ? VEC_MF : trapno == 17 ? VEC_AC
           : (c->cr4 & CR4_OSXMMEXCPT) ? VEC_XM : VEC_UD;
}

static void handle(int sig, siginfo_t *info, void *uc)
{
    struct vcpu *v = this_vcpu;
    ucontext_t *u = uc;
    greg_t *g = u->uc_mcontext.gregs;
    const u8 *pc = (const u8 *)g[REG_RIP];
    struct code_cache *k = v ? v->bt->cache : NULL;

    struct block *b = k && pc >= k->rx && pc < k->rx + k->size ? block_at_host(v->bt, pc) : NULL;
    if (!b || (sig == SIGBUS && g[REG_TRAPNO] != VEC_SS)) { /* SIGBUS besides: the host is out of memory */
        signal(sig, SIG_DFL); /* returns to the faulting instruction, which now kills us */
        return;
    }
    struct cpu *c = v->c;
    unsigned offset = guest_offset(v->bt, b, pc);
    bool careful = b->mode & MODE_CAREFUL;

    store_registers(c, g);
    c->rip = guest_address(c, b->vpc + offset, b->relative) -
             ((b->mode & MODE_CODE_MASK) == MODE_CODE64 ? 0 : c->seg[SEG_CS].base);
    if (b->mode & MODE_REAL)
        c->rip &= 0xffff;
    c->exc_vector = vector_for(c, sig, (int)g[REG_TRAPNO], careful);
    c->exc_has_error = c->exc_vector == VEC_GP || c->exc_vector == VEC_AC;
    c->exc_error = 0;
    u64 in_view = (u64)info->si_addr - (u64)v->bt->gview;
    if (c->exc_vector == VEC_PF && in_view < v->bt->view_bytes)
        cache_note_fault(v->bt, b, offset);
    g[REG_RIP] = (greg_t)stub_address[STUB_FAULT];
}

int signals_init(struct err *err)
{
    static const int sigs[] = {SIGSEGV, SIGFPE, SIGILL, SIGBUS};
    struct sigaction sa = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};

    for (unsigned i = 0; i < ARRAY_LEN(sigs); i++)
        if (sigaction(sigs[i], &sa, NULL) < 0)
            return err_sys(err, errno, "bt: cannot handle signal %d", sigs[i]);
    return 0;
}

int signals_attach(struct vcpu *v, struct err *err)
{
    /* The lowest page stays unmapped: a handler that needs more than its stack must not run into something else. */
    u8 *p = mmap(NULL, ALTSTACK_BYTES + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED || mprotect(p + 4096, ALTSTACK_BYTES, PROT_READ | PROT_WRITE) < 0)
        return err_sys(err, errno, "bt: cannot map a signal stack");
    v->altstack = p;
    stack_t ss = {.ss_sp = p + 4096, .ss_size = ALTSTACK_BYTES, .ss_flags = (int)SS_AUTODISARM};
    if (sigaltstack(&ss, NULL) < 0)
        return err_sys(err, errno, "bt: cannot set a signal stack");
    this_vcpu = v;
    return 0;
}
