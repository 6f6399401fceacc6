/*
 * TLS 1.3 around a connection, by certificates or a key that both sides know. A process of its own carries
 * the bytes between the network and a socket pair, so the VMM holds no key and no TLS code.
 */
#ifndef CMD_TLS_H
#define CMD_TLS_H

#include "base/err.h"

struct tls_options {
    const char *psk;        /* file with the key: 32 to 64 hexadecimal digits or more */
    const char *cert, *key; /* PEM files: our certificate chain and its key */
    const char *ca;         /* PEM file: who may have signed the other side's certificate */
};

bool tls_wanted(const struct tls_options *o);
/* Reads all files once, so that a wrong name is said at the start. */
int tls_check(const struct tls_options *o, struct err *err);
/* Does the handshake as the client on fd (which stays the caller's), and starts the carrier. host: the name that the
 * other side's certificate must have. *ret_fd: plain bytes. */
int tls_connect(const struct tls_options *o, int fd, const char *host, int *ret_fd,
                struct err *err);
/* As the server; the handshake is done by the carrier, so this does not wait. */
int tls_serve(const struct tls_options *o, int fd, int *ret_fd, struct err *err);

#endif
