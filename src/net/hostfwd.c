/* Parsing of "tcp:ADDR:PORT-ADDR:PORT". Only loopback is listened on unless an address says
 * otherwise: a forwarded port is not meant for the whole network by accident. */
#include "net/hostfwd.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HOST_DEFAULT 0x7f000001u
#define GUEST_DEFAULT 0x0a00020fu

/* "ADDR:PORT" up to `end`; ADDR may be empty. */
static bool parse_end(const char *text, const char *end, u32 fallback, u32 *ret_addr, u16 *ret_port)
{
    const char *colon = memchr(text, ':', (size_t)(end - text));
    char addr[16], port[6], *rest;
    struct in_addr in;
    unsigned long n;

    if (!colon || (size_t)(colon - text) >= sizeof(addr) ||
        (size_t)(end - colon - 1) >= sizeof(port))
        return false;
    memcpy(addr, text, (size_t)(colon - text));
    addr[colon - text] = 0;
    memcpy(port, colon + 1, (size_t)(end - colon - 1));
    port[end - colon - 1] = 0;
    if (port[0] < '0' || port[0] > '9')
        return false;
    n = strtoul(port, &rest, 10);
    if (*rest || n < 1 || n > 65535)
        return false;
    if (addr[0] && inet_pton(AF_INET, addr, &in) != 1)
        return false;
    *ret_addr = addr[0] ? ntohl(in.s_addr) : fallback;
    *ret_port = (u16)n;
    return true;
}

int hostfwd_parse(const char *text, struct hostfwd *ret_fwd, struct err *err)
{
    struct hostfwd f = {.udp = strncmp(text, "udp:", 4) == 0};
    const char *dash = strchr(text, '-');

    if ((!f.udp && strncmp(text, "tcp:", 4) != 0) || !dash ||
        !parse_end(text + 4, dash, HOST_DEFAULT, &f.host_addr, &f.host_port) ||
        !parse_end(dash + 1, dash + strlen(dash), GUEST_DEFAULT, &f.guest_addr, &f.guest_port))
        return err_set(err, EINVAL,
                       "hostfwd=%s: should be tcp:ADDR:PORT-ADDR:PORT (or udp:); addresses may be "
                       "left empty, as in "
                       "tcp::2222-:22",
                       text);
    *ret_fwd = f;
    return 0;
}
