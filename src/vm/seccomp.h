/* Which system calls each kind of thread may make, as a classic BPF program for seccomp(2). */
#ifndef VM_SECCOMP_H
#define VM_SECCOMP_H

#include "vm/sandbox.h"
#include <linux/filter.h>

/* Builds the filter of one kind; the instructions are the caller's to free. Anything not allowed raises SIGSYS. */
int seccomp_build(enum sandbox_kind kind, const struct sandbox_needs *needs,
                  struct sock_fprog *ret_program, struct err *err);

#endif
