/*
 * Windows: one check for several accesses. A window is a run of instructions in a block that reach memory through the
 * same base register with known displacements (stack frames, fields of a structure). If all its bytes lie in one page,
 * one look-up serves all: what to add is kept in cpu.priv[P_WINDOW0 + n].
 *
 * The check comes before the first access, where possible where the flags are dead, and never raises anything: the
 * accesses it stands for may not happen (a branch may leave the block first). When it fails (the bytes straddle two
 * pages, the page is not mapped, or it is to be written and not dirty yet) the block is left for a twin that was
 * translated without windows (MODE_NOWINDOW), where every access is checked by itself. Stack frames that straddle two
 * pages stay there, so this way becomes a direct jump when it is first taken.
 */
#include "accel/bt/gen.h"

#define SPAN_MAX 1024
#define VALUES 96
/* Distances are followed no farther than this: they must never wrap, or a register 4 GiB away would pass for one
 * that is near, and its access for checked. */
#define DISTANCE_MAX 65536

/* Addresses are followed as values: `mov`, `lea` with a constant, additions and pushes give a register a known distance
 * from a value that another register had. Accesses are collected by value, whatever register names it. */
struct place {
    u8 value;
    s32 off;                   /* at most DISTANCE_MAX either way */
};

/* A window being collected for one value. */
struct draft {
    u8 count, base, first, last;
    s32 at_first;              /* distance of the base register from the value, before the first access */
    s32 lo, hi;                /* relative to the value */
    bool write;
    u8 member[BLOCK_INSNS];    /* 1: memory operand, 2: implicit stack access */
};

struct collect {
    struct gen *g;
    struct place reg[S1];
    unsigned nvalues;
    struct draft *draft;       /* [VALUES] */
};

static void new_value(struct collect *k, unsigned reg)
{
    if (k->nvalues < VALUES)
        k->draft[k->nvalues].count = 0;
    k->reg[reg] = (struct place){.value = (u8)MIN(k->nvalues, VALUES), .off = 0};
    if (k->nvalues < VALUES)
        k->nvalues++;
}

static void move_place(struct collect *k, unsigned reg, struct place from, s64 by)
{
    s64 off = from.off + by;

    if (off < -DISTANCE_MAX || off > DISTANCE_MAX)
        new_value(k, reg);
    else
        k->reg[reg] = (struct place){.value = from.value, .off = (s32)off};
}

/* The register that `number`, an operand of the kind `which` (see insn_form.reg_is_byte), is (part of), as a bit. AH..BH
 * are parts of RAX..RBX. */
static u32 gpr_bit(const struct insn *in, unsigned number, unsigned which)
{
    bool high = (in->form->reg_is_byte & which) && !in->rex && in->enc == ENC_LEGACY && number >= 4 && number < 8;

    return 1u << (high ? number - 4 : number);
}

/* Registers that are written, as bits by their numbers. */
static u32 gprs_written(const struct insn *in)
{
    const struct insn_form *f = in->form;
    u32 written = f->gpr_implicit_w;

    if (f->reg_acc & ACC_W)
        written |= gpr_bit(in, in->reg, 1);
    if (in->mod == 3 && (f->rm_acc & ACC_W))
        written |= gpr_bit(in, in->rm, 2);
    if (f->opreg_acc & ACC_W)
        written |= gpr_bit(in, in->rm, 4);
    if (f->vvvv_acc & ACC_W)
        written |= 1u << in->vvvv;
    return written;
}

/* Does the instruction set register *ret_to to *ret_from plus a constant? (64-bit moves, additions, stack operations) */
static bool sets_by_constant(const struct insn *in, unsigned *ret_to, unsigned *ret_from, s64 *ret_by)
{
    u8 cls = in->form->cls;
    bool wide = in->opsize == 8 && in->map == MAP_1 && in->enc == ENC_LEGACY;

    *ret_by = 0;
    if (cls == INSN_COPY && wide && in->mod == 3 && (in->opcode == 0x89 || in->opcode == 0x8b)) {
        *ret_to = in->opcode == 0x89 ? in->rm : in->reg;
        *ret_from = in->opcode == 0x89 ? in->reg : in->rm;
        return true;
    }
    if (cls == INSN_COPY && wide && in->mod == 3 && (in->opcode == 0x83 || in->opcode == 0x81) && (in->reg == 0 || in->reg == 5)) {
        *ret_to = *ret_from = in->rm;
        *ret_by = in->reg == 0 ? (s64)in->imm : -(s64)in->imm;
        return true;
    }
    if (cls == INSN_LEA && in->opsize == 8 && in->addrsize == 8 && in->base < X86_GPRS && in->index == REG_NONE) {
        *ret_to = in->reg;
        *ret_from = in->base;
        *ret_by = in->disp;
        return true;
    }
    return false;
}

static s32 stack_move(const struct insn *in)
{
    u8 cls = in->form->cls;

    if (in->opsize_prefix)
        return 0;
    return cls == INSN_PUSH || cls == INSN_CALL ? -8 : cls == INSN_POP || cls == INSN_RET ? 8 : 0;
}

static bool is_stack_class(const struct insn *in)
{
    u8 cls = in->form->cls;
    return cls == INSN_PUSH || cls == INSN_CALL || cls == INSN_POP || cls == INSN_RET;
}

static void add_access(struct collect *k, unsigned base, unsigned i, s64 disp, unsigned size, u8 acc_member)
{
    struct place at = k->reg[base];
    struct draft *d = &k->draft[at.value];

    if (at.value == VALUES || disp < -DISTANCE_MAX || disp > DISTANCE_MAX || size == 0)
        return;
    s32 from = at.off + (s32)disp, to = from + (s32)size;
    if (d->count && MAX(to, d->hi) - MIN(from, d->lo) > SPAN_MAX)
        return; /* checked by itself */
    if (!d->count) {
        __builtin_memset(d, 0, sizeof(*d));
        d->base = (u8)base;
        d->first = (u8)i;
        d->at_first = at.off;
        d->lo = from, d->hi = to;
    }
    d->lo = MIN(from, d->lo), d->hi = MAX(to, d->hi);
    d->last = (u8)i;
    d->count++;
    d->write |= (acc_member & 4) != 0;
    d->member[i] |= acc_member & 3;
}

static bool plain_operand(const struct insn *in)
{
    return in->has_mem && in->index == REG_NONE && in->base < S1 && in->addrsize == 8 && in->seg != SEG_FS &&
           in->seg != SEG_GS && !gen_copy_needs_care(in);
}

static void note_accesses(struct collect *k, const struct insn *in, unsigned i)
{
    u8 cls = in->form->cls;

    if (cls == INSN_COPY && plain_operand(in) && in->form->mem_acc)
        add_access(k, in->base, i, in->disp, in->form->mem_bytes, in->form->mem_acc & ACC_W ? 5 : 1);
    if (is_stack_class(in) && !in->opsize_prefix)
        add_access(k, RSP, i, stack_move(in) < 0 ? -8 : 0, 8, stack_move(in) < 0 ? 6 : 2);
}

static void note_writes(struct collect *k, const struct insn *in)
{
    unsigned to, from;
    s64 by;

    if (is_stack_class(in) && !in->opsize_prefix) {
        move_place(k, RSP, k->reg[RSP], stack_move(in));
        if (in->form->cls == INSN_POP && !in->has_mem && in->rm < S1)
            new_value(k, in->rm);
        return;
    }
    if (sets_by_constant(in, &to, &from, &by) && to < S1) {
        if (from < S1)
            move_place(k, to, k->reg[from], by);
        else
            new_value(k, to);
        return;
    }
    bool wild = in->form->cls != INSN_COPY && in->form->cls != INSN_LEA && in->form->cls != INSN_NOP &&
                in->form->cls != INSN_JCC && in->form->cls != INSN_MOFFS && in->form->cls != INSN_JMP;
    u32 written = (wild ? UINT32_MAX : gprs_written(in)) & ((1u << S1) - 1);
    for (; written; written &= written - 1)
        new_value(k, (unsigned)__builtin_ctz(written));
    if (in->form->cls == INSN_MOFFS)
        new_value(k, RAX);
}

/* --- placing the checks --- */

/* Follows the base register up past insn i - 1: false when it has another value there. */
static bool move_up(const struct gen *g, unsigned i, unsigned base, s32 *moved)
{
    const struct insn *in = &g->insn[i - 1];
    u8 cls = in->form->cls;
    unsigned to, from;
    s64 by;

    if (cls != INSN_COPY && cls != INSN_LEA && cls != INSN_NOP && cls != INSN_JCC)
        return false;
    if (!(gprs_written(in) >> base & 1))
        return cls != INSN_LEA || in->reg != base;
    if (!sets_by_constant(in, &to, &from, &by) || to != base || from != base)
        return false;
    if (*moved + by < -DISTANCE_MAX || *moved + by > DISTANCE_MAX)
        return false;
    *moved += (s32)by;
    return true;
}

static void place_window(struct gen *g, const struct draft *d)
{
    unsigned at = d->first;
    s32 moved = 0;

    while (!g->flags_dead[at] && at > 0 && move_up(g, at, d->base, &moved))
        at--;
    if (!g->flags_dead[at])
        at = d->first, moved = 0;
    g->window[g->nwindows] = (struct window){.base = d->base, .at = (u8)at, .lo = d->lo - d->at_first + moved,
                                             .span = (u16)(d->hi - d->lo), .write = d->write};
    for (unsigned i = d->first; i <= d->last; i++) {
        if (d->member[i] & 1)
            g->window_mem[i] = (u8)g->nwindows;
        if (d->member[i] & 2)
            g->window_stack[i] = (u8)g->nwindows;
    }
    g->nwindows++;
}

void find_windows(struct gen *g)
{
    static _Thread_local struct draft draft[VALUES];
    struct collect k = {.g = g, .draft = draft};

    __builtin_memset(g->window_mem, NO_WINDOW, sizeof(g->window_mem));
    __builtin_memset(g->window_stack, NO_WINDOW, sizeof(g->window_stack));
    g->nwindows = 0;
    g->s2_window = NO_WINDOW;
    if (!g->code64 || !g->plain || (g->b->mode & MODE_NOWINDOW))
        return;
    for (unsigned r = 0; r < S1; r++)
        new_value(&k, r);
    for (unsigned i = 0; i < g->n && g->insn[i].form; i++) {
        if (!g->careful[i])
            note_accesses(&k, &g->insn[i], i);
        note_writes(&k, &g->insn[i]);
    }
    for (unsigned v = 0; v < k.nvalues; v++)
        if (draft[v].count >= 2 && g->nwindows < WINDOWS)
            place_window(g, &draft[v]);
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
    pext_page(o, S2, S1, PRIV_FIELD(P_PEXT_MASK));
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
