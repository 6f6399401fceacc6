/*
 * --net KIND[,...]: user[,hostfwd=[tcp|udp]:[ADDR]:PORT-[ADDR]:PORT]..., tap,ifname=NAME, none. The
 * form of hostfwd is the one that users of other machine monitors have in their fingers. Any
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

static int parse_ifname(struct vm_net_config *n, const char *name, struct err *err)
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

static int parse_item(struct vm_net_config *n, char *item, struct err *err)
{
    if (n->kind == VM_NET_USER && !strncmp(item, "hostfwd=", 8))
        return parse_hostfwd(n, item + 8, err);
    if (n->kind == VM_NET_TAP && !strncmp(item, "ifname=", 7))
        return parse_ifname(n, item + 7, err);
    static const char *const allowed[] = {
        [VM_NET_USER] = "hostfwd=[tcp|udp]:[ADDR]:PORT-[ADDR]:PORT",
        [VM_NET_TAP] = "ifname=NAME",
        [VM_NET_NONE] = "nothing",
    };
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
    if (c->nnets == VM_NETS)
        return err_set(err, ENOSPC, "a machine takes at most %d networks", VM_NETS);
    if (c->nnets && (n.kind == VM_NET_NONE || c->net[0].kind == VM_NET_NONE))
        return err_set(err, EINVAL, "'none' cannot stand beside another --net");
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
    static const struct vm_net_config by_default = {.kind = VM_NET_USER};

    if (!c->nnets)
        print_one(&by_default, out);
    for (unsigned i = 0; i < c->nnets; i++)
        print_one(&c->net[i], out);
}
