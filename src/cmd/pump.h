/* Processes that carry bytes between two ends until either has ended: for TLS, and for ssh's pipes. */
#ifndef CMD_PUMP_H
#define CMD_PUMP_H

#include "base/err.h"

/* Forks; the child carries bytes between one end of a new socket pair and (in, out), and leaves when either is closed.
 * *ret_fd is the other end. in and out stay open here. */
int pump_start(int in, int out, int *ret_fd, struct err *err);

#endif
