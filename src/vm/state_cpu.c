/*
 * A processor's state as fields. SDM 3A, 2.3 to 2.5 (flags, control registers), SDM 1, 13.4 (XSAVE area).
 *
 * What a guest could have set by itself is let through: its own fault. Refused is what no processor of this model
 * could have reached, since accelerators rely on that. Any thread; no state.
 */
#include "vm/state_cpu.h"

#include "x86/cpuid.h"
#include <errno.h>
#include <string.h>

#define CPU struct x86_cpu

static const struct field fields[] = {
    STATE_HEXES(CPU, gpr, 1),
    STATE_HEX(CPU, rip, 1),
    STATE_HEX(CPU, rflags, 1),
    STATE_EACH(CPU, seg, base, 1, FIELD_HEX),
    STATE_EACH(CPU, seg, limit, 1, FIELD_HEX),
    STATE_EACH(CPU, seg, attr, 1, FIELD_HEX),
    STATE_EACH(CPU, seg, sel, 1, FIELD_HEX),
    STATE_HEX(CPU, ldt.base, 1),
    STATE_HEX(CPU, ldt.limit, 1),
    STATE_HEX(CPU, ldt.attr, 1),
    STATE_HEX(CPU, ldt.sel, 1),
    STATE_HEX(CPU, tr.base, 1),
    STATE_HEX(CPU, tr.limit, 1),
    STATE_HEX(CPU, tr.attr, 1),
    STATE_HEX(CPU, tr.sel, 1),
    STATE_HEX(CPU, gdt.base, 1),
    STATE_HEX(CPU, gdt.limit, 1),
    STATE_HEX(CPU, idt.base, 1),
    STATE_HEX(CPU, idt.limit, 1),
    STATE_HEX(CPU, cr0, 1),
    STATE_HEX(CPU, cr2, 1),
    STATE_HEX(CPU, cr3, 1),
    STATE_HEX(CPU, cr4, 1),
    STATE_HEX(CPU, cr8, 1),
    STATE_HEX(CPU, xcr0, 1),
    STATE_HEXES(CPU, dr, 1),
    STATE_HEX(CPU, dr6, 1),
    STATE_HEX(CPU, dr7, 1),
    STATE_HEX(CPU, msr.efer, 1),
    STATE_HEX(CPU, msr.star, 1),
    STATE_HEX(CPU, msr.lstar, 1),
    STATE_HEX(CPU, msr.cstar, 1),
    STATE_HEX(CPU, msr.sfmask, 1),
    STATE_HEX(CPU, msr.kernel_gs_base, 1),
    STATE_HEX(CPU, msr.sysenter_cs, 1),
    STATE_HEX(CPU, msr.sysenter_esp, 1),
    STATE_HEX(CPU, msr.sysenter_eip, 1),
    STATE_HEX(CPU, msr.apic_base, 1),
    STATE_HEX(CPU, msr.pat, 1),
    STATE_HEX(CPU, msr.misc_enable, 1),
    STATE_HEX(CPU, msr.tsc_aux, 1),
    STATE_HEX(CPU, msr.tsc_adjust, 1),
    STATE_HEX(CPU, msr.spec_ctrl, 1),
    STATE_HEX(CPU, msr.feature_control, 1),
    STATE_HEX(CPU, msr.mtrr_def_type, 1),
    STATE_HEXES(CPU, msr.mtrr_fixed, 1),
    STATE_HEXES(CPU, msr.mtrr_base, 1),
    STATE_HEXES(CPU, msr.mtrr_mask, 1),
    STATE_HEX(CPU, msr.mcg_status, 1),
    STATE_HEX(CPU, msr.mcg_ctl, 1),
    STATE_HEX(CPU, msr.kvm_system_time, 1),
    STATE_HEX(CPU, msr.kvm_wall_clock, 1),
    STATE_HEX(CPU, msr.kvm_async_pf, 1),
    STATE_HEX(CPU, msr.kvm_steal_time, 1),
    STATE_HEX(CPU, msr.kvm_pv_eoi, 1),
    STATE_HEX(CPU, msr.kvm_poll_control, 1),
    STATE_SINT(CPU, tsc_offset, 1),
    STATE_UINT(CPU, activity, 1),
    STATE_UINT(CPU, sti_shadow, 1),
    STATE_UINT(CPU, mov_ss_shadow, 1),
    STATE_UINT(CPU, nmi_masked, 1),
    STATE_UINT(CPU, nmi_pending, 1),
    STATE_UINT(CPU, event_valid, 1),
    STATE_UINT(CPU, event_vector, 1),
    STATE_UINT(CPU, event_is_soft, 1),
    STATE_UINT(CPU, event_has_error, 1),
    STATE_HEX(CPU, event_error, 1),
    STATE_BYTES(CPU, xsave, 1),
};
STATE_TABLE(vm_cpu_table, struct x86_cpu, 1, fields);

#define CR0_ALL                                                                                \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
     CR0_PG)
#define EFER_ALL (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)
#define FL_RESERVED (~(BIT(22) - 1) | BIT(3) | BIT(5) | BIT(15))
#define XCR0_AVX BIT(2)
#define XCR0_AVX512 0xe0ull
#define XSAVE_MXCSR 24
#define XSAVE_BV 512

static bool control_ok(const struct x86_cpu *c, const struct cpu_model *m)
{
    bool paging = c->cr0 & CR0_PG, lme = c->msr.efer & EFER_LME, lma = c->msr.efer & EFER_LMA;

    if ((c->cr0 & ~CR0_ALL) || (paging && !(c->cr0 & CR0_PE)) ||
        ((c->cr0 & CR0_NW) && !(c->cr0 & CR0_CD)))
        return false;
    if ((c->cr4 & ~m->cr4_mask) || (c->msr.efer & ~EFER_ALL) || lma != (lme && paging))
        return false;
    return !lma || (c->cr4 & CR4_PAE);
}

static bool xcr0_ok(u64 xcr0, const struct cpu_model *m)
{
    if (!(xcr0 & 1) || (xcr0 & ~(m->xcr0_mask | 1)) || ((xcr0 & XCR0_AVX) && !(xcr0 & 2)))
        return false;
    return !(xcr0 & XCR0_AVX512) || ((xcr0 & XCR0_AVX512) == XCR0_AVX512 && (xcr0 & XCR0_AVX));
}

static bool vector_ok(const struct x86_cpu *c, const struct cpu_model *m)
{
    u64 components;
    u32 mxcsr;

    memcpy(&components, c->xsave + XSAVE_BV, sizeof(components));
    memcpy(&mxcsr, c->xsave + XSAVE_MXCSR, sizeof(mxcsr));
    return !(components & ~(m->xcr0_mask | 3)) && !(mxcsr & ~0xffffu);
}

static bool flags_ok(const struct x86_cpu *c)
{
    if (c->rflags & FL_RESERVED)
        return false;
    return !((c->rflags & FL_VM) && (c->msr.efer & EFER_LMA));
}

static bool event_ok(const struct x86_cpu *c)
{
    return c->sti_shadow <= 1 && c->mov_ss_shadow <= 1 && c->nmi_masked <= 1 &&
           c->nmi_pending <= 1 && c->event_valid <= 1 && c->event_is_soft <= 1 &&
           c->event_has_error <= 1;
}

int vm_cpu_check(void *opaque, const void *scratch, struct err *err)
{
    const struct cpu_model *m = opaque;
    const struct x86_cpu *c = scratch;
    const char *what = NULL;

    if (c->activity > X86_WAIT_SIPI)
        what = "activity";
    else if (!control_ok(c, m))
        what = "control registers";
    else if (!flags_ok(c))
        what = "flags";
    else if (!xcr0_ok(c->xcr0, m) || !vector_ok(c, m))
        what = "vector state";
    else if ((c->dr6 | c->dr7) >> 32 || c->cr8 > 15)
        what = "debug registers or priority";
    else if (!event_ok(c))
        what = "events";
    return what ? err_set(err, EINVAL, "no processor of model %s can have such %s", m->name, what)
                : 0;
}
