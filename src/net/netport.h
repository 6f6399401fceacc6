/*
 * A port of a network: frames go in and come out. A device holds one end, a back end the other.
 *
 * net_send() is called by the device from any thread, one at a time per port; frames are at most
 * NET_FRAME_MAX bytes and hostile. Frames for the device arrive through port->receive, from the
 * main loop's thread or from within net_send() (a user-mode stack answers at once), never with the
 * device's receive lock held by the caller.
 */
#ifndef NET_NETPORT_H
#define NET_NETPORT_H

#include "base/err.h"
#include <netinet/in.h>
#include <sys/uio.h>

#define NET_FRAME_MAX 65550u /* 64 KiB of IP and an Ethernet header with a VLAN tag */

/* What is special about a frame. Same meaning as virtio_net_hdr (virtio 1.2, 5.1.6), checked by the
 * device. */
enum net_gso { NET_GSO_NONE = 0, NET_GSO_TCP4 = 1, NET_GSO_TCP6 = 4 };
struct net_offload {
    bool csum_partial; /* the checksum at csum_start + csum_offset covers the pseudo header only */
    bool csum_good;    /* checked already */
    u8 gso;            /* enum net_gso */
    bool ecn;
    u16 hdr_len, gso_size, csum_start, csum_offset;
};

/* What a back end can take from the guest, and what it may hand to it. */
enum net_caps { NET_CSUM = 1, NET_TSO = 2, NET_RX_CSUM = 4, NET_RX_TSO = 8 };

struct netport;

struct netport_ops {
    const char *name;
    u32 caps;
    void (*send)(struct netport *p, const struct net_offload *o, const struct iovec *iov,
                 unsigned niov, size_t len);
    /* The device agreed on these (enum net_caps); frames to it may use no more. May be NULL. */
    void (*set_caps)(struct netport *p, u32 caps);
    /* After receive() returned false: there is room again. Any thread, the device's receive lock
     * may be held. */
    void (*resume)(struct netport *p);
    /* The next frame that has come and that the device has not taken, for a device that is quiet and
     * will not go on here. Its bytes; 0: none just now. Main loop. NULL: nothing waits in such a port. */
    size_t (*take)(struct netport *p, struct net_offload *ret_o, u8 *frame, size_t size);
    /* A frame that came for this device elsewhere: it goes in before those that come here. Main loop.
     * NULL: there are none. */
    void (*give)(struct netport *p, const struct net_offload *o, const u8 *frame, size_t len);
    void (*close)(struct netport *p);
};

struct netport {
    const struct netport_ops *ops;
    /* Set by the device. True: taken, or dropped for good. False: no room now; keep it if you can
     * and wait for resume. */
    bool (*receive)(void *opaque, const struct net_offload *o, const struct iovec *iov,
                    unsigned niov, size_t len);
    void *opaque;
};

static inline void net_send(struct netport *p, const struct net_offload *o, const struct iovec *iov,
                            unsigned niov, size_t len)
{
    if (p)
        p->ops->send(p, o, iov, niov, len);
}

struct loop;

/* A port of the host that leads to one of the guest's. */
struct net_hostfwd {
    bool udp;
    struct in_addr host_addr;  /* where we listen */
    struct in_addr guest_addr; /* 0.0.0.0: the first address that DHCP hands out */
    u16 host_port, guest_port;
};

struct net_user_options {
    bool restricted;      /* the guest sees only us: no host, no outside */
    const char *hostname; /* told by DHCP; NULL: none */
    const struct net_hostfwd *fwd;
    unsigned nfwds;
};

/* User-mode NAT: 10.0.2.0/24, gateway 10.0.2.2, DNS 10.0.2.3, first DHCP address 10.0.2.15. */
int net_user_open(struct loop *l, const struct net_user_options *o, struct netport **ret_port,
                  struct err *err);
/* An existing tap device. */
int net_tap_open(struct loop *l, const char *ifname, struct netport **ret_port, struct err *err);
/* Drops everything. */
int net_none_open(struct netport **ret_port, struct err *err);
void netport_close(
    struct netport *p); /* in the main loop's thread, device gone or stopped; NULL is fine */

#endif
