/* A tap device in a network namespace of our own: frames out and in, and a device that has no room. */
#include "loop/loop.h"
#include "net/netport.h"
#include "unit.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROUNDS 500
#define TYPE 0x88b5 /* for local experiments: nothing else sends it */

struct wire {
    struct loop *loop;
    struct netport *port;
    int packet; /* the network's side */
    bool room;
    unsigned refused, taken;
    u8 frame[2048], first[80];
    size_t len;
};

static bool receive(void *opaque, const struct net_offload *o, const struct iovec *iov,
                    unsigned niov, size_t len)
{
    struct wire *w = opaque;
    const u8 *f = iov[0].iov_base;

    if (len < 14 || f[12] != TYPE >> 8 || f[13] != (TYPE & 0xff))
        return true; /* the host's own chatter */
    if (!w->room) {
        w->refused++;
        return false;
    }
    if (!w->taken++)
        memcpy(w->first, f, MIN(len, sizeof(w->first)));
    w->len = MIN(len, sizeof(w->frame));
    memcpy(w->frame, f, w->len);
    return true;
}

/* Makes the device "tap7", up. False: this host does not let us. */
static bool make_tap(void)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, .ifr_name = "tap7"};
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC), s;
    bool made;

    if (fd < 0)
        return false;
    made = !ioctl(fd, TUNSETIFF, &ifr) && !ioctl(fd, TUNSETPERSIST, 1);
    close(fd);
    s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ifr.ifr_flags = IFF_UP;
    made = made && s >= 0 && !ioctl(s, SIOCSIFFLAGS, &ifr);
    if (s >= 0)
        close(s);
    return made;
}

static int open_packet(void)
{
    struct sockaddr_ll ll = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(TYPE),
                             .sll_ifindex = (int)if_nametoindex("tap7")};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(TYPE));

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&ll, sizeof(ll)), 0);
    return fd;
}

static void make_frame(u8 f[100])
{
    memset(f, 0xff, 12);
    f[12] = TYPE >> 8;
    f[13] = TYPE & 0xff;
    for (unsigned i = 14; i < 100; i++)
        f[i] = (u8)i;
}

static bool run_until(struct wire *w, const unsigned *count, unsigned want)
{
    for (unsigned i = 0; i < ROUNDS && *count < want; i++)
        loop_once(w->loop, 10000000);
    return *count >= want;
}

static void check_in_and_out(struct wire *w)
{
    struct net_offload none = {0};
    u8 f[100], back[200];
    struct iovec iov[2] = {{f, 30}, {f + 30, 70}};
    ssize_t n = -1;

    make_frame(f);
    net_send(w->port, &none, iov, 2, 100);
    for (unsigned i = 0; i < ROUNDS && n < 0; i++) {
        n = recv(w->packet, back, sizeof(back), 0);
        if (n < 0)
            loop_once(w->loop, 1000000);
    }
    assert_int_equal(n, 100);
    assert_memory_equal(f, back, 100);

    assert_int_equal(write(w->packet, f, 100), 100);
    assert_int_equal(write(w->packet, f, 60), 60);
    assert_true(run_until(w, &w->refused, 1));
    loop_once(w->loop, 0);
    assert_int_equal(w->refused, 1); /* not asked again and again */
    w->room = true;
    w->port->ops->resume(w->port);
    assert_true(run_until(w, &w->taken, 2));
    assert_int_equal(w->len, 60); /* in their order, none lost */
    assert_memory_equal(w->frame, f, 60);
}

/* Frames that wait leave by take(), in their order; given ones go in before those that come, when there is room. */
static void check_take_and_give(struct wire *w)
{
    struct net_offload o, good = {.csum_good = true};
    u8 f[100], out[2000], given[80] = {0};
    size_t len = 0;

    make_frame(f);
    make_frame(out);
    memcpy(given, out, sizeof(given));
    given[20] = 77;
    w->room = false;
    w->taken = w->refused = 0;
    for (unsigned n = 100; n > 97; n--)
        assert_int_equal(write(w->packet, f, n), n);
    assert_true(run_until(w, &w->refused, 1));
    for (unsigned n = 100; n > 97; n -= len == n) /* between them, what the host itself says */
        assert_true((len = w->port->ops->take(w->port, &o, out, sizeof(out))) > 0);
    assert_memory_equal(out, f, 98);

    w->refused = 0;
    w->port->ops->give(w->port, &good, given, sizeof(given));
    assert_int_equal(w->refused, 1);
    assert_int_equal(write(w->packet, f, 100), 100);
    assert_int_equal(write(w->packet, f, 90), 90);
    loop_once(w->loop, 0);
    w->room = true;
    w->port->ops->resume(w->port);
    assert_true(run_until(w, &w->taken, 1));
    assert_memory_equal(w->first, given, sizeof(given));
    assert_true(run_until(w, &w->taken, 3));
    assert_int_equal(w->len, 90);

    /* Where nobody takes them, they can go on to the next place. */
    w->room = false;
    w->port->ops->give(w->port, &good, given, sizeof(given));
    assert_int_equal(w->port->ops->take(w->port, &o, out, sizeof(out)), sizeof(given));
    assert_true(o.csum_good && !o.csum_partial && !o.gso);
    assert_memory_equal(out, given, sizeof(given));
    w->port->ops->give(w->port, &good, given, sizeof(given)); /* freed when the port is closed */
}

static void test_tap(void **state)
{
    struct wire w = {0};
    struct err err = ERR_INIT;

    if (unshare(CLONE_NEWNET) && unshare(CLONE_NEWUSER | CLONE_NEWNET))
        UNIT_SKIP("no network namespace of our own here");
    if (!make_tap())
        UNIT_SKIP("no tap devices here");
    assert_int_equal(loop_new(&w.loop, NULL), 0);
    if (net_tap_open(w.loop, "tap7", &w.port, &err))
        fail_msg("%s", err.msg);
    w.port->opaque = &w;
    w.port->receive = receive;
    w.packet = open_packet();
    w.port->ops->set_caps(w.port, NET_RX_CSUM | NET_RX_TSO);
    check_in_and_out(&w);
    check_take_and_give(&w);
    netport_close(w.port);
    close(w.packet);
    loop_free(w.loop);
}

static void test_bad_names(void **state)
{
    static const char *const bad[] = {"", "no-such-tap", "a-name-longer-than-15"};
    struct netport *port = NULL;
    struct loop *l;
    struct err err;

    assert_int_equal(loop_new(&l, NULL), 0);
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        err = ERR_INIT;
        assert_true(net_tap_open(l, bad[i], &port, &err) < 0);
        assert_non_null(strstr(err.msg, "tap: "));
        assert_null(port);
    }
    loop_free(l);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_bad_names),
    cmocka_unit_test(test_tap),
};
UNIT_MAIN(tests)
