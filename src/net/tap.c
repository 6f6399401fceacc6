/*
 * An existing tap device. The kernel takes and gives frames with a virtio_net_hdr in front, so
 * checksums and segmentation travel through untouched (Linux Documentation/networking/tuntap.rst).
 *
 * A frame that the device has no room for stays here, the rest in the kernel's queue, and the descriptor is not watched
 * until the device has room. When a machine moves, take() empties that queue, and give() fills one here.
 *
 * Threads: sending from vCPU threads (one write each, the kernel copies), receiving in the main
 * loop's.
 */
#include "loop/loop.h"
#include "net/netport.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define FRAMES_ROUND 64
#define SEND_SEGS 260
#define GIVEN_MAX (8 * MiB) /* what more is given is lost, as on a wire */

/* A frame that came for this machine while it was elsewhere. */
struct given {
    struct given *next;
    struct net_offload offload;
    size_t len;
    u8 frame[];
};

struct tap {
    struct netport port;
    struct loop *loop;
    struct loop_fd fd;
    bool waiting; /* for room; the descriptor is not watched */
    size_t kept;  /* bytes of a frame in buf, with header */
    struct given *first, **last;
    size_t given_bytes;
    u8 buf[sizeof(struct virtio_net_hdr) + NET_FRAME_MAX];
};

static void tap_send(struct netport *p, const struct net_offload *o, const struct iovec *iov,
                     unsigned niov, size_t len)
{
    struct tap *t = CONTAINER_OF(p, struct tap, port);
    struct virtio_net_hdr hdr = {.gso_type = (u8)(o->gso | (o->ecn ? VIRTIO_NET_HDR_GSO_ECN : 0)),
                                 .hdr_len = o->hdr_len,
                                 .gso_size = o->gso_size};
    struct iovec out[SEND_SEGS];
    ssize_t n;

    if (niov + 1 > SEND_SEGS)
        return;
    if (o->csum_partial) {
        hdr.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        hdr.csum_start = o->csum_start;
        hdr.csum_offset = o->csum_offset;
    }
    out[0] = (struct iovec){&hdr, sizeof(hdr)};
    memcpy(out + 1, iov, niov * sizeof(*iov));
    do
        n = writev(t->fd.fd, out, (int)niov + 1);
    while (n < 0 && errno == EINTR); /* anything else: the frame is lost, as on a wire */
}

static void read_header(const struct tap *t, struct net_offload *ret_o)
{
    struct virtio_net_hdr hdr;

    memcpy(&hdr, t->buf, sizeof(hdr));
    *ret_o = (struct net_offload){.csum_partial = hdr.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM,
                                  .csum_good = hdr.flags & VIRTIO_NET_HDR_F_DATA_VALID,
                                  .gso = hdr.gso_type & (u8)~VIRTIO_NET_HDR_GSO_ECN,
                                  .ecn = (hdr.gso_type & VIRTIO_NET_HDR_GSO_ECN) != 0,
                                  .hdr_len = hdr.hdr_len,
                                  .gso_size = hdr.gso_size,
                                  .csum_start = hdr.csum_start,
                                  .csum_offset = hdr.csum_offset};
}

/* False: the device has no room. */
static bool hand_over(struct tap *t, const struct net_offload *o, u8 *frame, size_t len)
{
    struct iovec iov = {frame, len};

    return !t->port.receive || t->port.receive(t->port.opaque, o, &iov, 1, len);
}

/* Hands the frame in buf, if there is one, to the device. */
static bool deliver(struct tap *t)
{
    struct net_offload o;
    size_t hdr_bytes = sizeof(struct virtio_net_hdr);

    if (!t->kept)
        return true;
    read_header(t, &o);
    if (!hand_over(t, &o, t->buf + hdr_bytes, t->kept - hdr_bytes))
        return false;
    t->kept = 0;
    return true;
}

/* The next frame of the kernel's queue into buf; false: there is none. */
static bool fetch(struct tap *t)
{
    ssize_t n = read(t->fd.fd, t->buf, sizeof(t->buf));

    t->kept = n > (ssize_t)sizeof(struct virtio_net_hdr) ? (size_t)n : 0;
    return t->kept;
}

static void tap_ready(void *opaque, u32 events)
{
    struct tap *t = opaque;

    for (unsigned i = 0; i < FRAMES_ROUND && !t->waiting; i++) {
        if (!fetch(t))
            return;
        t->waiting = !deliver(t);
    }
    if (t->waiting)
        loop_modify(t->loop, &t->fd, 0);
}

static void drop_first(struct tap *t)
{
    struct given *g = t->first;

    t->first = g->next;
    if (!t->first)
        t->last = &t->first;
    t->given_bytes -= g->len;
    free(g);
}

static void tap_go_on(void *opaque)
{
    struct tap *t = opaque;

    while (t->first && hand_over(t, &t->first->offload, t->first->frame, t->first->len))
        drop_first(t);
    if (!t->waiting || t->first || !deliver(t))
        return;
    t->waiting = false;
    loop_modify(t->loop, &t->fd, EPOLLIN);
}

static size_t tap_take(struct netport *p, struct net_offload *ret_o, u8 *frame, size_t size)
{
    struct tap *t = CONTAINER_OF(p, struct tap, port);
    size_t hdr_bytes = sizeof(struct virtio_net_hdr), len;

    if (t->first) {
        len = MIN(t->first->len, size);
        *ret_o = t->first->offload;
        memcpy(frame, t->first->frame, len);
        drop_first(t);
        return len;
    }
    if (!t->kept && !fetch(t))
        return 0;
    len = MIN(t->kept - hdr_bytes, size);
    read_header(t, ret_o);
    memcpy(frame, t->buf + hdr_bytes, len);
    t->kept = 0;
    return len;
}

static void tap_give(struct netport *p, const struct net_offload *o, const u8 *frame, size_t len)
{
    struct tap *t = CONTAINER_OF(p, struct tap, port);
    struct given *g = t->given_bytes + len <= GIVEN_MAX ? malloc(sizeof(*g) + len) : NULL;

    if (!g)
        return;
    *g = (struct given){.offload = *o, .len = len};
    memcpy(g->frame, frame, len);
    *t->last = g;
    t->last = &g->next;
    t->given_bytes += len;
    tap_go_on(t);
    if (t->first && !t->waiting) {
        t->waiting = true;
        loop_modify(t->loop, &t->fd, 0);
    }
}

static void tap_resume(struct netport *p)
{
    struct tap *t = CONTAINER_OF(p, struct tap, port);

    loop_call(t->loop, tap_go_on, t);
}

static void tap_set_caps(struct netport *p, u32 caps)
{
    struct tap *t = CONTAINER_OF(p, struct tap, port);
    unsigned long offload = (caps & NET_RX_CSUM ? TUN_F_CSUM : 0) |
                            (caps & NET_RX_TSO ? TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN : 0);

    ioctl(t->fd.fd, TUNSETOFFLOAD, offload); /* refused: frames come checked and whole */
}

static void tap_close(struct netport *p)
{
    struct tap *t = CONTAINER_OF(p, struct tap, port);

    if (t->fd.added)
        loop_remove(t->loop, &t->fd);
    if (t->fd.fd >= 0)
        close(t->fd.fd);
    while (t->first)
        drop_first(t);
    free(t);
}

static const struct netport_ops tap_ops = {
    .name = "tap",
    .caps = NET_CSUM | NET_TSO | NET_RX_CSUM | NET_RX_TSO,
    .send = tap_send,
    .set_caps = tap_set_caps,
    .resume = tap_resume,
    .take = tap_take,
    .give = tap_give,
    .close = tap_close,
};

static int attach(struct tap *t, const char *ifname, struct err *err)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int hdr_bytes = sizeof(struct virtio_net_hdr);

    if (!ifname[0] || strlen(ifname) >= sizeof(ifr.ifr_name))
        return err_set(err, EINVAL, "tap: \"%s\" is no name of a network device", ifname);
    if (!if_nametoindex(ifname))
        return err_set(err, ENODEV,
                       "tap: there is no device %s; make one with: ip tuntap add %s mode tap",
                       ifname, ifname);
    memcpy(ifr.ifr_name, ifname, strlen(ifname));
    t->fd.fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (t->fd.fd < 0)
        return err_sys(err, errno, "tap: /dev/net/tun");
    if (ioctl(t->fd.fd, TUNSETIFF, &ifr) || ioctl(t->fd.fd, TUNSETVNETHDRSZ, &hdr_bytes))
        return err_sys(err, errno, "tap: %s", ifname);
    return loop_add(t->loop, &t->fd, err);
}

int net_tap_open(struct loop *l, const char *ifname, struct netport **ret_port, struct err *err)
{
    struct tap *t = calloc(1, sizeof(*t));
    int rc;

    if (!t)
        return err_set(err, ENOMEM, "tap: no memory");
    t->port.ops = &tap_ops;
    t->loop = l;
    t->last = &t->first;
    t->fd = (struct loop_fd){.fd = -1, .events = EPOLLIN, .ready = tap_ready, .opaque = t};
    rc = attach(t, ifname, err);
    if (rc) {
        tap_close(&t->port);
        return rc;
    }
    *ret_port = &t->port;
    return 0;
}
