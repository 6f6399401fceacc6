/* The processor that the tests run: what the host has of x86-64-v3. */
#include <cpuid.h>

#include "model.h"

void model_init(struct cpu_model *m, bool with_avx512)
{
    static const u32 leaves[5][2] = {{1, 0}, {7, 0}, {7, 1}, {0xd, 1}, {0x80000001, 0}};

    *m = (struct cpu_model){.nleaves = ARRAY_LEN(leaves)};
    for (unsigned i = 0; i < m->nleaves; i++) {
        struct cpuid_leaf *l = &m->leaf[i];

        *l =
            (struct cpuid_leaf){.leaf = leaves[i][0], .subleaf = leaves[i][1], .has_subleaf = true};
        __get_cpuid_count(l->leaf, l->subleaf, &l->eax, &l->ebx, &l->ecx, &l->edx);
    }
    if (!with_avx512)
        m->leaf[1].ebx &= ~(u32)(BIT(16) | BIT(17) | BIT(21) | BIT(28) | BIT(30) | BIT(31));
}
