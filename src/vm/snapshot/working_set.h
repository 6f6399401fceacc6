/*
 * The working set of a restored machine: the pages that it touches first. The machine that is restored first notes which
 * ones they are, beside the snapshot; those restored later have them brought while they are still being made, by a thread of
 * its own (record and prefetch, as in Ustiugov et al., "Benchmarking, Analysis, and Optimization of Serverless Function
 * Snapshots", ASPLOS 2021). A list is advice: what it says wrongly costs time, what it does not say comes when it is touched.
 */
#ifndef VM_SNAPSHOT_WORKING_SET_H
#define VM_SNAPSHOT_WORKING_SET_H

#include "vm/snapshot/chain.h"

/* Of one list: 8 MiB of guest memory. */
#define WORKING_SET_PAGES 2048
/* For how long what is touched counts as touched first. */
#define WORKING_SET_NS 1000000000ull

struct working_set;

/*
 * Right after lazy_begin() with snapchain_fetch(), before the machine runs. chain and ram must outlive it. fd: the list's
 * file, readable and maybe writable, of which nothing is believed; taken. enter(opaque): called first in the thread, to lock it
 * in; -errno ends it. NULL: there is no memory or no thread for it, and the machine does without.
 */
struct working_set *working_set_start(struct snapchain *chain, int fd, int (*enter)(void *opaque),
                                      void *opaque);
/* Ends the thread; what has been noted by then is written. Before the machine's memory goes. NULL is fine. */
void working_set_free(struct working_set *w);

#endif
