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
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container/report.h"

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

/* Down, since a device that is up cannot be renamed. */
static int send_over(int sock, int index, int netns)
{
    struct request r = {{NLMSG_LENGTH(sizeof(struct ifinfomsg)), RTM_NEWLINK, 0, 2, 0}, {0}};
    struct ifinfomsg *info = (struct ifinfomsg *)r.body;

    info->ifi_index = index;
    info->ifi_change = IFF_UP;
    add_attr(&r, IFLA_NET_NS_FD, &netns, sizeof(netns));
    return talk(sock, &r);
}

static int rename_to(int sock, int index, const char *name)
{
    struct request r = {{NLMSG_LENGTH(sizeof(struct ifinfomsg)), RTM_NEWLINK, 0, 3, 0}, {0}};
    struct ifinfomsg *info = (struct ifinfomsg *)r.body;

    info->ifi_index = index;
    add_attr(&r, IFLA_IFNAME, name, strlen(name) + 1);
    return talk(sock, &r);
}

static int add_addr(int sock, int index, const struct addr *a)
{
    struct request r = {{NLMSG_LENGTH(sizeof(struct ifaddrmsg)), RTM_NEWADDR, NLM_F_CREATE, 4, 0},
                        {0}};
    struct ifaddrmsg *head = (struct ifaddrmsg *)r.body;
    int rc;

    *head = a->head;
    head->ifa_index = (u32)index;
    head->ifa_flags &= IFA_F_NOPREFIXROUTE | IFA_F_NODAD;
    add_attr(&r, IFA_LOCAL, a->data, a->len);
    add_attr(&r, IFA_ADDRESS, a->data, a->len);
    if (a->has_brd)
        add_attr(&r, IFA_BROADCAST, a->brd, a->len);
    rc = talk(sock, &r);
    return rc == -EEXIST ? 0 : rc;
}

static int bring_up(int sock, int index)
{
    struct request r = {{NLMSG_LENGTH(sizeof(struct ifinfomsg)), RTM_NEWLINK, 0, 5, 0}, {0}};
    struct ifinfomsg *info = (struct ifinfomsg *)r.body;

    info->ifi_index = index;
    info->ifi_flags = info->ifi_change = IFF_UP;
    return talk(sock, &r);
}

static bool is_up(int sock, const char *name)
{
    struct ifreq r = {0};

    memcpy(r.ifr_name, name, strnlen(name, sizeof(r.ifr_name) - 1));
    return ioctl(sock, SIOCGIFFLAGS, &r) == 0 && r.ifr_flags & IFF_UP;
}

/* What a child says by its exit status, which has room for an errno and whether the device has its name. */
enum { NAMED = 0x80 };

/* A device as it arrives: named, with its addresses. */
struct arrival {
    const char *from, *to;
    bool up;
    struct addr list[MAX_ADDRS];
    size_t n;
};

/* In a child, since it enters the namespace. */
static int arrive(int netns, const struct arrival *a)
{
    int sock, index, named, rc = 0;

    if (setns(netns, CLONE_NEWNET) < 0)
        return errno;
    sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    index = (int)if_nametoindex(a->from);
    if (sock < 0 || !index)
        return ENODEV;
    named = strcmp(a->from, a->to) == 0 ? 0 : rename_to(sock, index, a->to);
    /* Also without its name, for the way back. */
    for (size_t i = 0; i < a->n && rc == 0; i++)
        rc = add_addr(sock, index, &a->list[i]);
    if (rc == 0 && a->up)
        rc = bring_up(sock, index);
    return named < 0 ? -named & 0x7f : NAMED | (-rc & 0x7f);
}

/* Returns 0, or -errno with *ret_left when it has left this namespace nevertheless, *ret_named when renamed. */
static int carry(int sock, int netns, struct arrival *a, bool *ret_left, bool *ret_named)
{
    int index = (int)if_nametoindex(a->from), child, status = 0, rc;

    if (!index)
        return -ENODEV;
    rc = read_addrs(sock, index, a->list, &a->n);
    if (rc == 0)
        rc = send_over(sock, index, netns);
    if (rc < 0)
        return rc;
    *ret_left = true;
    child = fork();
    if (child == 0)
        _exit(arrive(netns, a));
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (child < 0 || !WIFEXITED(status))
        return -EIO;
    *ret_named = WEXITSTATUS(status) & NAMED;
    return -(WEXITSTATUS(status) & 0x7f);
}

static int move_one(int sock, int netns, struct spec_netdev *d, struct err *err)
{
    struct arrival a = {.from = d->host_name, .to = d->name, .up = true};
    bool left = false, named = false;
    int rc;

    if (!if_nametoindex(d->host_name))
        return err_set(err, ENODEV, "netDevices: %s does not exist", d->host_name);
    d->was_up = is_up(sock, d->host_name);
    rc = carry(sock, netns, &a, &left, &named);
    if (left)
        d->moved_as = named ? d->name : d->host_name;
    if (rc == -EINVAL && !left)
        return err_set(err, EINVAL, "netDevices: %s is bound to its network namespace",
                       d->host_name);
    if (rc == -EEXIST)
        return err_set(err, EEXIST,
                       "netDevices: the container's network has a device named %s already",
                       left ? d->name : d->host_name);
    return rc < 0 ? err_sys(err, -rc, "netDevices: move %s to %s", d->host_name, d->name) : 0;
}

int netdev_move(struct spec *s, int pid, int *ret_netns, struct err *err)
{
    auto_close int sock = -1;
    char path[40];

    if (!s->netdev_count)
        return 0;
    snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
    *ret_netns = open(path, O_RDONLY | O_CLOEXEC);
    sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (*ret_netns < 0 || sock < 0)
        return err_sys(err, errno, "netDevices");
    for (size_t i = 0; i < s->netdev_count; i++)
        if (move_one(sock, *ret_netns, &s->netdevs[i], err) < 0)
            return -err->code;
    return 0;
}

/* In a child, since it enters the container's namespace; how many did not come back. */
static int return_all(const struct spec *s, int netns, int home)
{
    int sock, lost = 0;

    if (setns(netns, CLONE_NEWNET) < 0)
        return 1;
    sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    for (size_t i = 0; i < s->netdev_count; i++) {
        const struct spec_netdev *d = &s->netdevs[i];
        struct arrival a = {.from = d->moved_as, .to = d->host_name, .up = d->was_up};
        bool left, named;

        if (d->moved_as && carry(sock, home, &a, &left, &named) < 0)
            lost++;
    }
    return MIN(lost, 100);
}

void netdev_return(const struct spec *s, int netns)
{
    auto_close int home = -1;
    int child, status = 0;

    if (netns < 0)
        return;
    home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    child = fork();
    if (child == 0)
        _exit(return_all(s, netns, home));
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (child < 0 || !WIFEXITED(status) || WEXITSTATUS(status))
        report(REPORT_WARN, "netDevices: not all of them could be moved back to the host");
}
