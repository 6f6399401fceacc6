/*
 * Far jumps, calls and returns: directly, through call gates (with a change of stack), to tasks. SDM 2A, JMP, CALL, RET;
 * SDM 3A 5.8 (gates), 5.8.5 (stacks). Light code on the vCPU's thread.
 *
 * Nothing changes before all checks have passed and all pushes have been made.
 */
#include "accel/bt/far.h"
#include "accel/bt/sys_fns.h"

/* --- checks shared with IRET --- */

static void check_long_code(struct cpu *c, const struct desc *d)
{
    u32 both = SEG_ATTR_L | SEG_ATTR_DB;
    if (long_mode(c) && (desc_attr(d) & both) == both)
        raise_error(c, VEC_GP, d->sel & ~SEL_RPL);
}

void cs_check_return(struct cpu *c, u16 sel, struct desc *ret_d)
{
    unsigned rpl = sel & SEL_RPL;
    u32 error = sel & ~SEL_RPL;
    if (sel_null(sel))
        raise_error(c, VEC_GP, 0);
    desc_need(c, sel, VEC_GP, 0, ret_d);
    u32 attr = desc_attr(ret_d);
    if (!attr_code(attr) || rpl < c->cpl)
        raise_error(c, VEC_GP, error);
    if (attr_conforming(attr) ? attr_dpl(attr) > rpl : attr_dpl(attr) != rpl)
        raise_error(c, VEC_GP, error);
    check_long_code(c, ret_d);
    if (!(attr & SEG_ATTR_P))
        raise_error(c, VEC_NP, error);
}

struct x86_seg ss_check_return(struct cpu *c, u16 sel, const struct desc *cs, unsigned cpl)
{
    if (sel_null(sel)) {
        if (!desc_code64(c, cs) || cpl == 3 || (sel & SEL_RPL) != cpl)
            raise_error(c, VEC_GP, 0);
        return null_seg(sel);
    }
    return ss_check(c, sel, cpl, VEC_GP, 0);
}

/* --- where to --- */

struct far_pointer {
    u16 sel;
    u64 off;
};

static struct far_pointer target(struct cpu *c, const struct insn *in)
{
    struct far_pointer p;
    unsigned size = in->opsize;
    if (!in->has_modrm) {
        p.sel = in->imm2;
        p.off = in->imm & size_mask(size);
        return p;
    }
    if (!in->has_mem)
        raise_exception(c, VEC_UD);
    u64 off = insn_offset(c, in);
    p.off = mem_load(c, seg_linear(c, in->seg, off, size, false), size, AS_CPL);
    u64 lin = seg_linear(c, in->seg, (off + size) & size_mask(in->addrsize), 2, false);
    p.sel = (u16)mem_load(c, lin, 2, AS_CPL);
    return p;
}

static void push_return(struct cpu *c, struct stack *s, unsigned size, u64 rip)
{
    stack_push(s, size, c->seg[SEG_CS].sel);
    stack_push(s, size, rip);
}

/* --- real and virtual-8086 mode --- */

static void far_real(struct cpu *c, const struct insn *in, struct far_pointer p, bool call)
{
    struct x86_seg cs = real_seg(c, SEG_CS, p.sel);
    struct stack s = stack_current(c);
    check_rip(c, &cs, p.off, 0);
    if (call) {
        push_return(c, &s, in->opsize, next_rip(c, in));
        stack_commit(&s);
    }
    cs_install(c, &cs, p.sel, c->cpl, p.off);
}

/* --- protected mode: a code segment --- */

static void far_code(struct cpu *c, const struct insn *in, struct desc *d, u64 off, bool call)
{
    u32 attr = desc_attr(d), error = d->sel & ~SEL_RPL;
    bool ok = attr_conforming(attr) ? attr_dpl(attr) <= c->cpl
                                    : (d->sel & SEL_RPL) <= c->cpl && attr_dpl(attr) == c->cpl;
    if (!ok)
        raise_error(c, VEC_GP, error);
    if (!(attr & SEG_ATTR_P))
        raise_error(c, VEC_NP, error);
    check_long_code(c, d);
    struct x86_seg cs = desc_seg(d);
    struct stack s = stack_current(c);
    if (call)
        push_return(c, &s, in->opsize, next_rip(c, in));
    check_rip(c, &cs, off, 0);
    desc_set_accessed(c, d);
    if (call)
        stack_commit(&s);
    cs_install(c, &cs, (u16)(error | c->cpl), c->cpl, off);
    c->seg[SEG_CS].attr |= TYPE_ACCESSED;
}

/* --- call gates --- */

struct call_gate {
    u64 off;
    struct desc code;
    unsigned size, params;
};

static void gate_open(struct cpu *c, struct desc *d, struct call_gate *g)
{
    unsigned type = attr_type(desc_attr(d));
    u16 sel = (u16)(d->lo >> 16);
    bool wide = long_mode(c);
    if (wide)
        desc_read_high(c, d, VEC_GP);
    g->size = wide ? 8 : type == SYS_CALL32 ? 4 : 2;
    g->params = wide ? 0 : (d->lo >> 32) & 0x1f;
    g->off = (d->lo & 0xffff) | (type == SYS_CALL32 ? (d->lo >> 32) & 0xffff0000 : 0) | d->hi << 32;
    if (sel_null(sel))
        raise_error(c, VEC_GP, 0);
    desc_need(c, sel, VEC_GP, 0, &g->code);
    u32 attr = desc_attr(&g->code), both = SEG_ATTR_L | SEG_ATTR_DB;
    if (!attr_code(attr) || attr_dpl(attr) > c->cpl || (wide && (attr & both) != SEG_ATTR_L))
        raise_error(c, VEC_GP, sel & ~SEL_RPL);
    if (!(attr & SEG_ATTR_P))
        raise_error(c, VEC_NP, sel & ~SEL_RPL);
}

/* The stack of the more privileged level `cpl`, with the old one's pointer and the gate's parameters on it. */
static struct stack gate_stack(struct cpu *c, const struct call_gate *g, unsigned cpl)
{
    u16 ss;
    u64 sp;
    tss_stack(c, cpl, 0, &ss, &sp);
    bool wide = g->size == 8;
    struct x86_seg seg = wide ? null_seg((u16)cpl) : ss_check(c, ss, cpl, VEC_TS, 0);
    struct stack s = stack_other(c, &seg, sp, wide, true), old = stack_current(c);
    s.error = wide ? 0 : ss & ~SEL_RPL;
    stack_push(&s, g->size, c->seg[SEG_SS].sel);
    stack_push(&s, g->size, c->gpr[RSP]);
    for (unsigned i = g->params; i-- > 0;)
        stack_push(&s, g->size, stack_peek(&old, i * g->size, g->size));
    return s;
}

static void far_gate(struct cpu *c, const struct insn *in, struct desc *d, bool call)
{
    struct call_gate g;
    gate_open(c, d, &g);
    u32 attr = desc_attr(&g.code);
    unsigned cpl = attr_conforming(attr) ? c->cpl : attr_dpl(attr);
    bool inner = cpl < c->cpl;
    if (!call && inner)
        raise_error(c, VEC_GP, g.code.sel & ~SEL_RPL);
    struct x86_seg cs = desc_seg(&g.code);
    check_rip(c, &cs, g.off, 0);
    if (call) {
        struct stack s = inner ? gate_stack(c, &g, cpl) : stack_current(c);
        push_return(c, &s, g.size, next_rip(c, in));
        if (inner)
            c->seg[SEG_SS] = s.ss;
        stack_commit(&s);
    }
    desc_set_accessed(c, &g.code);
    cs_install(c, &cs, (u16)((g.code.sel & ~SEL_RPL) | cpl), cpl, g.off);
    c->seg[SEG_CS].attr |= TYPE_ACCESSED;
}

/* --- JMP and CALL --- */

static void far_system(struct cpu *c, const struct insn *in, struct desc *d, bool call)
{
    u32 attr = desc_attr(d), error = d->sel & ~SEL_RPL;
    unsigned type = attr_type(attr);
    bool gate = type == SYS_CALL32 || (type == SYS_CALL16 && !long_mode(c));
    bool task = !long_mode(c) && (type == SYS_TSS16 || type == SYS_TSS32 || type == SYS_TASK_GATE);
    if ((!gate && !task) || attr_dpl(attr) < MAX(c->cpl, d->sel & SEL_RPL))
        raise_error(c, VEC_GP, error);
    if (!(attr & SEG_ATTR_P))
        raise_error(c, VEC_NP, error);
    if (gate)
        far_gate(c, in, d, call);
    else
        task_jump(c, d, call ? TASK_CALL : TASK_JMP, next_rip(c, in));
}

static void far_to(struct cpu *c, const struct insn *in, bool call)
{
    struct far_pointer p = target(c, in);
    struct desc d;
    if (!protected_mode(c)) {
        far_real(c, in, p, call);
        return;
    }
    if (sel_null(p.sel))
        raise_error(c, VEC_GP, 0);
    desc_need(c, p.sel, VEC_GP, 0, &d);
    if (attr_code(desc_attr(&d)))
        far_code(c, in, &d, p.off, call);
    else if (desc_attr(&d) & SEG_ATTR_S)
        raise_error(c, VEC_GP, p.sel & ~SEL_RPL);
    else
        far_system(c, in, &d, call);
}

void sys_jmp_far(struct cpu *c, const struct insn *in)
{
    far_to(c, in, false);
}

void sys_call_far(struct cpu *c, const struct insn *in)
{
    far_to(c, in, true);
}

/* --- RET --- */

static void skip(struct stack *s, u64 bytes)
{
    s->sp = (s->sp & ~s->mask) | ((s->sp + bytes) & s->mask);
}

void sys_ret_far(struct cpu *c, const struct insn *in)
{
    unsigned size = in->opsize;
    u64 release = in->opcode == 0xca ? in->imm & 0xffff : 0;
    struct stack s = stack_current(c);
    u64 rip = stack_pop(&s, size);
    u16 sel = (u16)stack_pop(&s, size);
    struct desc d;
    if (!protected_mode(c)) {
        struct x86_seg real = real_seg(c, SEG_CS, sel);
        check_rip(c, &real, rip, 0);
        skip(&s, release);
        stack_commit(&s);
        cs_install(c, &real, sel, c->cpl, rip);
        return;
    }
    cs_check_return(c, sel, &d);
    unsigned cpl = sel & SEL_RPL;
    bool outer = cpl > c->cpl;
    struct x86_seg cs = desc_seg(&d), ss = c->seg[SEG_SS];
    check_rip(c, &cs, rip, 0);
    skip(&s, release);
    if (outer) {
        u64 sp = stack_pop(&s, size);
        u16 ss_sel = (u16)stack_pop(&s, size);
        ss = ss_check_return(c, ss_sel, &d, cpl);
        s = stack_other(c, &ss, sp, desc_code64(c, &d), false);
        skip(&s, release);
    }
    desc_set_accessed(c, &d);
    stack_commit(&s);
    c->seg[SEG_SS] = ss;
    cs_install(c, &cs, sel, cpl, rip);
    c->seg[SEG_CS].attr |= TYPE_ACCESSED;
    if (outer) {
        seg_drop_inner(c);
        cpu_update_mode(c);
    }
}
