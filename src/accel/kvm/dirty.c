/*
 * The dirty log under KVM (Documentation/virt/kvm/api.rst, KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG), and what else the
 * machine's memory asks of the accelerator.
 *
 * A collect reads each slot's bitmap, then write-protects those pages again; where the kernel can do it in two steps, only
 * the pages that were written are touched. KVM returns when no vCPU has an old translation any more: what is written from
 * then on is in the next bitmap. vCPUs go on running.
 */
#include "mem/dirty.h"
#include "accel/kvm/kvm.h"
#include <errno.h>
#include <stdlib.h>

static int slot_collect(struct accel *a, unsigned index, u64 *bits, struct err *err)
{
    const struct gmem *ram = a->m->ram;
    const struct gmem_slot *s = &ram->slot[index];
    u64 pages = s->len >> 12, first = s->offset >> 12;
    struct kvm_dirty_log log = {.slot = index, .dirty_bitmap = bits};
    struct kvm_clear_dirty_log clear = {
        .slot = index, .num_pages = (u32)pages, .first_page = 0, .dirty_bitmap = bits};
    int rc = kvm_ioctl(a->vm_fd, KVM_GET_DIRTY_LOG, &log);

    if (!rc && a->manual_protect)
        rc = kvm_ioctl(a->vm_fd, KVM_CLEAR_DIRTY_LOG, &clear);
    if (rc < 0)
        return err_sys(err, -rc, "kvm: log of dirty pages");
    for (u64 i = 0; i < pages / 64; i++)
        if (bits[i])
            __atomic_fetch_or(&ram->dirty[first / 64 + i], bits[i], __ATOMIC_SEQ_CST);
    return 0;
}

/* RAM slots are multiples of 2 MiB, in the file and in length; ROMs come behind them. */
static int collect(struct accel *a, struct err *err)
{
    const struct gmem *ram = a->m->ram;
    auto_free u64 *bits = calloc(ram->size >> 18, sizeof(u64));
    int rc = bits ? 0 : err_set(err, ENOMEM, "kvm: no memory for a log of dirty pages");

    for (unsigned i = 0; i < ram->nslots && !rc; i++)
        if (!ram->slot[i].readonly)
            rc = slot_collect(a, i, bits, err);
    return rc;
}

static int switch_log(struct accel *a, u32 flags, struct err *err)
{
    u32 before = a->slot_flags;
    int rc;

    a->slot_flags = flags;
    rc = kvm_set_slots(a, err);
    if (rc)
        a->slot_flags = before;
    return rc;
}

int kvm_dirty_sync(void *opaque, bool on, struct err *err)
{
    struct accel *a = opaque;
    int rc = 0;

    if (!on)
        rc = switch_log(a, 0, err);
    else if (!(a->slot_flags & KVM_MEM_LOG_DIRTY_PAGES))
        rc = switch_log(a, KVM_MEM_LOG_DIRTY_PAGES, err);
    else
        rc = collect(a, err);
    if (!rc)
        dirty_flip(a->m->ram);
    return rc;
}

const struct gmem_accel kvm_gmem_accel = {
    .dirty_sync = kvm_dirty_sync,
    .lazy_begin = kvm_absent_begin,
    .lazy_end = kvm_absent_end,
    .place = kvm_absent_place,
};
