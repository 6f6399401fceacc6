/*
 * The white list: which of Zydis' instruction sets the guest's CPU has, by the CPUID bits of its
 * model, and which of them consist of instructions that may all be copied. What is not listed does
 * not exist for a guest (it raises #UD), unless a system helper takes it on. Intel SDM volume
 * 1, 5.1 (which CPUID bit stands for what); volume 2, CPUID.
 */
#include <string.h>

#include "accel/bt/insn_class.h"
#include "x86/cpuid.h"

enum leaf { LEAF_1, LEAF_7, LEAF_7_1, LEAF_D_1, LEAF_EXT, LEAVES };
enum reg { EAX, EBX, ECX, EDX };
/* A CPUID bit in 16 bits; 0 is none. */
#define FEATURE(leaf, reg, bit) (0x8000 | (leaf) << 7 | (reg) << 5 | (bit))
#define ALWAYS 0

struct rule {
    u16 set;
    u16 answer;     /* when it is there: */
    u16 feature[2]; /* when the model has all these */
};

#define SYSTEM(set, ...)                 \
    {                                    \
        ZYDIS_ISA_SET_##set, ISA_SYSTEM, \
        {                                \
            __VA_ARGS__                  \
        }                                \
    }
#define PURE(set, ...)                 \
    {                                  \
        ZYDIS_ISA_SET_##set, ISA_PURE, \
        {                              \
            __VA_ARGS__                \
        }                              \
    }
#define AVX512(set, ...) \
    PURE(set##_512, __VA_ARGS__), PURE(set##_256, __VA_ARGS__, VL), PURE(set##_128, __VA_ARGS__, VL)
#define VL FEATURE(LEAF_7, EBX, 31)
#define AVX512F FEATURE(LEAF_7, EBX, 16)
#define AVX512DQ FEATURE(LEAF_7, EBX, 17)
#define AVX512BW FEATURE(LEAF_7, EBX, 30)
#define FP16 FEATURE(LEAF_7, EDX, 23)

/* clang-format off */
static const struct rule rules[] = {
    SYSTEM(I86, ALWAYS), SYSTEM(I186, ALWAYS), SYSTEM(I286REAL, ALWAYS), SYSTEM(I286PROTECTED, ALWAYS),
    SYSTEM(I386, ALWAYS), SYSTEM(I486, ALWAYS), SYSTEM(I486REAL, ALWAYS), SYSTEM(PENTIUMREAL, ALWAYS),
    SYSTEM(PPRO, ALWAYS), SYSTEM(LONGMODE, ALWAYS), SYSTEM(PAUSE, ALWAYS), SYSTEM(FAT_NOP, ALWAYS),
    SYSTEM(RDPMC, ALWAYS), SYSTEM(LAHF, ALWAYS),
    SYSTEM(CMOV, FEATURE(LEAF_1, EDX, 15)), SYSTEM(CMPXCHG16B, FEATURE(LEAF_1, ECX, 13)),
    SYSTEM(X87, FEATURE(LEAF_1, EDX, 0)), SYSTEM(FCMOV, FEATURE(LEAF_1, EDX, 0)),
    SYSTEM(FXSAVE, FEATURE(LEAF_1, EDX, 24)), SYSTEM(FXSAVE64, FEATURE(LEAF_1, EDX, 24)),
    SYSTEM(MONITOR, FEATURE(LEAF_1, ECX, 3)), SYSTEM(SMAP, FEATURE(LEAF_7, EBX, 20)),
    SYSTEM(INVPCID, FEATURE(LEAF_7, EBX, 10)), SYSTEM(RDWRFSGS, FEATURE(LEAF_7, EBX, 0)),
    SYSTEM(RDPID, FEATURE(LEAF_7, ECX, 22)), SYSTEM(RDTSCP, FEATURE(LEAF_EXT, EDX, 27)),
    SYSTEM(PKU, FEATURE(LEAF_7, ECX, 3)), SYSTEM(XSAVE, FEATURE(LEAF_1, ECX, 26)),
    SYSTEM(XSAVEOPT, FEATURE(LEAF_D_1, EAX, 0)), SYSTEM(XSAVEC, FEATURE(LEAF_D_1, EAX, 1)),
    SYSTEM(XSAVES, FEATURE(LEAF_D_1, EAX, 3)), SYSTEM(SERIALIZE, FEATURE(LEAF_7, EDX, 14)),
    SYSTEM(AVX2GATHER, FEATURE(LEAF_7, EBX, 5)),

    PURE(PENTIUMMMX, FEATURE(LEAF_1, EDX, 23)), PURE(SSE, FEATURE(LEAF_1, EDX, 25)),
    PURE(SSEMXCSR, FEATURE(LEAF_1, EDX, 25)), PURE(SSE2, FEATURE(LEAF_1, EDX, 26)),
    PURE(SSE2MMX, FEATURE(LEAF_1, EDX, 26)), PURE(SSE3, FEATURE(LEAF_1, ECX, 0)),
    PURE(SSE3X87, FEATURE(LEAF_1, ECX, 0)), PURE(SSSE3, FEATURE(LEAF_1, ECX, 9)),
    PURE(SSSE3MMX, FEATURE(LEAF_1, ECX, 9)), PURE(SSE4, FEATURE(LEAF_1, ECX, 19)),
    PURE(SSE42, FEATURE(LEAF_1, ECX, 20)), PURE(POPCNT, FEATURE(LEAF_1, ECX, 23)),
    PURE(AES, FEATURE(LEAF_1, ECX, 25)), PURE(PCLMULQDQ, FEATURE(LEAF_1, ECX, 1)),
    PURE(MOVBE, FEATURE(LEAF_1, ECX, 22)), PURE(RDRAND, FEATURE(LEAF_1, ECX, 30)),
    PURE(RDSEED, FEATURE(LEAF_7, EBX, 18)), PURE(SHA, FEATURE(LEAF_7, EBX, 29)),
    PURE(GFNI, FEATURE(LEAF_7, ECX, 8)), PURE(ADOX_ADCX, FEATURE(LEAF_7, EBX, 19)),
    PURE(LZCNT, FEATURE(LEAF_EXT, ECX, 5)), PURE(BMI1, FEATURE(LEAF_7, EBX, 3)),
    PURE(BMI2, FEATURE(LEAF_7, EBX, 8)), PURE(CLFSH, FEATURE(LEAF_1, EDX, 19)),
    PURE(CLFLUSHOPT, FEATURE(LEAF_7, EBX, 23)), PURE(CLWB, FEATURE(LEAF_7, EBX, 24)),
    PURE(AVX, FEATURE(LEAF_1, ECX, 28)), PURE(AVX2, FEATURE(LEAF_7, EBX, 5)),
    PURE(AVXAES, FEATURE(LEAF_1, ECX, 28), FEATURE(LEAF_1, ECX, 25)),
    PURE(AVX_GFNI, FEATURE(LEAF_1, ECX, 28), FEATURE(LEAF_7, ECX, 8)),
    PURE(AVX_VNNI, FEATURE(LEAF_1, ECX, 28), FEATURE(LEAF_7_1, EAX, 4)),
    PURE(FMA, FEATURE(LEAF_1, ECX, 12)), PURE(F16C, FEATURE(LEAF_1, ECX, 29)),
    PURE(VAES, FEATURE(LEAF_7, ECX, 9)), PURE(VPCLMULQDQ, FEATURE(LEAF_7, ECX, 10)),

    AVX512(AVX512F, AVX512F), PURE(AVX512F_128N, AVX512F), PURE(AVX512F_SCALAR, AVX512F),
    PURE(AVX512F_KOP, AVX512F),
    AVX512(AVX512DQ, AVX512DQ), PURE(AVX512DQ_128N, AVX512DQ), PURE(AVX512DQ_SCALAR, AVX512DQ),
    PURE(AVX512DQ_KOP, AVX512DQ),
    AVX512(AVX512BW, AVX512BW), PURE(AVX512BW_128N, AVX512BW), PURE(AVX512BW_KOP, AVX512BW),
    AVX512(AVX512CD, FEATURE(LEAF_7, EBX, 28)), AVX512(AVX512_IFMA, FEATURE(LEAF_7, EBX, 21)),
    AVX512(AVX512_VBMI, FEATURE(LEAF_7, ECX, 1)), AVX512(AVX512_VBMI2, FEATURE(LEAF_7, ECX, 6)),
    AVX512(AVX512_VNNI, FEATURE(LEAF_7, ECX, 11)), AVX512(AVX512_BITALG, FEATURE(LEAF_7, ECX, 12)),
    AVX512(AVX512_VPOPCNTDQ, FEATURE(LEAF_7, ECX, 14)), AVX512(AVX512_BF16, FEATURE(LEAF_7_1, EAX, 5)),
    AVX512(AVX512_GFNI, FEATURE(LEAF_7, ECX, 8)), AVX512(AVX512_VAES, FEATURE(LEAF_7, ECX, 9)),
    AVX512(AVX512_VPCLMULQDQ, FEATURE(LEAF_7, ECX, 10)), AVX512(AVX512_VP2INTERSECT, FEATURE(LEAF_7, EDX, 8)),
    AVX512(AVX512_FP16, FP16), PURE(AVX512_FP16_128N, FP16), PURE(AVX512_FP16_SCALAR, FP16),
};
/* clang-format on */

static u8 answers[ZYDIS_ISA_SET_MAX_VALUE + 1]; /* enum isa_answer; written by insn_init() only */

static u32 leaf_register(const struct cpu_model *m, enum leaf which, enum reg reg)
{
    static const struct {
        u32 leaf, subleaf;
    } where[LEAVES] = {{1, 0}, {7, 0}, {7, 1}, {0xd, 1}, {0x80000001, 0}};

    for (unsigned i = 0; i < m->nleaves; i++) {
        const struct cpuid_leaf *l = &m->leaf[i];
        u32 regs[4] = {l->eax, l->ebx, l->ecx, l->edx};

        if (l->leaf == where[which].leaf && (!l->has_subleaf || l->subleaf == where[which].subleaf))
            return regs[reg];
    }
    return 0;
}

static bool advertised(const struct cpu_model *m, u16 feature)
{
    return !feature ||
           (leaf_register(m, feature >> 7 & 0xff, feature >> 5 & 3) >> (feature & 31) & 1);
}

void insn_init(const struct cpu_model *m)
{
    memset(answers, ISA_UNKNOWN, sizeof(answers));
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) {
        const struct rule *r = &rules[i];
        bool there = advertised(m, r->feature[0]) && advertised(m, r->feature[1]);

        answers[r->set] = (u8)(there ? r->answer : ISA_ABSENT);
    }
    /* Every AVX-512 instruction needs the foundation. */
    if (answers[ZYDIS_ISA_SET_AVX512F_512] == ISA_ABSENT)
        for (unsigned set = ZYDIS_ISA_SET_AVX512BW_128; set <= ZYDIS_ISA_SET_AVX512_VPOPCNTDQ_512;
             set++)
            answers[set] = ISA_ABSENT;
    insn_form_reset();
}

enum isa_answer insn_isa(ZydisISASet set)
{
    return set <= ZYDIS_ISA_SET_MAX_VALUE ? answers[set] : ISA_UNKNOWN;
}
