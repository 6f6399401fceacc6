/* Port forwarding rules of the user-mode network: "tcp:ADDR:PORT-ADDR:PORT". */
#ifndef NET_HOSTFWD_H
#define NET_HOSTFWD_H

#include "base/err.h"

struct hostfwd {
    bool udp;
    u32 host_addr, guest_addr; /* IPv4, host byte order */
    u16 host_port, guest_port;
};

/* An empty host address is 127.0.0.1, an empty guest address the first that DHCP hands
 * out, 10.0.2.15. */
int hostfwd_parse(const char *text, struct hostfwd *ret_fwd, struct err *err);

#endif
