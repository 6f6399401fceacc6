/* Cases at random, each made from (seed, number) alone. */
#ifndef DIFF_GENERATE_H
#define DIFF_GENERATE_H

#include "catalogue.h"
#include "diff.h"

/* Fills *ret: one to `max_insns` instructions from the catalogue, jumps among them, and the registers they start from. */
void diff_generate(const struct catalogue *from, u64 seed, u64 number, unsigned max_insns,
                   struct diff_case *ret);

/* Registers with random contents: arithmetic flags too, exceptions of x87 and SSE masked. */
void diff_random_regs(struct random *r, struct diff_regs *ret);

/* Changes displacement and registers so that the memory operand of `in`, which lies at `code`, is at `target`. `fixed`
 * has a bit for every register that may not be changed any more. False if that cannot be done. */
bool diff_aim(const struct insn *in, u8 *code, u64 code_addr, u64 target, struct diff_regs *regs,
              unsigned *fixed);

#endif
