/*
 * Writes pages into a snapshot's memory file, in a thread of its own, in the order in which they are given. Given are runs
 * of pages: lent ones stay where they are until they are written, copied ones are in a buffer when the call returns, so
 * their owner may write to them again at once. Both calls wait when the writer is far behind.
 */
#ifndef VM_SNAPSHOT_WRITER_H
#define VM_SNAPSHOT_WRITER_H

#include "base/err.h"
#include "base/types.h"
#include <stdatomic.h>

struct snapwriter;

/* fd stays the caller's, and is used by nobody else until snapwriter_free(). When *cancelled becomes true, nothing more is
 * written. The thread inherits the caller's sandbox. */
int snapwriter_new(int fd, const atomic_bool *cancelled, struct snapwriter **ret_w,
                   struct err *err);
/* Writes nothing more than it has begun. NULL is fine. */
void snapwriter_free(struct snapwriter *w);

void snapwriter_lend(struct snapwriter *w, u64 page, u64 count, const u8 *bytes);
void snapwriter_copy(struct snapwriter *w, u64 page, u64 count, const u8 *bytes);
/* So many pages can be copied without waiting, whichever they are. Only copied ones take room, so the caller, who alone
 * copies, can rely on it. */
u64 snapwriter_room(struct snapwriter *w);
/* Makes the buffer ready, which takes a while the first time. Any moment before the first copy will do. -ENOMEM */
int snapwriter_make_room(struct snapwriter *w);
/* Waits until all that was given is written (in the file, not on the medium); fd is an ordinary descriptor then. 0, or the
 * first -errno; -ECANCELED. */
int snapwriter_drain(struct snapwriter *w);

#endif
