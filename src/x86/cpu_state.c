/*
 * A processor's state as fields. SDM 3A, 2.3 to 2.5 (flags, control registers), SDM 1, 13.4 (XSAVE area).
 *
 * What a guest could have set by itself is let through: its own fault. Refused is what no processor of this model
 * could have reached, since accelerators rely on that. Any thread; no state.
 */
#include "x86/cpu_state.h"

#include "x86/cpuid.h"
#include "x86/xsave.h"
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
STATE_TABLE(x86_cpu_table, struct x86_cpu, 1, fields);

#define CR0_ALL                                                                                \
    (CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
     CR0_PG)
#define EFER_ALL (EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)
#define FL_RESERVED (~(BIT(22) - 1) | BIT(3) | BIT(5) | BIT(15))
#define XCR0_AVX BIT(2)
#define XCR0_AVX512 0xe0ull
#define SEG_ATTR_ALL (0xf0ffull | SEG_ATTR_UNUSABLE)
#define SPEC_CTRL_ALL (7ull | BIT(10))

struct ask {
    const struct x86_cpu *c;
    const struct cpu_model *m;
};

static bool canonical(u64 v)
{
    return (u64)((s64)(v << 16) >> 16) == v;
}

static bool long_mode(const struct x86_cpu *c)
{
    return c->msr.efer & EFER_LMA;
}

static bool code64(const struct x86_cpu *c)
{
    return long_mode(c) && (c->seg[SEG_CS].attr & SEG_ATTR_L);
}

/* --- one function for each field or group; true: it can be --- */

static bool cr0_ok(const struct ask *a)
{
    u64 cr0 = a->c->cr0;

    return !(cr0 & ~CR0_ALL) && !((cr0 & CR0_PG) && !(cr0 & CR0_PE)) &&
           !((cr0 & CR0_NW) && !(cr0 & CR0_CD));
}

static bool cr3_ok(const struct ask *a)
{
    return a->m->phys_bits >= 52 || !(a->c->cr3 >> a->m->phys_bits);
}

static bool cr4_ok(const struct ask *a)
{
    u64 cr4 = a->c->cr4;

    if ((cr4 & ~a->m->cr4_mask) || ((cr4 & CR4_PCIDE) && !long_mode(a->c)))
        return false;
    return !long_mode(a->c) || (cr4 & CR4_PAE);
}

static bool cr8_ok(const struct ask *a)
{
    return a->c->cr8 <= 15;
}

static bool efer_ok(const struct ask *a)
{
    u64 efer = a->c->msr.efer;

    return !(efer & ~EFER_ALL) &&
           !!(efer & EFER_LMA) == ((efer & EFER_LME) && (a->c->cr0 & CR0_PG));
}

static bool rflags_ok(const struct ask *a)
{
    u64 f = a->c->rflags;

    return !(f & FL_RESERVED) && !((f & FL_VM) && (long_mode(a->c) || !(a->c->cr0 & CR0_PE)));
}

static bool rip_ok(const struct ask *a)
{
    return code64(a->c) ? canonical(a->c->rip) : !(a->c->rip >> 32);
}

static bool segment_ok(const struct x86_seg *s, bool wide)
{
    return !(s->attr & ~SEG_ATTR_ALL) && (wide ? canonical(s->base) : !(s->base >> 32));
}

static bool cs_ok(const struct ask *a)
{
    u32 attr = a->c->seg[SEG_CS].attr;
    bool both = (attr & SEG_ATTR_L) && (attr & SEG_ATTR_DB);

    return segment_ok(&a->c->seg[SEG_CS], false) && !(long_mode(a->c) && both);
}

static bool data_segments_ok(const struct ask *a)
{
    const struct x86_seg *s = a->c->seg;

    return segment_ok(&s[SEG_SS], false) && segment_ok(&s[SEG_DS], false) &&
           segment_ok(&s[SEG_ES], false) && segment_ok(&s[SEG_FS], true) &&
           segment_ok(&s[SEG_GS], true);
}

static bool tables_ok(const struct ask *a)
{
    return segment_ok(&a->c->ldt, true) && segment_ok(&a->c->tr, true) &&
           canonical(a->c->gdt.base) && canonical(a->c->idt.base);
}

static bool dr_ok(const struct ask *a)
{
    return !((a->c->dr6 | a->c->dr7) >> 32);
}

static bool xcr0_ok(const struct ask *a)
{
    u64 xcr0 = a->c->xcr0;

    if (!(xcr0 & 1) || (xcr0 & ~(a->m->xcr0_mask | 1)) || ((xcr0 & XCR0_AVX) && !(xcr0 & 2)))
        return false;
    return !(xcr0 & XCR0_AVX512) || ((xcr0 & XCR0_AVX512) == XCR0_AVX512 && (xcr0 & XCR0_AVX));
}

static bool mxcsr_ok(const struct ask *a)
{
    u32 mxcsr;

    memcpy(&mxcsr, a->c->xsave + XSAVE_MXCSR, sizeof(mxcsr));
    return !(mxcsr & ~0xffffu);
}

static bool components_ok(const struct ask *a)
{
    u64 header[(XSAVE_HEADER_END - XSAVE_BV) / 8], rest = 0;

    memcpy(header, a->c->xsave + XSAVE_BV, sizeof(header));
    for (unsigned i = 1; i < ARRAY_LEN(header); i++)
        rest |= header[i];
    return !(header[0] & ~(a->m->xcr0_mask | 3)) && !rest;
}

static bool syscall_ok(const struct ask *a)
{
    const struct x86_msrs *m = &a->c->msr;

    return canonical(m->lstar) && canonical(m->cstar) && !(m->sfmask >> 32);
}

static bool gs_base_ok(const struct ask *a)
{
    return canonical(a->c->msr.kernel_gs_base);
}

static bool sysenter_ok(const struct ask *a)
{
    const struct x86_msrs *m = &a->c->msr;

    return !(m->sysenter_cs >> 32) && canonical(m->sysenter_esp) && canonical(m->sysenter_eip);
}

static bool memory_types_ok(u64 types)
{
    for (unsigned i = 0; i < 64; i += 8) {
        u64 t = types >> i & 0xff;

        if (t > 7 || t == 2 || t == 3)
            return false;
    }
    return true;
}

static bool pat_ok(const struct ask *a)
{
    return memory_types_ok(a->c->msr.pat);
}

static bool mtrr_ok(const struct ask *a)
{
    u64 type = a->c->msr.mtrr_def_type,
        high = a->m->phys_bits >= 52 ? 0 : ~(BIT(a->m->phys_bits) - 1);

    for (unsigned i = 0; i < X86_MTRR_VAR; i++)
        if ((a->c->msr.mtrr_base[i] | a->c->msr.mtrr_mask[i]) & high)
            return false;
    return !(type & ~0xcffull) && memory_types_ok(type & 7);
}

static bool tsc_aux_ok(const struct ask *a)
{
    return !(a->c->msr.tsc_aux >> 32);
}

static bool spec_ctrl_ok(const struct ask *a)
{
    return !(a->c->msr.spec_ctrl & ~SPEC_CTRL_ALL);
}

static bool activity_ok(const struct ask *a)
{
    return a->c->activity <= X86_WAIT_SIPI;
}

static bool shadow_ok(const struct ask *a)
{
    return a->c->sti_shadow <= 1 && a->c->mov_ss_shadow <= 1 && a->c->nmi_masked <= 1 &&
           a->c->nmi_pending <= 1;
}

/* Exceptions are those that a processor raises; NMI and vectors from 32 on come from outside. */
static bool event_ok(const struct ask *a)
{
    const struct x86_cpu *c = a->c;

    if (c->event_valid > 1 || c->event_is_soft > 1 || c->event_has_error > 1)
        return false;
    return !c->event_valid || c->event_is_soft || c->event_vector != 15;
}

/* TABLE: in the order of what relies on what */
static const struct {
    const char *field;
    bool (*ok)(const struct ask *a);
} rules[] = {
    {"activity", activity_ok},
    {"cr0", cr0_ok},
    {"msr.efer", efer_ok},
    {"cr4", cr4_ok},
    {"cr3", cr3_ok},
    {"cr8", cr8_ok},
    {"rflags", rflags_ok},
    {"seg[] of CS", cs_ok},
    {"seg[]", data_segments_ok},
    {"ldt, tr, gdt or idt", tables_ok},
    {"rip", rip_ok},
    {"dr6 or dr7", dr_ok},
    {"xcr0", xcr0_ok},
    {"xsave: MXCSR", mxcsr_ok},
    {"xsave: header", components_ok},
    {"msr.lstar, msr.cstar or msr.sfmask", syscall_ok},
    {"msr.kernel_gs_base", gs_base_ok},
    {"msr.sysenter_*", sysenter_ok},
    {"msr.pat", pat_ok},
    {"msr.mtrr_*", mtrr_ok},
    {"msr.tsc_aux", tsc_aux_ok},
    {"msr.spec_ctrl", spec_ctrl_ok},
    {"sti_shadow, mov_ss_shadow, nmi_masked or nmi_pending", shadow_ok},
    {"event_*", event_ok},
};

int x86_cpu_check(void *opaque, const void *scratch, struct err *err)
{
    struct ask a = {.c = scratch, .m = opaque};

    for (unsigned i = 0; i < ARRAY_LEN(rules); i++)
        if (!rules[i].ok(&a))
            return err_set(err, EINVAL, "%s: no processor of model %s can hold that",
                           rules[i].field, a.m->name);
    return 0;
}
