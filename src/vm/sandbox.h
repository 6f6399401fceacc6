/*
 * Locking the process in, thread by thread, before guest code runs: no new privileges, no capabilities, no
 * supplementary groups, no files but those open (Landlock, or an empty root where Landlock is missing and we may),
 * and a seccomp filter with what that kind of thread needs.
 *
 * All of these belong to a thread in Linux, and are inherited by the threads it starts afterwards.
 */
#ifndef VM_SANDBOX_H
#define VM_SANDBOX_H

#include "base/err.h"

enum sandbox_kind { SANDBOX_LOOP, SANDBOX_CPU, SANDBOX_IO, SANDBOX_KINDS };

struct sandbox_needs {
    bool sockets;     /* the user-mode network talks to the outside, and reads /etc/resolv.conf */
    bool no_landlock; /* tests: as on a kernel without it */
};

struct sandbox;

/* Prepares all that has to be opened or computed, and sets no-new-privileges. Before any other thread exists,
 * but such as end before guest code runs. */
int sandbox_new(const struct sandbox_needs *needs, struct sandbox **ret_sandbox, struct err *err);
void sandbox_free(struct sandbox *s); /* threads that are locked in stay so; NULL is fine */
/* Locks the calling thread in, for good. */
int sandbox_enter(const struct sandbox *s, enum sandbox_kind kind, struct err *err);
/* Runs fn(opaque) in a thread that is locked in, waits for it and returns what it returned (0 or -errno): what fn
 * starts is born locked in. */
int sandbox_run(const struct sandbox *s, enum sandbox_kind kind,
                int (*fn)(void *opaque, struct err *err), void *opaque, struct err *err);

#endif
