/*
 * KVM's view of a processor, converted to and from the canonical state (x86/cpu.h).
 *
 * Vector state: KVM's XSAVE image has the host's standard format, ours the canonical one (x86/xsave.h).
 * The local APIC is not part of the canonical state yet; it stays in the kernel.
 *
 * Threads: the vCPU's own, outside vcpu_run.
 */
#include "accel/kvm/kvm.h"
#include "x86/xsave.h"
#include <errno.h>
#include <string.h>

#define XSAVE_KVM_BYTES 4096 /* struct kvm_xsave without its flexible part */

static void get_seg(struct x86_seg *s, const struct kvm_segment *k)
{
    *s = (struct x86_seg){.base = k->base, .limit = k->limit, .sel = k->selector};
    s->attr = (u32)(k->type | k->s << 4 | k->dpl << 5 | k->present << 7 | k->avl << 12 |
                    k->l << 13 | k->db << 14 | k->g << 15);
    if (k->unusable)
        s->attr |= SEG_ATTR_UNUSABLE;
}

static void set_seg(struct kvm_segment *k, const struct x86_seg *s)
{
    *k = (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->sel,
        .type = s->attr & SEG_ATTR_TYPE,
        .s = s->attr >> 4 & 1,
        .dpl = s->attr >> 5 & 3,
        .present = s->attr >> 7 & 1,
        .avl = s->attr >> 12 & 1,
        .l = s->attr >> 13 & 1,
        .db = s->attr >> 14 & 1,
        .g = s->attr >> 15 & 1,
        .unusable = s->attr >> 16 & 1,
    };
}

/* The order of struct kvm_regs is KVM's own. */
#define FOR_EACH_GPR(x)                                                                 \
    x(RAX, rax) x(RBX, rbx) x(RCX, rcx) x(RDX, rdx) x(RSI, rsi) x(RDI, rdi) x(RSP, rsp) \
        x(RBP, rbp) x(R8, r8) x(R9, r9) x(R10, r10) x(R11, r11) x(R12, r12) x(R13, r13) \
            x(R14, r14) x(R15, r15)

static int get_regs(struct vcpu *v, struct x86_cpu *c)
{
    struct kvm_regs r;
    int rc = kvm_ioctl(v->fd, KVM_GET_REGS, &r);

#define GET(index, name) c->gpr[index] = r.name;
    FOR_EACH_GPR(GET)
    c->rip = r.rip;
    c->rflags = r.rflags;
    return rc;
}

static int set_regs(struct vcpu *v, const struct x86_cpu *c)
{
    struct kvm_regs r = {.rip = c->rip, .rflags = c->rflags};

#define SET(index, name) r.name = c->gpr[index];
    FOR_EACH_GPR(SET)
    return kvm_ioctl(v->fd, KVM_SET_REGS, &r);
}

static int get_sregs(struct vcpu *v, struct x86_cpu *c)
{
    struct kvm_sregs s;
    int rc = kvm_ioctl(v->fd, KVM_GET_SREGS, &s);

    if (rc < 0)
        return rc;
    get_seg(&c->seg[SEG_ES], &s.es);
    get_seg(&c->seg[SEG_CS], &s.cs);
    get_seg(&c->seg[SEG_SS], &s.ss);
    get_seg(&c->seg[SEG_DS], &s.ds);
    get_seg(&c->seg[SEG_FS], &s.fs);
    get_seg(&c->seg[SEG_GS], &s.gs);
    get_seg(&c->ldt, &s.ldt);
    get_seg(&c->tr, &s.tr);
    c->gdt = (struct x86_dtable){.base = s.gdt.base, .limit = s.gdt.limit};
    c->idt = (struct x86_dtable){.base = s.idt.base, .limit = s.idt.limit};
    c->cr0 = s.cr0;
    c->cr2 = s.cr2;
    c->cr3 = s.cr3;
    c->cr4 = s.cr4;
    c->cr8 = s.cr8;
    c->msr.efer = s.efer;
    c->msr.apic_base = s.apic_base;
    return 0;
}

static int set_sregs(struct vcpu *v, const struct x86_cpu *c)
{
    struct kvm_sregs s = {
        .gdt = {.base = c->gdt.base, .limit = c->gdt.limit},
        .idt = {.base = c->idt.base, .limit = c->idt.limit},
        .cr0 = c->cr0,
        .cr2 = c->cr2,
        .cr3 = c->cr3,
        .cr4 = c->cr4,
        .cr8 = c->cr8,
        .efer = c->msr.efer,
        .apic_base = c->msr.apic_base,
    };

    set_seg(&s.es, &c->seg[SEG_ES]);
    set_seg(&s.cs, &c->seg[SEG_CS]);
    set_seg(&s.ss, &c->seg[SEG_SS]);
    set_seg(&s.ds, &c->seg[SEG_DS]);
    set_seg(&s.fs, &c->seg[SEG_FS]);
    set_seg(&s.gs, &c->seg[SEG_GS]);
    set_seg(&s.ldt, &c->ldt);
    set_seg(&s.tr, &c->tr);
    return kvm_ioctl(v->fd, KVM_SET_SREGS, &s);
}

static int get_vector(struct vcpu *v, struct x86_cpu *c)
{
    struct kvm_xsave xsave;
    struct kvm_xcrs xcrs;
    int rc = kvm_ioctl(v->fd, KVM_GET_XSAVE, &xsave);

    if (rc < 0)
        return rc;
    xsave_from_host(c->xsave, (const u8 *)&xsave, XSAVE_KVM_BYTES);
    rc = kvm_ioctl(v->fd, KVM_GET_XCRS, &xcrs);
    if (rc < 0)
        return rc;
    for (u32 i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++)
        if (xcrs.xcrs[i].xcr == 0)
            c->xcr0 = xcrs.xcrs[i].value;
    return 0;
}

static int set_vector(struct vcpu *v, const struct x86_cpu *c)
{
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = c->xcr0}}};
    struct kvm_xsave xsave;
    int rc = kvm_ioctl(v->fd, KVM_SET_XCRS, &xcrs);

    if (rc < 0)
        return rc;
    xsave_to_host(c->xsave, (u8 *)&xsave, XSAVE_KVM_BYTES);
    return kvm_ioctl(v->fd, KVM_SET_XSAVE, &xsave);
}

static int get_events(struct vcpu *v, struct x86_cpu *c)
{
    struct kvm_vcpu_events e;
    int rc = kvm_ioctl(v->fd, KVM_GET_VCPU_EVENTS, &e);

    if (rc < 0)
        return rc;
    c->sti_shadow = !!(e.interrupt.shadow & KVM_X86_SHADOW_INT_STI);
    c->mov_ss_shadow = !!(e.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS);
    c->nmi_masked = e.nmi.masked;
    c->nmi_pending = e.nmi.pending;
    c->event_valid = e.exception.injected || e.interrupt.injected || e.nmi.injected;
    c->event_vector = VEC_NMI;
    c->event_is_soft = c->event_has_error = 0;
    c->event_error = 0;
    if (e.exception.injected) {
        c->event_vector = e.exception.nr;
        c->event_has_error = e.exception.has_error_code;
        c->event_error = e.exception.error_code;
    } else if (e.interrupt.injected) {
        c->event_vector = e.interrupt.nr;
        c->event_is_soft = e.interrupt.soft;
    }
    return 0;
}

static int set_events(struct vcpu *v, const struct x86_cpu *c)
{
    struct kvm_vcpu_events e = {
        .flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
        .nmi = {.masked = c->nmi_masked, .pending = c->nmi_pending},
    };

    e.interrupt.shadow = (u8)((c->sti_shadow ? KVM_X86_SHADOW_INT_STI : 0) |
                              (c->mov_ss_shadow ? KVM_X86_SHADOW_INT_MOV_SS : 0));
    if (c->event_valid && c->event_vector == VEC_NMI && !c->event_is_soft) {
        e.nmi.injected = 1;
    } else if (c->event_valid && c->event_vector < 32 && !c->event_is_soft) {
        e.exception.injected = 1;
        e.exception.nr = c->event_vector;
        e.exception.has_error_code = c->event_has_error;
        e.exception.error_code = c->event_error;
    } else if (c->event_valid) {
        e.interrupt.injected = 1;
        e.interrupt.nr = c->event_vector;
        e.interrupt.soft = c->event_is_soft;
    }
    return kvm_ioctl(v->fd, KVM_SET_VCPU_EVENTS, &e);
}

static int get_debug(struct vcpu *v, struct x86_cpu *c)
{
    struct kvm_debugregs d;
    int rc = kvm_ioctl(v->fd, KVM_GET_DEBUGREGS, &d);

    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < 4; i++)
        c->dr[i] = d.db[i];
    c->dr6 = d.dr6;
    c->dr7 = d.dr7;
    return 0;
}

static int set_debug(struct vcpu *v, const struct x86_cpu *c)
{
    struct kvm_debugregs d = {.dr6 = c->dr6, .dr7 = c->dr7};

    for (unsigned i = 0; i < 4; i++)
        d.db[i] = c->dr[i];
    return kvm_ioctl(v->fd, KVM_SET_DEBUGREGS, &d);
}

static int get_activity(struct vcpu *v, struct x86_cpu *c)
{
    struct kvm_mp_state mp;
    int rc = kvm_ioctl(v->fd, KVM_GET_MP_STATE, &mp);

    if (rc < 0)
        return rc;
    c->activity = X86_RUNNING;
    if (mp.mp_state == KVM_MP_STATE_HALTED)
        c->activity = X86_HALTED;
    if (mp.mp_state == KVM_MP_STATE_UNINITIALIZED || mp.mp_state == KVM_MP_STATE_INIT_RECEIVED)
        c->activity = X86_WAIT_SIPI;
    return 0;
}

static int set_activity(struct vcpu *v, const struct x86_cpu *c)
{
    static const u32 mp_states[] = {
        [X86_RUNNING] = KVM_MP_STATE_RUNNABLE,
        [X86_HALTED] = KVM_MP_STATE_HALTED,
        [X86_WAIT_SIPI] = KVM_MP_STATE_UNINITIALIZED,
    };
    struct kvm_mp_state mp;

    if (c->activity >= ARRAY_LEN(mp_states))
        return -EINVAL;
    mp.mp_state = mp_states[c->activity];
    return kvm_ioctl(v->fd, KVM_SET_MP_STATE, &mp);
}

/* In the order in which they are set: control registers first, since much else is checked against them. */
static const struct {
    const char *name;
    int (*get)(struct vcpu *v, struct x86_cpu *c);
    int (*set)(struct vcpu *v, const struct x86_cpu *c);
} parts[] = {
    {"system registers", get_sregs, set_sregs},   {"registers", get_regs, set_regs},
    {"vector registers", get_vector, set_vector}, {"debug registers", get_debug, set_debug},
    {"activity", get_activity, set_activity},     {"events", get_events, set_events},
};

int kvm_vcpu_get(struct vcpu *v, struct x86_cpu *ret_state, struct err *err)
{
    struct x86_cpu c;
    int rc;

    memset(&c, 0, sizeof(c));
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        rc = parts[i].get(v, &c);
        if (rc < 0)
            return err_sys(err, -rc, "kvm: cpu%u: reading its %s", v->index, parts[i].name);
    }
    rc = kvm_get_msrs(v, &c, err);
    if (!rc)
        *ret_state = c;
    return rc;
}

int kvm_vcpu_set(struct vcpu *v, const struct x86_cpu *state, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        int rc = parts[i].set(v, state);

        if (rc < 0)
            return err_sys(err, -rc, "kvm: cpu%u: setting its %s", v->index, parts[i].name);
    }
    int rc = kvm_set_msrs(v, state, err);
    if (!rc)
        kvm_clock_paused(v);
    return rc;
}
