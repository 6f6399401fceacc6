/*
 * Model-specific registers: which of KVM's belong to which field of the canonical state, and the TSC.
 *
 * KVM stops at the first register it does not know; such a one is skipped (a host without SPEC_CTRL has guests without
 * it). A value that KVM refuses in a register that it knows is an error.
 *
 * Threads: the vCPU's own, outside vcpu_run.
 */
#include "accel/kvm/kvm.h"
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <x86intrin.h>

#include "x86/pvclock.h"

#define MSR_TSC 0x10

struct msr_field {
    u32 msr;
    u32 offset; /* in struct x86_msrs */
};

#define FIELD(msr, name)                     \
    {                                        \
        msr, offsetof(struct x86_msrs, name) \
    }
#define MTRR(n) FIELD(0x200 + 2 * (n), mtrr_base[n]), FIELD(0x201 + 2 * (n), mtrr_mask[n])

static const struct msr_field fields[] = {
    FIELD(0xc0000081, star),
    FIELD(0xc0000082, lstar),
    FIELD(0xc0000083, cstar),
    FIELD(0xc0000084, sfmask),
    FIELD(0xc0000102, kernel_gs_base),
    FIELD(0x174, sysenter_cs),
    FIELD(0x175, sysenter_esp),
    FIELD(0x176, sysenter_eip),
    FIELD(0x277, pat),
    FIELD(0x1a0, misc_enable),
    FIELD(0xc0000103, tsc_aux),
    FIELD(0x3b, tsc_adjust), /* a note only: the TSC's offset has it already */
    FIELD(0x48, spec_ctrl),
    FIELD(0x3a, feature_control),
    FIELD(0x2ff, mtrr_def_type),
    FIELD(0x250, mtrr_fixed[0]),
    FIELD(0x258, mtrr_fixed[1]),
    FIELD(0x259, mtrr_fixed[2]),
    FIELD(0x268, mtrr_fixed[3]),
    FIELD(0x269, mtrr_fixed[4]),
    FIELD(0x26a, mtrr_fixed[5]),
    FIELD(0x26b, mtrr_fixed[6]),
    FIELD(0x26c, mtrr_fixed[7]),
    FIELD(0x26d, mtrr_fixed[8]),
    FIELD(0x26e, mtrr_fixed[9]),
    FIELD(0x26f, mtrr_fixed[10]),
    MTRR(0),
    MTRR(1),
    MTRR(2),
    MTRR(3),
    MTRR(4),
    MTRR(5),
    MTRR(6),
    MTRR(7),
    FIELD(0x17a, mcg_status),
    FIELD(0x17b, mcg_ctl),
    FIELD(0x4b564d01, kvm_system_time),
    FIELD(0x4b564d00, kvm_wall_clock),
    FIELD(0x4b564d02, kvm_async_pf),
    FIELD(0x4b564d03, kvm_steal_time),
    FIELD(0x4b564d04, kvm_pv_eoi),
    FIELD(0x4b564d05, kvm_poll_control),
};

/* One entry more than the fields, so that the TSC fits as well. */
struct msr_list {
    struct kvm_msrs head;
    struct kvm_msr_entry entry[ARRAY_LEN(fields) + 1];
};

static int transfer(struct vcpu *v, unsigned long request, struct kvm_msr_entry *entry, u32 count)
{
    struct msr_list list = {.head = {.nmsrs = count}};
    int rc;

    for (u32 i = 0; i < count; i++)
        list.entry[i] = entry[i];
    rc = kvm_ioctl(v->fd, request, &list);
    for (int i = 0; i < rc; i++)
        entry[i] = list.entry[i];
    return rc;
}

/* KVM's own offset between the host's TSC and the guest's; -ENOTSUP on kernels before 5.16. */
static int tsc_attr(struct vcpu *v, unsigned long request, s64 *offset)
{
    struct kvm_device_attr attr = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (u64)(uintptr_t)offset};

    return kvm_ioctl(v->fd, request, &attr) < 0 ? -ENOTSUP : 0;
}

static int get_tsc(struct vcpu *v, struct x86_cpu *c, struct err *err)
{
    struct kvm_msr_entry tsc = {.index = MSR_TSC};

    if (!tsc_attr(v, KVM_GET_DEVICE_ATTR, &c->tsc_offset))
        return 0;
    if (transfer(v, KVM_GET_MSRS, &tsc, 1) != 1)
        return err_set(err, EIO, "kvm: cpu%u: reading its time stamp counter", v->index);
    c->tsc_offset = (s64)(tsc.data - __rdtsc());
    return 0;
}

static int set_tsc(struct vcpu *v, const struct x86_cpu *c, struct err *err)
{
    struct kvm_msr_entry tsc = {.index = MSR_TSC};
    s64 offset = c->tsc_offset;

    if (!tsc_attr(v, KVM_SET_DEVICE_ATTR, &offset))
        return 0;
    tsc.data = __rdtsc() + (u64)offset;
    if (transfer(v, KVM_SET_MSRS, &tsc, 1) != 1)
        return err_set(err, EIO, "kvm: cpu%u: setting its time stamp counter", v->index);
    return 0;
}

/*
 * kvmclock is the machine's, not a processor's. KVM counts from when the machine was made; the canonical clock counts from
 * guest TSC 0, less what the guest added to it (as accel/bt/kvmclock.c says). Set before any processor's page is enabled.
 */
static int set_clock(struct vcpu *v, const struct x86_cpu *c, struct err *err)
{
    u64 tsc = __rdtsc() + (u64)c->tsc_offset - c->msr.tsc_adjust;
    struct kvm_clock_data clock = {.clock = pvclock_ns(v->accel->m->model->tsc_khz, tsc)};
    int rc = v->index ? 0 : kvm_ioctl(v->accel->vm_fd, KVM_SET_CLOCK, &clock);

    return rc < 0 ? err_sys(err, -rc, "kvm: setting the clock") : 0;
}

/* A guest that stood still is told so, lest its watchdogs bark. Fails where the guest has no such clock. */
void kvm_clock_paused(struct vcpu *v)
{
    kvm_ioctl(v->fd, KVM_KVMCLOCK_CTRL, NULL);
}

int kvm_get_msrs(struct vcpu *v, struct x86_cpu *c, struct err *err)
{
    struct kvm_msr_entry entry[ARRAY_LEN(fields)] = {0};
    u32 count = ARRAY_LEN(fields), done = 0;

    for (u32 i = 0; i < count; i++)
        entry[i].index = fields[i].msr;
    while (done < count) {
        int rc = transfer(v, KVM_GET_MSRS, entry + done, count - done);

        if (rc < 0)
            return err_sys(err, -rc, "kvm: cpu%u: reading its model-specific registers", v->index);
        done += (u32)rc + 1; /* the one it stopped at stays zero */
    }
    for (u32 i = 0; i < count; i++)
        *(u64 *)((char *)&c->msr + fields[i].offset) = entry[i].data;
    return get_tsc(v, c, err);
}

static bool knows(struct vcpu *v, u32 msr)
{
    struct kvm_msr_entry entry = {.index = msr};

    return transfer(v, KVM_GET_MSRS, &entry, 1) == 1;
}

int kvm_set_msrs(struct vcpu *v, const struct x86_cpu *c, struct err *err)
{
    struct kvm_msr_entry entry[ARRAY_LEN(fields)] = {0};
    u32 count = ARRAY_LEN(fields), done = 0;
    int rc = set_tsc(v, c, err);

    if (!rc)
        rc = set_clock(v, c, err);
    if (rc)
        return rc;
    for (u32 i = 0; i < count; i++) {
        entry[i].index = fields[i].msr;
        entry[i].data = *(const u64 *)((const char *)&c->msr + fields[i].offset);
    }
    while (done < count) {
        rc = transfer(v, KVM_SET_MSRS, entry + done, count - done);
        if (rc < 0)
            return err_sys(err, -rc, "kvm: cpu%u: setting its model-specific registers", v->index);
        done += (u32)rc;
        if (done < count && entry[done].data && knows(v, entry[done].index))
            return err_set(err, EINVAL,
                           "kvm: cpu%u: KVM refuses 0x%llx in model-specific register 0x%x",
                           v->index, entry[done].data, entry[done].index);
        done++;
    }
    return 0;
}
