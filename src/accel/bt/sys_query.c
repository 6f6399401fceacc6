/*
 * What a program asks the processor about itself: time stamps, identity, hypercalls. SDM 2, those entries.
 * Light code on the vCPU's thread.
 */
#include "accel/bt/layout.h"
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"

#define KVM_ENOSYS 1000

static u64 guest_tsc(const struct cpu *c)
{
    return __builtin_ia32_rdtsc() + (u64)c->tsc_offset;
}

static void set_pair(struct cpu *c, u64 value)
{
    c->gpr[RAX] = (u32)value;
    c->gpr[RDX] = value >> 32;
}

static void require_tsc(struct cpu *c)
{
    if ((c->cr4 & CR4_TSD) && c->cpl)
        raise_error(c, VEC_GP, 0);
}

void sys_rdtsc(struct cpu *c, const struct insn *in)
{
    require_tsc(c);
    set_pair(c, guest_tsc(c));
}

void sys_rdtscp(struct cpu *c, const struct insn *in)
{
    require_tsc(c);
    set_pair(c, guest_tsc(c));
    c->gpr[RCX] = (u32)c->msr.tsc_aux;
}

void sys_rdpmc(struct cpu *c, const struct insn *in)
{
    raise_error(c, VEC_GP, 0); /* no counters */
}

void sys_rdpid(struct cpu *c, const struct insn *in)
{
    gpr_set(c, in->rm, in->mode == 64 ? 8 : 4, (u32)c->msr.tsc_aux);
}

void sys_cpuid(struct cpu *c, const struct insn *in)
{
    u32 r[4], leaf = (u32)c->gpr[RAX], subleaf = (u32)c->gpr[RCX];

    cpu_model_cpuid(c->model, c->index, leaf, subleaf, c->cr4, c->xcr0, r);
    c->priv[P_CPUID_LEAF] = leaf;
    c->priv[P_CPUID_SUBLEAF] = subleaf;
    c->priv[P_CPUID_AB] = r[0] | (u64)r[1] << 32;
    c->priv[P_CPUID_CD] = r[2] | (u64)r[3] << 32;
    c->gpr[RAX] = r[0];
    c->gpr[RBX] = r[1];
    c->gpr[RCX] = r[2];
    c->gpr[RDX] = r[3];
}

void sys_hypercall(struct cpu *c, const struct insn *in)
{
    if (c->cpl)
        raise_exception(c, VEC_UD);
    gpr_set(c, RAX, code64(c) ? 8 : 4, (u64)-KVM_ENOSYS); /* none is offered yet */
}
