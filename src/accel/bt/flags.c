/*
 * Where the arithmetic flags are dead: nothing will read them before they are written again. The checks in front of
 * memory accesses clobber them there, and keep them (at a price) everywhere else.
 *
 * Backwards through the block; where it leaves, forward through what follows, as far as that lies in the same page: what
 * is looked at there becomes part of what the block depends on (block.dep_from, dep_to). Returns and indirect
 * jumps lead to the unknown: there all flags are live.
 */
#include <Zydis/Zydis.h>
#include "accel/bt/gen.h"

#define LOOK_INSNS 10
#define LOOK_DEPTH 3

struct look {
    struct gen *g;
    unsigned budget; /* instructions that may still be decoded */
};

/* Special instructions that neither read nor write arithmetic flags and whose functions need not see them exact. */
static bool is_flagless(const struct insn *in)
{
    switch (in->form->mnemonic) {
    case ZYDIS_MNEMONIC_CLI: case ZYDIS_MNEMONIC_STI: case ZYDIS_MNEMONIC_SWAPGS: case ZYDIS_MNEMONIC_RDTSC: case ZYDIS_MNEMONIC_CPUID:
        return true;
    default:
        return false;
    }
}

static bool is_simple(const struct insn *in)
{
    if (in->form->cls == INSN_SPECIAL && is_flagless(in))
        return true;
    switch ((enum insn_class)in->form->cls) {
    case INSN_COPY: case INSN_LEA: case INSN_NOP: case INSN_PUSH: case INSN_POP: case INSN_LEAVE: case INSN_MOFFS:
        return true;
    case INSN_SPECIAL: case INSN_JMP: case INSN_JCC: case INSN_CALL: case INSN_RET: case INSN_LOOP: case INSN_STRING:
    case INSN_SYSCALL: case INSN_INVALID:
        break;
    }
    return false;
}

static void depend_on(struct block *b, unsigned from, unsigned to)
{
    if (from < b->dep_from)
        b->dep_from = (u16)from;
    if (to > b->dep_to)
        b->dep_to = (u16)MIN(to, 4096u);
}

/* Which of the flags in `pending` are read before they are written, from the guest address on. */
static unsigned live_at(struct look *k, u64 vpc, unsigned pending, unsigned depth)
{
    struct block *b = k->g->b;
    unsigned live = 0;

    if ((vpc >> 12) != (b->vpc >> 12) || b->crosses)
        return pending;
    while (pending && k->budget) {
        struct insn in;
        unsigned at = vpc & 0xfff;

        k->budget--;
        if (insn_decode(k->g->page + at, MIN(4096 - at, (unsigned)INSN_MAX), k->g->code64 ? 64 : 32, &in) != INSN_OK)
            return live | pending;
        depend_on(b, at, at + in.len);
        const struct insn_form *f = in.form;
        bool jmp = (f->cls == INSN_JMP || f->cls == INSN_CALL) && !in.has_modrm;
        if (!is_simple(&in) && !jmp && f->cls != INSN_JCC)
            return live | pending;
        live |= f->flags_r & pending;
        pending &= ~(f->flags_r | f->flags_w);
        u64 next = vpc + in.len;
        if (f->cls == INSN_JCC) {
            if (!depth)
                return live | pending;
            live |= live_at(k, next + in.imm, pending, depth - 1);
            pending &= ~live;
        } else if (jmp) {
            next += in.imm;
        }
        if ((next >> 12) != (b->vpc >> 12))
            return live | pending;
        vpc = next;
    }
    return live | pending;
}

static unsigned look_ahead(struct gen *g, u64 vpc)
{
    struct look k = {.g = g, .budget = LOOK_INSNS};

    if (!g->plain)
        return FL_ARITH;
    return live_at(&k, vpc, FL_ARITH, LOOK_DEPTH);
}

void find_dead_flags(struct gen *g)
{
    u64 vpc = g->b->vpc;
    unsigned live = g->n && g->insn[g->n - 1].form ? look_ahead(g, vpc + g->b->bytes) : FL_ARITH;

    for (unsigned i = g->n; i-- > 0;) {
        const struct insn *in = &g->insn[i];
        const struct insn_form *f = in->form;
        u64 target = f ? vpc + g->offset[i] + in->len + in->imm : 0;

        if (f && (f->cls == INSN_JMP || f->cls == INSN_CALL) && !in->has_modrm)
            live = look_ahead(g, target);
        else if (f && f->cls == INSN_JCC)
            live |= f->flags_r | look_ahead(g, target);
        else if (f && is_simple(in))
            live = (live & ~f->flags_w) | f->flags_r;
        else
            live = FL_ARITH;
        g->flags_dead[i] = !(live & FL_ARITH);
    }
}
