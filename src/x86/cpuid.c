/*
 * CPU models. SDM 2A, CPUID; feature levels as in the x86-64 psABI, 3.1.1. Any thread.
 *
 * All models name one vendor, whose SYSCALL, SYSRET and segment rules the translator follows. What instructions the
 * host executes itself are offered only if the host has them; what we do in software (paging features, system
 * instructions) always is. IA32_ARCH_CAPABILITIES tells guests which mitigations they need not use.
 */
#include "x86/cpuid.h"
#include "x86/cpu.h"
#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* The registers that hold feature bits. */
enum word { W_1C, W_1D, W_7B, W_7C, W_7D, W_71A, W_D1A, W_X1C, W_X1D, WORDS };

static const struct {
    u32 leaf, subleaf;
    unsigned reg;
} words[WORDS] = {
    [W_1C] = {1, 0, 2},    [W_1D] = {1, 0, 3},           [W_7B] = {7, 0, 1},
    [W_7C] = {7, 0, 2},    [W_7D] = {7, 0, 3},           [W_71A] = {7, 1, 0},
    [W_D1A] = {0xd, 1, 0}, [W_X1C] = {0x80000001, 0, 2}, [W_X1D] = {0x80000001, 0, 3},
};

enum { MODEL_V2, MODEL_V3, MODEL_HOST, MODELS };
static const char *const model_names[MODELS] = {"x86-64-v2", "x86-64-v3", "host"};

/* How a model has a feature. */
enum how {
    NO,
    OURS,   /* in software, whatever the host has */
    IF,     /* if the host has it */
    MUST,   /* the host must have it */
    IF_512, /* if the host has it, and AVX-512 state is enabled there */
};

struct feature {
    u8 word, bit;
    u8 how[MODELS];
    const char *name;
};

/* TABLE */
static const struct feature features[] = {
    {W_1D, 0, {OURS, OURS, OURS}, "fpu"},
    {W_1D, 2, {OURS, OURS, OURS}, "de"},
    {W_1D, 3, {OURS, OURS, OURS}, "pse"},
    {W_1D, 4, {OURS, OURS, OURS}, "tsc"},
    {W_1D, 5, {OURS, OURS, OURS}, "msr"},
    {W_1D, 6, {OURS, OURS, OURS}, "pae"},
    {W_1D, 7, {OURS, OURS, OURS}, "mce"},
    {W_1D, 8, {OURS, OURS, OURS}, "cx8"},
    {W_1D, 9, {OURS, OURS, OURS}, "apic"},
    {W_1D, 11, {OURS, OURS, OURS}, "sep"},
    {W_1D, 12, {OURS, OURS, OURS}, "mtrr"},
    {W_1D, 13, {OURS, OURS, OURS}, "pge"},
    {W_1D, 14, {OURS, OURS, OURS}, "mca"},
    {W_1D, 15, {OURS, OURS, OURS}, "cmov"},
    {W_1D, 16, {OURS, OURS, OURS}, "pat"},
    {W_1D, 17, {OURS, OURS, OURS}, "pse36"},
    {W_1D, 19, {OURS, OURS, OURS}, "clflush"},
    {W_1D, 23, {OURS, OURS, OURS}, "mmx"},
    {W_1D, 24, {OURS, OURS, OURS}, "fxsr"},
    {W_1D, 25, {OURS, OURS, OURS}, "sse"},
    {W_1D, 26, {OURS, OURS, OURS}, "sse2"},
    {W_1C, 0, {MUST, MUST, IF}, "sse3"},
    {W_1C, 1, {IF, IF, IF}, "pclmulqdq"},
    {W_1C, 9, {MUST, MUST, IF}, "ssse3"},
    {W_1C, 12, {NO, MUST, IF}, "fma"},
    {W_1C, 13, {MUST, MUST, IF}, "cx16"},
    {W_1C, 17, {OURS, OURS, OURS}, "pcid"},
    {W_1C, 19, {MUST, MUST, IF}, "sse4_1"},
    {W_1C, 20, {MUST, MUST, IF}, "sse4_2"},
    {W_1C, 21, {OURS, OURS, OURS}, "x2apic"},
    {W_1C, 22, {NO, MUST, IF}, "movbe"},
    {W_1C, 23, {MUST, MUST, IF}, "popcnt"},
    {W_1C, 24, {OURS, OURS, OURS}, "tsc_deadline_timer"},
    {W_1C, 25, {IF, IF, IF}, "aes"},
    {W_1C, 26, {NO, MUST, IF}, "xsave"},
    {W_1C, 28, {NO, MUST, IF}, "avx"},
    {W_1C, 29, {NO, MUST, IF}, "f16c"},
    {W_1C, 30, {IF, IF, IF}, "rdrand"},
    {W_1C, 31, {OURS, OURS, OURS}, "hypervisor"},
    {W_7B, 0, {OURS, OURS, OURS}, "fsgsbase"},
    {W_7B, 1, {OURS, OURS, OURS}, "tsc_adjust"},
    {W_7B, 3, {NO, MUST, IF}, "bmi1"},
    {W_7B, 5, {NO, MUST, IF}, "avx2"},
    {W_7B, 7, {OURS, OURS, OURS}, "smep"},
    {W_7B, 8, {NO, MUST, IF}, "bmi2"},
    {W_7B, 9, {IF, IF, IF}, "erms"},
    {W_7B, 10, {OURS, OURS, OURS}, "invpcid"},
    {W_7B, 13, {OURS, OURS, OURS}, "zero_fcs_fds"},
    {W_7B, 18, {IF, IF, IF}, "rdseed"},
    {W_7B, 19, {NO, IF, IF}, "adx"},
    {W_7B, 20, {OURS, OURS, OURS}, "smap"},
    {W_7B, 29, {IF, IF, IF}, "sha_ni"},
    {W_7B, 16, {NO, NO, IF_512}, "avx512f"},
    {W_7B, 17, {NO, NO, IF_512}, "avx512dq"},
    {W_7B, 21, {NO, NO, IF_512}, "avx512ifma"},
    {W_7B, 28, {NO, NO, IF_512}, "avx512cd"},
    {W_7B, 30, {NO, NO, IF_512}, "avx512bw"},
    {W_7B, 31, {NO, NO, IF_512}, "avx512vl"},
    {W_7C, 1, {NO, NO, IF_512}, "avx512vbmi"},
    {W_7C, 2, {OURS, OURS, OURS}, "umip"},
    {W_7C, 6, {NO, NO, IF_512}, "avx512_vbmi2"},
    {W_7C, 8, {NO, NO, IF}, "gfni"},
    {W_7C, 9, {NO, NO, IF}, "vaes"},
    {W_7C, 10, {NO, NO, IF}, "vpclmulqdq"},
    {W_7C, 11, {NO, NO, IF_512}, "avx512_vnni"},
    {W_7C, 12, {NO, NO, IF_512}, "avx512_bitalg"},
    {W_7C, 14, {NO, NO, IF_512}, "avx512_vpopcntdq"},
    {W_7C, 22, {OURS, OURS, OURS}, "rdpid"},
    {W_7D, 4, {IF, IF, IF}, "fsrm"},
    {W_7D, 26, {OURS, OURS, OURS}, "spec_ctrl"},
    {W_7D, 27, {OURS, OURS, OURS}, "stibp"},
    {W_7D, 29, {OURS, OURS, OURS}, "arch_capabilities"},
    {W_7D, 31, {OURS, OURS, OURS}, "ssbd"},
    {W_71A, 4, {NO, NO, IF}, "avx_vnni"},
    {W_71A, 5, {NO, NO, IF_512}, "avx512_bf16"},
    {W_D1A, 0, {NO, IF, IF}, "xsaveopt"},
    {W_D1A, 1, {NO, IF, IF}, "xsavec"},
    {W_D1A, 2, {NO, IF, IF}, "xgetbv1"},
    {W_X1C, 0, {MUST, MUST, IF}, "lahf_lm"},
    {W_X1C, 5, {NO, MUST, IF}, "lzcnt"},
    {W_X1C, 8, {IF, IF, IF}, "prefetchw"},
    {W_X1D, 11, {OURS, OURS, OURS}, "syscall"},
    {W_X1D, 20, {OURS, OURS, OURS}, "nx"},
    {W_X1D, 26, {OURS, OURS, OURS}, "pdpe1gb"},
    {W_X1D, 27, {OURS, OURS, OURS}, "rdtscp"},
    {W_X1D, 29, {OURS, OURS, OURS}, "lm"},
};

#define SIGNATURE 0x000606a6u /* family 6, model 0x6a, stepping 6 */
#define CLFLUSH_LINE (8u << 8)
#define PHYS_BITS_MAX 46
#define HOST_XCR0_AVX 6u
#define HOST_XCR0_AVX512 0xe6u
#define APIC_BUS_KHZ 1000000u /* what the local APIC's timer counts: nanoseconds */

/* RDCL_NO IBRS_ALL SKIP_L1DFL SSB_NO MDS_NO PSCHANGE_MC_NO TAA_NO SBDR_SSDP_NO FBSDP_NO PSDP_NO FB_CLEAR BHI_NO PBRSB_NO
 * GDS_NO RFDS_NO ITS_NO (SDM 4, table 2-2) */
#define ARCH_CAPABILITIES                                                                         \
    (BIT(0) | BIT(1) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(8) | BIT(13) | BIT(14) | BIT(15) | \
     BIT(17) | BIT(20) | BIT(24) | BIT(26) | BIT(27) | BIT(62))

/* SPEC_CTRL has BHI_DIS_S: Linux then does without its loop that clears the branch history on every system call. */
#define BHI_CTRL BIT(4)

/* --- the host --- */

struct host {
    u32 word[WORDS];
    u32 xcr0;
    u8 phys_bits;
};

static u32 xgetbv0(void)
{
    u32 lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo;
}

static void host_read(struct host *h)
{
    u32 r[4];
    memset(h, 0, sizeof(*h));
    for (unsigned i = 0; i < WORDS; i++)
        if (__get_cpuid_count(words[i].leaf, words[i].subleaf, &r[0], &r[1], &r[2], &r[3]))
            h->word[i] = r[words[i].reg];
    h->phys_bits = 36;
    if (__get_cpuid(0x80000008, &r[0], &r[1], &r[2], &r[3]))
        h->phys_bits = (u8)r[0];
    if (h->word[W_1C] & bit_OSXSAVE)
        h->xcr0 = xgetbv0();
    if ((h->xcr0 & HOST_XCR0_AVX) != HOST_XCR0_AVX) { /* the host's kernel does not switch it */
        h->word[W_1C] &= ~(u32)(bit_AVX | bit_FMA | bit_F16C | bit_XSAVE);
        h->word[W_7B] &= ~(u32)bit_AVX2;
        h->word[W_7C] &= ~(u32)(bit_VAES | bit_VPCLMULQDQ);
    }
}

static bool host_has(const struct host *h, const struct feature *f, enum how how)
{
    if (how == IF_512 && (h->xcr0 & HOST_XCR0_AVX512) != HOST_XCR0_AVX512)
        return false;
    return h->word[f->word] & BIT(f->bit);
}

/* --- features --- */

/* Fills `bits`; false, with the names of what is missing, when the host cannot do the model. */
static bool choose_features(const struct host *h, unsigned model, u32 bits[WORDS], char *missing,
                            size_t len)
{
    size_t used = 0;
    memset(bits, 0, WORDS * sizeof(*bits));
    for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
        const struct feature *f = &features[i];
        enum how how = f->how[model];
        if (how == OURS || (how != NO && host_has(h, f, how)))
            bits[f->word] |= BIT(f->bit);
        else if (how == MUST && used < len)
            used += (size_t)snprintf(missing + used, len - used, " %s", f->name);
    }
    return used == 0;
}

static u64 cr4_mask(const u32 bits[WORDS])
{
    u64 mask = CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR |
               CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE | CR4_SMEP | CR4_SMAP;
    return bits[W_1C] & bit_XSAVE ? mask | CR4_OSXSAVE : mask;
}

static u64 xcr0_mask(const u32 bits[WORDS])
{
    u64 mask = 3;
    if (!(bits[W_1C] & bit_XSAVE))
        return 1;
    if (bits[W_1C] & bit_AVX)
        mask |= 4;
    if (bits[W_7B] & bit_AVX512F)
        mask |= 0xe0;
    return mask;
}

/* --- leaves; added in order --- */

static struct cpuid_leaf *add(struct cpu_model *m, u32 leaf, u32 subleaf, bool has_subleaf)
{
    struct cpuid_leaf *l = &m->leaf[m->nleaves];
    if (m->nleaves + 1 < CPUID_LEAVES)
        m->nleaves++;
    *l = (struct cpuid_leaf){.leaf = leaf, .subleaf = subleaf, .has_subleaf = has_subleaf};
    return l;
}

static void set(struct cpuid_leaf *l, u32 eax, u32 ebx, u32 ecx, u32 edx)
{
    l->eax = eax;
    l->ebx = ebx;
    l->ecx = ecx;
    l->edx = edx;
}

static void set_text(struct cpuid_leaf *l, const char *text) /* 12 bytes in EBX, ECX, EDX */
{
    memcpy(&l->ebx, text, 4);
    memcpy(&l->ecx, text + 4, 4);
    memcpy(&l->edx, text + 8, 4);
}

static u32 bits_for(u32 n) /* to number n things */
{
    u32 bits = 0;
    while ((1u << bits) < n)
        bits++;
    return bits;
}

struct cache {
    u32 type, level, ways, sets;
    bool shared;
};

/* TABLE: what leaf 4 says; types 1 data, 2 code, 3 both */
static const struct cache caches[] = {
    {1, 1, 8, 64, false},
    {2, 1, 8, 64, false},
    {3, 2, 16, 1024, false},
    {3, 3, 16, 16384, true},
};

static void add_caches(struct cpu_model *m)
{
    u32 ids = 1u << bits_for(m->cpus);
    for (u32 i = 0; i < ARRAY_LEN(caches); i++) {
        const struct cache *k = &caches[i];
        u32 sharing = k->shared ? ids - 1 : 0;
        set(add(m, 4, i, true), k->type | k->level << 5 | 1u << 8 | sharing << 14 | (ids - 1) << 26,
            (k->ways - 1) << 22 | 63, k->sets - 1, k->shared ? 4 : 0);
    }
    add(m, 4, ARRAY_LEN(caches), true);
}

static void add_topology(struct cpu_model *m)
{
    set(add(m, 0xb, 0, true), 0, 1, 0x100, 0);
    set(add(m, 0xb, 1, true), bits_for(m->cpus), m->cpus, 0x200, 0);
}

/* Sizes and offsets of the extended components are the host's: its XSAVE lays them out. */
static void add_xsave(struct cpu_model *m, const u32 bits[WORDS])
{
    u32 r[4], end = 576;
    if (!(bits[W_1C] & bit_XSAVE))
        return;
    struct cpuid_leaf *all = add(m, 0xd, 0, true);
    set(add(m, 0xd, 1, true), bits[W_D1A], 0, 0, 0);
    for (u32 i = 2; i < 8; i++) {
        if (!(m->xcr0_mask & BIT(i)))
            continue;
        __cpuid_count(0xd, i, r[0], r[1], r[2], r[3]);
        set(add(m, 0xd, i, true), r[0], r[1], r[2] & 2, 0);
        end = MAX(end, r[0] + r[1]);
    }
    m->xsave_bytes = end;
    set(all, (u32)m->xcr0_mask, end, end, 0);
}

static void add_basic(struct cpu_model *m, const u32 bits[WORDS])
{
    struct cpuid_leaf *l = add(m, 0, 0, false);
    l->eax = 0x16;
    memcpy(&l->ebx, "Genu", 4);
    memcpy(&l->edx, "ineI", 4);
    memcpy(&l->ecx, "ntel", 4);
    u32 htt = m->cpus > 1 ? (u32)BIT(28) : 0;
    set(add(m, 1, 0, false), SIGNATURE, CLFLUSH_LINE | (1u << bits_for(m->cpus)) << 16, bits[W_1C],
        bits[W_1D] | htt);
    set(add(m, 2, 0, false), 0x00feff01, 0, 0, 0); /* "see leaf 4" */
    add_caches(m);
    set(add(m, 6, 0, false), 4, 0, 0, 0); /* the APIC timer never stops */
    set(add(m, 7, 0, true), 2, bits[W_7B], bits[W_7C], bits[W_7D]);
    set(add(m, 7, 1, true), bits[W_71A], 0, 0, 0);
    set(add(m, 7, 2, true), 0, 0, 0, BHI_CTRL);
    add_topology(m);
    add_xsave(m, bits);
    /* TSC = crystal * ebx / eax; the crystal is also what the APIC timer counts */
    set(add(m, 0x15, 0, false), APIC_BUS_KHZ, m->tsc_khz, APIC_BUS_KHZ * 1000, 0);
    set(add(m, 0x16, 0, false), m->tsc_khz / 1000, m->tsc_khz / 1000, 100, 0);
}

#define KVM_CLOCKSOURCE BIT(0)
#define KVM_NOP_IO_DELAY BIT(1)
#define KVM_CLOCKSOURCE2 BIT(3)
#define KVM_CLOCKSOURCE_STABLE BIT(24)

static void add_hypervisor(struct cpu_model *m)
{
    struct cpuid_leaf *l = add(m, 0x40000000, 0, false);
    l->eax = 0x40000010;
    set_text(l, "KVMKVMKVM\0\0\0");
    u32 offers = KVM_CLOCKSOURCE | KVM_NOP_IO_DELAY | KVM_CLOCKSOURCE2 | KVM_CLOCKSOURCE_STABLE;
    set(add(m, 0x40000001, 0, false), offers, 0, 0, 0);
    set(add(m, 0x40000010, 0, false), m->tsc_khz, APIC_BUS_KHZ, 0, 0);
}

static void add_extended(struct cpu_model *m, const u32 bits[WORDS])
{
    char brand[48] = {0};
    u32 r[12];
    snprintf(brand, sizeof(brand), "Trapeze Virtual CPU (%.20s)", m->name);
    memcpy(r, brand, sizeof(r));
    set(add(m, 0x80000000, 0, false), 0x80000008, 0, 0, 0);
    set(add(m, 0x80000001, 0, false), 0, 0, bits[W_X1C], bits[W_X1D]);
    for (u32 i = 0; i < 3; i++)
        set(add(m, 0x80000002 + i, 0, false), r[i * 4], r[i * 4 + 1], r[i * 4 + 2], r[i * 4 + 3]);
    set(add(m, 0x80000006, 0, false), 0, 0, 0x04008040, 0);  /* L2: 1 MiB, 64-byte lines */
    set(add(m, 0x80000007, 0, false), 0, 0, 0, (u32)BIT(8)); /* invariant TSC */
    set(add(m, 0x80000008, 0, false), m->phys_bits | 48u << 8, 0, 0, 0);
}

static int model_build(struct cpu_model *m, unsigned model, unsigned cpus, struct err *err)
{
    struct host h;
    u32 bits[WORDS];
    char missing[256] = "";
    host_read(&h);
    if (!choose_features(&h, model, bits, missing, sizeof(missing)))
        return err_set(err, ENOTSUP, "cpu model %s: this host lacks%s", model_names[model],
                       missing);
    memset(m, 0, sizeof(*m));
    snprintf(m->name, sizeof(m->name), "%s", model_names[model]);
    m->cpus = cpus;
    m->tsc_khz = host_tsc_khz();
    m->phys_bits = MIN(h.phys_bits, PHYS_BITS_MAX);
    m->arch_capabilities = ARCH_CAPABILITIES;
    m->cr4_mask = cr4_mask(bits);
    m->xcr0_mask = xcr0_mask(bits);
    m->xsave_bytes = 576;
    add_basic(m, bits);
    add_hypervisor(m);
    add_extended(m, bits);
    return 0;
}

int cpu_model_init(struct cpu_model *m, const char *name, unsigned cpus, struct err *err)
{
    struct err why = ERR_INIT;
    if (!name || !*name || !strcmp(name, "default")) {
        if (!model_build(m, MODEL_V3, cpus, &why))
            return 0;
        return model_build(m, MODEL_V2, cpus, err);
    }
    for (unsigned i = 0; i < MODELS; i++)
        if (!strcmp(name, model_names[i]))
            return model_build(m, i, cpus, err);
    return err_set(err, EINVAL, "cpu model %s: unknown; there are %s, %s and %s", name,
                   model_names[0], model_names[1], model_names[2]);
}

/* --- a model from elsewhere --- */

#define TSC_TOLERANCE \
    1000 /* one part in this many: clocks drift by more than a millisecond in a second beyond it */
#define HTT BIT(28)

static void lacks(char *missing, size_t len, const char *name)
{
    size_t used = strlen(missing);

    snprintf(missing + used, len - used, " %s", name);
}

static void check_word(const struct host *h, unsigned word, u32 bits, char *missing, size_t len)
{
    for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
        const struct feature *f = &features[i];
        enum how how = f->how[MODEL_HOST];

        if (f->word != word || !(bits & BIT(f->bit)))
            continue;
        bits &= ~(u32)BIT(f->bit);
        if (how != OURS && !host_has(h, f, how))
            lacks(missing, len, f->name);
    }
    if (bits) {
        char name[64];

        snprintf(name, sizeof(name), "0x%x of CPUID leaf 0x%x (unknown here)", bits,
                 words[word].leaf);
        lacks(missing, len, name);
    }
}

/* The guest's XSAVE is the host's: what CPUID says of its layout must hold here. */
static void check_layout(const struct cpu_model *m, char *missing, size_t len)
{
    u32 r[4];

    for (unsigned i = 0; i < m->nleaves; i++) {
        const struct cpuid_leaf *l = &m->leaf[i];
        char name[40];

        if (l->leaf != 0xd || l->subleaf < 2)
            continue;
        __cpuid_count(0xd, l->subleaf & 63, r[0], r[1], r[2], r[3]);
        if (l->subleaf < 8 && l->eax == r[0] && l->ebx == r[1])
            continue;
        snprintf(name, sizeof(name), "its layout of XSAVE component %u", l->subleaf);
        lacks(missing, len, name);
    }
}

static int check_numbers(const struct cpu_model *m, const u32 bits[WORDS], struct err *err)
{
    bool sorted = true;

    for (unsigned i = 1; i < m->nleaves; i++)
        sorted &=
            m->leaf[i - 1].leaf < m->leaf[i].leaf ||
            (m->leaf[i - 1].leaf == m->leaf[i].leaf && m->leaf[i - 1].subleaf < m->leaf[i].subleaf);
    if (!sorted || !m->cpus || m->xcr0_mask != xcr0_mask(bits) || m->cr4_mask != cr4_mask(bits) ||
        (m->arch_capabilities & ~ARCH_CAPABILITIES) || m->phys_bits < 36 || m->xsave_bytes > 4096 ||
        m->xsave_bytes < 576)
        return err_set(err, EBADMSG, "cpu model: contradicts itself");
    return 0;
}

static u32 find_tsc_khz(long measured_ns);

static int check_host(const struct cpu_model *m, const u32 bits[WORDS], struct err *err)
{
    char missing[512] = "";
    struct host h;
    /* Every restored machine waits for this, and it is held against a thousandth. */
    u32 khz = find_tsc_khz(1000000);

    host_read(&h);
    for (unsigned i = 0; i < WORDS; i++)
        check_word(&h, i, i == W_1D ? bits[i] & ~(u32)HTT : bits[i], missing, sizeof(missing));
    check_layout(m, missing, sizeof(missing));
    if (*missing)
        return err_set(err, ENOTSUP, "cpu model %s: this host lacks%s", m->name, missing);
    if (m->phys_bits > MIN(h.phys_bits, PHYS_BITS_MAX))
        return err_set(err, ENOTSUP,
                       "cpu model %s: has physical addresses of %u bits, this host's have %u",
                       m->name, m->phys_bits, h.phys_bits);
    if ((m->tsc_khz > khz ? m->tsc_khz - khz : khz - m->tsc_khz) > khz / TSC_TOLERANCE)
        return err_set(err, ENOTSUP,
                       "cpu model %s: its time stamp counter runs at %u kHz, this host's at %u kHz",
                       m->name, m->tsc_khz, khz);
    return 0;
}

int cpu_model_check(const struct cpu_model *m, struct err *err)
{
    u32 bits[WORDS] = {0};

    if (!memchr(m->name, 0, sizeof(m->name)) || m->nleaves > CPUID_LEAVES)
        return err_set(err, EBADMSG, "cpu model: %u leaves of CPUID cannot be", m->nleaves);
    for (unsigned i = 0; i < m->nleaves; i++)
        for (unsigned w = 0; w < WORDS; w++)
            if (m->leaf[i].leaf == words[w].leaf && m->leaf[i].subleaf == words[w].subleaf)
                bits[w] = (&m->leaf[i].eax)[words[w].reg];
    int rc = check_numbers(m, bits, err);
    return rc ? rc : check_host(m, bits, err);
}

/* --- frequency of the time stamp counter --- */

static u32 tsc_khz_reported(void)
{
    u32 a, b, c, d;
    if (__get_cpuid_count(0x15, 0, &a, &b, &c, &d) && a && b && c)
        return (u32)((u64)c * b / a / 1000);
    __cpuid(1, a, b, c, d);
    if (!(c & BIT(31)))
        return 0;
    __cpuid(0x40000000, a, b, c, d);
    if (a < 0x40000010 || a > 0x400000ff)
        return 0;
    __cpuid(0x40000010, a, b, c, d);
    return a;
}

struct sample {
    u64 tsc, ns;
};

/* Both clocks at one moment: the reading with the least between its two TSC values wins. */
static struct sample sample_clocks(void)
{
    struct sample best = {0, 0};
    u64 least = ~0ull;
    for (int i = 0; i < 16; i++) {
        struct timespec ts;
        u64 before = __builtin_ia32_rdtsc();
        clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
        u64 after = __builtin_ia32_rdtsc();
        if (after - before < least) {
            least = after - before;
            best.tsc = before + (after - before) / 2;
            best.ns = (u64)ts.tv_sec * (u64)NS_PER_S + (u64)ts.tv_nsec;
        }
    }
    return best;
}

static struct sample watched; /* host_tsc_watch(); ns 0: never called */

void host_tsc_watch(void)
{
    watched = sample_clocks();
}

/* Not one so old that the host may have slept since, its counter with it. */
static struct sample first_sample(void)
{
    struct sample now = sample_clocks();

    return watched.ns && now.ns - watched.ns < (u64)NS_PER_S ? watched : now;
}

/* Reported, or measured over at least that time: two parts in a million for 10 ms, twenty for 1 ms. */
static u32 find_tsc_khz(long measured_ns)
{
    u32 khz = tsc_khz_reported();
    if (khz)
        return khz;
    struct sample a = first_sample(), b = sample_clocks();
    if (b.ns - a.ns < (u64)measured_ns) {
        struct timespec pause = {.tv_nsec = measured_ns - (long)(b.ns - a.ns)};

        nanosleep(&pause, NULL);
        b = sample_clocks();
    }
    return (u32)((b.tsc - a.tsc) * 1000000 / MAX(b.ns - a.ns, 1));
}

u32 host_tsc_khz(void)
{
    return find_tsc_khz(10000000);
}
