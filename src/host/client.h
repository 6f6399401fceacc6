/*
 * A caller's end of a machine's control socket (vm/control.h): one request at a time, waiting for the answer. Any one
 * thread.
 */
#ifndef HOST_CLIENT_H
#define HOST_CLIENT_H

#include "vm/wire.h"

#define CLIENT_WAIT_FOREVER (-1)

struct client {
    struct wire wire;
    json_int_t last_id;
    int timeout_ms; /* how long to wait for each next line; CLIENT_WAIT_FOREVER after client_open() */
};

/* What a machine tells while it works on a request; `event` is borrowed. */
struct client_listener {
    void (*event)(void *opaque, const json_t *event);
    void *opaque;
};

/* Connects to the socket. -ENOENT or -ECONNREFUSED: no machine is there. */
int client_open(const char *path, struct client *ret_client, struct err *err);
void client_close(struct client *c); /* after a failed open, too */

/* Sends a request; `fields` (stolen, or NULL) are its arguments. Descriptors stay the caller's. */
int client_send(struct client *c, const char *verb, json_t *fields, const int *fds, unsigned nfds,
                struct err *err);
/* Waits for the answer. 0 and the answer (the caller's; ret_answer may be NULL). When the machine refuses, *err has its
 * reason and its code. -ETIMEDOUT: it does not answer, -EPIPE: it is gone. */
int client_wait(struct client *c, const struct client_listener *listener, json_t **ret_answer,
                struct err *err);
/* Both, for a request without descriptors, of which no events are wanted. */
int client_call(struct client *c, const char *verb, json_t *fields, json_t **ret_answer,
                struct err *err);

/* Unix sockets by path, however long it is: addresses take 107 bytes only. Both return a non-blocking descriptor or
 * -errno. */
int client_connect(const char *path);
int client_listen(const char *path); /* replaces what is there */

#endif
