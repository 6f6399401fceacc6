/*
 * IRET in every mode. SDM 2A, IRET; 3A 6.12 and 6.14.3 (long mode), 20.3 (virtual-8086), 7.3 (nested tasks).
 * Light code on the vCPU's thread. Nothing changes before all checks have passed.
 */
#include "accel/bt/far.h"
#include "accel/bt/sys_fns.h"

#define FL_IRET_USER (FL_ARITH | FL_TF | FL_DF | FL_NT)
#define FL_IRET_32 (FL_RF | FL_AC | FL_ID)

/* Flags after an IRET executed at privilege `cpl`. */
static u64 flags_popped(const struct cpu *c, u64 value, unsigned size, unsigned cpl)
{
    u64 mask = FL_IRET_USER;
    if (size > 2)
        mask |= FL_IRET_32;
    if (cpl <= iopl(c))
        mask |= FL_IF;
    if (cpl == 0)
        mask |= FL_IOPL | (size > 2 ? FL_VIF | FL_VIP : 0);
    return (c->rflags & ~mask) | (value & mask) | 2;
}

static void iret_real(struct cpu *c, unsigned size)
{
    struct stack s = stack_current(c);
    if ((c->rflags & FL_VM) && iopl(c) < 3)
        raise_error(c, VEC_GP, 0);
    u64 rip = stack_pop(&s, size);
    u16 sel = (u16)stack_pop(&s, size);
    u64 flags = stack_pop(&s, size);
    struct x86_seg cs = real_seg(c, SEG_CS, sel);
    check_rip(c, &cs, rip, 0);
    stack_commit(&s);
    if (c->rflags & FL_VM) /* IOPL stays */
        c->rflags = flags_popped(c, flags, size, 3);
    else
        c->rflags = flags_popped(c, flags, size, 0);
    cs_install(c, &cs, sel, c->cpl, rip);
}

/* The frame that a 32-bit interrupt gate pushed in virtual-8086 mode; EIP, CS and EFLAGS are off the stack. */
static void iret_to_v86(struct cpu *c, struct stack *s, u64 rip, u16 cs_sel, u64 flags)
{
    static const u8 order[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    u64 sp = stack_pop(s, 4);
    u16 ss = (u16)stack_pop(s, 4), sel[4];
    for (unsigned i = 0; i < 4; i++)
        sel[i] = (u16)stack_pop(s, 4);
    if ((rip & 0xffffffff) > 0xffff)
        raise_error(c, VEC_GP, 0);
    c->rflags = flags_popped(c, flags, 4, 0) | FL_VM;
    for (unsigned i = 0; i < 4; i++)
        c->seg[order[i]] = real_seg(c, order[i], sel[i]);
    c->seg[SEG_SS] = real_seg(c, SEG_SS, ss);
    c->gpr[RSP] = (u32)sp;
    struct x86_seg cs = real_seg(c, SEG_CS, cs_sel);
    cs_install(c, &cs, cs_sel, 3, rip);
}

static void iret_protected(struct cpu *c, unsigned size)
{
    struct stack s = stack_current(c);
    u64 rip = stack_pop(&s, size);
    u16 sel = (u16)stack_pop(&s, size);
    u64 flags = stack_pop(&s, size);
    struct desc d;
    if (size == 4 && (flags & FL_VM) && c->cpl == 0 && !long_mode(c)) {
        iret_to_v86(c, &s, rip, sel, flags);
        return;
    }
    cs_check_return(c, sel, &d);
    unsigned cpl = sel & SEL_RPL;
    bool outer = cpl > c->cpl, pops_stack = outer || code64(c);
    struct x86_seg cs = desc_seg(&d), ss = c->seg[SEG_SS];
    if (pops_stack) {
        u64 sp = stack_pop(&s, size);
        u16 ss_sel = (u16)stack_pop(&s, size);
        ss = ss_check_return(c, ss_sel, &d, cpl);
        s = stack_other(c, &ss, sp, desc_code64(c, &d), false);
    }
    check_rip(c, &cs, rip, 0);
    desc_set_accessed(c, &d);
    stack_commit(&s);
    c->seg[SEG_SS] = ss;
    c->rflags = flags_popped(c, flags, size, c->cpl);
    cs_install(c, &cs, sel, cpl, rip);
    c->seg[SEG_CS].attr |= TYPE_ACCESSED;
    if (outer) {
        seg_drop_inner(c);
        cpu_update_mode(c);
    }
}

void sys_iret(struct cpu *c, const struct insn *in)
{
    if (!protected_mode(c)) {
        iret_real(c, in->opsize);
    } else if (c->rflags & FL_NT) {
        if (long_mode(c))
            raise_error(c, VEC_GP, 0);
        u16 link = (u16)mem_load(c, (u32)c->tr.base, 2, AS_SYSTEM);
        task_switch(c, link, TASK_IRET, next_rip(c, in), false, 0);
    } else {
        iret_protected(c, in->opsize);
    }
    c->nmi_masked = 0;
    if (c->nmi_pending) { /* one that came in the meantime is looked at again */
        c->nmi_pending = 0;
        __atomic_fetch_or(&c->events, VCPU_EV_NMI, __ATOMIC_ACQ_REL);
    }
}
