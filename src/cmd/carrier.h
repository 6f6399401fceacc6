/*
 * Processes that carry bytes between a line to another host and a socket pair, whose other end they give away. So the VMM holds
 * neither keys nor a terminal, and a line outlives the verb that made it.
 */
#ifndef CMD_CARRIER_H
#define CMD_CARRIER_H

#include "base/err.h"

/*
 * Starts one: fn(opaque, plain) in a process of its own, which ends when it returns. It ignores SIGPIPE and SIGINT, and of all
 * descriptors it keeps the standard ones, in and out (those of the line): whoever holds an end of somebody else's line keeps it
 * open. *ret_fd: the other end of plain, close-on-exec.
 */
int carrier_start(void (*fn)(void *opaque, int plain), void *opaque, int in, int out, int *ret_fd,
                  struct err *err);
/* All of it, to a descriptor that blocks; false: nobody reads there any more. */
bool carrier_write(int fd, const u8 *buf, size_t len);

#endif
