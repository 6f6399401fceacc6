/*
 * Code generation: system instructions that are short enough to be done in line. None touches a flag; what they cannot
 * do in line is left to their functions.
 */
#include <Zydis/Zydis.h>
#include "accel/bt/gen.h"
#include "accel/bt/sys.h"
#include "accel/bt/sys_fns.h"

static void gen_swapgs(struct gen *g)
{
    struct code *o = &g->o;
    s32 base = CPU_FIELD(seg) + (s32)(SEG_GS * sizeof(struct x86_seg)), kernel = CPU_FIELD(msr.kernel_gs_base);

    load_gs(o, S1, base);
    load_gs(o, S2, kernel);
    store_gs(o, S1, kernel);
    store_gs(o, S2, base);
}

/* rorx to, from, imm8 (BMI2, VEX.F2.0F3A.W1 F0) */
static void rorx(struct code *o, unsigned to, unsigned from, u8 by)
{
    b3(o, 0xc4, (u8)(0x43 | (to & 8 ? 0 : 0x80) | (from & 8 ? 0 : 0x20)), 0xfb);
    b3(o, 0xf0, 0xc0 | (to & 7) << 3 | (from & 7), by);
}

static void gen_rdtsc(struct gen *g)
{
    struct code *o = &g->o;

    b2(o, 0x0f, 0x31);
    rorx(o, S1, RDX, 32);
    lea(o, true, S1, S1, RAX, 1, 0);
    load_gs(o, S2, CPU_FIELD(tsc_offset));
    lea(o, true, S1, S1, S2, 1, 0);
    b3(o, 0x44, 0x89, 0xf0);  /* mov eax, r14d */
    rorx(o, RDX, S1, 32);
    b2(o, 0x89, 0xd2);        /* mov edx, edx */
}

/* RFLAGS.IF is bit 1 of the second byte; with CPL 0 neither IOPL nor anything else matters. Flags are dead. */
static void gen_cli(struct gen *g)
{
    struct code *o = &g->o;

    b3(o, 0x65, 0x80, 0x24), b1(o, 0x25), b4(o, (u32)(CPU_FIELD(rflags) + 1)), b1(o, (u8)~2); /* and byte gs:[..], ~2 */
}

/* opcode r32, gs:[disp], for the first eight registers */
static void op32_gs(struct code *o, u8 opcode, unsigned reg, s32 disp)
{
    b2(o, 0x65, opcode), modrm_gs(o, reg, disp);
}

/* Programs use CPUID as a barrier: what was asked last is answered from here. */
static void gen_cpuid(struct gen *g)
{
    struct code *o = &g->o;
    bool live = !g->flags_dead[g->i];
    s32 ab = PRIV_FIELD(P_CPUID_AB), cd = PRIV_FIELD(P_CPUID_CD);

    mov_rr(o, S2, RAX);
    if (live)
        flags_to_ax(o);
    b3(o, 0x45, 0x89, 0xfe); /* mov r14d, r15d */
    op_gs(o, 0x3b, S1, PRIV_FIELD(P_CPUID_LEAF));
    u8 *other_leaf = jcc(o, CC_NE);
    op32_gs(o, 0x3b, RCX, PRIV_FIELD(P_CPUID_SUBLEAF));
    u8 *other_subleaf = jcc(o, CC_NE);
    if (live)
        flags_restore(o, S2, 0);
    op32_gs(o, 0x8b, RAX, ab);
    op32_gs(o, 0x8b, RBX, ab + 4);
    op32_gs(o, 0x8b, RCX, cd);
    op32_gs(o, 0x8b, RDX, cd + 4);
    u8 *done = jmp(o);
    patch_here(o, other_leaf);
    patch_here(o, other_subleaf);
    if (live)
        flags_restore(o, S2, 0);
    gen_special(g, sys_cpuid, false);
    patch_here(o, done);
}

bool gen_inline(struct gen *g)
{
    u32 mode = g->b->mode;
    bool kernel64 = g->code64 && !(mode & MODE_USER);

    if (!g->plain || g->careful[g->i])
        return false;
    if (g->in->form->mnemonic == ZYDIS_MNEMONIC_SWAPGS && kernel64)
        gen_swapgs(g);
    else if (g->in->form->mnemonic == ZYDIS_MNEMONIC_RDTSC && !((mode & MODE_USER) && (mode & MODE_TSD)))
        gen_rdtsc(g);
    else if (g->in->form->mnemonic == ZYDIS_MNEMONIC_CPUID)
        gen_cpuid(g);
    else if (g->in->form->mnemonic == ZYDIS_MNEMONIC_CLI && kernel64 && g->flags_dead[g->i])
        gen_cli(g);
    else
        return false;
    g->s2_window = NO_WINDOW;
    return true;
}
