/*
 * Instructions on segment registers and selectors: MOV and PUSH/POP of sregs, LDS and family, LAR, LSL, VERR, VERW, ARPL.
 * SDM 2, those entries. Light code on the vCPU's thread.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"

#define SHADOW_SS 2 /* c->shadow after a load of SS */

static void require_protected(struct cpu *c)
{
    if (!protected_mode(c))
        raise_exception(c, VEC_UD);
}

static void set_zf(struct cpu *c, bool zf)
{
    c->rflags = (c->rflags & ~FL_ZF) | (zf ? FL_ZF : 0);
}

void sys_mov(struct cpu *c, const struct insn *in)
{
    if (in->map != MAP_0F)
        sys_mov_sreg(c, in);
    else if (in->opcode & 1)
        sys_mov_dr(c, in);
    else
        sys_mov_cr(c, in);
}

void sys_mov_sreg(struct cpu *c, const struct insn *in)
{
    unsigned reg = in->reg & 7;
    if (reg >= X86_SEGS)
        raise_exception(c, VEC_UD);
    if (in->opcode == 0x8c) {
        insn_rm_set(c, in, in->has_mem ? 2 : in->opsize, c->seg[reg].sel);
        return;
    }
    if (reg == SEG_CS)
        raise_exception(c, VEC_UD);
    seg_load(c, reg, (u16)insn_rm_get(c, in, 2));
    if (reg == SEG_SS)
        c->shadow = SHADOW_SS;
}

static unsigned opcode_sreg(const struct insn *in)
{
    return (in->opcode >> 3) & 7; /* 06 0E 16 1E, 0F A0, 0F A8: in bits 5..3 */
}

void sys_push_sreg(struct cpu *c, const struct insn *in)
{
    u16 sel = c->seg[opcode_sreg(in)].sel;
    struct stack s = stack_current(c);
    if (in->opsize == 4) { /* processors of this family write 16 bits into the 32-bit slot */
        u64 sp = s.sp;
        s.sp = (sp & ~s.mask) | ((sp - 2) & s.mask);
        stack_push(&s, 2, sel);
    } else {
        stack_push(&s, in->opsize, sel);
    }
    stack_commit(&s);
}

void sys_pop_sreg(struct cpu *c, const struct insn *in)
{
    unsigned reg = opcode_sreg(in);
    struct stack s = stack_current(c);
    u16 sel = (u16)stack_peek(&s, 0, 2);
    s.sp = (s.sp & ~s.mask) | ((s.sp + in->opsize) & s.mask);
    seg_load(c, reg, sel);
    if (reg == SEG_SS) { /* the new stack's width counts from now on, the old one's for this pop */
        c->shadow = SHADOW_SS;
    }
    stack_commit(&s);
}

void sys_load_far_pointer(struct cpu *c, const struct insn *in)
{
    unsigned reg = in->opcode == 0xc4 ? SEG_ES : in->opcode == 0xc5 ? SEG_DS : in->opcode & 7;
    unsigned size = in->opsize;
    if (!in->has_mem)
        raise_exception(c, VEC_UD);
    u64 off = insn_offset(c, in);
    u64 value = mem_load(c, seg_linear(c, in->seg, off, size, false), size, AS_CPL);
    u64 lin = seg_linear(c, in->seg, (off + size) & size_mask(in->addrsize), 2, false);
    seg_load(c, reg, (u16)mem_load(c, lin, 2, AS_CPL));
    gpr_set(c, in->reg, size, value);
}

/* --- looking at selectors --- */

/* The descriptor, if the selector names one that CPL and RPL may see; system types per `types`. */
static bool visible(struct cpu *c, u16 sel, u32 types, struct desc *ret_d)
{
    if (sel_null(sel) || !desc_read(c, sel, ret_d))
        return false;
    u32 attr = desc_attr(ret_d);
    if (!(attr & SEG_ATTR_S) && !(types & (1u << attr_type(attr))))
        return false;
    return attr_conforming(attr) || attr_dpl(attr) >= MAX(c->cpl, sel & SEL_RPL);
}

#define TYPES(a, b, c) (1u << (a) | 1u << (b) | 1u << (c))

void sys_lar(struct cpu *c, const struct insn *in)
{
    u32 types = TYPES(SYS_LDT, SYS_TSS32, SYS_TSS32_BUSY) | 1u << SYS_CALL32;
    struct desc d;
    require_protected(c);
    if (!long_mode(c))
        types |= TYPES(SYS_TSS16, SYS_TSS16_BUSY, SYS_CALL16) | 1u << SYS_TASK_GATE;
    bool ok = visible(c, (u16)insn_rm_get(c, in, 2), types, &d);
    if (ok)
        gpr_set(c, in->reg, in->opsize, (d.lo >> 32) & (in->opsize == 2 ? 0xff00 : 0xffff00));
    set_zf(c, ok);
}

void sys_lsl(struct cpu *c, const struct insn *in)
{
    u32 types = TYPES(SYS_LDT, SYS_TSS32, SYS_TSS32_BUSY);
    struct desc d;
    require_protected(c);
    if (!long_mode(c))
        types |= 1u << SYS_TSS16 | 1u << SYS_TSS16_BUSY;
    bool ok = visible(c, (u16)insn_rm_get(c, in, 2), types, &d);
    if (ok)
        gpr_set(c, in->reg, in->opsize, desc_seg(&d).limit);
    set_zf(c, ok);
}

void sys_verr(struct cpu *c, const struct insn *in)
{
    struct desc d;
    require_protected(c);
    bool ok = visible(c, (u16)insn_rm_get(c, in, 2), 0, &d);
    set_zf(c, ok && (attr_data(desc_attr(&d)) || (desc_attr(&d) & TYPE_READ)));
}

void sys_verw(struct cpu *c, const struct insn *in)
{
    struct desc d;
    require_protected(c);
    bool ok = visible(c, (u16)insn_rm_get(c, in, 2), 0, &d);
    set_zf(c, ok && attr_writable(desc_attr(&d)));
}

void sys_arpl(struct cpu *c, const struct insn *in)
{
    require_protected(c);
    u64 dst = insn_rm_get(c, in, 2), rpl = c->gpr[in->reg] & SEL_RPL;
    bool raise = (dst & SEL_RPL) < rpl;
    if (raise)
        insn_rm_set(c, in, 2, (dst & ~(u64)SEL_RPL) | rpl);
    set_zf(c, raise);
}
