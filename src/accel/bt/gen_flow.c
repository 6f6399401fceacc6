/*
 * Code generation: where control goes (jumps, calls, returns), the stack, and calls of C functions.
 */
#include <Zydis/Zydis.h>
#include "accel/bt/gen.h"
#include "accel/bt/sys.h"

struct site *gen_site(struct gen *g, sys_fn *fn)
{
    struct site *s = arena_alloc(g->bt, sizeof(*s));

    s->in = *g->in;
    s->vpc = g->vpc;
    s->relative = g->b->relative;
    s->fn = fn;
    s->tf = g->b->mode & MODE_TF;
    s->watched = g->b->mode & (MODE_TF | MODE_DEBUG);
    return s;
}

void gen_stub_call(struct gen *g, enum stub stub, void *record)
{
    g->s2_window = NO_WINDOW;
    mov_imm(&g->o, S2, arena_ref_of(g->bt->cache, record));
    jmp_rx(&g->o, g->bt->cache->tramp[stub]);
}

void gen_special(struct gen *g, sys_fn *fn, bool ends)
{
    struct site *s = gen_site(g, fn);

    s->ends = ends || s->watched;
    gen_stub_call(g, STUB_SPECIAL, s);
    s->next = code_rx(&g->o);
    if (s->ends)
        g->ended = true;
}

/* --- jumps --- */

void align_rel32(struct gen *g, unsigned opcode_bytes)
{
    static const u8 nop[4][3] = {{0}, {0x90}, {0x66, 0x90}, {0x0f, 0x1f, 0x00}};
    unsigned pad = -(uintptr_t)(g->o.p + opcode_bytes) & 3;

    for (unsigned i = 0; i < pad; i++)
        b1(&g->o, nop[pad][i]);
}

static void note_link(struct gen *g, u8 *rel32, u64 target)
{
    const struct code_cache *cache = g->bt->cache;
    struct link *l = arena_alloc(g->bt, sizeof(*l));
    struct cold *k = gen_cold(g, COLD_LINK);

    l->jmp = code_ref_of(cache, rel32 + g->o.to_rx);
    l->target = g->code64 ? target : (u32)target;
    l->from = arena_ref_of(cache, g->b);
    l->next_out = g->b->outgoing;
    g->b->outgoing = arena_ref_of(cache, l);
    k->from1 = rel32;
    k->link = l;
}

void gen_link(struct gen *g, u64 target)
{
    align_rel32(g, 1);
    note_link(g, jmp(&g->o), target);
}

static void gen_link_if(struct gen *g, u8 cond, u64 target)
{
    align_rel32(g, 2);
    note_link(g, jcc(&g->o, cond), target);
}

void gen_dispatch(struct gen *g)
{
    struct code *o = &g->o;

    b4(o, 0xfeb70f45);                              /* movzx r15d, r14w */
    b3(o, 0x65, 0x42, 0xff), b2(o, 0x24, 0xfd);     /* jmp gs:[r15*8 + JT] */
    b4(o, (u32) - (s32)AREA_BYTES);
    g->ended = true;
}

static u64 branch_target(const struct gen *g)
{
    u64 t = g->vpc + g->in->len + g->in->imm;
    return g->code64 ? t : (u32)t;
}

static unsigned stack_bytes(const struct gen *g)
{
    if (g->code64)
        return g->in->opsize_prefix ? 2 : 8;
    return g->in->opsize;
}

/* --- the stack --- */

/* Makes the host address of the new top of the stack available as [*base + S2 + *disp], checked for a write. */
static void push_check(struct gen *g, unsigned size, unsigned *ret_base, s32 *ret_disp)
{
    if (g->window_stack[g->i] != NO_WINDOW) {
        window_to_s2(g, g->window_stack[g->i]);
        *ret_base = RSP;
        *ret_disp = -(s32)size;
        return;
    }
    lea(&g->o, g->code64, S1, RSP, REG_NONE, 1, -(s32)size);
    gen_check(g, S1, size, ACC_W);
    *ret_base = S1;
    *ret_disp = 0;
}

static void move_stack(struct gen *g, s32 by)
{
    lea(&g->o, g->code64, RSP, RSP, REG_NONE, 1, by);
}

/* S1 = [base + S2 + disp] as an address, so that S2 is free for the value. */
static void collapse(struct gen *g, unsigned base, s32 disp)
{
    lea(&g->o, true, S1, base, S2, 1, disp);
    g->s2_window = NO_WINDOW;
}

static void push_value(struct gen *g, unsigned size, u64 value)
{
    struct code *o = &g->o;
    unsigned base;
    s32 disp;

    push_check(g, size, &base, &disp);
    if (size == 4 || (u64)(s64)(s32)value == value) {
        b2(o, rex(size == 8, 0, S2, base), 0xc7); /* mov [base + S2 + disp], imm32 (sign-extended) */
        modrm_mem(o, 0, base, S2, 1, disp);
        b4(o, (u32)value);
    } else {
        collapse(g, base, disp);
        mov_imm(o, S2, value);
        op_mem(o, true, 0x89, S2, S1, REG_NONE, 0);
    }
    move_stack(g, -(s32)size);
}

static void push_return(struct gen *g, unsigned size, u64 back)
{
    unsigned base;
    s32 disp;

    if (!g->b->relative) {
        push_value(g, size, back);
        return;
    }
    push_check(g, size, &base, &disp);
    collapse(g, base, disp);
    gen_relative(g, S2, back);
    op_mem(&g->o, true, 0x89, S2, S1, REG_NONE, 0);
    move_stack(g, -(s32)size);
}

static void push_register(struct gen *g, unsigned reg, unsigned size)
{
    struct code *o = &g->o;
    unsigned base;
    s32 disp;

    push_check(g, size, &base, &disp);
    if (reg_hidden(reg)) {
        collapse(g, base, disp);
        load_gs(o, S2, GPR_FIELD(reg));
        op_mem(o, size == 8, 0x89, S2, S1, REG_NONE, 0);
    } else {
        op_mem(o, size == 8, 0x89, reg, base, S2, disp);
    }
    move_stack(g, -(s32)size);
}

/* The memory operand's value into cpu.priv[P_TMP]. */
static void load_operand(struct gen *g, unsigned size)
{
    unsigned addr = gen_address(g, g->in, 0);

    gen_check(g, addr, size, ACC_R);
    addr = g->cold[g->ncold - 1].addr_reg;
    op_mem(&g->o, size == 8, 0x8b, S2, addr, S2, 0);
    store_gs(&g->o, S2, PRIV_FIELD(P_TMP));
}

static void push_memory(struct gen *g, unsigned size)
{
    struct code *o = &g->o;

    unsigned base;
    s32 disp;

    load_operand(g, size);
    push_check(g, size, &base, &disp);
    collapse(g, base, disp);
    load_gs(o, S2, PRIV_FIELD(P_TMP));
    op_mem(o, size == 8, 0x89, S2, S1, REG_NONE, 0);
    move_stack(g, -(s32)size);
}

/* The value on top of the stack into S2 (host); the stack pointer does not move. */
static void top_of_stack(struct gen *g, unsigned size, unsigned to)
{
    unsigned addr = RSP;

    if (g->window_stack[g->i] != NO_WINDOW) {
        window_to_s2(g, g->window_stack[g->i]);
        op_mem(&g->o, size == 8, 0x8b, to, RSP, S2, 0);
        if (to == S2)
            g->s2_window = NO_WINDOW;
        return;
    }
    if (!g->code64) {
        lea(&g->o, false, S1, RSP, REG_NONE, 1, 0);
        addr = S1;
    }
    gen_check(g, addr, size, ACC_R);
    op_mem(&g->o, size == 8, 0x8b, to, addr, S2, 0);
}

static void pop_register(struct gen *g, unsigned reg, unsigned size)
{
    struct code *o = &g->o;

    top_of_stack(g, size, reg_hidden(reg) ? S2 : reg);
    if (reg_hidden(reg))
        store_gs(o, S2, GPR_FIELD(reg));
    if (reg != RSP)
        move_stack(g, size);
}

static void pop_memory(struct gen *g, unsigned size)
{
    struct code *o = &g->o;

    top_of_stack(g, size, S2);
    store_gs(o, S2, PRIV_FIELD(P_TMP));
    /* The address is computed with the stack pointer already moved. */
    unsigned addr = gen_address(g, g->in, g->in->base == RSP ? (s32)size : 0);
    gen_check(g, addr, size, ACC_W);
    addr = g->cold[g->ncold - 1].addr_reg;
    lea(o, true, S1, addr, S2, 1, 0);
    load_gs(o, S2, PRIV_FIELD(P_TMP));
    op_mem(o, size == 8, 0x89, S2, S1, REG_NONE, 0);
    move_stack(g, size);
}

static void gen_leave(struct gen *g, unsigned size)
{
    unsigned addr = RBP;

    if (!g->code64) {
        lea(&g->o, false, S1, RBP, REG_NONE, 1, 0);
        addr = S1;
    }
    gen_check(g, addr, size, ACC_R);
    op_mem(&g->o, size == 8, 0x8b, S2, addr, S2, 0);
    lea(&g->o, g->code64, RSP, RBP, REG_NONE, 1, (s32)size);
    mov_rr(&g->o, RBP, S2);
}

/* --- calls, jumps, returns --- */

/* The operand of an indirect jump or call into S1 (not the stack pointer's old value after a push: load it first). */
static void target_to_s1(struct gen *g)
{
    struct code *o = &g->o;
    const struct insn *in = g->in;
    unsigned size = g->code64 ? 8 : 4;

    if (in->has_mem) {
        load_operand(g, size);
        load_gs(o, S1, PRIV_FIELD(P_TMP));
    } else if (reg_hidden(in->rm)) {
        load_gs(o, S1, GPR_FIELD(in->rm));
    } else if (g->code64) {
        mov_rr(o, S1, in->rm);
    } else {
        lea(o, false, S1, in->rm, REG_NONE, 1, 0);
    }
}

static void gen_jmp(struct gen *g)
{
    if (!g->in->has_modrm) {
        gen_link(g, branch_target(g));
        g->ended = true;
        return;
    }
    target_to_s1(g);
    gen_dispatch(g);
}

static void gen_call(struct gen *g)
{
    u64 back = g->vpc + g->in->len;
    unsigned size = g->code64 ? 8 : 4;

    if (!g->in->has_modrm) {
        push_return(g, size, back);
        gen_link(g, branch_target(g));
        g->ended = true;
        return;
    }
    target_to_s1(g);
    store_gs(&g->o, S1, PRIV_FIELD(P_TMP));
    push_return(g, size, back);
    load_gs(&g->o, S1, PRIV_FIELD(P_TMP));
    gen_dispatch(g);
}

static void gen_ret(struct gen *g)
{
    unsigned size = g->code64 ? 8 : 4;

    top_of_stack(g, size, S1);
    move_stack(g, (s32)(size + (g->in->form->imm_bytes ? (u16)g->in->imm : 0)));
    gen_dispatch(g);
}

/* loop, loope, loopne, jcxz: count without touching flags, then jrcxz, which reaches only near. */
static void gen_loop(struct gen *g)
{
    struct code *o = &g->o;
    const struct insn *in = g->in;
    bool wide = in->addrsize == 8;
    unsigned kind = in->opcode & 3; /* e0 loopne, e1 loope, e2 loop, e3 jcxz */

    if (kind != 3)
        lea(o, wide, RCX, RCX, REG_NONE, 1, -1);
    if (!wide)
        b1(o, 0x67);
    b2(o, 0xe3, 0);
    u8 *near = o->p - 1;
    if (kind == 3) {
        gen_link(g, g->vpc + in->len);
        *near = o->p - (near + 1);
        gen_link(g, branch_target(g));
    } else {
        if (kind == 2)
            gen_link(g, branch_target(g));
        else
            gen_link_if(g, kind == 1 ? CC_E : CC_NE, branch_target(g));
        *near = o->p - (near + 1);
        gen_link(g, g->vpc + in->len);
    }
    g->ended = true;
}

static sys_fn *flow_function(const struct insn *in)
{
    switch ((enum insn_class)in->form->cls) {
    case INSN_JMP: return sys_jmp;
    case INSN_JCC: return sys_jcc;
    case INSN_CALL: return sys_call;
    case INSN_RET: return sys_ret;
    case INSN_LOOP: return sys_loop;
    case INSN_PUSH: return sys_push;
    case INSN_POP: return sys_pop;
    case INSN_LEAVE: return sys_leave;
    case INSN_COPY: case INSN_SPECIAL: case INSN_LEA: case INSN_NOP: case INSN_STRING: case INSN_MOFFS:
    case INSN_SYSCALL: case INSN_INVALID:
        break;
    }
    return NULL;
}

static bool is_stack_class(const struct insn *in)
{
    return in->form->cls == INSN_PUSH || in->form->cls == INSN_POP || in->form->cls == INSN_LEAVE;
}

/* Operand sizes and modes that are left to the C functions. */
static bool needs_function(const struct gen *g, const struct insn *in)
{
    if (!g->plain || g->careful[g->i])
        return true;
    if (in->has_mem && !g->code64 && (in->seg == SEG_FS || in->seg == SEG_GS))
        return true;
    if (is_stack_class(in))
        return stack_bytes(g) == 2;
    if (in->form->cls == INSN_LOOP && in->addrsize == 2)
        return true;
    return !g->code64 && in->opsize == 2;
}

static void gen_stack(struct gen *g)
{
    const struct insn *in = g->in;
    unsigned size = stack_bytes(g);

    if (in->form->cls == INSN_LEAVE)
        gen_leave(g, size);
    else if (in->form->cls == INSN_PUSH && in->has_mem)
        push_memory(g, size);
    else if (in->form->cls == INSN_PUSH && in->form->imm_bytes)
        push_value(g, size, in->imm);
    else if (in->form->cls == INSN_PUSH)
        push_register(g, in->rm, size);
    else if (in->has_mem)
        pop_memory(g, size);
    else
        pop_register(g, in->rm, size);
}

bool gen_flow(struct gen *g)
{
    const struct insn *in = g->in;
    sys_fn *fn = flow_function(in);

    if (!fn)
        return false;
    if (needs_function(g, in)) {
        gen_special(g, fn, !is_stack_class(in));
        return true;
    }
    switch ((enum insn_class)in->form->cls) {
    case INSN_JMP: gen_jmp(g); break;
    case INSN_JCC: gen_link_if(g, in->form->cond, branch_target(g)); break;
    case INSN_CALL: gen_call(g); break;
    case INSN_RET: gen_ret(g); break;
    case INSN_LOOP: gen_loop(g); break;
    default: gen_stack(g); break;
    }
    return true;
}
