/*
 * Delivery of interrupts and exceptions. SDM 3A, chapter 6 (6.12 protected mode, 6.14 long mode, 6.15 double faults), 20.1.4
 * (real mode), 20.3 (virtual-8086). Light code on the vCPU's thread.
 *
 * Invariants:
 * 1. Everything is checked, and the whole frame is written, before a register changes: a fault on the way raises with
 *    the old state, and its error code carries EXT unless the event was the program's own INT.
 * 2. c->delivering is set only while an exception (not an interrupt) is under way; it is what makes a double fault.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys.h"

#define DR7_GD BIT(13)

/* What is being delivered. */
struct event {
    u8 vector;
    bool has_error;
    u32 error, ext;
    unsigned kind;
    u64 rip, rflags; /* to push */
};

static bool contributory(int v)
{
    return v == VEC_DE || (v >= VEC_TS && v <= VEC_GP);
}

int deliver_merge(int first, int second)
{
    if (first == VEC_DF && (contributory(second) || second == VEC_PF))
        return -1;
    if (contributory(first) && contributory(second))
        return VEC_DF;
    if (first == VEC_PF && (contributory(second) || second == VEC_PF))
        return VEC_DF;
    return second;
}

static u32 gate_error(const struct event *e)
{
    return e->vector * 8u | ERR_IDT | e->ext;
}

static u64 flags_after(const struct cpu *c, bool mask_if)
{
    u64 f = c->rflags & ~(FL_TF | FL_NT | FL_RF | FL_VM);
    return mask_if ? f & ~FL_IF : f;
}

/* --- real mode: the vector table holds far pointers --- */

static void deliver_real(struct cpu *c, const struct event *e)
{
    if (e->vector * 4u + 3 > c->idt.limit)
        raise_error(c, VEC_GP, gate_error(e));
    u64 entry = mem_load(c, (u32)(c->idt.base + e->vector * 4u), 4, AS_SYSTEM);
    struct stack s = stack_current(c);
    stack_push(&s, 2, e->rflags);
    stack_push(&s, 2, c->seg[SEG_CS].sel);
    stack_push(&s, 2, e->rip);
    struct x86_seg cs = real_seg(c, SEG_CS, (u16)(entry >> 16));
    check_rip(c, &cs, entry & 0xffff, e->ext);
    stack_commit(&s);
    c->rflags = flags_after(c, true) & ~FL_AC;
    cs_install(c, &cs, cs.sel, 0, entry & 0xffff);
}

/* --- the parts of gates that protected and long mode share --- */

static void check_gate(struct cpu *c, const struct event *e, u64 gate)
{
    bool soft = e->kind == DELIVER_SOFT || e->kind == DELIVER_SOFT_INT3;
    if (soft && ((gate >> 45) & 3) < c->cpl)
        raise_error(c, VEC_GP, gate_error(e));
    if (!(gate & BIT(47)))
        raise_error(c, VEC_NP, gate_error(e));
}

/* The handler's code segment; returns the privilege level that results. */
static unsigned handler_segment(struct cpu *c, const struct event *e, u16 sel, struct desc *d)
{
    u32 error = (sel & ~SEL_RPL) | e->ext;
    if (sel_null(sel))
        raise_error(c, VEC_GP, e->ext);
    desc_need(c, sel, VEC_GP, e->ext, d);
    u32 attr = desc_attr(d);
    if (!attr_code(attr) || attr_dpl(attr) > c->cpl)
        raise_error(c, VEC_GP, error);
    if (!(attr & SEG_ATTR_P))
        raise_error(c, VEC_NP, error);
    return attr_conforming(attr) ? c->cpl : attr_dpl(attr);
}

/* --- protected mode, also from virtual-8086 --- */

static void push_v86_segments(struct cpu *c, struct stack *s, unsigned size)
{
    stack_push(s, size, c->seg[SEG_GS].sel);
    stack_push(s, size, c->seg[SEG_FS].sel);
    stack_push(s, size, c->seg[SEG_DS].sel);
    stack_push(s, size, c->seg[SEG_ES].sel);
}

static void forget_v86_segments(struct cpu *c)
{
    c->seg[SEG_GS] = c->seg[SEG_FS] = c->seg[SEG_DS] = c->seg[SEG_ES] = null_seg(0);
}

static struct stack inner_stack(struct cpu *c, const struct event *e, unsigned cpl)
{
    u16 ss;
    u64 sp;
    tss_stack(c, cpl, e->ext, &ss, &sp);
    struct x86_seg seg = ss_check(c, ss, cpl, VEC_TS, e->ext);
    struct stack s = stack_other(c, &seg, sp, false, true);
    s.error = (ss & ~SEL_RPL) | e->ext;
    return s;
}

static void deliver_gate(struct cpu *c, const struct event *e, u64 gate)
{
    unsigned type = (gate >> 40) & 0x1f, size = type & 8 ? 4 : 2;
    u16 sel = (u16)(gate >> 16);
    u64 rip = (gate & 0xffff) | (size == 4 ? (gate >> 32) & 0xffff0000 : 0);
    bool v86 = c->rflags & FL_VM;
    struct desc d;
    unsigned cpl = handler_segment(c, e, sel, &d);
    bool inner = cpl < c->cpl;
    if (v86 && cpl != 0)
        raise_error(c, VEC_GP, (sel & ~SEL_RPL) | e->ext);
    struct stack s = inner ? inner_stack(c, e, cpl) : stack_current(c);
    struct x86_seg cs = desc_seg(&d);
    check_rip(c, &cs, rip, e->ext);
    if (!inner)
        s.error = e->ext;
    if (v86)
        push_v86_segments(c, &s, size);
    if (inner) {
        stack_push(&s, size, c->seg[SEG_SS].sel);
        stack_push(&s, size, c->gpr[RSP]);
    }
    stack_push(&s, size, e->rflags);
    stack_push(&s, size, c->seg[SEG_CS].sel);
    stack_push(&s, size, e->rip);
    if (e->has_error)
        stack_push(&s, size, e->error);
    desc_set_accessed(c, &d);
    if (inner)
        c->seg[SEG_SS] = s.ss;
    if (v86)
        forget_v86_segments(c);
    stack_commit(&s);
    c->rflags = flags_after(c, !(type & 1));
    cs_install(c, &cs, (u16)((sel & ~SEL_RPL) | cpl), cpl, rip);
    c->seg[SEG_CS].attr |= TYPE_ACCESSED;
}

static void deliver_protected(struct cpu *c, const struct event *e)
{
    if (e->vector * 8u + 7 > c->idt.limit)
        raise_error(c, VEC_GP, gate_error(e));
    u64 gate = mem_load(c, (u32)(c->idt.base + e->vector * 8u), 8, AS_SYSTEM);
    unsigned type = (gate >> 40) & 0x1f;
    bool task = type == SYS_TASK_GATE;
    if (!task && (type & ~9u) != SYS_INT16) /* 6, 7, 14, 15 */
        raise_error(c, VEC_GP, gate_error(e));
    check_gate(c, e, gate);
    if (task)
        task_switch(c, (u16)(gate >> 16), e->ext ? TASK_GATE : TASK_GATE_SOFT, e->rip, e->has_error,
                    e->error);
    else
        deliver_gate(c, e, gate);
}

/* --- long mode --- */

static void deliver_long(struct cpu *c, const struct event *e)
{
    struct desc d;
    if (e->vector * 16u + 15 > c->idt.limit)
        raise_error(c, VEC_GP, gate_error(e));
    u64 lin = c->idt.base + e->vector * 16u;
    u64 gate = mem_load(c, lin, 8, AS_SYSTEM), high = mem_load(c, lin + 8, 8, AS_SYSTEM);
    unsigned type = (gate >> 40) & 0x1f, ist = (gate >> 32) & 7;
    if (type != SYS_INT32 && type != SYS_TRAP32)
        raise_error(c, VEC_GP, gate_error(e));
    check_gate(c, e, gate);
    u16 sel = (u16)(gate >> 16);
    u64 rip = (gate & 0xffff) | ((gate >> 32) & 0xffff0000) | high << 32;
    unsigned cpl = handler_segment(c, e, sel, &d);
    if ((desc_attr(&d) & (SEG_ATTR_L | SEG_ATTR_DB)) != SEG_ATTR_L)
        raise_error(c, VEC_GP, (sel & ~SEL_RPL) | e->ext);
    bool inner = cpl < c->cpl;
    struct x86_seg cs = desc_seg(&d), ss = inner ? null_seg((u16)cpl) : c->seg[SEG_SS];
    check_rip(c, &cs, rip, e->ext);
    u16 unused;
    u64 sp = c->gpr[RSP];
    if (ist)
        sp = tss_ist(c, ist, e->ext);
    else if (inner)
        tss_stack(c, cpl, e->ext, &unused, &sp);
    struct stack s = stack_other(c, &ss, sp & ~15ull, true, inner);
    s.error = e->ext;
    stack_push(&s, 8, c->seg[SEG_SS].sel);
    stack_push(&s, 8, c->gpr[RSP]);
    stack_push(&s, 8, e->rflags);
    stack_push(&s, 8, c->seg[SEG_CS].sel);
    stack_push(&s, 8, e->rip);
    if (e->has_error)
        stack_push(&s, 8, e->error);
    desc_set_accessed(c, &d);
    c->seg[SEG_SS] = ss;
    stack_commit(&s);
    c->rflags = flags_after(c, type == SYS_INT32);
    cs_install(c, &cs, (u16)((sel & ~SEL_RPL) | cpl), cpl, rip);
    c->seg[SEG_CS].attr |= TYPE_ACCESSED;
}

void deliver_at(struct cpu *c, u8 vector, bool has_error, u32 error, unsigned kind, u64 rip)
{
    struct event e;
    e.vector = vector;
    e.has_error = has_error && (c->cr0 & CR0_PE);
    e.error = error;
    e.kind = kind;
    e.ext = kind == DELIVER_SOFT || kind == DELIVER_SOFT_INT3 ? 0 : ERR_EXT;
    e.rip = rip;
    e.rflags = c->rflags;
    /* Faults are restarted with RF set, so that a breakpoint at the instruction does not hit again (SDM 3B, 17.3.1.1) */
    if (kind == DELIVER_FAULT && vector != VEC_DB && vector != VEC_DF && vector != VEC_MC)
        e.rflags |= FL_RF;
    c->delivering = kind == DELIVER_FAULT ? vector + 1 : 0;
    if (!(c->cr0 & CR0_PE))
        deliver_real(c, &e);
    else if (long_mode(c))
        deliver_long(c, &e);
    else
        deliver_protected(c, &e);
    c->delivering = 0;
    c->shadow = 0;
    if (kind == DELIVER_NMI)
        c->nmi_masked = 1;
    if (vector == VEC_DB && kind == DELIVER_FAULT && (c->dr7 & DR7_GD)) {
        c->dr7 &= ~DR7_GD;
        cpu_update_mode(c);
    }
}

void deliver_event(struct cpu *c, u8 vector, bool has_error, u32 error, enum deliver_kind kind)
{
    deliver_at(c, vector, has_error, error, kind, c->rip);
}
