/*
 * Giving back memory that only the start of a machine needed.
 */
#ifndef VM_TRIM_H
#define VM_TRIM_H

#include "loop/timer.h"

/* Gives back pages of program and libraries, and free pages of the heap, when the machine has run for a moment: not while
 * it starts, which would wait for them. What turns out to be needed comes back by itself. Called before the process locks
 * itself in; the rest is done by the thread that runs `q`. */
void trim_later(struct timer *t, struct timerq *q);

#endif
