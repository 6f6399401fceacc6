/* Bytes between a connection that speaks TLS and a plain socket: what a carrier (carrier.h) of such a line does. */
#ifndef CMD_TLS_CARRY_H
#define CMD_TLS_CARRY_H

#include "cmd/openssl.h"

/*
 * Until either end hangs up or the line breaks. What somebody wrote before he hung up still comes out at the other end, even
 * when he no longer reads what comes for him. The handshake is over, and ssl's descriptor does not block; SIGPIPE is ignored.
 * Returns what broke the line (an errno), or EPIPE.
 */
int tls_carry(SSL *ssl, int plain);

#endif
