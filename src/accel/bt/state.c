/* Conversion between a vCPU's live state and the canonical one (x86/cpu.h). Heavy; the vCPU is not running code. */
#include <string.h>
#include "accel/bt/sys.h"
#include "accel/bt/vcpu.h"
#include "x86/xsave.h"

#define MSR_APIC_BASE 0x1b
#define XSAVE_AREA 4096 /* what cpu.xsave has */

int vcpu_state_get(struct vcpu *v, struct x86_cpu *s, struct err *err)
{
    const struct cpu *c = v->c;

    (void)err;
    memset(s, 0, sizeof(*s));
    memcpy(s->gpr, c->gpr, sizeof(s->gpr));
    s->rip = c->rip;
    s->rflags = c->rflags;
    memcpy(s->seg, c->seg, sizeof(s->seg));
    s->ldt = c->ldt, s->tr = c->tr, s->gdt = c->gdt, s->idt = c->idt;
    s->cr0 = c->cr0, s->cr2 = c->cr2, s->cr3 = c->cr3, s->cr4 = c->cr4, s->xcr0 = c->xcr0;
    s->cr8 = c->m->intc.get_tpr ? c->m->intc.get_tpr(c->m->intc.opaque, c->index) : 0;
    memcpy(s->dr, c->dr, sizeof(s->dr));
    s->dr6 = c->dr6, s->dr7 = c->dr7;
    s->msr = c->msr;
    if (c->m->intc.read_msr)
        c->m->intc.read_msr(c->m->intc.opaque, c->index, MSR_APIC_BASE, &s->msr.apic_base);
    s->tsc_offset = c->tsc_offset;
    s->activity = c->activity;
    s->sti_shadow = c->shadow == 1, s->mov_ss_shadow = c->shadow == 2;
    s->nmi_masked = c->nmi_masked, s->nmi_pending = c->nmi_pending;
    s->event_valid = v->held.valid;
    if (v->held.valid) {
        s->event_vector = v->held.vector;
        s->event_has_error = v->held.has_error;
        s->event_error = v->held.error;
    }
    xsave_from_host(s->xsave, c->xsave, XSAVE_AREA);
    return 0;
}

/* An interrupt of the program's own (INT n) is done again by its instruction; everything else only happens once. */
static void set_event(struct vcpu *v, const struct x86_cpu *s)
{
    v->held.valid = s->event_valid && !s->event_is_soft;
    v->held.vector = s->event_vector;
    v->held.has_error = s->event_has_error;
    v->held.error = s->event_error;
    v->held.kind = s->event_vector == VEC_NMI ? DELIVER_NMI : s->event_vector < 32 ? DELIVER_FAULT : DELIVER_EXTERNAL;
}

int vcpu_state_set(struct vcpu *v, const struct x86_cpu *s, struct err *err)
{
    struct cpu *c = v->c;

    (void)err;
    memcpy(c->gpr, s->gpr, sizeof(c->gpr));
    c->rip = s->rip;
    c->rflags = s->rflags | 2;
    memcpy(c->seg, s->seg, sizeof(c->seg));
    c->ldt = s->ldt, c->tr = s->tr, c->gdt = s->gdt, c->idt = s->idt;
    c->cr0 = s->cr0, c->cr2 = s->cr2, c->cr4 = s->cr4, c->xcr0 = s->xcr0 | 1;
    memcpy(c->dr, s->dr, sizeof(c->dr));
    c->dr6 = s->dr6, c->dr7 = s->dr7;
    c->msr = s->msr;
    c->tsc_offset = s->tsc_offset;
    c->activity = s->activity;
    c->shadow = s->sti_shadow ? 1 : s->mov_ss_shadow ? 2 : 0;
    c->nmi_masked = s->nmi_masked, c->nmi_pending = s->nmi_pending;
    c->cpl = (c->cr0 & CR0_PE) ? ((c->rflags & FL_VM) ? 3 : c->seg[SEG_SS].attr >> SEG_ATTR_DPL_SHIFT & 3) : 0;
    c->rip_set = false;
    c->delivering = 0;
    v->shadow_rip = 0;
    set_event(v, s);
    v->intr_waiting = true;
    xsave_to_host(s->xsave, c->xsave, XSAVE_AREA);
    *(u64 *)((u8 *)c->xsave + XSAVE_BV) &= c->priv[P_XSAVE_MASK];
    *(u32 *)((u8 *)c->xsave + XSAVE_MXCSR) &= 0xffff;
    if (c->m->intc.set_tpr)
        c->m->intc.set_tpr(c->m->intc.opaque, c->index, s->cr8);
    if (c->m->intc.tsc_moved)
        c->m->intc.tsc_moved(c->m->intc.opaque, c->index, s->tsc_offset);
    mmu_flush_all(c, true);
    mmu_set_cr3(c, s->cr3, false);
    cpu_update_mode(c);
    return 0;
}
