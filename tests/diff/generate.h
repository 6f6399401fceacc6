/* Cases at random, each made from (seed, number) alone. */
#ifndef DIFF_GENERATE_H
#define DIFF_GENERATE_H

#include "catalogue.h"
#include "diff.h"

/* What a case may be made of. */
struct plan {
    const struct catalogue *from;
    unsigned mode; /* of the catalogue: 32 or 64 */
    u64 seed;
    unsigned max_insns;
    bool loops;  /* run the whole several times */
    bool avx512; /* the catalogue has EVEX forms */
};

void diff_generate(const struct plan *plan, u64 number, struct diff_case *ret);

/* Registers with random contents: arithmetic flags too, exceptions of x87 and SSE masked. */
void diff_random_regs(struct random *r, struct diff_regs *ret);

#endif
