/*
 * User-mode NAT: libslirp behind a port. The guest sees 10.0.2.0/24 with a gateway, a DHCP and a
 * DNS server.
 *
 * libslirp is not thread-safe: u->lock is held around every call into it. Its sockets are watched
 * by an epoll descriptor of our own, which is itself watched by the main loop: so the vCPU thread
 * that sends a frame can change what is watched without waking the main loop.
 *
 * Threads: sending from vCPU threads, sockets and timers in the main loop's. Lock order: device tx
 * → u->lock → device rx.
 */
#include "base/log.h"
#include "loop/loop.h"
#include "net/checksum.h"
#include "net/netport.h"
#include <arpa/inet.h>
#include <errno.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS_ROUND 64
#define FDS_MAX 65536
#define NS_PER_MS 1000000ll

/* Descriptors are found by number; `round` tells which ones libslirp still wants. */
struct watch {
    u32 registered, wanted, got; /* EPOLL* */
    unsigned round;
};

struct user {
    struct netport port;
    struct loop *loop;
    pthread_mutex_t lock; /* protects all below, and libslirp */
    Slirp *slirp;
    struct timer poll_timer;
    struct loop_fd epoll;
    struct watch *watch;
    unsigned watches, round;
    int *wanted, *before; /* descriptors of this round and the one before */
    unsigned nwanted, nbefore, wanted_room;
    u8 frame[NET_FRAME_MAX];
};

struct user_timer {
    struct timer timer;
    struct user *user;
    SlirpTimerCb fire;
    void *opaque;
};

/* --- what to watch --- */

static u32 to_epoll(int events)
{
    return (events & SLIRP_POLL_IN ? EPOLLIN : 0u) | (events & SLIRP_POLL_OUT ? EPOLLOUT : 0u) |
           (events & SLIRP_POLL_PRI ? EPOLLPRI : 0u);
}

static int from_epoll(u32 events)
{
    return (events & EPOLLIN ? SLIRP_POLL_IN : 0) | (events & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
           (events & EPOLLPRI ? SLIRP_POLL_PRI : 0) | (events & EPOLLERR ? SLIRP_POLL_ERR : 0) |
           (events & EPOLLHUP ? SLIRP_POLL_HUP : 0);
}

static bool watch_room(struct user *u, int fd)
{
    unsigned room = u->watches ? u->watches : 64;
    struct watch *w;

    if (fd < 0 || fd >= FDS_MAX)
        return false;
    if ((unsigned)fd < u->watches)
        return true;
    while (room <= (unsigned)fd)
        room *= 2;
    w = realloc(u->watch, room * sizeof(*w));
    if (!w)
        return false;
    memset(w + u->watches, 0, (room - u->watches) * sizeof(*w));
    u->watch = w;
    u->watches = room;
    return true;
}

static bool wanted_room(struct user *u)
{
    unsigned room = u->wanted_room ? u->wanted_room * 2 : 64;
    int *a, *b;

    if (u->nwanted < u->wanted_room)
        return true;
    a = realloc(u->wanted, room * sizeof(*a));
    if (a)
        u->wanted = a;
    b = realloc(u->before, room * sizeof(*b));
    if (b)
        u->before = b;
    if (!a || !b)
        return false;
    u->wanted_room = room;
    return true;
}

/* libslirp names a descriptor that it wants watched; what we return is given back to revents(). */
static int add_poll(int fd, int events, void *opaque)
{
    struct user *u = opaque;
    struct watch *w;

    if (!watch_room(u, fd) || !wanted_room(u))
        return -1;
    w = &u->watch[fd];
    if (w->round != u->round) {
        w->round = u->round;
        w->wanted = w->got = 0;
        u->wanted[u->nwanted++] = fd;
    }
    w->wanted |= to_epoll(events);
    return fd;
}

static int revents(int idx, void *opaque)
{
    struct user *u = opaque;

    return idx >= 0 && (unsigned)idx < u->watches ? from_epoll(u->watch[idx].got) : 0;
}

static void watch_sync(struct user *u, int fd, u32 wanted)
{
    struct watch *w = &u->watch[fd];
    struct epoll_event ev = {.events = wanted, .data.fd = fd};
    int op = !w->registered ? EPOLL_CTL_ADD : wanted ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;

    if (w->registered == wanted)
        return;
    if (epoll_ctl(u->epoll.fd, op, fd, &ev) == 0 || op == EPOLL_CTL_DEL)
        w->registered = wanted;
}

/* Asks libslirp what it waits for now, and changes the epoll descriptor accordingly. Lock held. */
static void refill(struct user *u)
{
    u32 timeout_ms = UINT32_MAX;
    int *swap = u->before;

    u->before = u->wanted;
    u->nbefore = u->nwanted;
    u->wanted = swap;
    u->nwanted = 0;
    u->round++;
    slirp_pollfds_fill(u->slirp, &timeout_ms, add_poll, u);
    for (unsigned i = 0; i < u->nbefore; i++)
        if (u->watch[u->before[i]].round != u->round)
            watch_sync(u, u->before[i], 0);
    for (unsigned i = 0; i < u->nwanted; i++)
        watch_sync(u, u->wanted[i], u->watch[u->wanted[i]].wanted);
    if (timeout_ms == UINT32_MAX)
        timer_cancel(&u->poll_timer);
    else
        timer_arm(&u->poll_timer, timerq_now(u->poll_timer.q) + timeout_ms * NS_PER_MS);
}

static void poll_round(struct user *u)
{
    struct epoll_event ev[EVENTS_ROUND];
    int n = epoll_wait(u->epoll.fd, ev, EVENTS_ROUND, 0);

    pthread_mutex_lock(&u->lock);
    for (int i = 0; i < n; i++)
        if ((unsigned)ev[i].data.fd < u->watches)
            u->watch[ev[i].data.fd].got = ev[i].events;
    slirp_pollfds_poll(u->slirp, n < 0, revents, u);
    refill(u);
    pthread_mutex_unlock(&u->lock);
}

static void epoll_ready(void *opaque, u32 events)
{
    poll_round(opaque);
}

/* --- what libslirp calls; lock held --- */

static ssize_t cb_send_packet(const void *buf, size_t len, void *opaque)
{
    static const struct net_offload checked = {.csum_good = true};
    struct user *u = opaque;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};

    if (u->port.receive)
        u->port.receive(u->port.opaque, &checked, &iov, 1, len);
    return (ssize_t)len;
}

static void cb_guest_error(const char *msg, void *opaque)
{
    log_debug("network: the guest sent nonsense: %s", msg);
}

static int64_t cb_clock(void *opaque)
{
    struct user *u = opaque;

    return timerq_now(u->poll_timer.q);
}

static void timer_fire(void *opaque)
{
    struct user_timer *t = opaque;

    pthread_mutex_lock(&t->user->lock);
    t->fire(t->opaque);
    refill(t->user);
    pthread_mutex_unlock(&t->user->lock);
}

static void *cb_timer_new(SlirpTimerCb fire, void *cb_opaque, void *opaque)
{
    struct user *u = opaque;
    struct user_timer *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    t->user = u;
    t->fire = fire;
    t->opaque = cb_opaque;
    timer_init(&t->timer, u->poll_timer.q, timer_fire, t);
    return t;
}

static void cb_timer_free(void *timer, void *opaque)
{
    struct user_timer *t = timer;

    if (t)
        timer_cancel(&t->timer);
    free(t);
}

static void cb_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    struct user_timer *t = timer;

    if (t)
        timer_arm(&t->timer, expire_ms * NS_PER_MS);
}

static void cb_register(int fd, void *opaque)
{
}

/* Called before a descriptor is closed: its number may come back as another socket. */
static void cb_unregister(int fd, void *opaque)
{
    struct user *u = opaque;

    if (fd >= 0 && (unsigned)fd < u->watches) {
        watch_sync(u, fd, 0);
        u->watch[fd].got = 0;
    }
}

static void cb_notify(void *opaque)
{
}

static const SlirpCb callbacks = {
    .send_packet = cb_send_packet,
    .guest_error = cb_guest_error,
    .clock_get_ns = cb_clock,
    .timer_new = cb_timer_new,
    .timer_free = cb_timer_free,
    .timer_mod = cb_timer_mod,
    .register_poll_fd = cb_register,
    .unregister_poll_fd = cb_unregister,
    .notify = cb_notify,
};

/* --- the port --- */

/* Copied first: libslirp looks at a frame more than once, and the guest may change it meanwhile. */
static void user_send(struct netport *p, const struct net_offload *o, const struct iovec *iov,
                      unsigned niov, size_t len)
{
    struct user *u = CONTAINER_OF(p, struct user, port);
    size_t done = 0;

    if (len > sizeof(u->frame))
        return;
    pthread_mutex_lock(&u->lock);
    for (unsigned i = 0; i < niov && done < len; i++) {
        size_t part = MIN(iov[i].iov_len, len - done);

        memcpy(u->frame + done, iov[i].iov_base, part);
        done += part;
    }
    /* A segment larger than the MTU needs no cutting: it only goes into a socket here. */
    if (o->csum_partial)
        checksum_finish(u->frame, done, o->csum_start, o->csum_offset);
    slirp_input(u->slirp, u->frame, (int)done);
    refill(u);
    pthread_mutex_unlock(&u->lock);
}

static void user_close(struct netport *p)
{
    struct user *u = CONTAINER_OF(p, struct user, port);

    if (u->epoll.added)
        loop_remove(u->loop, &u->epoll);
    if (u->poll_timer.q)
        timer_cancel(&u->poll_timer);
    if (u->slirp)
        slirp_cleanup(u->slirp);
    if (u->epoll.fd >= 0)
        close(u->epoll.fd);
    free(u->watch);
    free(u->wanted);
    free(u->before);
    pthread_mutex_destroy(&u->lock);
    free(u);
}

static const struct netport_ops user_ops = {
    .name = "user",
    .caps = NET_CSUM | NET_TSO | NET_RX_CSUM,
    .send = user_send,
    .close = user_close,
};

static void poll_timer_fire(void *opaque)
{
    poll_round(opaque);
}

static Slirp *start_slirp(struct user *u, const struct net_user_options *o)
{
    SlirpConfig c = {
        .version = 4,
        .restricted = o->restricted,
        .in_enabled = true,
        .vnetwork.s_addr = htonl(0x0a000200),
        .vnetmask.s_addr = htonl(0xffffff00),
        .vhost.s_addr = htonl(0x0a000202),
        .vdhcp_start.s_addr = htonl(0x0a00020f),
        .vnameserver.s_addr = htonl(0x0a000203),
        .vhostname = o->hostname,
    };

    return slirp_new(&c, &callbacks, u);
}

static int forward(struct user *u, const struct net_hostfwd *f, struct err *err)
{
    char addr[INET_ADDRSTRLEN];

    if (slirp_add_hostfwd(u->slirp, f->udp, f->host_addr, f->host_port, f->guest_addr,
                          f->guest_port) == 0)
        return 0;
    int rc = errno;
    inet_ntop(AF_INET, &f->host_addr, addr, sizeof(addr));
    return err_sys(err, rc,
                   "user-mode network: cannot listen at %s:%s:%u for port %u of the guest%s",
                   f->udp ? "udp" : "tcp", addr, f->host_port, f->guest_port,
                   rc == EADDRINUSE ? ", which another guest or program does" : "");
}

static int start(struct user *u, const struct net_user_options *o, struct err *err)
{
    u->slirp = start_slirp(u, o);
    if (!u->slirp)
        return err_set(err, ENOMEM, "user-mode network: cannot start it");
    for (unsigned i = 0; i < o->nfwds; i++) {
        int rc = forward(u, &o->fwd[i], err);

        if (rc)
            return rc;
    }
    u->epoll.fd = epoll_create1(EPOLL_CLOEXEC);
    if (u->epoll.fd < 0)
        return err_sys(err, errno, "user-mode network");
    pthread_mutex_lock(&u->lock);
    refill(u);
    pthread_mutex_unlock(&u->lock);
    return loop_add(u->loop, &u->epoll, err);
}

int net_user_open(struct loop *l, const struct net_user_options *o, struct netport **ret_port,
                  struct err *err)
{
    struct user *u = calloc(1, sizeof(*u));
    int rc;

    if (!u)
        return err_set(err, ENOMEM, "user-mode network: no memory");
    u->port.ops = &user_ops;
    u->loop = l;
    u->epoll = (struct loop_fd){.fd = -1, .events = EPOLLIN, .ready = epoll_ready, .opaque = u};
    pthread_mutex_init(&u->lock, NULL);
    timer_init(&u->poll_timer, loop_timers(l), poll_timer_fire, u);
    rc = start(u, o, err);
    if (rc) {
        user_close(&u->port);
        return rc;
    }
    *ret_port = &u->port;
    return 0;
}
