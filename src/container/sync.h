/*
 * The conversation between the runtime and the process that becomes the container's init (or an exec'd
 * process): whole messages over a SOCK_SEQPACKET pair. Either side sees the other's death as end of file.
 */
#ifndef CONTAINER_SYNC_H
#define CONTAINER_SYNC_H

#include "base/err.h"

enum sync_kind {
    SYNC_ERROR,   /* to the runtime: text and code; the sender ends */
    SYNC_MAP_ME,  /* to the runtime: write my id maps */
    SYNC_PID,     /* to the runtime: the process you wanted has this pid (value) */
    SYNC_MOUNTED, /* to the runtime: namespaces and mounts stand; run your hooks */
    SYNC_READY,   /* to the runtime: everything but the program's start is done */
    SYNC_NOTIFY,  /* to the runtime: the seccomp listener comes with this message */
    SYNC_STARTED, /* to `start`: the program has begun (or will the moment the socket closes) */
    SYNC_CGROUPS, /* to init: your cgroups stand, here are their doors (value: which is the memory group's) */
    SYNC_GO, /* to init: the answer to the question you just sent */
};

struct sync_msg {
    u32 kind;
    s32 value;
    char text[496];
};

#define SYNC_FDS 20 /* descriptors in one message, at most */

/* A connected pair, both ends close-on-exec. */
int sync_pair(int ret[2], struct err *err);
/* Sends one message; `fd` >= 0 goes along. 0 or -errno. */
int sync_send(int sock, enum sync_kind kind, int value, const char *text, int fd);
/* The same for a whole message and several descriptors. */
int sync_send_fds(int sock, const struct sync_msg *msg, const int *fds, size_t n);
/* Sends *err as SYNC_ERROR. */
void sync_send_error(int sock, const struct err *err);
/* Receives one; *ret_fd (may be NULL) gets a descriptor or -1. -EPIPE when the other side is gone. */
int sync_recv(int sock, struct sync_msg *ret, int *ret_fd);
/* The same with room for SYNC_FDS descriptors, close-on-exec. */
int sync_recv_fds(int sock, struct sync_msg *ret, int *fds, size_t *ret_n);
/* Receives and insists on this kind; a SYNC_ERROR becomes *err. */
int sync_expect(int sock, enum sync_kind kind, struct sync_msg *ret, struct err *err);

#endif
