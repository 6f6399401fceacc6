/* The parts of diff_run_native() for tests that look after memory themselves. */
#ifndef DIFF_NATIVE_H
#define DIFF_NATIVE_H

#include "diff.h"

/* Runs the case on memory as it is, and leaves memory to the caller: ret->data and ret->stack are not filled. */
int native_run(const struct diff_case *c, struct diff_result *ret);
/* Changes the protection of one page of DIFF_DATA. After the first run. */
void native_protect(u64 addr, int prot);
bool native_has_masks(void);
/* Takes the vector registers out of an XSAVE area in standard format, where parts in their initial state are not filled.
 * mask_at: where k0..k7 are, 0 if nowhere. */
void native_vectors(const u8 *area, unsigned mask_at, struct diff_regs *ret);

#endif
