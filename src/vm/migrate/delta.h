/*
 * The difference of two pages, as runs of changed 8-byte words: u16 words to skip, u16 words that
 * follow (1 to 512), those words. A guest that changes a counter in each of its pages costs a dozen
 * bytes for a page instead of 4096.
 */
#ifndef VM_MIGRATE_DELTA_H
#define VM_MIGRATE_DELTA_H

#include "base/err.h"

/* Bytes of the difference from `old` to `new`, written to ret_delta; 0: equal; -1: longer than max. */
int migrate_delta_make(const u8 *old, const u8 *new, u8 *ret_delta, int max);
/* Changes page. -EPROTO for anything but what migrate_delta_make() writes; nothing changed then. */
int migrate_delta_apply(u8 *page, const u8 *delta, u32 len, struct err *err);

#endif
