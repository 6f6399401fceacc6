/*
 * INIT and start-up. SDM 3A, 8.4.4 and table 10-1, column INIT: like power-on, but caching, memory types, the TSC, most
 * MSRs and the vector state stay. Light code on the vCPU's thread.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys.h"

#define RESET_SIGNATURE 0x600
#define RESET_PAT 0x0007040600070406ull
#define RESET_APIC_BASE 0xfee00800ull
#define APIC_BASE_BSP BIT(8)

static struct x86_seg segment(u64 base, u16 sel, u32 attr)
{
    struct x86_seg s;
    s.base = base;
    s.limit = 0xffff;
    s.attr = attr;
    s.sel = sel;
    s.pad[0] = s.pad[1] = s.pad[2] = 0;
    return s;
}

void cpu_reset(struct cpu *c, bool bsp)
{
    for (unsigned i = 0; i < X86_GPRS; i++)
        c->gpr[i] = 0;
    c->gpr[RDX] = RESET_SIGNATURE;
    for (unsigned i = 0; i < X86_SEGS; i++)
        c->seg[i] = segment(0, 0, 0x93);
    c->seg[SEG_CS] = segment(0xffff0000, 0xf000, 0x9b);
    c->ldt = segment(0, 0, 0x82);
    c->tr = segment(0, 0, 0x8b);
    c->gdt.base = c->idt.base = 0;
    c->gdt.limit = c->idt.limit = 0xffff;
    c->rflags = 2;
    c->cr0 = (c->cr0 & (CR0_CD | CR0_NW)) | CR0_ET;
    c->cr2 = c->cr3 = c->cr4 = 0;
    c->msr.efer = 0;
    c->dr6 = 0xffff0ff0;
    c->dr7 = 0x400;
    for (unsigned i = 0; i < 4; i++)
        c->dr[i] = 0;
    c->cpl = c->shadow = c->delivering = 0;
    c->nmi_masked = c->nmi_pending = 0;
    c->activity = bsp ? X86_RUNNING : X86_WAIT_SIPI;
    set_rip(c, 0xfff0);
    mmu_flush_all(c, true);
    cpu_update_mode(c);
}

void cpu_power_on(struct cpu *c, bool bsp)
{
    c->cr0 = CR0_CD | CR0_NW;
    c->xcr0 = 1;
    c->msr.pat = RESET_PAT;
    c->msr.apic_base = RESET_APIC_BASE | (bsp ? APIC_BASE_BSP : 0);
    c->msr.misc_enable = 1;     /* fast strings */
    c->msr.feature_control = 1; /* locked */
    cpu_reset(c, bsp);
}

void cpu_start_at(struct cpu *c, u8 vector)
{
    c->seg[SEG_CS] = segment((u64)vector << 12, (u16)(vector << 8), 0x9b);
    c->activity = X86_RUNNING;
    set_rip(c, 0);
    cpu_update_mode(c);
}
