/*
 * Interrupts and exceptions on their way into the guest. Light, vCPU thread.
 */
#include "accel/bt/light.h"

static bool interruptible(const struct cpu *c)
{
    return (c->rflags & FL_IF) && !c->shadow;
}

void look_for_interrupts(struct cpu *c)
{
    if (c->vcpu->intr_waiting && (c->rflags & FL_IF)) {
        c->vcpu->intr_waiting = false;
        __atomic_fetch_or(&c->events, VCPU_EV_INTR, __ATOMIC_RELAXED);
    }
    if (c->nmi_pending && !c->nmi_masked) {
        c->nmi_pending = 0;
        __atomic_fetch_or(&c->events, VCPU_EV_NMI, __ATOMIC_RELAXED);
    }
}

static u64 heavy_acknowledge(u64 m, u64 index, u64 unused)
{
    struct accel_machine *machine = (struct accel_machine *)m;

    (void)unused;
    if (!machine->intc.pending(machine->intc.opaque, index))
        return (u64)-1;
    return (u64)(s64)machine->intc.acknowledge(machine->intc.opaque, index);
}

void deliver(struct cpu *c, u8 vector, bool has_error, u32 error, enum deliver_kind kind)
{
    struct vcpu *v = c->vcpu;

    v->held.vector = vector;
    v->held.has_error = has_error;
    v->held.error = error;
    v->held.kind = kind;
    v->held.valid = true;
    deliver_event(c, vector, has_error, error, kind);
    v->held.valid = false;
}

void take_interrupt(struct cpu *c)
{
    if (!interruptible(c)) {
        c->vcpu->intr_waiting = true;
        return;
    }
    s64 vector = (s64)heavy_call(c, heavy_acknowledge, (u64)c->m, c->index, 0);
    if (vector < 0)
        return;
    c->activity = X86_RUNNING;
    /* More may be waiting: look again when the handler lets us. */
    c->vcpu->intr_waiting = true;
    c->delivering = (u8)vector + 1;
    deliver(c, (u8)vector, false, 0, DELIVER_EXTERNAL);
    c->delivering = 0;
}

void take_nmi(struct cpu *c)
{
    if (c->nmi_masked) {
        c->nmi_pending = 1;
        return;
    }
    c->nmi_masked = 1;
    c->activity = X86_RUNNING;
    c->delivering = VEC_NMI + 1;
    deliver(c, VEC_NMI, false, 0, DELIVER_NMI);
    c->delivering = 0;
}

/* Every raise*() ends here, with the helper's stack gone. A raise from within deliver_event() comes again. */
struct stub_ret light_exception(struct cpu *c)
{
    int vector = c->exc_vector;

    c->pinned = false;
    if (c->vcpu->cache_full || c->vcpu->want_page) {
        /* No exception: the run loop makes room or fetches the page, then goes on at c->rip. */
        c->mode &= ~(u32)(MODE_CAREFUL | MODE_NOWINDOW);
        c->delivering = 0;
        if (c->vcpu->want_page && !c->vcpu->held.valid && c->rip == c->vcpu->shadow_rip)
            c->shadow = c->vcpu->shadow;
        return exit_with(c, EXIT_REDECODE);
    }
    c->vcpu->held.valid = false;
    if (c->delivering) {
        vector = deliver_merge(c->delivering - 1, vector);
        if (vector < 0) {
            c->delivering = 0;
            return exit_with(c, EXIT_SHUTDOWN);
        }
        if (vector == VEC_DF) {
            c->exc_has_error = 1;
            c->exc_error = 0;
        }
    }
    c->delivering = vector + 1;
    c->rflags |= FL_RF;
    deliver(c, (u8)vector, c->exc_has_error, c->exc_error, DELIVER_FAULT);
    c->delivering = 0;
    return resume(c);
}

void trap_after(struct cpu *c, bool stepped)
{
    u64 hits = c->dr_hits;

    c->dr_hits = 0;
    if (c->shadow == 2) /* mov ss: together with the next instruction's */
        return;
    if (!stepped && !hits)
        return;
    c->dr6 |= (stepped ? DR6_BS : 0) | hits;
    c->delivering = VEC_DB + 1;
    deliver(c, VEC_DB, false, 0, DELIVER_FAULT);
    c->delivering = 0;
}
