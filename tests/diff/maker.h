/* A case in the making: what is known of its registers so far. Shared by generate.c, aim.c and special.c. */
#ifndef DIFF_MAKER_H
#define DIFF_MAKER_H

#include "generate.h"

struct maker {
    struct random r;
    const struct plan *plan;
    struct diff_case *c;
    unsigned fixed;    /* registers whose first contents are decided */
    unsigned written;  /* registers that no longer hold what they started with */
    unsigned pointers; /* fixed ones that point into the data */
    bool in_loop;      /* all code runs again: nothing that is fixed may be written */
    bool stack_lost;   /* RSP is anywhere */
};

/* --- aim.c --- */

/* Changes displacement and registers so that the memory operand of `in`, which lies at `code`, is at `target`. `fixed` has
 * a bit for every register that may not be changed any more. False if that cannot be done. */
bool diff_aim(const struct insn *in, u8 *code, u64 code_addr, u64 target, struct diff_regs *regs,
              unsigned *fixed);
/* Makes a few registers point into the data, for operands that are near each other. */
void make_pointers(struct maker *m);
/* Fixes the contents of a register, if it still has those it started with. */
bool need(struct maker *m, unsigned reg, u64 value);
/* Gives the memory operand a good place. */
bool aim_operand(struct maker *m, const struct insn *in, u8 *code, u64 addr);

/* --- special.c --- */

/* Whether an instruction that the translator does not copy can be compared at all. */
bool special_wanted(const struct insn *in);
/* What its operands, other than an ordinary memory operand, need. */
bool special_prepare(struct maker *m, const struct insn *in);

#endif
