/* Seccomp filters of a configuration: compiled by the runtime, loaded by the process (config-linux.md). */
#ifndef CONTAINER_SECCOMP_H
#define CONTAINER_SECCOMP_H

#include "container/spec.h"

struct seccomp_prog {
    void *insns; /* struct sock_filter[], in shared memory so that a forked child sees it */
    u32 count;   /* 0: nothing to load */
    u32 flags;   /* SECCOMP_FILTER_FLAG_* */
    bool notify; /* some rule notifies: a listener must be handed out */
    const char *listener_path, *listener_metadata;
};

/* Checks and compiles `seccomp` (NULL: an empty program). */
int seccomp_compile(json_t *seccomp, struct seccomp_prog *ret, struct err *err);
/*
 * seccomp_newer.c: writes to `fd` what comes before the program of `ctx` (a scmp_filter_ctx), so that calls younger
 * than the filter get ENOSYS. 0 or -errno.
 */
int seccomp_write_newer(void *ctx, json_t *syscalls, u32 default_action, int fd);
/* Loads it into this thread. *ret_listener gets a descriptor when `notify`, else -1. */
int seccomp_install(const struct seccomp_prog *prog, int *ret_listener, struct err *err);
/* Hands the listener to the socket named in the configuration with the state the spec asks for. */
int seccomp_send_listener(const struct seccomp_prog *prog, json_t *state, int pid, int listener,
                          struct err *err);
/* The words for the `features` verb: list 0 actions, 1 operators, 2 architectures, 3 flags. */
const char *seccomp_word(int list, size_t i);

#endif
