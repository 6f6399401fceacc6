/*
 * virtio-net: virtio 1.2, 5.1. One pair of queues and a control queue; frames go to and come from a
 * netport.
 *
 * Threads: sending runs in the vCPU's thread with the tx queue locked; receiving in the main loop's
 * thread, or in the sender's when the back end answers at once (tx lock → back end's lock → rx
 * lock).
 *
 * Invariants: a frame handed to the port has 14 to NET_FRAME_MAX bytes and an offload header that
 * is consistent with its length and with what was negotiated; other frames are dropped and counted
 * as the guest's loss. A received frame is put into buffers whole or not at all.
 */
#include "device/virtio_net.h"
#include "device/pci_host.h"
#include "device/trace.h"
#include <errno.h>
#include <string.h>

#define QUEUE_MAX 256
#define HDR_BYTES 12 /* struct virtio_net_hdr with num_buffers, always so since 1.0 */
#define FRAME_MIN 14

#define F_CSUM BIT(0)
#define F_GUEST_CSUM BIT(1)
#define F_MAC BIT(5)
#define F_GUEST_TSO4 BIT(7)
#define F_GUEST_TSO6 BIT(8)
#define F_HOST_TSO4 BIT(11)
#define F_HOST_TSO6 BIT(12)
#define F_MRG_RXBUF BIT(15)
#define F_STATUS BIT(16)
#define F_CTRL_VQ BIT(17)
#define F_CTRL_RX BIT(18)
#define F_GUEST_ANNOUNCE BIT(21)
#define F_CTRL_MAC BIT(23)

enum { QUEUE_RX, QUEUE_TX, QUEUE_CTRL, QUEUES };
enum { CFG_MAC = 0, CFG_STATUS = 6, CFG_PAIRS = 8, CFG_BYTES = 10 };
enum { STATUS_LINK_UP = 1, STATUS_ANNOUNCE = 2 };
enum { HDR_NEEDS_CSUM = 1, HDR_DATA_VALID = 2, HDR_GSO_ECN = 0x80 };
/* 5.1.6.5: control commands. */
enum { CTRL_RX = 0, CTRL_MAC = 1, CTRL_ANNOUNCE = 3 };
enum { RX_PROMISC = 0, RX_NOBCAST = 5, MAC_TABLE_SET = 0, MAC_ADDR_SET = 1, ANNOUNCE_ACK = 0 };
enum { CTRL_OK = 0, CTRL_ERR = 1 };

struct net {
    struct virtio v; /* first */
    struct netport *port;
    u8 default_mac[6];
    bool starved;            /* a frame found no buffers; rx lock */
    atomic_ullong mac;       /* 48 bits, first byte lowest */
    atomic_bool all_unicast; /* promiscuous, or a table of further addresses is set */
    struct {
        u16 head;
        u32 len;
    } used[QUEUE_MAX]; /* buffers of the frame being received; rx lock */
};

/* The bit in the status field; the driver clears it from its control queue, where v->lock cannot be taken. */
static void show_announce(struct net *n, bool on)
{
    u8 *status = &n->v.config[CFG_STATUS];

    if (on)
        __atomic_fetch_or(status, STATUS_ANNOUNCE, __ATOMIC_SEQ_CST);
    else
        __atomic_fetch_and(status, (u8)~STATUS_ANNOUNCE, __ATOMIC_SEQ_CST);
}

static u64 mac_of(const u8 *p)
{
    return (u64)load16(p + 4) << 32 | load32(p);
}

/* --- sending --- */

/* False: the header makes no sense for a frame of len bytes. */
static bool parse_header(struct net *n, const u8 hdr[HDR_BYTES], size_t len, struct net_offload *o)
{
    u8 gso = hdr[1] & (u8)~HDR_GSO_ECN;

    *o = (struct net_offload){0};
    if (hdr[0] & HDR_NEEDS_CSUM) {
        o->csum_partial = true;
        o->csum_start = load16(hdr + 6);
        o->csum_offset = load16(hdr + 8);
        if (!virtio_has(&n->v, F_CSUM) || o->csum_start < FRAME_MIN ||
            o->csum_start + o->csum_offset + 2u > len)
            return false;
    }
    if (!gso)
        return len <= NET_FRAME_MAX;
    o->gso = gso;
    o->ecn = (hdr[1] & HDR_GSO_ECN) != 0;
    o->hdr_len = load16(hdr + 2);
    o->gso_size = load16(hdr + 4);
    if (!o->csum_partial || !o->gso_size || o->hdr_len > len)
        return false;
    return (gso == NET_GSO_TCP4 && virtio_has(&n->v, F_HOST_TSO4)) ||
           (gso == NET_GSO_TCP6 && virtio_has(&n->v, F_HOST_TSO6));
}

static s64 net_tx(struct net *n, struct virtq_chain *c)
{
    struct iovec *iov = c->iov;
    unsigned niov = c->nout;
    u8 hdr[HDR_BYTES];
    struct net_offload o;
    size_t len;

    if (iov_read(iov, niov, 0, hdr, sizeof(hdr)) != sizeof(hdr)) {
        virtio_fail(&n->v, "a frame without room for its header");
        return 0;
    }
    len = c->out_len - HDR_BYTES;
    iov_drop(&iov, &niov, HDR_BYTES);
    trace_device_net_send(n->v.pci.name, len);
    traffic_out(&n->v.traffic, len);
    if (len >= FRAME_MIN && len <= NET_FRAME_MAX && parse_header(n, hdr, len, &o))
        net_send(n->port, &o, iov, niov, len);
    return 0;
}

/* --- receiving --- */

static bool wanted(struct net *n, const struct iovec *iov, unsigned niov)
{
    u8 dst[6];

    if (iov_read(iov, niov, 0, dst, sizeof(dst)) != sizeof(dst))
        return false;
    return (dst[0] & 1) || atomic_load(&n->all_unicast) || mac_of(dst) == atomic_load(&n->mac);
}

static void make_header(const struct net_offload *o, u8 hdr[HDR_BYTES])
{
    memset(hdr, 0, HDR_BYTES);
    if (o->csum_partial) {
        hdr[0] = HDR_NEEDS_CSUM;
        store16(hdr + 6, o->csum_start);
        store16(hdr + 8, o->csum_offset);
    } else if (o->csum_good) {
        hdr[0] = HDR_DATA_VALID;
    }
    hdr[1] = (u8)(o->gso | (o->ecn ? HDR_GSO_ECN : 0));
    store16(hdr + 2, o->hdr_len);
    store16(hdr + 4, o->gso_size);
}

/* Copies part of header + frame, from `at` on, into a chain's writable segments. */
static u32 fill(struct virtq_chain *c, const u8 hdr[HDR_BYTES], const struct iovec *iov,
                unsigned niov, u64 at)
{
    const struct iovec *to = c->iov + c->nout;
    size_t done = 0;

    if (at < HDR_BYTES) {
        done = iov_write(to, c->nin, 0, hdr + at, HDR_BYTES - at);
        at += done;
        if (at < HDR_BYTES)
            return (u32)done;
    }
    at -= HDR_BYTES;
    for (unsigned i = 0; i < niov; i++) {
        size_t part = iov[i].iov_len, copied;

        if (at >= part) {
            at -= part;
            continue;
        }
        copied = iov_write(to, c->nin, done, (const u8 *)iov[i].iov_base + at, part - at);
        done += copied;
        if (copied < part - at)
            break;
        at = 0;
    }
    return (u32)done;
}

/* Where a frame's num_buffers is in guest memory: two bytes that may lie in two segments. */
struct num_buffers {
    u8 *byte[2];
};

static struct num_buffers find_num_buffers(const struct virtq_chain *c)
{
    struct num_buffers at = {{NULL, NULL}};
    size_t offset = 0;

    for (unsigned i = c->nout; i < (unsigned)c->nout + c->nin; i++) {
        for (unsigned k = 0; k < 2; k++)
            if (HDR_BYTES - 2 + k >= offset && HDR_BYTES - 2 + k - offset < c->iov[i].iov_len)
                at.byte[k] = (u8 *)c->iov[i].iov_base + (HDR_BYTES - 2 + k - offset);
        offset += c->iov[i].iov_len;
    }
    return at;
}

static void give_back(struct virtq *q, unsigned chains)
{
    while (chains--)
        virtq_unpop(q);
}

/* Puts a frame into one or more chains. Returns their number; 0: not enough there; -EPROTO or
 * -EMSGSIZE: dropped. */
static int put_frame(struct net *n, struct virtq *q, u8 hdr[HDR_BYTES], const struct iovec *iov,
                     unsigned niov, size_t len)
{
    struct num_buffers count_at = {{NULL, NULL}};
    u64 total = HDR_BYTES + len, at = 0;
    unsigned chains = 0;

    while (at < total) {
        int got = chains < q->size ? virtq_pop(q, q->chain) : 0;

        if (got <= 0) {
            give_back(q, chains);
            return got;
        }
        if (q->chain->in_len < (chains ? 1 : HDR_BYTES)) {
            virtio_fail(&n->v, "a receive buffer without room for a header");
            give_back(q, chains + 1);
            return -EPROTO;
        }
        if (!chains)
            count_at = find_num_buffers(q->chain);
        n->used[chains].head = q->chain->head;
        n->used[chains].len = fill(q->chain, hdr, iov, niov, at);
        virtq_wrote(q, q->chain, n->used[chains].len);
        at += n->used[chains++].len;
        if (at < total && !virtio_has(&n->v, F_MRG_RXBUF)) {
            give_back(q, chains); /* one buffer has to hold it all */
            return -EMSGSIZE;
        }
    }
    *count_at.byte[0] = (u8)chains;
    *count_at.byte[1] = (u8)(chains >> 8);
    return (int)chains;
}

static bool net_receive(void *opaque, const struct net_offload *o, const struct iovec *iov,
                        unsigned niov, size_t len)
{
    struct net *n = opaque;
    struct virtq *q = &n->v.queue[QUEUE_RX];
    u8 hdr[HDR_BYTES];
    int chains = 0;
    bool retry;

    if (len < FRAME_MIN || len > NET_FRAME_MAX || !wanted(n, iov, niov))
        return true;
    make_header(o, hdr);
    pthread_mutex_lock(&q->lock);
    if (!virtq_ready(q)) {
        /* No driver: a cable that is not plugged in. So it is while a machine's state is still to come: what a network
         * says meanwhile is not for later. */
        bool keep = q->paused && atomic_load(&q->live);

        n->starved = keep; /* net_refilled() follows when the machine goes on */
        pthread_mutex_unlock(&q->lock);
        return !keep;
    }
    do {
        chains = put_frame(n, q, hdr, iov, niov, len);
        /* Too few: once more only if new ones came while we asked to be told of them. */
        retry = chains == 0 && virtq_wait(q);
    } while (retry);
    trace_device_net_receive(n->v.pci.name, len, chains);
    n->starved = chains == 0;
    for (int i = 0; i < chains; i++)
        virtq_push_later(q, n->used[i].head, n->used[i].len, (unsigned)i);
    if (chains > 0) {
        traffic_in(&n->v.traffic, len);
        virtq_publish(q, (unsigned)chains);
        virtq_signal(q);
    }
    pthread_mutex_unlock(&q->lock);
    return chains != 0;
}

static void net_refilled(struct virtio *v, struct virtq *q)
{
    struct net *n = CONTAINER_OF(v, struct net, v);

    if (n->starved && n->port && n->port->ops->resume)
        n->port->ops->resume(n->port);
    n->starved = false;
}

/* --- control queue --- */

static u8 set_table(struct net *n, const struct virtq_chain *c)
{
    u8 count[4];

    /* Two tables, unicast and multicast; we keep no filter finer than "has a unicast table". */
    if (iov_read(c->iov, c->nout, 2, count, 4) != 4 || load32(count) > 0xffff)
        return CTRL_ERR;
    if (load32(count))
        atomic_store(&n->all_unicast, true);
    return CTRL_OK;
}

static u8 control(struct net *n, const struct virtq_chain *c)
{
    u8 cmd[8];
    size_t len = iov_read(c->iov, c->nout, 0, cmd, sizeof(cmd));

    if (len < 2)
        return CTRL_ERR;
    if (cmd[0] == CTRL_RX && cmd[1] <= RX_NOBCAST && len >= 3) {
        if (cmd[1] == RX_PROMISC)
            atomic_store(&n->all_unicast, cmd[2] != 0);
        return CTRL_OK;
    }
    if (cmd[0] == CTRL_MAC && cmd[1] == MAC_ADDR_SET && len == 8 && !(cmd[2] & 1)) {
        atomic_store(&n->mac, mac_of(cmd + 2));
        return CTRL_OK;
    }
    if (cmd[0] == CTRL_MAC && cmd[1] == MAC_TABLE_SET)
        return set_table(n, c);
    if (cmd[0] == CTRL_ANNOUNCE && cmd[1] == ANNOUNCE_ACK) {
        show_announce(n, false);
        return CTRL_OK;
    }
    return CTRL_ERR;
}

static s64 net_control(struct net *n, struct virtq_chain *c)
{
    u8 status;

    if (!c->in_len) {
        virtio_fail(&n->v, "a control command without room for its status");
        return 0;
    }
    status = control(n, c);
    iov_write(c->iov + c->nout, c->nin, 0, &status, 1);
    return 1;
}

static s64 net_chain(struct virtio *v, struct virtq *q, struct virtq_chain *c)
{
    struct net *n = CONTAINER_OF(v, struct net, v);

    return q->index == QUEUE_CTRL ? net_control(n, c) : net_tx(n, c);
}

/* Tells switches where the guest is: a RARP request from its address (RFC 903), which every switch learns from. */
static void send_rarp(struct net *n)
{
    static const u8 rarp[] = {0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3};
    struct net_offload none = {0};
    u8 frame[60], mac[6];
    struct iovec iov = {frame, sizeof(frame)};
    u64 address = atomic_load(&n->mac);

    store32(mac, (u32)address);
    store16(mac + 4, (u16)(address >> 32));
    memset(frame, 0, sizeof(frame));
    memset(frame, 0xff, 6);
    memcpy(frame + 6, mac, 6);
    memcpy(frame + 12, rarp, sizeof(rarp));
    memcpy(frame + 22, mac, 6);
    memcpy(frame + 32, mac, 6);
    net_send(n->port, &none, &iov, 1, sizeof(frame));
}

void virtio_net_announce(struct virtio *v)
{
    struct net *n = CONTAINER_OF(v, struct net, v);
    struct virtq *tx = &v->queue[QUEUE_TX];

    /* Who sends just now tells switches by that; and it may wait for a page of memory. */
    if (!pthread_mutex_trylock(&tx->lock)) {
        send_rarp(n);
        pthread_mutex_unlock(&tx->lock);
    }
    if (!virtio_has(v, F_GUEST_ANNOUNCE))
        return;
    show_announce(n, true);
    virtio_interrupt_config(v);
}

/* --- life cycle --- */

static u64 features_of_port(const struct netport *p)
{
    u32 caps = p ? p->ops->caps : 0;

    return (caps & NET_CSUM ? F_CSUM : 0) | (caps & NET_TSO ? F_HOST_TSO4 | F_HOST_TSO6 : 0) |
           (caps & NET_RX_CSUM ? F_GUEST_CSUM : 0) |
           (caps & NET_RX_TSO ? F_GUEST_TSO4 | F_GUEST_TSO6 : 0);
}

/* 5.1.3.1: segmentation needs checksums. */
static bool net_accept(struct virtio *v, u64 features)
{
    if ((features & (F_HOST_TSO4 | F_HOST_TSO6)) && !(features & F_CSUM))
        return false;
    return !(features & (F_GUEST_TSO4 | F_GUEST_TSO6)) || (features & F_GUEST_CSUM);
}

static void set_caps(struct net *n)
{
    u32 caps =
        (virtio_has(&n->v, F_GUEST_CSUM) ? NET_RX_CSUM : 0) |
        ((n->v.acked & (F_GUEST_TSO4 | F_GUEST_TSO6)) == (F_GUEST_TSO4 | F_GUEST_TSO6) ? NET_RX_TSO
                                                                                       : 0);

    if (n->port && n->port->ops->set_caps)
        n->port->ops->set_caps(n->port, caps);
}

static void net_start(struct virtio *v)
{
    set_caps(CONTAINER_OF(v, struct net, v));
}

static void net_reset(struct virtio *v)
{
    struct net *n = CONTAINER_OF(v, struct net, v);

    atomic_store(&n->mac, mac_of(n->default_mac));
    atomic_store(&n->all_unicast, false);
    show_announce(n, false);
}

struct net_state {
    u64 mac;
    u8 all_unicast;
};

static const struct field net_fields[] = {
    STATE_HEX(struct net_state, mac, 1),
    STATE_BOOL(struct net_state, all_unicast, 1),
};
static STATE_TABLE(net_table, struct net_state, 1, net_fields);

static void net_save(struct virtio *v, void *state)
{
    struct net *n = CONTAINER_OF(v, struct net, v);

    *(struct net_state *)state = (struct net_state){.mac = atomic_load(&n->mac),
                                                    .all_unicast = atomic_load(&n->all_unicast)};
}

static int net_check(struct virtio *v, const void *state, struct err *err)
{
    u64 mac = ((const struct net_state *)state)->mac;

    return mac >> 48 || mac & 1 ? err_set(err, EINVAL, "%s: no unicast address", v->pci.name) : 0;
}

static void net_load(struct virtio *v, const void *state)
{
    struct net *n = CONTAINER_OF(v, struct net, v);
    const struct net_state *s = state;

    atomic_store(&n->mac, s->mac);
    atomic_store(&n->all_unicast, s->all_unicast != 0);
}

static int net_init(struct virtio *v, const void *options, struct err *err)
{
    struct net *n = CONTAINER_OF(v, struct net, v);
    const struct virtio_net_options *o = options;

    if (o->mac[0] & 1)
        return err_set(err, EINVAL, "network address %02x:… is a multicast address", o->mac[0]);
    n->port = o->port;
    memcpy(n->default_mac, o->mac, 6);
    net_reset(v);
    v->nqueues = QUEUES;
    for (unsigned i = 0; i < QUEUES; i++)
        v->queue[i].max = QUEUE_MAX;
    v->features = F_MAC | F_MRG_RXBUF | F_STATUS | F_CTRL_VQ | F_CTRL_RX | F_CTRL_MAC |
                  F_GUEST_ANNOUNCE | features_of_port(o->port);
    v->config_len = CFG_BYTES;
    memcpy(v->config + CFG_MAC, o->mac, 6);
    store16(v->config + CFG_STATUS, o->port ? STATUS_LINK_UP : 0);
    store16(v->config + CFG_PAIRS, 1);
    if (o->port) {
        o->port->opaque = n;
        o->port->receive = net_receive;
    }
    return 0;
}

static void net_fini(struct virtio *v)
{
    struct net *n = CONTAINER_OF(v, struct net, v);

    if (n->port)
        n->port->receive = NULL;
}

const struct virtio_type virtio_net_type = {
    .name = "virtio-net",
    .id = VIRTIO_ID_NET,
    .class_code = 0x020000,
    .size = sizeof(struct net),
    .own_queues = 1u << QUEUE_RX,
    .init = net_init,
    .accept = net_accept,
    .start = net_start,
    .chain = net_chain,
    .refilled = net_refilled,
    .reset = net_reset,
    .config_varies = true,
    .state = &net_table,
    .save = net_save,
    .check = net_check,
    .load = net_load,
    .fini = net_fini,
};
