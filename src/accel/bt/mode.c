/* What translated code may assume of the processor's mode, collected into cpu.mode. Light. */
#include "accel/bt/vcpu.h"

static bool is_flat(const struct x86_seg *s, bool stack)
{
    if (s->attr & SEG_ATTR_UNUSABLE)
        return false;
    if (s->base != 0 || s->limit != UINT32_MAX)
        return false;
    /* Writable data, expand-up; anything else takes the checks of seg_linear(). */
    return (s->attr & 0xe) == 2 && (!stack || (s->attr & SEG_ATTR_DB));
}

static u32 segment_bits(const struct cpu *c)
{
    u32 bits = 0;

    if (!(c->cr0 & CR0_PE) || (c->rflags & FL_VM))
        bits |= MODE_REAL;
    bits |= (c->seg[SEG_CS].attr & SEG_ATTR_DB) && !(bits & MODE_REAL) ? MODE_CODE32 : MODE_CODE16;
    if ((bits & MODE_REAL) && (c->seg[SEG_CS].attr & SEG_ATTR_DB) && !(c->rflags & FL_VM))
        bits |= MODE_CODE32; /* real mode entered with a 32-bit CS still loaded */
    if (c->seg[SEG_CS].base)
        bits |= MODE_CSBASE;
    if (!(c->seg[SEG_SS].attr & SEG_ATTR_DB))
        bits |= MODE_STACK16;
    if (!is_flat(&c->seg[SEG_SS], true) || !is_flat(&c->seg[SEG_DS], false) || !is_flat(&c->seg[SEG_ES], false))
        bits |= MODE_SEGS;
    return bits;
}

static u32 unit_bits(const struct cpu *c)
{
    u32 bits = 0;
    bool xsave = c->cr4 & CR4_OSXSAVE;

    if (c->cr0 & (CR0_EM | CR0_TS))
        bits |= MODE_NOFPU;
    if (!(c->cr4 & CR4_OSFXSR))
        bits |= MODE_NOSSE;
    if (!xsave || (c->xcr0 & 6) != 6)
        bits |= MODE_NOAVX;
    if (!xsave || (c->xcr0 & 0xe6) != 0xe6)
        bits |= MODE_NOAVX512;
    return bits;
}

void cpu_update_mode(struct cpu *c)
{
    u32 mode = unit_bits(c);

    if ((c->msr.efer & EFER_LMA) && (c->seg[SEG_CS].attr & SEG_ATTR_L))
        mode |= MODE_CODE64;
    else
        mode |= segment_bits(c);
    if (c->cpl == 3)
        mode |= MODE_USER;
    else if (!(c->cr4 & CR4_SMAP) || (c->rflags & FL_AC))
        mode |= MODE_AC;
    if (c->cpl == 3 && (c->cr0 & CR0_AM) && (c->rflags & FL_AC))
        mode |= MODE_ALIGN;
    if (c->rflags & FL_DF)
        mode |= MODE_DF;
    if (c->rflags & FL_TF)
        mode |= MODE_TF;
    if (c->cr4 & CR4_TSD)
        mode |= MODE_TSD;
    if (c->dr7 & 0xff)
        mode |= MODE_DEBUG;
    c->mode = mode;
    c->priv[P_CPUID_LEAF] = NO_LEAF; /* it depends on CR4 and XCR0 */
    mmu_select(c);
}
