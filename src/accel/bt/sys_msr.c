/*
 * RDMSR and WRMSR: a sorted table of the registers there are. SDM 4; KVM's own as in Linux's documentation
 * (virt/kvm/x86/msr). Anything else raises #GP, as do values with reserved bits. Light code on the vCPU's thread.
 */
#include "accel/bt/kvmclock.h"
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"

#define EFER_WRITABLE (EFER_SCE | EFER_LME | EFER_NXE)
#define SPEC_CTRL_BITS (7ull | BIT(10)) /* IBRS, STIBP, SSBD, BHI_DIS_S */
#define MTRR_CAP 0x508ull               /* 8 variable ranges, fixed ranges, write combining */
#define MCG_BANKS 10
#define UCODE_REVISION (0xffffffffull << 32) /* newer than any erratum asks for */
#define KVMCLOCK_ENABLE 1ull

/* A register in struct x86_msrs, or one with functions. */
struct msr {
    u32 first, last;
    u64 (*read)(struct cpu *c, u32 nr);
    void (*write)(struct cpu *c, u32 nr, u64 value);
};

static noreturn void bad(struct cpu *c)
{
    raise_error(c, VEC_GP, 0);
}

static u64 zero(struct cpu *c, u32 nr)
{
    return 0;
}
static void ignore(struct cpu *c, u32 nr, u64 value)
{
}

static void need_canonical(struct cpu *c, u64 value)
{
    if (!canonical(value))
        bad(c);
}

/* --- plain registers --- */

#define PLAIN(name, field)                                   \
    static u64 get_##name(struct cpu *c, u32 nr)             \
    {                                                        \
        return c->field;                                     \
    }                                                        \
    static void set_##name(struct cpu *c, u32 nr, u64 value) \
    {                                                        \
        c->field = value;                                    \
    }
#define CANONICAL(name, field)                               \
    static u64 get_##name(struct cpu *c, u32 nr)             \
    {                                                        \
        return c->field;                                     \
    }                                                        \
    static void set_##name(struct cpu *c, u32 nr, u64 value) \
    {                                                        \
        need_canonical(c, value);                            \
        c->field = value;                                    \
    }

PLAIN(star, msr.star)
PLAIN(misc_enable, msr.misc_enable)
PLAIN(mcg_status, msr.mcg_status)
CANONICAL(lstar, msr.lstar)
CANONICAL(cstar, msr.cstar)
CANONICAL(fs_base, seg[SEG_FS].base)
CANONICAL(gs_base, seg[SEG_GS].base)
CANONICAL(kernel_gs_base, msr.kernel_gs_base)
CANONICAL(sysenter_esp, msr.sysenter_esp)
CANONICAL(sysenter_eip, msr.sysenter_eip)

static u64 get_sfmask(struct cpu *c, u32 nr)
{
    return c->msr.sfmask;
}
static void set_sfmask(struct cpu *c, u32 nr, u64 value)
{
    c->msr.sfmask = (u32)value;
}
static u64 get_sysenter_cs(struct cpu *c, u32 nr)
{
    return c->msr.sysenter_cs;
}
static void set_sysenter_cs(struct cpu *c, u32 nr, u64 value)
{
    c->msr.sysenter_cs = (u32)value;
}
static u64 get_tsc_aux(struct cpu *c, u32 nr)
{
    return c->msr.tsc_aux;
}

static void set_tsc_aux(struct cpu *c, u32 nr, u64 value)
{
    if (value >> 32)
        bad(c);
    c->msr.tsc_aux = value;
}

static u64 get_efer(struct cpu *c, u32 nr)
{
    return c->msr.efer;
}

static void set_efer(struct cpu *c, u32 nr, u64 value)
{
    u64 changed = (c->msr.efer ^ value) & EFER_WRITABLE;
    if (value & ~(EFER_WRITABLE | EFER_LMA))
        bad(c);
    if ((changed & EFER_LME) && (c->cr0 & CR0_PG))
        bad(c);
    c->msr.efer = (c->msr.efer & EFER_LMA) | (value & EFER_WRITABLE);
    if (changed & EFER_NXE)
        mmu_flush_all(c, true);
    cpu_update_mode(c);
}

/* --- memory types: kept for the guest to read back; RAM is write-back whatever they say --- */

static bool memory_type(u64 t)
{
    return t <= 7 && t != 2 && t != 3;
}

static u64 get_pat(struct cpu *c, u32 nr)
{
    return c->msr.pat;
}

static void set_pat(struct cpu *c, u32 nr, u64 value)
{
    for (unsigned i = 0; i < 64; i += 8)
        if (!memory_type((value >> i) & 0xff))
            bad(c);
    c->msr.pat = value;
}

static u64 *mtrr(struct cpu *c, u32 nr)
{
    if (nr == 0x2ff)
        return &c->msr.mtrr_def_type;
    if (nr < 0x250)
        return nr & 1 ? &c->msr.mtrr_mask[(nr - 0x200) / 2] : &c->msr.mtrr_base[(nr - 0x200) / 2];
    return &c->msr.mtrr_fixed[nr == 0x250 ? 0 : nr < 0x268 ? nr - 0x257 : nr - 0x265];
}

static u64 get_mtrr(struct cpu *c, u32 nr)
{
    return *mtrr(c, nr);
}

static void set_mtrr(struct cpu *c, u32 nr, u64 value)
{
    u64 high = c->model->phys_bits >= 52 ? 0 : ~(BIT(c->model->phys_bits) - 1);
    if (nr < 0x250 && (value & high))
        bad(c);
    if (nr == 0x2ff && ((value & ~0xcffull) || !memory_type(value & 7)))
        bad(c);
    *mtrr(c, nr) = value;
}

static u64 get_mtrr_cap(struct cpu *c, u32 nr)
{
    return MTRR_CAP;
}

/* --- time --- */

static void refresh_clock(struct cpu *c)
{
    if (c->msr.kvm_system_time & KVMCLOCK_ENABLE)
        heavy_call(c, kvmclock_write_time, (u64)c, c->msr.kvm_system_time & ~KVMCLOCK_ENABLE, 0);
}

static u64 get_tsc(struct cpu *c, u32 nr)
{
    return __builtin_ia32_rdtsc() + (u64)c->tsc_offset;
}

static u64 heavy_tsc_moved(u64 cpu, u64 offset, u64 c3)
{
    struct cpu *c = (struct cpu *)cpu;
    const struct accel_intc *intc = &c->m->intc;
    if (intc->tsc_moved)
        intc->tsc_moved(intc->opaque, c->index, (s64)offset);
    return 0;
}

static void set_tsc_adjust(struct cpu *c, u32 nr, u64 value)
{
    c->tsc_offset += (s64)(value - c->msr.tsc_adjust);
    c->msr.tsc_adjust = value;
    heavy_call(c, heavy_tsc_moved, (u64)c, (u64)c->tsc_offset, 0);
    refresh_clock(c);
}

static void set_tsc(struct cpu *c, u32 nr, u64 value)
{
    set_tsc_adjust(c, nr, c->msr.tsc_adjust + value - get_tsc(c, nr));
}

static u64 get_tsc_adjust(struct cpu *c, u32 nr)
{
    return c->msr.tsc_adjust;
}
static u64 get_kvm_time(struct cpu *c, u32 nr)
{
    return c->msr.kvm_system_time;
}

static void set_kvm_time(struct cpu *c, u32 nr, u64 value)
{
    c->msr.kvm_system_time = value;
    refresh_clock(c);
}

static u64 get_kvm_wall(struct cpu *c, u32 nr)
{
    return c->msr.kvm_wall_clock;
}

static void set_kvm_wall(struct cpu *c, u32 nr, u64 value)
{
    c->msr.kvm_wall_clock = value;
    heavy_call(c, kvmclock_write_wall, (u64)c, value, 0);
}

/* --- the local APIC's registers belong to the machine --- */

struct apic_access {
    struct cpu *c;
    u32 nr;
    u64 value;
};

static u64 heavy_apic_read(u64 access, u64 b, u64 c3)
{
    struct apic_access *a = (struct apic_access *)access;
    const struct accel_intc *intc = &a->c->m->intc;
    return intc->read_msr && intc->read_msr(intc->opaque, a->c->index, a->nr, &a->value);
}

static u64 heavy_apic_write(u64 access, u64 b, u64 c3)
{
    struct apic_access *a = (struct apic_access *)access;
    const struct accel_intc *intc = &a->c->m->intc;
    return intc->write_msr && intc->write_msr(intc->opaque, a->c->index, a->nr, a->value);
}

static u64 get_apic(struct cpu *c, u32 nr)
{
    struct apic_access a;
    a.c = c;
    a.nr = nr;
    a.value = 0;
    if (!heavy_call(c, heavy_apic_read, (u64)&a, 0, 0))
        bad(c);
    return a.value;
}

static void set_apic(struct cpu *c, u32 nr, u64 value)
{
    struct apic_access a;
    a.c = c;
    a.nr = nr;
    a.value = value;
    if (!heavy_call(c, heavy_apic_write, (u64)&a, 0, 0))
        bad(c);
    if (nr == 0x1b)
        c->msr.apic_base = value;
}

/* --- speculation, machine check, what else is asked for --- */

static u64 get_spec_ctrl(struct cpu *c, u32 nr)
{
    return c->msr.spec_ctrl;
}

static void set_spec_ctrl(struct cpu *c, u32 nr, u64 value)
{
    if (value & ~SPEC_CTRL_BITS)
        bad(c);
    c->msr.spec_ctrl = value;
}

static void set_pred_cmd(struct cpu *c, u32 nr, u64 value)
{
    if (value & ~1ull)
        bad(c);
}

static u64 get_arch_capabilities(struct cpu *c, u32 nr)
{
    return c->model->arch_capabilities;
}
static u64 get_feature_control(struct cpu *c, u32 nr)
{
    return c->msr.feature_control;
}
static u64 get_ucode(struct cpu *c, u32 nr)
{
    return UCODE_REVISION;
}
static u64 get_mcg_cap(struct cpu *c, u32 nr)
{
    return MCG_BANKS;
}

static void set_mc_bank(struct cpu *c, u32 nr, u64 value)
{
    if ((nr & 3) == 0 ? value != 0 && value != ~0ull : value != 0)
        bad(c);
}

/* Maximum non-turbo ratio in units of 100 MHz. */
static u64 get_platform_info(struct cpu *c, u32 nr)
{
    u64 ratio = (c->model->tsc_khz / 100000) & 0xff;
    return ratio << 8 | ratio << 40;
}

static void set_debugctl(struct cpu *c, u32 nr, u64 value)
{
    if (value & ~3ull) /* LBR, BTF: taken and not done */
        bad(c);
}

/* TABLE: sorted by number. A missing function means that direction raises #GP. */
static const struct msr msrs[] = {
    {0x10, 0x10, get_tsc, set_tsc},
    {0x11, 0x11, get_kvm_wall, set_kvm_wall}, /* the old numbers of the KVM clock */
    {0x12, 0x12, get_kvm_time, set_kvm_time},
    {0x17, 0x17, zero, NULL},
    {0x1b, 0x1b, get_apic, set_apic},
    {0x2a, 0x2a, zero, ignore},
    {0x34, 0x34, zero, NULL},
    {0x3a, 0x3a, get_feature_control, NULL},
    {0x3b, 0x3b, get_tsc_adjust, set_tsc_adjust},
    {0x48, 0x48, get_spec_ctrl, set_spec_ctrl},
    {0x49, 0x49, NULL, set_pred_cmd},
    {0x79, 0x79, NULL, ignore},
    {0x8b, 0x8b, get_ucode, ignore},
    {0xce, 0xce, get_platform_info, NULL},
    {0xfe, 0xfe, get_mtrr_cap, NULL},
    {0x10a, 0x10a, get_arch_capabilities, NULL},
    {0x119, 0x119, zero, ignore},
    {0x11e, 0x11e, zero, ignore},
    {0x140, 0x140, zero, ignore},
    {0x174, 0x174, get_sysenter_cs, set_sysenter_cs},
    {0x175, 0x175, get_sysenter_esp, set_sysenter_esp},
    {0x176, 0x176, get_sysenter_eip, set_sysenter_eip},
    {0x179, 0x179, get_mcg_cap, NULL},
    {0x17a, 0x17a, get_mcg_status, set_mcg_status},
    {0x198, 0x198, zero, NULL},
    {0x199, 0x199, zero, ignore},
    {0x19a, 0x19b, zero, ignore},
    {0x19c, 0x19c, zero, ignore},
    {0x1a0, 0x1a0, get_misc_enable, set_misc_enable},
    {0x1d9, 0x1d9, zero, set_debugctl},
    {0x1db, 0x1de, zero, NULL},
    {0x200, 0x20f, get_mtrr, set_mtrr},
    {0x250, 0x250, get_mtrr, set_mtrr},
    {0x258, 0x259, get_mtrr, set_mtrr},
    {0x268, 0x26f, get_mtrr, set_mtrr},
    {0x277, 0x277, get_pat, set_pat},
    {0x2ff, 0x2ff, get_mtrr, set_mtrr},
    {0x400, 0x400 + 4 * MCG_BANKS - 1, zero, set_mc_bank},
    {0x6e0, 0x6e0, get_apic, set_apic},
    {0x800, 0x8ff, get_apic, set_apic},
    {0x4b564d00, 0x4b564d00, get_kvm_wall, set_kvm_wall},
    {0x4b564d01, 0x4b564d01, get_kvm_time, set_kvm_time},
    {0xc0000080, 0xc0000080, get_efer, set_efer},
    {0xc0000081, 0xc0000081, get_star, set_star},
    {0xc0000082, 0xc0000082, get_lstar, set_lstar},
    {0xc0000083, 0xc0000083, get_cstar, set_cstar},
    {0xc0000084, 0xc0000084, get_sfmask, set_sfmask},
    {0xc0000100, 0xc0000100, get_fs_base, set_fs_base},
    {0xc0000101, 0xc0000101, get_gs_base, set_gs_base},
    {0xc0000102, 0xc0000102, get_kernel_gs_base, set_kernel_gs_base},
    {0xc0000103, 0xc0000103, get_tsc_aux, set_tsc_aux},
};

static const struct msr *find(u32 nr)
{
    unsigned lo = 0, hi = ARRAY_LEN(msrs);
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (nr > msrs[mid].last)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < ARRAY_LEN(msrs) && nr >= msrs[lo].first ? &msrs[lo] : NULL;
}

void sys_rdmsr(struct cpu *c, const struct insn *in)
{
    u32 nr = (u32)c->gpr[RCX];
    require_cpl0(c);
    const struct msr *m = find(nr);
    if (!m || !m->read)
        bad(c);
    u64 value = m->read(c, nr);
    c->gpr[RAX] = (u32)value;
    c->gpr[RDX] = value >> 32;
}

void sys_wrmsr(struct cpu *c, const struct insn *in)
{
    u32 nr = (u32)c->gpr[RCX];
    require_cpl0(c);
    const struct msr *m = find(nr);
    if (!m || !m->write)
        bad(c);
    m->write(c, nr, (u32)c->gpr[RAX] | c->gpr[RDX] << 32);
}
