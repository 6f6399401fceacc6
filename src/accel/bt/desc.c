/*
 * Descriptors and the loading of segment registers. SDM 3A, 3.4 (segments), 5.5-5.7 (privilege checks).
 * Light code on the vCPU's thread. A check that fails raises before anything has changed.
 */
#include "accel/bt/seg.h"

bool desc_read(struct cpu *c, u16 sel, struct desc *ret_d)
{
    u64 base = c->gdt.base;
    u32 limit = c->gdt.limit;
    if (sel & SEL_TI) {
        if ((c->ldt.attr & SEG_ATTR_UNUSABLE) || sel_null(c->ldt.sel))
            return false;
        base = c->ldt.base;
        limit = c->ldt.limit;
    }
    if ((sel | 7u) > limit)
        return false;
    u64 lin = base + (sel & ~7u);
    ret_d->lin = long_mode(c) ? lin : (u32)lin;
    ret_d->lo = mem_load(c, ret_d->lin, 8, AS_SYSTEM);
    ret_d->hi = 0;
    ret_d->sel = sel;
    return true;
}

void desc_need(struct cpu *c, u16 sel, u8 vector, u32 ext, struct desc *ret_d)
{
    if (!desc_read(c, sel, ret_d))
        raise_error(c, vector, (sel & ~SEL_RPL) | ext);
}

void desc_read_high(struct cpu *c, struct desc *d, u8 vector)
{
    u32 limit = d->sel & SEL_TI ? c->ldt.limit : c->gdt.limit;
    if ((d->sel | 7u) + 8u > limit)
        raise_error(c, vector, d->sel & ~SEL_RPL);
    d->hi = mem_load(c, d->lin + 8, 8, AS_SYSTEM);
    if (d->hi & (0x1full << 40)) /* the type field of the upper half must be 0 */
        raise_error(c, vector, d->sel & ~SEL_RPL);
}

struct x86_seg desc_seg(const struct desc *d)
{
    struct x86_seg s;
    s.attr = desc_attr(d);
    s.base = ((d->lo >> 16) & 0xffffff) | ((d->lo >> 56) & 0xff) << 24 | d->hi << 32;
    s.limit = (u32)((d->lo & 0xffff) | ((d->lo >> 32) & 0xf0000));
    if (s.attr & SEG_ATTR_G)
        s.limit = s.limit << 12 | 0xfff;
    s.sel = d->sel;
    s.pad[0] = s.pad[1] = s.pad[2] = 0;
    return s;
}

void desc_set_type(struct cpu *c, struct desc *d, unsigned type)
{
    d->lo = (d->lo & ~(0xfull << 40)) | (u64)type << 40;
    mem_store(c, d->lin + 5, 1, (d->lo >> 40) & 0xff, AS_SYSTEM);
}

void desc_set_accessed(struct cpu *c, struct desc *d)
{
    u32 attr = desc_attr(d);
    if (!(attr & TYPE_ACCESSED))
        desc_set_type(c, d, attr_type(attr) | TYPE_ACCESSED);
}

struct x86_seg null_seg(u16 sel)
{
    struct x86_seg s;
    s.base = 0;
    s.limit = 0;
    s.attr = (u32)SEG_ATTR_UNUSABLE | (sel & SEL_RPL) << SEG_ATTR_DPL_SHIFT;
    s.sel = sel;
    s.pad[0] = s.pad[1] = s.pad[2] = 0;
    return s;
}

struct x86_seg real_seg(const struct cpu *c, unsigned reg, u16 sel)
{
    struct x86_seg s =
        c->seg[reg]; /* real mode keeps limit and attributes: that is what makes it unreal mode */
    s.sel = sel;
    s.base = (u64)sel << 4;
    if (c->rflags & FL_VM) {
        s.limit = 0xffff;
        s.attr = reg == SEG_CS ? 0xfb : 0xf3;
    }
    return s;
}

struct x86_seg ss_check(struct cpu *c, u16 sel, unsigned cpl, u8 vector, u32 ext)
{
    struct desc d;
    u32 error = (sel & ~SEL_RPL) | ext;
    if (sel_null(sel))
        raise_error(c, vector, ext);
    desc_need(c, sel, vector, ext, &d);
    u32 attr = desc_attr(&d);
    if ((sel & SEL_RPL) != cpl || attr_dpl(attr) != cpl || !attr_writable(attr))
        raise_error(c, vector, error);
    if (!(attr & SEG_ATTR_P))
        raise_error(c, VEC_SS, error);
    desc_set_accessed(c, &d);
    return desc_seg(&d);
}

void seg_load_protected(struct cpu *c, unsigned reg, u16 sel, u8 vector)
{
    struct desc d;
    if (sel_null(sel)) {
        bool null_ss = code64(c) && c->cpl < 3 && (sel & SEL_RPL) == c->cpl;
        if (reg == SEG_SS && !null_ss)
            raise_error(c, vector, 0);
        c->seg[reg] = null_seg(sel);
    } else if (reg == SEG_SS) {
        c->seg[SEG_SS] = ss_check(c, sel, c->cpl, vector, 0);
    } else {
        desc_need(c, sel, vector, 0, &d);
        u32 attr = desc_attr(&d);
        unsigned need = MAX(c->cpl, sel & SEL_RPL);
        bool readable = attr_data(attr) || (attr_code(attr) && (attr & TYPE_READ));
        if (!readable || (!attr_conforming(attr) && attr_dpl(attr) < need))
            raise_error(c, vector, sel & ~SEL_RPL);
        if (!(attr & SEG_ATTR_P))
            raise_error(c, VEC_NP, sel & ~SEL_RPL);
        desc_set_accessed(c, &d);
        c->seg[reg] = desc_seg(&d);
    }
}

void seg_load(struct cpu *c, unsigned reg, u16 sel)
{
    if (protected_mode(c))
        seg_load_protected(c, reg, sel, VEC_GP);
    else
        c->seg[reg] = real_seg(c, reg, sel);
    if (!code64(c))
        cpu_update_mode(c);
}

void seg_drop_inner(struct cpu *c)
{
    static const u8 regs[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < ARRAY_LEN(regs); i++) {
        struct x86_seg *s = &c->seg[regs[i]];
        if (!(s->attr & SEG_ATTR_UNUSABLE) && !attr_conforming(s->attr) &&
            attr_dpl(s->attr) < c->cpl)
            *s = null_seg(0);
    }
}

void check_rip(struct cpu *c, const struct x86_seg *cs, u64 rip, u32 ext)
{
    bool code_64 = long_mode(c) && (cs->attr & SEG_ATTR_L);
    if (code_64 ? !canonical(rip) : rip > cs->limit)
        raise_error(c, VEC_GP, ext);
}

void cs_install(struct cpu *c, const struct x86_seg *cs, u16 sel, unsigned cpl, u64 rip)
{
    c->seg[SEG_CS] = *cs;
    c->seg[SEG_CS].sel = sel;
    c->cpl = (u8)cpl;
    set_rip(c, rip);
    cpu_update_mode(c);
}
