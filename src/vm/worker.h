/*
 * A thread that is born locked in and does long work for the machine, one job at a time: the main loop
 * must not wait, and once the process is locked in it starts no threads that may. What a job starts
 * is locked in as well.
 */
#ifndef VM_WORKER_H
#define VM_WORKER_H

#include "loop/loop.h"
#include "vm/sandbox.h"

struct worker;

int worker_new(const struct sandbox *sandbox, struct loop *loop, struct worker **ret_worker,
               struct err *err);
/* Waits for the job, which must be ending. Its calls into the loop are made here, in the loop's thread. */
void worker_free(struct worker *w);
/* Runs fn(opaque) in the worker, once the job before it, which must be ending, has ended. Main loop. */
void worker_start(struct worker *w, void (*fn)(void *opaque), void *opaque);
/* In a job, or a thread of one: runs fn(opaque) in the main loop and waits for it. */
void worker_in_loop(struct worker *w, void (*fn)(void *opaque), void *opaque);

#endif
