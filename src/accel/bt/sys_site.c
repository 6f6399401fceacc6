/*
 * Functions for sites that are no instruction's own: what cannot be decoded, what its unit refuses, what is done behind
 * a copied instruction. Light, vCPU thread.
 */
#include <Zydis/Zydis.h>
#include "accel/bt/gen.h"
#include "accel/bt/sys_fns.h"

noreturn static void undefined(struct cpu *c)
{
    raise_exception(c, VEC_UD);
}

void sys_invalid(struct cpu *c, const struct insn *in)
{
    (void)in;
    undefined(c);
}

void sys_too_long(struct cpu *c, const struct insn *in)
{
    (void)in;
    raise_error(c, VEC_GP, 0);
}

void sys_no_unit(struct cpu *c, const struct insn *in)
{
    bool sse = in->form->need >= NEED_SSE;

    if (in->form->mnemonic == ZYDIS_MNEMONIC_FWAIT && (c->cr0 & (CR0_MP | CR0_TS)) != (CR0_MP | CR0_TS))
        return;
    bool os = in->form->need < NEED_SSE ? true
              : in->form->need == NEED_SSE ? (c->cr4 & CR4_OSFXSR) != 0
              : !(c->mode & (in->form->need == NEED_AVX ? MODE_NOAVX : MODE_NOAVX512));

    if (!os || ((c->cr0 & CR0_EM) && (sse || in->form->need == NEED_MMX)))
        undefined(c);
    raise_exception(c, VEC_NM);
}

/* Behind an instruction that was copied while single-stepping: a step of length 0. */
void sys_step(struct cpu *c, const struct insn *in)
{
    (void)in;
    c->rip_set = false;
}

void sys_moffs(struct cpu *c, const struct insn *in)
{
    unsigned size = in->opcode & 1 ? in->opsize : 1;
    bool store = in->opcode & 2;
    u64 lin = seg_linear(c, in->seg, (u64)in->disp, size, store);

    if (store)
        mem_store(c, lin, size, gpr_get(c, RAX, size), AS_CPL);
    else
        gpr_set(c, RAX, size, mem_load(c, lin, size, AS_CPL));
}
