/*
 * CPUID under KVM: the model's leaves, less what this KVM cannot do, plus KVM's own paravirtual leaves (Linux,
 * Documentation/virt/kvm/x86/cpuid.rst). KVM itself fills in what depends on the guest's state (OSXSAVE, leaf 0xD).
 *
 * The guest gets a paravirtual clock and is told the frequency of its TSC, so that no guest ever calibrates.
 */
#include "accel/kvm/kvm.h"
#include <errno.h>
#include <linux/kvm_para.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES 256
#define LEAF_KVM 0x40000000u
#define LEAF_KVM_FEATURES 0x40000001u
#define MSR_ARCH_CAPABILITIES 0x10a
#define LEAF_TIMING 0x40000010u

#define LEAF1_ECX_X2APIC BIT(21)
#define LEAF1_ECX_TSC_DEADLINE BIT(24)
#define LEAF1_ECX_OSXSAVE BIT(27)
#define LEAF1_ECX_HYPERVISOR BIT(31)

/* Only features whose whole state is in the canonical one. */
#define KVM_FEATURES                                                                      \
    (BIT(KVM_FEATURE_CLOCKSOURCE) | BIT(KVM_FEATURE_CLOCKSOURCE2) |                       \
     BIT(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT) | BIT(KVM_FEATURE_NOP_IO_DELAY) |            \
     BIT(KVM_FEATURE_STEAL_TIME) | BIT(KVM_FEATURE_PV_EOI) | BIT(KVM_FEATURE_PV_UNHALT) | \
     BIT(KVM_FEATURE_PV_TLB_FLUSH) | BIT(KVM_FEATURE_PV_SEND_IPI))

struct cpuid_list {
    struct kvm_cpuid2 head;
    struct kvm_cpuid_entry2 entry[ENTRIES];
};

/* Registers that are bitmaps of features: there the model and KVM must agree. Others are the model's. */
static const struct {
    u32 leaf, subleaf;
    bool eax, ebx, ecx, edx;
} bitmaps[] = {
    {.leaf = 1, .ecx = true, .edx = true},
    {.leaf = 7, .ebx = true, .ecx = true, .edx = true},
    {.leaf = 7, .subleaf = 1, .eax = true},
    {.leaf = 0xd, .subleaf = 1, .eax = true},
    {.leaf = 0x80000001, .ecx = true, .edx = true},
    {.leaf = 0x80000008, .ebx = true},
};

static const struct kvm_cpuid_entry2 *find(const struct cpuid_list *list, u32 leaf, u32 subleaf)
{
    for (u32 i = 0; i < list->head.nent && i < ENTRIES; i++) {
        const struct kvm_cpuid_entry2 *e = &list->entry[i];

        if (e->function == leaf &&
            (e->index == subleaf || !(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX)))
            return e;
    }
    return NULL;
}

static void mask_features(struct kvm_cpuid_entry2 *e, const struct cpuid_list *supported)
{
    for (size_t i = 0; i < ARRAY_LEN(bitmaps); i++) {
        const struct kvm_cpuid_entry2 *s = find(supported, e->function, e->index);
        u32 always = 0;

        if (bitmaps[i].leaf != e->function || bitmaps[i].subleaf != e->index)
            continue;
        if (e->function == 1) /* the in-kernel APIC has these, whatever the list says */
            always = LEAF1_ECX_X2APIC | LEAF1_ECX_TSC_DEADLINE | LEAF1_ECX_HYPERVISOR;
        if (bitmaps[i].eax)
            e->eax &= s ? s->eax : 0;
        if (bitmaps[i].ebx)
            e->ebx &= s ? s->ebx : 0;
        if (bitmaps[i].ecx)
            e->ecx &= (s ? s->ecx : 0) | always;
        if (bitmaps[i].edx)
            e->edx &= s ? s->edx : 0;
    }
}

static void add(struct cpuid_list *list, const struct kvm_cpuid_entry2 *e)
{
    if (list->head.nent < ENTRIES)
        list->entry[list->head.nent++] = *e;
}

static void add_model(struct cpuid_list *list, const struct cpu_model *model, u32 index,
                      const struct cpuid_list *supported)
{
    for (unsigned i = 0; i < model->nleaves; i++) {
        const struct cpuid_leaf *leaf = &model->leaf[i];
        struct kvm_cpuid_entry2 e = {.function = leaf->leaf,
                                     .index = leaf->has_subleaf ? leaf->subleaf : 0};
        u32 out[4];

        if (leaf->leaf >= LEAF_KVM && leaf->leaf < LEAF_KVM + 0x100)
            continue;
        if (leaf->has_subleaf)
            e.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        cpu_model_cpuid(model, index, e.function, e.index, 0, 1, out);
        e.eax = out[0];
        e.ebx = out[1];
        e.ecx = out[2];
        e.edx = out[3];
        mask_features(&e, supported);
        add(list, &e);
    }
}

static void add_paravirtual(struct cpuid_list *list, const struct cpu_model *model,
                            const struct cpuid_list *supported)
{
    const struct kvm_cpuid_entry2 *features = find(supported, LEAF_KVM_FEATURES, 0);
    struct kvm_cpuid_entry2 signature = {.function = LEAF_KVM, .eax = LEAF_TIMING};
    struct kvm_cpuid_entry2 ours = {.function = LEAF_KVM_FEATURES,
                                    .eax = features ? features->eax & KVM_FEATURES : 0};
    struct kvm_cpuid_entry2 timing = {
        .function = LEAF_TIMING, .eax = model->tsc_khz, .ebx = 1000000};

    memcpy(&signature.ebx, "KVMK", 4);
    memcpy(&signature.ecx, "VMKV", 4);
    memcpy(&signature.edx, "M\0\0\0", 4);
    add(list, &signature);
    add(list, &ours);
    add(list, &timing);
}

/* The guest's TSC runs at the model's frequency if KVM can scale it; else at the host's, which the model then has. */
static void set_tsc_khz(struct vcpu *v)
{
    if (v->accel->m->model->tsc_khz)
        kvm_ioctl(v->fd, KVM_SET_TSC_KHZ, (void *)(long)v->accel->m->model->tsc_khz);
}

/*
 * What the processor need not be protected from: only what both the model and this KVM, which knows the real
 * one, say. A KVM without the register leaves the guest without it.
 */
static void set_arch_capabilities(struct vcpu *v)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } list = {.head = {.nmsrs = 1}, .entry = {.index = MSR_ARCH_CAPABILITIES}};

    if (kvm_ioctl(v->accel->kvm_fd, KVM_GET_MSRS, &list) != 1)
        return;
    list.entry.data &= v->accel->m->model->arch_capabilities;
    kvm_ioctl(v->fd, KVM_SET_MSRS, &list);
}

int kvm_set_cpuid(struct vcpu *v, struct err *err)
{
    auto_free struct cpuid_list *list = calloc(1, sizeof(*list)), *supported = NULL;
    const struct cpu_model *model = v->accel->m->model;
    int rc;

    supported = calloc(1, sizeof(*supported));
    if (!list || !supported)
        return err_sys(err, ENOMEM, "kvm: cpu%u: CPUID", v->index);
    supported->head.nent = ENTRIES;
    rc = kvm_ioctl(v->accel->kvm_fd, KVM_GET_SUPPORTED_CPUID, supported);
    if (rc < 0)
        return err_sys(err, -rc, "kvm: supported CPUID");
    add_model(list, model, v->index, supported);
    add_paravirtual(list, model, supported);
    rc = kvm_ioctl(v->fd, KVM_SET_CPUID2, list);
    if (rc < 0)
        return err_sys(err, -rc, "kvm: cpu%u: CPUID of model %s", v->index, model->name);
    set_tsc_khz(v);
    set_arch_capabilities(v);
    return 0;
}
