/*
 * Software interrupts, HLT, and instructions on the system flags: INT n, INT3, INTO, INT1, CLI, STI, CLAC, STAC, PUSHF, POPF.
 * SDM 2, those entries. CR4.VME and PVI are not offered by any model. Light code on the vCPU's thread.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"

#define SHADOW_STI 1 /* c->shadow after STI */

/* Virtual-8086 mode leaves these to its monitor unless IOPL is 3. */
static void v86_needs_iopl3(struct cpu *c)
{
    if (v86_mode(c) && iopl(c) < 3)
        raise_error(c, VEC_GP, 0);
}

void sys_int(struct cpu *c, const struct insn *in)
{
    v86_needs_iopl3(c);
    deliver_at(c, (u8)in->imm, false, 0, DELIVER_SOFT, next_rip(c, in));
}

void sys_int3(struct cpu *c, const struct insn *in)
{
    deliver_at(c, VEC_BP, false, 0, DELIVER_SOFT_INT3, next_rip(c, in));
}

void sys_into(struct cpu *c, const struct insn *in)
{
    if (in->mode == 64)
        raise_exception(c, VEC_UD);
    if (c->rflags & FL_OF)
        deliver_at(c, VEC_OF, false, 0, DELIVER_SOFT_INT3, next_rip(c, in));
}

void sys_icebp(struct cpu *c, const struct insn *in)
{
    deliver_at(c, VEC_DB, false, 0, DELIVER_ICEBP, next_rip(c, in));
}

void sys_ud(struct cpu *c, const struct insn *in)
{
    raise_exception(c, VEC_UD);
}

void sys_hlt(struct cpu *c, const struct insn *in)
{
    require_cpl0(c);
    c->activity = X86_HALTED;
}

static void require_iopl(struct cpu *c)
{
    if (!real_mode(c) && iopl(c) < c->cpl)
        raise_error(c, VEC_GP, 0);
}

void sys_cli(struct cpu *c, const struct insn *in)
{
    require_iopl(c);
    c->rflags &= ~FL_IF;
}

void sys_sti(struct cpu *c, const struct insn *in)
{
    require_iopl(c);
    if (!(c->rflags & FL_IF))
        c->shadow = SHADOW_STI;
    c->rflags |= FL_IF;
}

static void set_ac(struct cpu *c, bool ac)
{
    if (c->cpl || !(c->model->cr4_mask & CR4_SMAP))
        raise_exception(c, VEC_UD);
    c->rflags = (c->rflags & ~FL_AC) | (ac ? FL_AC : 0);
    cpu_update_mode(c);
}

void sys_clac(struct cpu *c, const struct insn *in)
{
    set_ac(c, false);
}

void sys_stac(struct cpu *c, const struct insn *in)
{
    set_ac(c, true);
}

void sys_pushf(struct cpu *c, const struct insn *in)
{
    v86_needs_iopl3(c);
    push(c, in->opsize, c->rflags & ~(FL_VM | FL_RF));
}

void sys_popf(struct cpu *c, const struct insn *in)
{
    v86_needs_iopl3(c);
    u64 old = c->rflags, value = pop(c, in->opsize);
    u64 mask = FL_ARITH | FL_TF | FL_DF | FL_NT;
    if (real_mode(c) || c->cpl <= iopl(c))
        mask |= FL_IF;
    if (c->cpl == 0)
        mask |= FL_IOPL;
    if (in->opsize > 2) {
        mask |= FL_AC | FL_ID | FL_RF;
        value &= ~FL_RF;
        if (!v86_mode(c))
            old &= ~(FL_VIF | FL_VIP);
    }
    c->rflags = (old & ~mask) | (value & mask) | 2;
    if ((old ^ c->rflags) & (FL_TF | FL_DF | FL_AC))
        cpu_update_mode(c);
}

/* DF is part of the mode: translated string instructions know their direction. */
void sys_cld(struct cpu *c, const struct insn *in)
{
    c->rflags &= ~FL_DF;
    cpu_update_mode(c);
}

void sys_std(struct cpu *c, const struct insn *in)
{
    c->rflags |= FL_DF;
    cpu_update_mode(c);
}
