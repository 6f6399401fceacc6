/*
 * Fast system calls and segment bases: SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, RD/WR FS/GS BASE. SDM 2, those entries,
 * in the behaviour of the vendor that CPUID names (SYSCALL in 64-bit mode only; a non-canonical SYSRET faults at CPL 0).
 * Light code on the vCPU's thread.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"

#define ATTR_CODE64 0xa09bu
#define ATTR_CODE32 0xc09bu
#define ATTR_DATA 0xc093u
#define ATTR_DPL3 0x60u
#define SYSRET_FLAGS 0x3c7fd7ull /* all but RF, VM and reserved bits */

static struct x86_seg flat(u32 attr, u16 sel)
{
    struct x86_seg s;
    s.base = 0;
    s.limit = 0xffffffff;
    s.attr = attr;
    s.sel = sel;
    s.pad[0] = s.pad[1] = s.pad[2] = 0;
    return s;
}

static void enter(struct cpu *c, u16 sel, u32 code, u64 rip)
{
    struct x86_seg cs = flat(code, sel & 0xfffc);
    c->seg[SEG_SS] = flat(ATTR_DATA, (u16)((sel & 0xfffc) + 8));
    cs_install(c, &cs, cs.sel, 0, rip);
}

static void leave(struct cpu *c, u16 cs_sel, u32 code, u16 ss_sel, u64 rip)
{
    struct x86_seg cs = flat(code | ATTR_DPL3, cs_sel | 3);
    c->seg[SEG_SS] = flat(ATTR_DATA | ATTR_DPL3, ss_sel | 3);
    cs_install(c, &cs, cs.sel, 3, rip);
}

void sys_syscall(struct cpu *c, const struct insn *in)
{
    if (in->mode != 64 || !(c->msr.efer & EFER_SCE))
        raise_exception(c, VEC_UD);
    c->gpr[RCX] = c->rip + in->len;
    c->gpr[R11] = c->rflags & ~FL_RF;
    c->rflags = (c->rflags & ~(c->msr.sfmask | FL_RF)) | 2;
    enter(c, (u16)(c->msr.star >> 32), ATTR_CODE64, c->msr.lstar);
}

void sys_sysret(struct cpu *c, const struct insn *in)
{
    if (in->mode != 64 || !(c->msr.efer & EFER_SCE))
        raise_exception(c, VEC_UD);
    require_cpl0(c);
    u16 sel = (u16)(c->msr.star >> 48);
    bool to64 = in->rex_w;
    if (to64 && !canonical(c->gpr[RCX]))
        raise_error(c, VEC_GP, 0);
    c->rflags = (c->gpr[R11] & SYSRET_FLAGS) | 2;
    if (to64)
        leave(c, (u16)(sel + 16), ATTR_CODE64, (u16)(sel + 8), c->gpr[RCX]);
    else
        leave(c, sel, ATTR_CODE32, (u16)(sel + 8), (u32)c->gpr[RCX]);
}

void sys_sysenter(struct cpu *c, const struct insn *in)
{
    u16 sel = (u16)c->msr.sysenter_cs;
    bool wide = long_mode(c);
    if (!(c->cr0 & CR0_PE) || !(sel & 0xfffc))
        raise_error(c, VEC_GP, 0);
    c->rflags &= ~(FL_VM | FL_IF | FL_RF);
    c->gpr[RSP] = wide ? c->msr.sysenter_esp : (u32)c->msr.sysenter_esp;
    enter(c, sel, wide ? ATTR_CODE64 : ATTR_CODE32,
          wide ? c->msr.sysenter_eip : (u32)c->msr.sysenter_eip);
}

void sys_sysexit(struct cpu *c, const struct insn *in)
{
    u16 sel = (u16)c->msr.sysenter_cs & 0xfffc;
    bool to64 = in->rex_w;
    if (!(c->cr0 & CR0_PE) || !sel || c->cpl)
        raise_error(c, VEC_GP, 0);
    u64 rsp = c->gpr[RCX], rip = c->gpr[RDX];
    if (to64 && (!canonical(rsp) || !canonical(rip)))
        raise_error(c, VEC_GP, 0);
    c->gpr[RSP] = to64 ? rsp : (u32)rsp;
    if (to64)
        leave(c, (u16)(sel + 32), ATTR_CODE64, (u16)(sel + 40), rip);
    else
        leave(c, (u16)(sel + 16), ATTR_CODE32, (u16)(sel + 24), (u32)rip);
}

void sys_swapgs(struct cpu *c, const struct insn *in)
{
    if (in->mode != 64)
        raise_exception(c, VEC_UD);
    require_cpl0(c);
    u64 base = c->seg[SEG_GS].base;
    c->seg[SEG_GS].base = c->msr.kernel_gs_base;
    c->msr.kernel_gs_base = base;
}

void sys_fsgsbase(struct cpu *c, const struct insn *in)
{
    if (in->mode != 64 || !(c->cr4 & CR4_FSGSBASE) || in->has_mem)
        raise_exception(c, VEC_UD);
    u64 *base = &c->seg[in->reg & 1 ? SEG_GS : SEG_FS].base;
    if (!(in->reg & 2)) {
        gpr_set(c, in->rm, in->opsize, *base);
        return;
    }
    u64 value = gpr_get(c, in->rm, in->opsize);
    if (!canonical(value))
        raise_error(c, VEC_GP, 0);
    *base = value;
}
