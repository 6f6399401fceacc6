/*
 * Network devices by rtnetlink (rtnetlink(7)). A device loses its addresses when it changes namespace, so
 * the global ones are read before and added again inside, as the specification asks; routes are not kept.
 */
#include "container/netdev.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_ADDRS 32

struct addr {
    struct ifaddrmsg head;
    u8 data[16], brd[16];
    u8 len;
    bool has_brd;
};

struct request {
    struct nlmsghdr nl;
    char body[512];
};

static void add_attr(struct request *r, u16 type, const void *data, size_t len)
{
    struct rtattr *a = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->nl.nlmsg_len));

    a->rta_type = type;
    a->rta_len = (u16)RTA_LENGTH(len);
    memcpy(RTA_DATA(a), data, len);
    r->nl.nlmsg_len = (u32)(NLMSG_ALIGN(r->nl.nlmsg_len) + RTA_ALIGN(a->rta_len));
}

/* Sends one request and reads its acknowledgement. 0 or -errno. */
static int talk(int sock, struct request *r)
{
    union {
        struct nlmsghdr nl;
        char space[4096];
    } reply;
    struct nlmsgerr *e = NLMSG_DATA(&reply.nl);
    ssize_t n;

    r->nl.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
    if (send(sock, r, r->nl.nlmsg_len, 0) < 0)
        return -errno;
    n = recv(sock, &reply, sizeof(reply), 0);
    if (n < (ssize_t)NLMSG_LENGTH(sizeof(*e)) || reply.nl.nlmsg_type != NLMSG_ERROR)
        return n < 0 ? -errno : -EPROTO;
    return e->error;
}

static void take_addr(const struct nlmsghdr *nl, int index, struct addr *list, size_t *n)
{
    const struct ifaddrmsg *head = NLMSG_DATA(nl);
    struct rtattr *a = IFA_RTA(head);
    int left = (int)IFA_PAYLOAD(nl);
    struct addr *out = &list[*n];

    if ((int)head->ifa_index != index || head->ifa_scope != RT_SCOPE_UNIVERSE || *n == MAX_ADDRS)
        return;
    memset(out, 0, sizeof(*out));
    out->head = *head;
    for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        size_t len = MIN((size_t)RTA_PAYLOAD(a), sizeof(out->data));

        if (a->rta_type == IFA_LOCAL || (a->rta_type == IFA_ADDRESS && !out->len)) {
            memcpy(out->data, RTA_DATA(a), len);
            out->len = (u8)len;
        } else if (a->rta_type == IFA_BROADCAST) {
            memcpy(out->brd, RTA_DATA(a), len);
            out->has_brd = true;
        }
    }
    if (out->len)
        ++*n;
}

static int read_addrs(int sock, int index, struct addr *list, size_t *ret_n)
{
    struct {
        struct nlmsghdr nl;
        struct ifaddrmsg head;
    } ask = {{sizeof(ask), RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, 1, 0},
             {.ifa_family = AF_UNSPEC}};
    union {
        struct nlmsghdr nl;
        char space[16384];
    } reply;
    size_t n = 0;

    if (send(sock, &ask, sizeof(ask), 0) < 0)
        return -errno;
    for (;;) {
        ssize_t got = recv(sock, &reply, sizeof(reply), 0);
        struct nlmsghdr *nl = &reply.nl;

        if (got <= 0)
            return got < 0 ? -errno : -EPROTO;
        for (; NLMSG_OK(nl, (unsigned)got); nl = NLMSG_NEXT(nl, got)) {
            if (nl->nlmsg_type == NLMSG_DONE) {
                *ret_n = n;
                return 0;
            }
            if (nl->nlmsg_type == NLMSG_ERROR)
                return -EPROTO;
            if (nl->nlmsg_type == RTM_NEWADDR)
                take_addr(nl, index, list, &n);
        }
    }
}

static int send_over(int sock, int index, int netns, const char *name)
{
    struct request r = {{NLMSG_LENGTH(sizeof(struct ifinfomsg)), RTM_NEWLINK, 0, 2, 0}, {0}};
    struct ifinfomsg *info = (struct ifinfomsg *)r.body;

    info->ifi_index = index;
    info->ifi_change = IFF_UP; /* down: a device that is up cannot be renamed */
    add_attr(&r, IFLA_NET_NS_FD, &netns, sizeof(netns));
    add_attr(&r, IFLA_IFNAME, name, strlen(name) + 1);
    return talk(sock, &r);
}

/* In a child, since it enters the namespace: addresses again, and up. */
static int finish_inside(int netns, const char *name, const struct addr *list, size_t n)
{
    struct request up = {{NLMSG_LENGTH(sizeof(struct ifinfomsg)), RTM_NEWLINK, 0, 3, 0}, {0}};
    struct ifinfomsg *info = (struct ifinfomsg *)up.body;
    int sock, rc = 0;

    if (setns(netns, CLONE_NEWNET) < 0)
        return -errno;
    sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    info->ifi_index = (int)if_nametoindex(name);
    if (sock < 0 || !info->ifi_index)
        return -ENODEV;
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct request r = {
            {NLMSG_LENGTH(sizeof(struct ifaddrmsg)), RTM_NEWADDR, NLM_F_CREATE, 4, 0}, {0}};
        struct ifaddrmsg *head = (struct ifaddrmsg *)r.body;

        *head = list[i].head;
        head->ifa_index = (u32)info->ifi_index;
        head->ifa_flags &= IFA_F_NOPREFIXROUTE | IFA_F_NODAD;
        add_attr(&r, IFA_LOCAL, list[i].data, list[i].len);
        add_attr(&r, IFA_ADDRESS, list[i].data, list[i].len);
        if (list[i].has_brd)
            add_attr(&r, IFA_BROADCAST, list[i].brd, list[i].len);
        rc = talk(sock, &r);
        rc = rc == -EEXIST ? 0 : rc;
    }
    info->ifi_flags = info->ifi_change = IFF_UP;
    return rc < 0 ? rc : talk(sock, &up);
}

static int move_one(int sock, int netns, const struct spec_netdev *d, struct err *err)
{
    struct addr list[MAX_ADDRS];
    int index = (int)if_nametoindex(d->host_name), child, status = 0, rc;
    size_t n = 0;

    if (!index)
        return err_set(err, ENODEV, "netDevices: %s does not exist", d->host_name);
    rc = read_addrs(sock, index, list, &n);
    if (rc == 0)
        rc = send_over(sock, index, netns, d->name);
    if (rc < 0)
        return err_sys(err, -rc, "netDevices: move %s to %s", d->host_name, d->name);
    child = fork();
    if (child == 0)
        _exit(-finish_inside(netns, d->name, list, n) & 0x7f);
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (child < 0 || !WIFEXITED(status) || WEXITSTATUS(status))
        return err_sys(err, child > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : EIO,
                       "netDevices: configure %s", d->name);
    return 0;
}

int netdev_move(const struct spec *s, int pid, struct err *err)
{
    auto_close int netns = -1, sock = -1;
    char path[40];

    if (!s->netdev_count)
        return 0;
    snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
    netns = open(path, O_RDONLY | O_CLOEXEC);
    sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (netns < 0 || sock < 0)
        return err_sys(err, errno, "netDevices");
    for (size_t i = 0; i < s->netdev_count; i++)
        if (move_one(sock, netns, &s->netdevs[i], err) < 0)
            return -err->code;
    return 0;
}
