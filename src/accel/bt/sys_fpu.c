/*
 * Saving and loading of x87 and SSE state without XSAVE: FXSAVE, FXRSTOR, FNSTENV, FNSAVE, LDMXCSR. SDM 1, 10.5 and 8.1.10.
 * Light code on the vCPU's thread; the guest's registers are live in the host's.
 *
 * Everything goes through a buffer of ours: the host's instruction would write the address of the last x87 instruction
 * in the code cache into guest memory (where another processor could read it before we clear it), and it would fault
 * where the guest must. FIP, FDP and their selectors read as zero.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"
#include "accel/bt/vecmem.h"

#define FXSAVE_BYTES 512
#define FXSAVE_WRITTEN 416    /* up to XMM15; the rest is the software's */
#define FXSAVE_WRITTEN_32 288 /* outside 64-bit mode: up to XMM7 */
#define FXSAVE_FIP 8
#define FXSAVE_MXCSR 24

static void need_fpu(struct cpu *c)
{
    if (c->cr0 & (CR0_EM | CR0_TS))
        raise_exception(c, VEC_NM);
}

static u64 aligned_linear(struct cpu *c, const struct insn *in, unsigned len, bool write)
{
    u64 lin = insn_linear(c, in, len, write);
    if (lin & 15)
        raise_error(c, VEC_GP, 0);
    return lin;
}

void sys_fxsave(struct cpu *c, const struct insn *in)
{
    u8 buf[FXSAVE_BYTES] __attribute__((aligned(64)));
    need_fpu(c);
    u64 lin = aligned_linear(c, in, FXSAVE_BYTES, true);
    __asm__ volatile("fxsave64 %0" : "=m"(buf));
    *(u64 *)(buf + FXSAVE_FIP) = *(u64 *)(buf + FXSAVE_FIP + 8) = 0;
    vecmem_write(c, lin, buf, in->mode == 64 ? FXSAVE_WRITTEN : FXSAVE_WRITTEN_32);
}

void sys_fxrstor(struct cpu *c, const struct insn *in)
{
    u8 buf[FXSAVE_BYTES] __attribute__((aligned(64)));
    need_fpu(c);
    u64 lin = aligned_linear(c, in, FXSAVE_BYTES, false);
    __asm__ volatile("fxsave64 %0" : "=m"(buf)); /* what a 32-bit FXRSTOR leaves alone */
    vecmem_read(c, lin, buf, in->mode == 64 ? FXSAVE_WRITTEN : FXSAVE_WRITTEN_32);
    if (*(u32 *)(buf + FXSAVE_MXCSR) & ~MXCSR_MASK)
        raise_error(c, VEC_GP, 0);
    __asm__ volatile("fxrstor64 %0" : : "m"(buf));
}

#define ENV16 14
#define ENV32 28
#define ST_BYTES 80

/* Environment without pointers: control, status and tag words stay. */
static void clear_pointers(u8 *env, unsigned size)
{
    for (unsigned i = size == 2 ? 6 : 12; i < (size == 2 ? ENV16 : ENV32); i++)
        env[i] = 0;
}

/* FNSTENV masks all exceptions behind it, FNSAVE initializes: the guest's must happen only when the store has. */
void sys_fnstenv(struct cpu *c, const struct insn *in)
{
    u8 env[32] __attribute__((aligned(16)));
    unsigned size = in->opsize == 2 ? 2 : 4, len = size == 2 ? ENV16 : ENV32;
    need_fpu(c);
    u64 lin = insn_linear(c, in, len, true);
    mem_probe(c, lin, len, true, AS_CPL);
    if (size == 2)
        __asm__ volatile("data16 fnstenv %0" : "=m"(env));
    else
        __asm__ volatile("fnstenv %0" : "=m"(env));
    clear_pointers(env, size);
    vecmem_write(c, lin, env, len);
}

void sys_fnsave(struct cpu *c, const struct insn *in)
{
    u8 env[112] __attribute__((aligned(16)));
    unsigned size = in->opsize == 2 ? 2 : 4, len = (size == 2 ? ENV16 : ENV32) + ST_BYTES;
    need_fpu(c);
    u64 lin = insn_linear(c, in, len, true);
    mem_probe(c, lin, len, true, AS_CPL);
    if (size == 2)
        __asm__ volatile("data16 fnsave %0" : "=m"(env));
    else
        __asm__ volatile("fnsave %0" : "=m"(env));
    clear_pointers(env, size);
    vecmem_write(c, lin, env, len);
}

void fpu_raise_pending(struct cpu *c)
{
    u16 status;

    __asm__ volatile("fnstsw %0" : "=a"(status));
    if (status & 0x80)
        raise_exception(c, VEC_MF);
}

void sys_fldenv(struct cpu *c, const struct insn *in)
{
    u8 env[32] __attribute__((aligned(16)));
    unsigned size = in->opsize == 2 ? 2 : 4, len = size == 2 ? ENV16 : ENV32;
    need_fpu(c);
    fpu_raise_pending(c);
    vecmem_read(c, insn_linear(c, in, len, false), env, len);
    if (size == 2)
        __asm__ volatile("data16 fldenv %0" : : "m"(env));
    else
        __asm__ volatile("fldenv %0" : : "m"(env));
}

void sys_frstor(struct cpu *c, const struct insn *in)
{
    u8 env[112] __attribute__((aligned(16)));
    unsigned size = in->opsize == 2 ? 2 : 4, len = (size == 2 ? ENV16 : ENV32) + ST_BYTES;
    need_fpu(c);
    fpu_raise_pending(c);
    vecmem_read(c, insn_linear(c, in, len, false), env, len);
    if (size == 2)
        __asm__ volatile("data16 frstor %0" : : "m"(env));
    else
        __asm__ volatile("frstor %0" : : "m"(env));
}

void sys_ldmxcsr(struct cpu *c, const struct insn *in)
{
    if ((c->cr0 & CR0_EM) || !(c->cr4 & CR4_OSFXSR))
        raise_exception(c, VEC_UD);
    if (c->cr0 & CR0_TS)
        raise_exception(c, VEC_NM);
    u32 value = (u32)mem_load(c, insn_linear(c, in, 4, false), 4, AS_CPL);
    if (value & ~MXCSR_MASK)
        raise_error(c, VEC_GP, 0);
    __asm__ volatile("ldmxcsr %0" : : "m"(value));
}
