/*
 * How large the machine's disks are, behind its description in HELLO: a stream of its own (state/stream.h) with a section
 * "disks", version 1, one u64 of bytes for each. Who does not know it stops at the description's end, and finds out
 * about a disk of another size when blocks come or the state is loaded; so it is missing where the source is of such a
 * release.
 */
#ifndef VM_MIGRATE_SIZES_H
#define VM_MIGRATE_SIZES_H

#include "state/stream.h"

int migrate_sizes_save(const u64 *bytes, unsigned n, const struct state_sink *to, struct err *err);
/* For a machine of n disks, at most VM_DISKS. Read as hostile input: what it says about other things is passed over. */
int migrate_sizes_load(const struct state_source *from, unsigned n, u64 *ret_bytes,
                       struct err *err);

#endif
