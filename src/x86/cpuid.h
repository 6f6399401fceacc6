/*
 * CPU models: what CPUID and the feature MSRs say to a guest. A model never promises what the host cannot do.
 */
#ifndef X86_CPUID_H
#define X86_CPUID_H

#include "base/err.h"

struct cpuid_leaf {
    u32 leaf, subleaf;
    u32 eax, ebx, ecx, edx;
    bool has_subleaf; /* match on subleaf as well */
};

#define CPUID_LEAVES 96

struct cpu_model {
    char name[32];                    /* "x86-64-v2", "x86-64-v3", "host" */
    struct cpuid_leaf leaf[CPUID_LEAVES]; /* sorted by leaf, subleaf */
    unsigned nleaves;
    u64 xcr0_mask;         /* what the guest may set in XCR0 */
    u32 xsave_bytes;       /* size of the standard-format area for xcr0_mask */
    u64 arch_capabilities; /* IA32_ARCH_CAPABILITIES */
    u64 cr4_mask;          /* bits of CR4 that may be set */
    u32 tsc_khz;
    unsigned cpus;         /* in the machine, one core each in one package */
    u8 phys_bits;
};

struct cpuid_host {
    u64 tsc_khz; /* measured or reported */
    bool has_avx512;
};

/* Builds the model `name` for a machine with `cpus` processors on this host. -EINVAL names the models there are;
 * -ENOTSUP names the host features that are missing. */
int cpu_model_init(struct cpu_model *m, const char *name, unsigned cpus, struct err *err);
/* Can this host be the processor of a model that was built elsewhere, or is a lie? -ENOTSUP names all that is missing;
 * -EBADMSG: no host ever built it. */
int cpu_model_check(const struct cpu_model *m, struct err *err);
/* CPUID as the guest's cpu `apic_id` sees it; cr4 and xcr0 show through in the OSXSAVE bit and leaf 0xD. */
void cpu_model_cpuid(const struct cpu_model *m, u32 apic_id, u32 leaf, u32 subleaf, u64 cr4, u64 xcr0, u32 ret[4]);
/* Measuring it begins. Early in main(): whoever needs the frequency soon then hardly waits for it. */
void host_tsc_watch(void);
/* The host's TSC frequency in kHz, from CPUID, else measured against CLOCK_MONOTONIC_RAW over some 10 ms. */
u32 host_tsc_khz(void);

#endif
