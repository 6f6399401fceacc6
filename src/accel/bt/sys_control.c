/*
 * Control and debug registers: MOV CR, MOV DR, CLTS, XGETBV, XSETBV. SDM 3A 2.5 (reserved bits, mode changes), 4.10.4
 * (what flushes translations), SDM 3B 17.2 (debug registers), SDM 1 13.3 (XCR0). Light code on the vCPU's thread.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"
#include "x86/walk.h"

#define CR0_KNOWN \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)
#define CR3_NOFLUSH BIT(63)
#define DR6_ONES 0xffff0ff0ull
#define DR6_WRITABLE 0xe00full
#define DR6_BD BIT(13)
#define DR7_ONES 0x400ull
#define DR7_WRITABLE 0xffff2bffull
#define DR7_GD BIT(13)
#define XCR0_X87 1ull
#define XCR0_SSE 2ull
#define XCR0_AVX 4ull
#define XCR0_AVX512 0xe0ull
#define PDPTE_RESERVED 0x1e6ull

static u64 phys_reserved(const struct cpu *c)
{
    return c->model->phys_bits >= 52 ? 0xfff0000000000000ull : ~(BIT(c->model->phys_bits) - 1);
}

/* Loading CR3 or turning PAE paging on checks the four page-directory pointers (SDM 3A 4.4.1). */
static void check_pdptes(struct cpu *c, u64 cr3)
{
    for (unsigned i = 0; i < 4; i++) {
        const u64 *e = walk_ram(c->m->ram, (cr3 & 0xffffffe0) + i * 8, 8);
        u64 value = e ? __atomic_load_n(e, __ATOMIC_RELAXED) : 0;
        if ((value & 1) && (value & (PDPTE_RESERVED | phys_reserved(c))))
            raise_error(c, VEC_GP, 0);
    }
}

static void check_paging_on(struct cpu *c)
{
    if (c->msr.efer & EFER_LME) {
        unsigned tss = attr_type(c->tr.attr);
        if (!(c->cr4 & CR4_PAE) || (c->seg[SEG_CS].attr & SEG_ATTR_L) || tss == SYS_TSS16_BUSY)
            raise_error(c, VEC_GP, 0);
    } else if (c->cr4 & CR4_PAE) {
        check_pdptes(c, c->cr3);
    }
}

void control_write_cr0(struct cpu *c, u64 value)
{
    u64 old = c->cr0;
    if (value >> 32)
        raise_error(c, VEC_GP, 0);
    value = (value & CR0_KNOWN) | CR0_ET;
    u64 changed = old ^ value;
    if (((value & CR0_PG) && !(value & CR0_PE)) || ((value & CR0_NW) && !(value & CR0_CD)))
        raise_error(c, VEC_GP, 0);
    if (changed & CR0_PG) {
        if (value & CR0_PG)
            check_paging_on(c);
        else if (code64(c) || (c->cr4 & CR4_PCIDE))
            raise_error(c, VEC_GP, 0);
    }
    c->cr0 = value;
    if ((value & CR0_PG) && (c->msr.efer & EFER_LME))
        c->msr.efer |= EFER_LMA;
    else
        c->msr.efer &= ~EFER_LMA;
    if (changed & (CR0_PG | CR0_PE | CR0_WP))
        mmu_flush_all(c, true);
    cpu_update_mode(c);
}

static void write_cr3(struct cpu *c, u64 value)
{
    bool keep = false;
    if (long_mode(c)) {
        if (c->cr4 & CR4_PCIDE) {
            keep = value & CR3_NOFLUSH;
            value &= ~CR3_NOFLUSH;
        }
        if (value & phys_reserved(c))
            raise_error(c, VEC_GP, 0);
    } else {
        value = (u32)value;
        if ((c->cr0 & CR0_PG) && (c->cr4 & CR4_PAE))
            check_pdptes(c, value);
    }
    mmu_set_cr3(c, value, keep);
    c->cr3 = value;
}

static void write_cr4(struct cpu *c, u64 value)
{
    u64 changed = c->cr4 ^ value;
    if (value & ~c->model->cr4_mask)
        raise_error(c, VEC_GP, 0);
    if (long_mode(c) && !(value & CR4_PAE))
        raise_error(c, VEC_GP, 0);
    if ((changed & value & CR4_PCIDE) && (!long_mode(c) || (c->cr3 & 0xfff)))
        raise_error(c, VEC_GP, 0);
    if ((changed & CR4_PAE) && (value & CR4_PAE) && (c->cr0 & CR0_PG) && !long_mode(c))
        check_pdptes(c, c->cr3);
    c->cr4 = value;
    if (changed & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_PCIDE | CR4_SMEP | CR4_SMAP))
        mmu_flush_all(c, true);
    cpu_update_mode(c);
}

/* CR8 lives in the local APIC. */
static u64 heavy_get_tpr(u64 m, u64 index, u64 unused)
{
    const struct accel_intc *intc = &((struct accel_machine *)m)->intc;
    return intc->get_tpr ? intc->get_tpr(intc->opaque, (unsigned)index) : 0;
}

static u64 heavy_set_tpr(u64 m, u64 index, u64 value)
{
    const struct accel_intc *intc = &((struct accel_machine *)m)->intc;
    if (intc->set_tpr)
        intc->set_tpr(intc->opaque, (unsigned)index, value);
    return 0;
}

static u64 read_cr(struct cpu *c, unsigned nr)
{
    switch (nr) {
    case 0:
        return c->cr0;
    case 2:
        return c->cr2;
    case 3:
        return c->cr3;
    case 4:
        return c->cr4;
    case 8:
        return heavy_call(c, heavy_get_tpr, (u64)c->m, c->index, 0);
    default:
        raise_exception(c, VEC_UD);
    }
}

static void write_cr(struct cpu *c, unsigned nr, u64 value)
{
    switch (nr) {
    case 0:
        control_write_cr0(c, value);
        break;
    case 2:
        c->cr2 = value;
        break;
    case 3:
        write_cr3(c, value);
        break;
    case 4:
        write_cr4(c, value);
        break;
    case 8:
        if (value >> 4)
            raise_error(c, VEC_GP, 0);
        heavy_call(c, heavy_set_tpr, (u64)c->m, c->index, value);
        break;
    default:
        raise_exception(c, VEC_UD);
    }
}

void sys_mov_cr(struct cpu *c, const struct insn *in)
{
    unsigned size = in->mode == 64 ? 8 : 4, nr = in->reg;
    if (nr == 1 || (nr > 4 && nr != 8))
        raise_exception(c, VEC_UD);
    require_cpl0(c);
    if (in->opcode == 0x20)
        gpr_set(c, in->rm, size, read_cr(c, nr));
    else
        write_cr(c, nr, gpr_get(c, in->rm, size));
}

void sys_clts(struct cpu *c, const struct insn *in)
{
    require_cpl0(c);
    c->cr0 &= ~CR0_TS;
    cpu_update_mode(c);
}

/* --- debug registers --- */

static void write_dr(struct cpu *c, unsigned nr, u64 value)
{
    if (nr >= 6 && (value >> 32))
        raise_error(c, VEC_GP, 0);
    if (nr < 4)
        c->dr[nr] = value;
    else if (nr == 6)
        c->dr6 = (value & DR6_WRITABLE) | DR6_ONES;
    else
        c->dr7 = (value & DR7_WRITABLE) | DR7_ONES;
    cpu_update_mode(c);
}

void sys_mov_dr(struct cpu *c, const struct insn *in)
{
    unsigned size = in->mode == 64 ? 8 : 4, nr = in->reg;
    if (nr > 7 || ((nr == 4 || nr == 5) && (c->cr4 & CR4_DE)))
        raise_exception(c, VEC_UD);
    if (nr == 4 || nr == 5)
        nr += 2;
    require_cpl0(c);
    if (c->dr7 & DR7_GD) {
        c->dr6 |= DR6_BD;
        raise_exception(c, VEC_DB);
    }
    if (in->opcode == 0x21)
        gpr_set(c, in->rm, size, nr < 4 ? c->dr[nr] : nr == 6 ? c->dr6 : c->dr7);
    else
        write_dr(c, nr, gpr_get(c, in->rm, size));
}

/* --- XCR0 --- */

static void set_pair(struct cpu *c, u64 value)
{
    c->gpr[RAX] = (u32)value;
    c->gpr[RDX] = value >> 32;
}

void sys_xgetbv(struct cpu *c, const struct insn *in)
{
    if (!(c->cr4 & CR4_OSXSAVE))
        raise_exception(c, VEC_UD);
    u32 nr = (u32)c->gpr[RCX], lo, hi;
    if (nr > 1)
        raise_error(c, VEC_GP, 0);
    if (nr == 0) {
        set_pair(c, c->xcr0);
        return;
    }
    /* XCR1: the components in use (SDM 1 13.2); the live registers are the guest's */
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(1));
    set_pair(c, (lo | (u64)hi << 32) & c->xcr0);
}

void sys_xsetbv(struct cpu *c, const struct insn *in)
{
    if (!(c->cr4 & CR4_OSXSAVE))
        raise_exception(c, VEC_UD);
    u64 value = (u32)c->gpr[RAX] | c->gpr[RDX] << 32, avx512 = value & XCR0_AVX512;
    bool bad = c->cpl || (u32)c->gpr[RCX] || (value & ~c->model->xcr0_mask) || !(value & XCR0_X87);
    if ((value & XCR0_AVX) && !(value & XCR0_SSE))
        bad = true;
    if (avx512 && (avx512 != XCR0_AVX512 || !(value & XCR0_AVX)))
        bad = true;
    if (bad)
        raise_error(c, VEC_GP, 0);
    c->xcr0 = value;
    cpu_update_mode(c);
}
