/*
 * Power-on state of a processor. SDM 3A, table 10-1 (RESET).
 */
#include "x86/cpu.h"

static const struct x86_seg reset_data = {.limit = 0xffff, .attr = 0x93};
static const struct x86_seg reset_code = {
    .base = 0xffff0000, .limit = 0xffff, .attr = 0x9b, .sel = 0xf000};

#define RESET_CPUID_SIGNATURE 0x600 /* RDX: family 6 */
#define RESET_PAT 0x0007040600070406ull
#define RESET_APIC_BASE 0xfee00800ull /* enabled, xAPIC */
#define APIC_BASE_BSP BIT(8)
#define MISC_ENABLE_FAST_STRINGS BIT(0)

void x86_cpu_reset(struct x86_cpu *c, bool bsp)
{
    *c = (struct x86_cpu){.rip = 0xfff0, .rflags = 2, .dr6 = 0xffff0ff0, .dr7 = 0x400, .xcr0 = 1};
    c->gpr[RDX] = RESET_CPUID_SIGNATURE;
    for (unsigned i = 0; i < X86_SEGS; i++)
        c->seg[i] = reset_data;
    c->seg[SEG_CS] = reset_code;
    c->ldt = (struct x86_seg){.limit = 0xffff, .attr = 0x82};
    c->tr = (struct x86_seg){.limit = 0xffff, .attr = 0x8b};
    c->gdt.limit = c->idt.limit = 0xffff;
    c->cr0 = CR0_CD | CR0_NW | CR0_ET;
    c->msr.pat = RESET_PAT;
    c->msr.apic_base = RESET_APIC_BASE | (bsp ? APIC_BASE_BSP : 0);
    c->msr.misc_enable = MISC_ENABLE_FAST_STRINGS;
    c->msr.feature_control = 1; /* locked */
    c->activity = bsp ? X86_RUNNING : X86_WAIT_SIPI;
    /* x87 control word, MXCSR; all else is in its initial state (XSTATE_BV 0 would leave FCW to XRSTOR's defaults,
     * but readers of the legacy area deserve sane values). */
    c->xsave[0] = 0x7f;
    c->xsave[1] = 0x03;
    c->xsave[24] = 0x80;
    c->xsave[25] = 0x1f;
}
