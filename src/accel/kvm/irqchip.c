/*
 * KVM's interrupt controllers and timer, as registers (x86/irqchip.h). Documentation/virt/kvm/api.rst: KVM_GET_IRQCHIP,
 * KVM_GET_PIT2, KVM_GET_LAPIC.
 *
 * The TSC deadline is set last: it compares with the TSC, and the timer's mode is in the local APIC.
 * Threads: any, with all vCPUs stopped.
 */
#include "x86/irqchip.h"
#include "accel/kvm/kvm.h"
#include <errno.h>
#include <string.h>

#define MSR_TSC_DEADLINE 0x6e0
/* How KVM's 8254 counts what is left of a latched count, or comes next (its RW_STATE_*). */
enum { RW_LOW = 1, RW_HIGH, RW_WORD_LOW, RW_WORD_HIGH };

static void get_pic(struct x86_pic *p, const struct kvm_pic_state *k)
{
    *p = (struct x86_pic){.irr = k->irr,
                          .imr = k->imr,
                          .isr = k->isr,
                          .base = k->irq_base,
                          .elcr = k->elcr,
                          .lines = k->last_irr,
                          .top = k->priority_add,
                          .init = k->init_state ? (u8)(k->init_state + 1) : 0,
                          .four = k->init4,
                          .read_isr = k->read_reg_select,
                          .poll = k->poll,
                          .special_mask = k->special_mask,
                          .auto_eoi = k->auto_eoi,
                          .rotate_auto_eoi = k->rotate_on_auto_eoi,
                          .fully_nested = k->special_fully_nested_mode};
}

/* elcr_mask says which inputs can be level-triggered: all but 0, 1, 2, 8 and 13. */
static void set_pic(struct kvm_pic_state *k, const struct x86_pic *p, u8 elcr_mask)
{
    *k = (struct kvm_pic_state){.irr = p->irr,
                                .imr = p->imr,
                                .isr = p->isr,
                                .irq_base = p->base,
                                .elcr = p->elcr & elcr_mask,
                                .elcr_mask = elcr_mask,
                                .last_irr = p->lines,
                                .priority_add = p->top,
                                .init_state = p->init ? (u8)(p->init - 1) : 0,
                                .init4 = p->four,
                                .read_reg_select = p->read_isr,
                                .poll = p->poll,
                                .special_mask = p->special_mask,
                                .auto_eoi = p->auto_eoi,
                                .rotate_on_auto_eoi = p->rotate_auto_eoi,
                                .special_fully_nested_mode = p->fully_nested};
}

#define NO_MODE 0xff /* KVM's, of a channel that no guest has programmed */

static void get_channel(struct x86_pit_channel *c, const struct kvm_pit_channel_state *k)
{
    if (k->mode == NO_MODE) { /* as ours at power-on */
        *c = (struct x86_pit_channel){.mode = 3, .access = RW_WORD_LOW, .gate = k->gate};
        return;
    }
    *c = (struct x86_pit_channel){.start_ns = k->count_load_time,
                                  .count = k->count,
                                  .latch = k->latched_count,
                                  .latched =
                                      k->count_latched == RW_WORD_LOW ? 2 : !!k->count_latched,
                                  .status = k->status,
                                  .status_latched = k->status_latched,
                                  .mode = k->mode,
                                  .bcd = k->bcd,
                                  .access = k->rw_mode,
                                  .write_low = k->write_latch,
                                  .write_high_next = k->write_state == RW_WORD_HIGH,
                                  .read_high_next = k->read_state == RW_WORD_HIGH,
                                  .gate = k->gate};
}

static u8 rw_state(u8 access, bool high_next)
{
    return access == RW_WORD_LOW && high_next ? RW_WORD_HIGH : access;
}

static u8 latched_state(const struct x86_pit_channel *c)
{
    if (!c->latched)
        return 0;
    return c->access != RW_WORD_LOW ? c->access : c->latched == 2 ? RW_WORD_LOW : RW_WORD_HIGH;
}

static void set_channel(struct kvm_pit_channel_state *k, const struct x86_pit_channel *c)
{
    *k = (struct kvm_pit_channel_state){.count_load_time = c->start_ns,
                                        .count = c->count,
                                        .latched_count = c->latch,
                                        .count_latched = latched_state(c),
                                        .status = c->status,
                                        .status_latched = c->status_latched,
                                        .mode = c->mode,
                                        .bcd = c->bcd,
                                        .rw_mode = c->access,
                                        .write_latch = c->write_low,
                                        .write_state = rw_state(c->access, c->write_high_next),
                                        .read_state = rw_state(c->access, c->read_high_next),
                                        .gate = c->gate};
}

static int get_chip(struct accel *a, u32 id, struct kvm_irqchip *k)
{
    *k = (struct kvm_irqchip){.chip_id = id};
    return kvm_ioctl(a->vm_fd, KVM_GET_IRQCHIP, k);
}

static int get_chips(struct accel *a, struct x86_irqchip *s)
{
    struct kvm_irqchip k;
    struct kvm_pit_state2 pit;
    int rc = 0;

    for (u32 i = 0; i < 2 && rc >= 0; i++) {
        rc = get_chip(a, KVM_IRQCHIP_PIC_MASTER + i, &k);
        get_pic(&s->pic[i], &k.chip.pic);
    }
    if (rc >= 0)
        rc = get_chip(a, KVM_IRQCHIP_IOAPIC, &k);
    for (unsigned i = 0; i < X86_IOAPIC_PINS; i++)
        s->ioapic_entry[i] = k.chip.ioapic.redirtbl[i].bits;
    s->ioapic_id = k.chip.ioapic.id;
    s->ioapic_select = k.chip.ioapic.ioregsel;
    s->ioapic_irr = k.chip.ioapic.irr;
    memset(&pit, 0, sizeof(pit));
    if (rc >= 0)
        rc = kvm_ioctl(a->vm_fd, KVM_GET_PIT2, &pit);
    for (unsigned i = 0; i < 3; i++)
        get_channel(&s->pit[i], &pit.channels[i]);
    s->speaker = !!(pit.flags & KVM_PIT_FLAGS_SPEAKER_DATA_ON);
    s->pit_disabled = !!(pit.flags & KVM_PIT_FLAGS_HPET_LEGACY);
    return rc;
}

static int set_chips(struct accel *a, const struct x86_irqchip *s)
{
    static const u8 elcr_mask[2] = {0xf8, 0xde};
    struct kvm_irqchip k;
    struct kvm_pit_state2 pit;
    int rc = 0;

    for (u32 i = 0; i < 2 && rc >= 0; i++) {
        k = (struct kvm_irqchip){.chip_id = KVM_IRQCHIP_PIC_MASTER + i};
        set_pic(&k.chip.pic, &s->pic[i], elcr_mask[i]);
        rc = kvm_ioctl(a->vm_fd, KVM_SET_IRQCHIP, &k);
    }
    if (rc >= 0)
        rc = get_chip(a, KVM_IRQCHIP_IOAPIC, &k); /* its address stays */
    for (unsigned i = 0; i < X86_IOAPIC_PINS; i++)
        k.chip.ioapic.redirtbl[i].bits = s->ioapic_entry[i];
    k.chip.ioapic.id = s->ioapic_id;
    k.chip.ioapic.ioregsel = s->ioapic_select;
    k.chip.ioapic.irr = s->ioapic_irr;
    if (rc >= 0)
        rc = kvm_ioctl(a->vm_fd, KVM_SET_IRQCHIP, &k);
    memset(&pit, 0, sizeof(pit));
    for (unsigned i = 0; i < 3; i++)
        set_channel(&pit.channels[i], &s->pit[i]);
    pit.flags = (s->speaker ? KVM_PIT_FLAGS_SPEAKER_DATA_ON : 0) |
                (s->pit_disabled ? KVM_PIT_FLAGS_HPET_LEGACY : 0);
    return rc < 0 ? rc : kvm_ioctl(a->vm_fd, KVM_SET_PIT2, &pit);
}

struct one_msr {
    struct kvm_msrs head;
    struct kvm_msr_entry entry;
};

static int get_lapic(struct vcpu *v, struct x86_lapic *l)
{
    struct one_msr deadline = {.head = {.nmsrs = 1}, .entry = {.index = MSR_TSC_DEADLINE}};
    struct kvm_lapic_state k;
    struct kvm_sregs sregs;
    int rc = kvm_ioctl(v->fd, KVM_GET_LAPIC, &k);

    if (rc >= 0)
        rc = kvm_ioctl(v->fd, KVM_GET_SREGS, &sregs);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < X86_LAPIC_REGS; i++)
        memcpy(&l->reg[i], k.regs + 16 * i, sizeof(l->reg[i]));
    l->apic_base = sregs.apic_base;
    rc = kvm_ioctl(v->fd, KVM_GET_MSRS, &deadline);
    l->tsc_deadline = rc == 1 ? deadline.entry.data : 0;
    return MIN(rc, 0);
}

/* APIC base and TSC have been set with the processor's state. */
static int set_lapic(struct vcpu *v, const struct x86_lapic *l)
{
    struct one_msr deadline = {.head = {.nmsrs = 1},
                               .entry = {.index = MSR_TSC_DEADLINE, .data = l->tsc_deadline}};
    struct kvm_lapic_state k;
    int rc;

    memset(&k, 0, sizeof(k));
    for (unsigned i = 0; i < X86_LAPIC_REGS; i++)
        memcpy(k.regs + 16 * i, &l->reg[i], sizeof(l->reg[i]));
    rc = kvm_ioctl(v->fd, KVM_SET_LAPIC, &k);
    if (rc >= 0 && l->tsc_deadline)
        rc = kvm_ioctl(v->fd, KVM_SET_MSRS, &deadline);
    return MIN(rc, 0);
}

int kvm_irqchip_get(struct accel *a, struct x86_irqchip *ret_state, struct err *err)
{
    int rc;

    memset(ret_state, 0, sizeof(*ret_state));
    rc = get_chips(a, ret_state);
    for (unsigned i = 0; i < a->m->cpus && i < X86_IRQCHIP_CPUS && rc >= 0; i++)
        if (a->vcpu[i])
            rc = get_lapic(a->vcpu[i], &ret_state->lapic[i]);
    return rc < 0 ? err_sys(err, -rc, "kvm: reading its interrupt controllers") : 0;
}

int kvm_irqchip_set(struct accel *a, const struct x86_irqchip *state, struct err *err)
{
    int rc = set_chips(a, state);

    for (unsigned i = 0; i < a->m->cpus && i < X86_IRQCHIP_CPUS && rc >= 0; i++)
        if (a->vcpu[i])
            rc = set_lapic(a->vcpu[i], &state->lapic[i]);
    return rc < 0 ? err_sys(err, -rc, "kvm: setting its interrupt controllers") : 0;
}
