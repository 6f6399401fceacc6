/*
 * --net KIND[,...]: user[,restrict=on|off][,hostfwd=[tcp|udp]:[ADDR]:PORT-[ADDR]:PORT]..., tap,ifname=NAME, both with
 * [,mac=ADDR], or none. The form of hostfwd is the one that users of other machine monitors have in their fingers. Any
 * thread; no state.
 */
#include "vm/option_net.h"

#include "vm/value.h"
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>

static const char *const net_kinds[] = {
    [VM_NET_USER] = "user",
    [VM_NET_TAP] = "tap",
    [VM_NET_NONE] = "none",
    NULL,
};

/* "[ADDR]:PORT"; an empty address is 0.0.0.0. */
static int parse_endpoint(char *text, struct in_addr *ret_addr, u16 *ret_port, struct err *err)
{
    struct in_addr addr = {.s_addr = INADDR_ANY};
    char *colon = strrchr(text, ':');
    u64 port;

    if (!colon)
        return err_set(err, EINVAL, "'%s' is not of the form [ADDR]:PORT", text);
    *colon = 0;
    if (*text && inet_pton(AF_INET, text, &addr) != 1)
        return err_set(err, EINVAL, "'%s' is not an IPv4 address", text);
    if (value_number(colon + 1, 1, UINT16_MAX, &port, err))
        return err_wrap(err, "the port");
    *ret_addr = addr;
    *ret_port = (u16)port;
    return 0;
}

/* [tcp|udp]:[ADDR]:PORT-[ADDR]:PORT */
static int parse_hostfwd(struct vm_net_config *n, char *text, struct err *err)
{
    static const char *const protocols[] = {"tcp", "udp", NULL};
    struct net_hostfwd f = {0};
    unsigned protocol = 0;
    char *host = strchr(text, ':'), *guest;

    if (!host)
        return err_set(err, EINVAL,
                       "hostfwd '%s' is not of the form [tcp|udp]:[ADDR]:PORT-[ADDR]:PORT", text);
    *host++ = 0;
    guest = strchr(host, '-');
    if (!guest)
        return err_set(err, EINVAL,
                       "hostfwd: '%s' has no '-' between the host's and the guest's port", host);
    *guest++ = 0;
    if (*text && value_choice(text, protocols, &protocol, err))
        return err_wrap(err, "hostfwd");
    if (parse_endpoint(host, &f.host_addr, &f.host_port, err))
        return err_wrap(err, "hostfwd, on the host");
    if (parse_endpoint(guest, &f.guest_addr, &f.guest_port, err))
        return err_wrap(err, "hostfwd, in the guest");
    if (n->nfwds == VM_HOSTFWDS)
        return err_set(err, ENOSPC, "hostfwd: at most %d ports are forwarded", VM_HOSTFWDS);
    f.udp = protocol == 1;
    n->fwd[n->nfwds++] = f;
    return 0;
}

static int parse_ifname(struct vm_net_config *n, char *name, struct err *err)
{
    if (!*name || strlen(name) >= IF_NAMESIZE || strpbrk(name, "/ "))
        return err_set(
            err, EINVAL,
            "ifname '%s' cannot name an interface; allowed are 1 to %d characters without '/' "
            "and spaces",
            name, IF_NAMESIZE - 1);
    snprintf(n->ifname, sizeof(n->ifname), "%s", name);
    return 0;
}

static int parse_restrict(struct vm_net_config *n, char *text, struct err *err)
{
    static const char *const choices[] = {"off", "on", NULL};
    unsigned on;

    if (value_choice(text, choices, &on, err))
        return err_wrap(err, "restrict");
    n->restricted = on;
    return 0;
}

/* Six pairs of hexadecimal digits with colons between; zeros and groups of cards cannot be a card's own. */
static int parse_mac(struct vm_net_config *n, char *text, struct err *err)
{
    static const u8 zero[6];
    u8 mac[6];
    int end = 0;

    if (strspn(text, "0123456789abcdefABCDEF:") != strlen(text) || strlen(text) != 17 ||
        sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2], &mac[3],
               &mac[4], &mac[5], &end) != 6 || end != 17)
        return err_set(err, EINVAL, "mac '%s' is not of the form 52:54:00:12:34:56", text);
    if (mac[0] & 1 || !memcmp(mac, zero, sizeof(mac)))
        return err_set(err, EINVAL,
                       "mac '%s' cannot be a card's own address; its first byte must be even, such "
                       "as 52:54:00:12:34:56",
                       text);
    memcpy(n->mac, mac, sizeof(mac));
    n->has_mac = true;
    return 0;
}

struct net_item {
    const char *prefix;
    unsigned kinds; /* BIT(enum vm_net_kind) that take it */
    int (*parse)(struct vm_net_config *n, char *text, struct err *err);
};

static const struct net_item net_items[] = {
    {"hostfwd=", BIT(VM_NET_USER), parse_hostfwd},
    {"ifname=", BIT(VM_NET_TAP), parse_ifname},
    {"mac=", BIT(VM_NET_USER) | BIT(VM_NET_TAP), parse_mac},
    {"restrict=", BIT(VM_NET_USER), parse_restrict},
};

static int parse_item(struct vm_net_config *n, char *item, struct err *err)
{
    static const char *const allowed[] = {
        [VM_NET_USER] = "hostfwd=[tcp|udp]:[ADDR]:PORT-[ADDR]:PORT, mac=ADDR, restrict=on|off",
        [VM_NET_TAP] = "ifname=NAME, mac=ADDR",
        [VM_NET_NONE] = "nothing",
    };

    for (unsigned i = 0; i < ARRAY_LEN(net_items); i++) {
        size_t len = strlen(net_items[i].prefix);

        if (net_items[i].kinds & BIT(n->kind) && !strncmp(item, net_items[i].prefix, len))
            return net_items[i].parse(n, item + len, err);
    }
    return err_set(err, EINVAL, "'%s' is not known after '%s'; allowed: %s", item,
                   net_kinds[n->kind], allowed[n->kind]);
}

int parse_net(struct vm_config *c, const char *value, struct err *err)
{
    auto_free char *copy = strdup(value);
    struct vm_net_config n = {0};
    char *cursor = copy;
    unsigned kind;

    if (!copy)
        return err_sys(err, ENOMEM, "cannot keep the network");
    if (value_choice(value_item(&cursor), net_kinds, &kind, err))
        return -err->code;
    n.kind = (enum vm_net_kind)kind;
    for (char *item; (item = value_item(&cursor));)
        if (parse_item(&n, item, err))
            return -err->code;
    if (n.kind == VM_NET_TAP && !*n.ifname)
        return err_set(err, EINVAL, "tap needs ifname=NAME, the name of a tap interface");
    for (unsigned i = 0; i < n.nfwds; i++)
        if (n.restricted && n.fwd[i].udp) /* libslirp 4.7 drops every datagram then, answers too */
            return err_set(err, EINVAL, "restrict=on and hostfwd=udp do not go together; forward a tcp port");
    if (c->nnets == VM_NETS)
        return err_set(err, ENOSPC, "a machine takes at most %d networks", VM_NETS);
    if (c->nnets && (n.kind == VM_NET_NONE || c->net[0].kind == VM_NET_NONE))
        return err_set(err, EINVAL, "'none' cannot stand beside another --net");
    for (unsigned i = 0; i < c->nnets; i++)
        if (n.has_mac && c->net[i].has_mac && !memcmp(n.mac, c->net[i].mac, sizeof(n.mac)))
            return err_set(err, EINVAL, "two networks cannot have the same mac");
    c->net[c->nnets++] = n;
    return 0;
}

static void print_endpoint(FILE *out, struct in_addr addr, u16 port)
{
    char text[INET_ADDRSTRLEN] = "";

    if (addr.s_addr != INADDR_ANY)
        inet_ntop(AF_INET, &addr, text, sizeof(text));
    fprintf(out, "%s:%u", text, port);
}

static void print_one(const struct vm_net_config *n, FILE *out)
{
    fprintf(out, "net=%s", net_kinds[n->kind]);
    if (n->kind == VM_NET_TAP)
        fprintf(out, ",ifname=%s", n->ifname);
    if (n->has_mac)
        fprintf(out, ",mac=%02x:%02x:%02x:%02x:%02x:%02x", n->mac[0], n->mac[1], n->mac[2],
                n->mac[3], n->mac[4], n->mac[5]);
    if (n->restricted)
        fputs(",restrict=on", out);
    for (unsigned i = 0; i < n->nfwds; i++) {
        fprintf(out, ",hostfwd=%s:", n->fwd[i].udp ? "udp" : "tcp");
        print_endpoint(out, n->fwd[i].host_addr, n->fwd[i].host_port);
        fputc('-', out);
        print_endpoint(out, n->fwd[i].guest_addr, n->fwd[i].guest_port);
    }
    fputc('\n', out);
}

void print_net(const struct vm_config *c, FILE *out)
{
    const struct vm_net_config *n;

    for (unsigned i = 0; (n = vm_config_net(c, i)); i++)
        print_one(n, out);
}
