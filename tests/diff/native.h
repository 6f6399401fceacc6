/* The parts of diff_run_native() for tests that look after memory themselves. */
#ifndef DIFF_NATIVE_H
#define DIFF_NATIVE_H

#include "diff.h"

/* Runs the case on memory as it is, and leaves memory to the caller: ret->data and ret->stack are not filled. */
int native_run(const struct diff_case *c, struct diff_result *ret);
/* Changes the protection of one page of DIFF_DATA. After the first run. */
void native_protect(u64 addr, int prot);
bool native_has_masks(void);
/* Vector registers to and from an XSAVE area in standard format, as this processor lays it out (without AVX-512 parts if
 * it has none). Parts that XSAVE leaves out because they are in their initial state are filled in. */
void native_vectors(const u8 *area, struct diff_regs *ret);
void native_put_vectors(u8 *area, const struct diff_regs *regs, bool with_avx512);

#endif
