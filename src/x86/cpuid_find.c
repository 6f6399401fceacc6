/*
 * CPUID as a guest's processor sees it: a look-up in its model, with the few values that depend on the processor or on
 * its control registers put in. SDM 2A, CPUID. Light code (no libc, no vector registers); any thread.
 */
#include "x86/cpu.h"
#include "x86/cpuid.h"

#define LEAF_HYPERVISOR 0x40000000u
#define LEAF_EXTENDED 0x80000000u
#define OSXSAVE BIT(27)
#define XSAVE_LEGACY 576u

static const struct cpuid_leaf *find(const struct cpu_model *m, u32 leaf, u32 subleaf)
{
    unsigned lo = 0, hi = m->nleaves;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        const struct cpuid_leaf *l = &m->leaf[mid];
        bool below = l->leaf < leaf || (l->leaf == leaf && l->has_subleaf && l->subleaf < subleaf);
        if (below)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == m->nleaves || m->leaf[lo].leaf != leaf)
        return NULL;
    return !m->leaf[lo].has_subleaf || m->leaf[lo].subleaf == subleaf ? &m->leaf[lo] : NULL;
}

/* Bytes of an XSAVE area for `mask`, in the standard or the compacted format (SDM 1, 13.4). */
static u32 xsave_area(const struct cpu_model *m, u64 mask, bool compact)
{
    u32 bytes = XSAVE_LEGACY;
    for (u32 i = 2; i < 63; i++) {
        const struct cpuid_leaf *l = mask & BIT(i) ? find(m, 0xd, i) : NULL;
        if (!l)
            continue;
        if (compact)
            bytes = (l->ecx & 2 ? ALIGN_UP(bytes, 64u) : bytes) + l->eax;
        else
            bytes = MAX(bytes, l->ebx + l->eax);
    }
    return bytes;
}

/* Leaves beyond the last basic one answer like the last one; we have no leaf there that depends on state. */
static u32 known_leaf(const struct cpu_model *m, u32 leaf)
{
    u32 base = leaf & 0xffff0000;
    const struct cpuid_leaf *first = NULL;
    if (base == 0 || base == LEAF_HYPERVISOR || base == LEAF_EXTENDED)
        first = find(m, base, 0);
    if (first && leaf <= first->eax)
        return leaf;
    first = find(m, 0, 0);
    return first ? first->eax : 0;
}

void cpu_model_cpuid(const struct cpu_model *m, u32 apic_id, u32 leaf, u32 subleaf, u64 cr4,
                     u64 xcr0, u32 ret[4])
{
    leaf = known_leaf(m, leaf);
    const struct cpuid_leaf *l = find(m, leaf, subleaf);
    ret[0] = l ? l->eax : 0;
    ret[1] = l ? l->ebx : 0;
    ret[2] = l ? l->ecx : 0;
    ret[3] = l ? l->edx : 0;
    if (leaf == 1) {
        ret[1] |= apic_id << 24;
        ret[2] |= cr4 & CR4_OSXSAVE ? OSXSAVE : 0;
    } else if (leaf == 0xb) {
        ret[2] |= subleaf & 0xff;
        ret[3] = apic_id;
    } else if (leaf == 0xd && l && subleaf < 2) {
        ret[1] = xsave_area(m, xcr0, subleaf == 1);
    }
}
