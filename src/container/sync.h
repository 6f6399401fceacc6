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
    SYNC_MEMORY,  /* to the runtime: my own work is done, put me into the memory group too */
    SYNC_READY,   /* to the runtime: everything but the program's start is done */
    SYNC_NOTIFY,  /* to the runtime: the seccomp listener comes with this message */
    SYNC_STARTED, /* to `start`: the program has begun (or will the moment the socket closes) */
    SYNC_CGROUPS, /* to init: you are in your cgroups */
    SYNC_GO,      /* to init: the answer to the question you just sent */
};

struct sync_msg {
    u32 kind;
    s32 value;
    char text[496];
};

/* A connected pair, both ends close-on-exec. */
int sync_pair(int ret[2], struct err *err);
/* Sends one message; `fd` >= 0 goes along. 0 or -errno. */
int sync_send(int sock, enum sync_kind kind, int value, const char *text, int fd);
/* Sends *err as SYNC_ERROR. */
void sync_send_error(int sock, const struct err *err);
/* Receives one; *ret_fd (may be NULL) gets a descriptor or -1. -EPIPE when the other side is gone. */
int sync_recv(int sock, struct sync_msg *ret, int *ret_fd);
/* Receives and insists on this kind; a SYNC_ERROR becomes *err. */
int sync_expect(int sock, enum sync_kind kind, struct sync_msg *ret, struct err *err);

#endif
