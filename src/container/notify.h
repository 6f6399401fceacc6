/* systemd's readiness protocol (sd_notify(3)) through the runtime: $NOTIFY_SOCKET. */
#ifndef CONTAINER_NOTIFY_H
#define CONTAINER_NOTIFY_H

#include "container/init.h"

/*
 * When $NOTIFY_SOCKET is set: makes a directory in the state directory, which init will mount at /run/notify, and
 * tells the program about it. Without privileges to do so nothing happens.
 */
int notify_prepare(struct init *in, struct spec_process *p, struct err *err);
/* Binds the socket in that directory, before the program begins. A descriptor, or -1 when there is none to bind. */
int notify_open(const struct state *st);
/* Waits for READY=1 or the end of the container; passes readiness on with the container's pid. Closes fd. */
void notify_wait(int fd, const struct state *st);

#endif
