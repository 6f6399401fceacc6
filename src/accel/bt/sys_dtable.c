/*
 * Descriptor-table registers, the task register and the machine status word: LGDT, LIDT, SGDT, SIDT, LLDT, LTR, SLDT, STR,
 * SMSW, LMSW. SDM 2, those entries; UMIP: SDM 3A, 2.5. Light code on the vCPU's thread.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"

static void umip(struct cpu *c)
{
    if (c->cpl && (c->cr4 & CR4_UMIP))
        raise_error(c, VEC_GP, 0);
}

static void require_protected(struct cpu *c)
{
    if (!protected_mode(c))
        raise_exception(c, VEC_UD);
}

static void load_dtable(struct cpu *c, const struct insn *in, struct x86_dtable *t)
{
    unsigned size = in->mode == 64 ? 8 : 4;
    u64 off = insn_offset(c, in);
    if (!in->has_mem)
        raise_exception(c, VEC_UD);
    require_cpl0(c);
    u64 limit = mem_load(c, seg_linear(c, in->seg, off, 2, false), 2, AS_CPL);
    u64 lin = seg_linear(c, in->seg, (off + 2) & size_mask(in->addrsize), size, false);
    u64 base = mem_load(c, lin, size, AS_CPL);
    if (in->mode == 64 && !canonical(base))
        raise_error(c, VEC_GP, 0);
    if (in->mode != 64 && in->opsize == 2)
        base &= 0xffffff;
    t->limit = (u16)limit;
    t->base = base;
}

static void store_dtable(struct cpu *c, const struct insn *in, const struct x86_dtable *t)
{
    unsigned size = in->mode == 64 ? 8 : 4;
    u64 off = insn_offset(c, in);
    if (!in->has_mem)
        raise_exception(c, VEC_UD);
    umip(c);
    u64 low = seg_linear(c, in->seg, off, 2, true);
    u64 high = seg_linear(c, in->seg, (off + 2) & size_mask(in->addrsize), size, true);
    mem_probe(c, high, size, true, AS_CPL);
    mem_store(c, low, 2, t->limit, AS_CPL);
    mem_store(c, high, size, t->base & size_mask(size), AS_CPL);
}

void sys_lgdt(struct cpu *c, const struct insn *in)
{
    load_dtable(c, in, &c->gdt);
}

void sys_lidt(struct cpu *c, const struct insn *in)
{
    load_dtable(c, in, &c->idt);
}

void sys_sgdt(struct cpu *c, const struct insn *in)
{
    store_dtable(c, in, &c->gdt);
}

void sys_sidt(struct cpu *c, const struct insn *in)
{
    store_dtable(c, in, &c->idt);
}

/* Reads the system descriptor of LLDT and LTR, which must lie in the GDT. */
static void need_system(struct cpu *c, u16 sel, u32 types, struct desc *ret_d)
{
    u32 error = sel & ~SEL_RPL;
    if (sel & SEL_TI)
        raise_error(c, VEC_GP, error);
    desc_need(c, sel, VEC_GP, 0, ret_d);
    u32 attr = desc_attr(ret_d);
    if ((attr & SEG_ATTR_S) || !(types & (1u << attr_type(attr))))
        raise_error(c, VEC_GP, error);
    if (!(attr & SEG_ATTR_P))
        raise_error(c, VEC_NP, error);
    if (!long_mode(c))
        return;
    desc_read_high(c, ret_d, VEC_GP);
    if (!canonical(desc_seg(ret_d).base))
        raise_error(c, VEC_GP, error);
}

void sys_lldt(struct cpu *c, const struct insn *in)
{
    struct desc d;
    require_protected(c);
    require_cpl0(c);
    u16 sel = (u16)insn_rm_get(c, in, 2);
    if (sel_null(sel)) {
        c->ldt = null_seg(sel);
        return;
    }
    need_system(c, sel, 1u << SYS_LDT, &d);
    c->ldt = desc_seg(&d);
}

void sys_ltr(struct cpu *c, const struct insn *in)
{
    struct desc d;
    require_protected(c);
    require_cpl0(c);
    u16 sel = (u16)insn_rm_get(c, in, 2);
    if (sel_null(sel))
        raise_error(c, VEC_GP, 0);
    need_system(c, sel, 1u << SYS_TSS32 | (long_mode(c) ? 0 : 1u << SYS_TSS16), &d);
    desc_set_type(c, &d, attr_type(desc_attr(&d)) | 2); /* busy */
    c->tr = desc_seg(&d);
}

void sys_sldt(struct cpu *c, const struct insn *in)
{
    require_protected(c);
    umip(c);
    insn_rm_set(c, in, in->has_mem ? 2 : in->opsize, c->ldt.sel);
}

void sys_str(struct cpu *c, const struct insn *in)
{
    require_protected(c);
    umip(c);
    insn_rm_set(c, in, in->has_mem ? 2 : in->opsize, c->tr.sel);
}

void sys_smsw(struct cpu *c, const struct insn *in)
{
    umip(c);
    insn_rm_set(c, in, in->has_mem ? 2 : in->opsize, c->cr0 & 0xffffffff);
}

void sys_lmsw(struct cpu *c, const struct insn *in)
{
    require_cpl0(c);
    u64 value = insn_rm_get(c, in, 2) & 0xf;
    value |= c->cr0 & CR0_PE; /* PE can be set this way, not cleared */
    control_write_cr0(c, (c->cr0 & ~0xfull) | value);
}
