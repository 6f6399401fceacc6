/*
 * Windows: one check for several accesses. A window is a run of instructions in a block that reach memory through the
 * same base register with known displacements (stack frames, fields of a structure). If all its bytes lie in one page,
 * one look-up serves all: what to add is kept in cpu.priv[P_WINDOW0 + n].
 *
 * The check comes before the first access, where possible where the flags are dead, and never raises anything: the
 * accesses it stands for may not happen (a branch may leave the block first). When it fails (the bytes straddle two
 * pages, the page is not mapped, or it is to be written and not dirty yet) the block is left for a twin that was
 * translated without windows (MODE_NOWINDOW), where every access is checked by itself.
 */
#include "accel/bt/gen.h"

#define SPAN_MAX 1024

/* A window being collected for one base register. */
struct draft {
    bool open;
    u8 count, first, last;
    s32 moved;     /* of the register since the first access (RSP only) */
    s32 lo, hi;
    bool write;
    u8 member[BLOCK_INSNS];    /* 1: memory operand, 2: implicit stack access */
};

static void assign(struct gen *g, const struct draft *d, unsigned id)
{
    for (unsigned i = d->first; i <= d->last; i++) {
        if (d->member[i] & 1)
            g->window_mem[i] = (u8)id;
        if (d->member[i] & 2)
            g->window_stack[i] = (u8)id;
    }
}

static bool writes_gpr(const struct insn *in, unsigned reg)
{
    const struct insn_form *f = in->form;

    return (f->gpr_implicit_w >> reg & 1) || ((f->reg_acc & ACC_W) && in->reg == reg) ||
           (in->mod == 3 && (f->rm_acc & ACC_W) && in->rm == reg) || ((f->opreg_acc & ACC_W) && in->rm == reg) ||
           ((f->vvvv_acc & ACC_W) && in->vvvv == reg);
}

/* Can the check be made before insn i - 1 instead of before insn i? */
static bool can_move_up(const struct gen *g, unsigned i, unsigned base)
{
    const struct insn *in = &g->insn[i - 1];
    u8 cls = in->form->cls;

    return (cls == INSN_COPY || cls == INSN_LEA || cls == INSN_NOP || cls == INSN_JCC || cls == INSN_MOFFS) &&
           !writes_gpr(in, base);
}

/* By how much does the instruction move the stack pointer, if that is known? */
static bool stack_move(const struct insn *in, s32 *ret_by)
{
    bool alu = in->form->cls == INSN_COPY && in->map == MAP_1 && in->mod == 3 && in->rm == RSP && in->opsize == 8;

    if (alu && (in->opcode == 0x83 || in->opcode == 0x81) && (in->reg == 0 || in->reg == 5)) {
        *ret_by = in->reg == 0 ? (s32)in->imm : -(s32)in->imm;
        return true;
    }
    if (in->form->cls == INSN_LEA && in->reg == RSP && in->opsize == 8 && in->addrsize == 8 && in->base == RSP && in->index == REG_NONE) {
        *ret_by = (s32)in->disp;
        return true;
    }
    return false;
}

static void close_draft(struct gen *g, struct draft *d, unsigned base)
{
    if (d->open && d->count >= 2 && g->nwindows < WINDOWS) {
        struct window *w = &g->window[g->nwindows];
        unsigned at = d->first;
        s32 moved = 0, by;
        while (!g->flags_dead[at] && at > 0) {
            if (base == RSP && stack_move(&g->insn[at - 1], &by))
                moved += by;
            else if (!can_move_up(g, at, base))
                break;
            at--;
        }
        if (!g->flags_dead[at])
            at = d->first, moved = 0;
        *w = (struct window){.base = (u8)base, .at = (u8)at, .lo = d->lo + moved, .span = (u16)(d->hi - d->lo), .write = d->write};
        assign(g, d, g->nwindows++);
    }
    d->open = false;
}

static void add_access(struct gen *g, struct draft *d, unsigned base, unsigned i, s64 disp, unsigned size, unsigned acc, u8 member)
{
    if (disp < -65536 || disp > 65536 || size == 0) {
        close_draft(g, d, base);
        return;
    }
    s32 from = d->open ? (s32)disp + d->moved : (s32)disp, to = from + (s32)size;
    if (d->open && MAX(to, d->hi) - MIN(from, d->lo) > SPAN_MAX) {
        close_draft(g, d, base);
        from = (s32)disp, to = from + (s32)size;
    }
    if (!d->open) {
        __builtin_memset(d, 0, sizeof(*d));
        d->open = true;
        d->first = (u8)i;
        d->lo = from, d->hi = to;
    }
    d->lo = MIN(from, d->lo), d->hi = MAX(to, d->hi);
    d->last = (u8)i;
    d->count++;
    d->write |= (acc & ACC_W) != 0;
    d->member[i] |= member;
}

static bool plain_operand(const struct gen *g, const struct insn *in, unsigned i)
{
    return in->has_mem && in->index == REG_NONE && in->base < S1 && in->addrsize == 8 && in->seg != SEG_FS &&
           in->seg != SEG_GS && !g->careful[i] && !gen_copy_needs_care(in);
}

static void stack_access(struct gen *g, struct draft *draft, const struct insn *in, unsigned i)
{
    struct draft *sp = &draft[RSP];
    u8 cls = in->form->cls;
    s32 by = 0;

    if (in->opsize_prefix || g->careful[i]) {
        close_draft(g, sp, RSP);
    } else if (cls == INSN_PUSH || cls == INSN_CALL) {
        add_access(g, sp, RSP, i, -8, 8, ACC_W, 2);
        by = -8;
    } else if (cls == INSN_POP || cls == INSN_RET) {
        add_access(g, sp, RSP, i, 0, 8, ACC_R, 2);
        by = 8;
    }
    if (sp->open)
        sp->moved += by;
}

static void collect(struct gen *g, struct draft *draft, const struct insn *in, unsigned i)
{
    u8 cls = in->form->cls;
    s32 by;

    if (cls == INSN_COPY && plain_operand(g, in, i) && in->form->mem_acc)
        add_access(g, &draft[in->base], in->base, i, in->disp, in->form->mem_bytes, in->form->mem_acc, 1);
    if (cls == INSN_PUSH || cls == INSN_POP || cls == INSN_CALL || cls == INSN_RET)
        stack_access(g, draft, in, i);
    if (draft[RSP].open && stack_move(in, &by)) {
        draft[RSP].moved += by;
        return;
    }
    for (unsigned r = 0; r < S1; r++)
        if (draft[r].open && (writes_gpr(in, r) && !(r == RSP && (cls == INSN_PUSH || cls == INSN_POP || cls == INSN_CALL || cls == INSN_RET))))
            close_draft(g, &draft[r], r);
    if (cls == INSN_POP && !in->has_mem && in->rm < S1)
        close_draft(g, &draft[in->rm], in->rm);
    if (cls == INSN_LEAVE)
        close_draft(g, &draft[RSP], RSP), close_draft(g, &draft[RBP], RBP);
}

void find_windows(struct gen *g)
{
    static _Thread_local struct draft draft[S1];

    __builtin_memset(g->window_mem, NO_WINDOW, sizeof(g->window_mem));
    __builtin_memset(g->window_stack, NO_WINDOW, sizeof(g->window_stack));
    g->nwindows = 0;
    g->s2_window = NO_WINDOW;
    if (!g->code64 || !g->plain || (g->b->mode & MODE_NOWINDOW))
        return;
    for (unsigned r = 0; r < S1; r++)
        draft[r].open = false;
    for (unsigned i = 0; i < g->n; i++) {
        const struct insn *in = &g->insn[i];
        u8 cls = in->form ? in->form->cls : INSN_INVALID;
        if (cls == INSN_SPECIAL || cls == INSN_STRING || cls == INSN_SYSCALL || cls == INSN_INVALID || g->careful[i])
            for (unsigned r = 0; r < S1; r++)
                close_draft(g, &draft[r], r);
        else
            collect(g, draft, in, i);
    }
    for (unsigned r = 0; r < S1; r++)
        close_draft(g, &draft[r], r);
}

static void gen_window(struct gen *g, unsigned id)
{
    struct code *o = &g->o;
    const struct window *w = &g->window[id];
    struct cold *k = gen_cold(g, COLD_WINDOW);

    k->live = !g->flags_dead[g->i];
    k->window = *w;
    lea(o, true, S1, w->base, REG_NONE, 1, w->lo);
    if (k->live)
        flags_save(o, 0, PRIV_FIELD(P_RAX));
    b3(o, 0x45, 0x89, 0xf7);                                /* mov r15d, r14d */
    b3(o, 0x41, 0x81, 0xe7), b4(o, 0xfff);                  /* and r15d, 0xfff */
    b3(o, 0x41, 0x81, 0xff), b4(o, 4096 - (u32)w->span);    /* cmp r15d, 4096 - span */
    k->from2 = jcc(o, CC_A);
    pext_page(o, S1, PRIV_FIELD(P_PEXT_MASK));
    load_entry(o);
    test_rr(o, S2);
    k->from1 = jcc(o, CC_E);
    if (k->live)
        flags_restore(o, 0, PRIV_FIELD(P_RAX));
    k->resume = o->p;
    store_gs(o, S2, PRIV_FIELD(P_WINDOW0 + id));
    g->s2_window = (u8)id;
}

void gen_windows(struct gen *g)
{
    for (unsigned id = 0; id < g->nwindows; id++)
        if (g->window[id].at == g->i)
            gen_window(g, id);
}

void window_to_s2(struct gen *g, unsigned id)
{
    if (g->s2_window != id)
        load_gs(&g->o, S2, PRIV_FIELD(P_WINDOW0 + id));
    g->s2_window = (u8)id;
}
