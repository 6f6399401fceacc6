/*
 * Translation and cache control: INVLPG, INVPCID, INVD, WBINVD. SDM 2A, those entries; SDM 3A, 4.10.4. Light code on the
 * vCPU's thread.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"

void sys_invlpg(struct cpu *c, const struct insn *in)
{
    if (!in->has_mem)
        raise_exception(c, VEC_UD);
    require_cpl0(c);
    u64 off = insn_offset(c, in);
    u64 lin = off + (code64(c) && in->seg < SEG_FS ? 0 : c->seg[in->seg].base);
    if (!code64(c))
        lin = (u32)lin;
    if (canonical(lin)) /* otherwise it does nothing, without a fault */
        mmu_flush_page(c, lin);
}

enum { INVPCID_PAGE, INVPCID_CONTEXT, INVPCID_ALL, INVPCID_ALL_BUT_GLOBAL };

void sys_invpcid(struct cpu *c, const struct insn *in)
{
    if (!(c->cr0 & CR0_PE) || !in->has_mem)
        raise_exception(c, VEC_UD);
    require_cpl0(c);
    u64 type = gpr_get(c, in->reg, in->mode == 64 ? 8 : 4), off = insn_offset(c, in);
    u64 word = mem_load(c, seg_linear(c, in->seg, off, 8, false), 8, AS_CPL);
    u64 lin = mem_load(c, seg_linear(c, in->seg, (off + 8) & size_mask(in->addrsize), 8, false), 8,
                       AS_CPL);
    u16 pcid = word & 0xfff;
    if (type > INVPCID_ALL_BUT_GLOBAL || (word >> 12))
        raise_error(c, VEC_GP, 0);
    if (type <= INVPCID_CONTEXT && pcid && !(c->cr4 & CR4_PCIDE))
        raise_error(c, VEC_GP, 0);
    if (type == INVPCID_PAGE && !canonical(lin))
        raise_error(c, VEC_GP, 0);
    if (type <= INVPCID_CONTEXT)
        mmu_flush_pcid(c, pcid, type == INVPCID_PAGE, lin);
    else
        mmu_flush_all(c, type == INVPCID_ALL);
}

void sys_cache(struct cpu *c, const struct insn *in) /* INVD, WBINVD: caches are coherent here */
{
    require_cpl0(c);
}
