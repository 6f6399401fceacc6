/*
 * The user-mode network as a guest on the wire sees it: ARP, DHCP, TCP to the host's loopback through the gateway,
 * with a segment far larger than the MTU; forwarded ports; a restricted network; frames that make no sense.
 */
#include "loop/loop.h"
#include "net/checksum.h"
#include "net/netport.h"
#include "unit.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAMES 256
#define ROUNDS 2000
#define BIG 20000u

struct wire {
    struct loop *loop;
    struct netport *port;
    struct {
        u8 data[2048];
        size_t len;
    } got[FRAMES];
    unsigned ngot, seen;
};

static const u8 mac[6] = {0x52, 0x54, 0, 1, 2, 3};
static const u8 gateway_mac[6] = {0x52, 0x55, 10, 0, 2, 2};

static bool receive(void *opaque, const struct net_offload *o, const struct iovec *iov,
                    unsigned niov, size_t len)
{
    struct wire *w = opaque;

    assert_int_equal(niov, 1);
    if (w->ngot < FRAMES && len <= sizeof(w->got[0].data)) {
        memcpy(w->got[w->ngot].data, iov[0].iov_base, len);
        w->got[w->ngot++].len = len;
    }
    return true;
}

static struct wire *wire_new(const struct net_user_options *o)
{
    struct wire *w = calloc(1, sizeof(*w));
    struct err err = ERR_INIT;

    assert_int_equal(loop_new(&w->loop, NULL), 0);
    if (net_user_open(w->loop, o, &w->port, &err))
        fail_msg("%s", err.msg);
    w->port->opaque = w;
    w->port->receive = receive;
    return w;
}

static void wire_free(struct wire *w)
{
    netport_close(w->port);
    loop_free(w->loop);
    free(w);
}

static void put16(u8 *p, unsigned v)
{
    p[0] = (u8)(v >> 8);
    p[1] = (u8)v;
}

static void put32(u8 *p, u32 v)
{
    put16(p, v >> 16);
    put16(p + 2, v & 0xffff);
}

static u32 get32(const u8 *p)
{
    return (u32)p[0] << 24 | (u32)p[1] << 16 | (u32)p[2] << 8 | p[3];
}

static void send_frame(struct wire *w, const u8 *frame, size_t len, const struct net_offload *o)
{
    struct net_offload plain = {0};
    struct iovec iov[2] = {{(void *)(uintptr_t)frame, MIN(len, 20)},
                           {(void *)(uintptr_t)(frame + 20), 0}};

    iov[1].iov_len = len - iov[0].iov_len;
    net_send(w->port, o ? o : &plain, iov, 2, len);
}

static void ethernet(u8 *f, const u8 *to, u16 type)
{
    memcpy(f, to, 6);
    memcpy(f + 6, mac, 6);
    put16(f + 12, type);
}

/* An IPv4 header at f + 14 from 10.0.2.15, payload bytes of protocol follow. */
static void ipv4(u8 *f, u32 to, u8 proto, size_t payload)
{
    u8 *ip = f + 14;

    ethernet(f, gateway_mac, 0x0800);
    memset(ip, 0, 20);
    ip[0] = 0x45;
    put16(ip + 2, (unsigned)(20 + payload));
    ip[8] = 64;
    ip[9] = proto;
    put32(ip + 12, 0x0a00020f);
    put32(ip + 16, to);
    put16(ip + 10, (u16)~checksum_sum(ip, 20));
}

/* Runs the loop until a frame arrives for which match() is true. */
static const u8 *wait_frame(struct wire *w, bool (*match)(const u8 *f, size_t len))
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        while (w->seen < w->ngot) {
            unsigned i = w->seen++;

            if (match(w->got[i].data, w->got[i].len))
                return w->got[i].data;
        }
        loop_once(w->loop, 10000000);
    }
    fail_msg("the frame did not come");
    return NULL;
}

static bool is_arp_reply(const u8 *f, size_t len)
{
    return len >= 42 && f[12] == 8 && f[13] == 6 && f[21] == 2;
}

static bool is_udp(const u8 *f, size_t len)
{
    return len > 42 && f[12] == 8 && f[13] == 0 && f[23] == 17;
}

static bool is_tcp(const u8 *f, size_t len)
{
    return len >= 54 && f[12] == 8 && f[13] == 0 && f[23] == 6;
}

static void say_hello(struct wire *w)
{
    static const u8 everyone[6] = {255, 255, 255, 255, 255, 255};
    u8 f[64] = {0};

    ethernet(f, everyone, 0x0806);
    memcpy(f + 14, "\x00\x01\x08\x00\x06\x04\x00\x01", 8);
    memcpy(f + 22, mac, 6);
    put32(f + 28, 0x0a00020f);
    put32(f + 38, 0x0a000202);
    send_frame(w, f, 42, NULL);
    assert_memory_equal(wait_frame(w, is_arp_reply) + 22, gateway_mac, 6);
}

static void test_arp(void **state)
{
    struct net_user_options o = {0};
    struct wire *w = wire_new(&o);

    say_hello(w);
    wire_free(w);
}

static void test_dhcp(void **state)
{
    struct net_user_options o = {.hostname = "guest"};
    struct wire *w = wire_new(&o);
    u8 f[14 + 20 + 8 + 300] = {0};
    u8 *udp = f + 34, *bootp = f + 42;
    const u8 *offer;

    ipv4(f, 0xffffffff, 17, 308);
    put16(udp, 68);
    put16(udp + 2, 67);
    put16(udp + 4, 308);
    memcpy(bootp, "\x01\x01\x06\x00\x12\x34\x56\x78", 8);
    memcpy(bootp + 28, mac, 6);
    memcpy(bootp + 236, "\x63\x82\x53\x63\x35\x01\x01\xff", 8);
    send_frame(w, f, sizeof(f), NULL);
    offer = wait_frame(w, is_udp);
    assert_int_equal(get32(offer + 42 + 16), 0x0a00020f);
    wire_free(w);
}

static int listen_somewhere(u16 *ret_port)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sin);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &len), 0);
    *ret_port = ntohs(sin.sin_port);
    return fd;
}

/* A TCP segment; the checksum is left to the port, as a guest with checksum offload does. */
static void send_tcp(struct wire *w, u16 port, u32 seq, u32 ack, u8 flags, const u8 *data,
                     size_t len)
{
    static u8 f[14 + 20 + 20 + BIG];
    struct net_offload o = {.csum_partial = true, .csum_start = 34, .csum_offset = 16};
    u8 *tcp = f + 34, pseudo[12];

    if (len > 1460) {
        o.gso = NET_GSO_TCP4;
        o.gso_size = 1460;
        o.hdr_len = 54;
    }
    ipv4(f, 0x0a000202, 6, 20 + len);
    memset(tcp, 0, 20);
    put16(tcp, 40000);
    put16(tcp + 2, port);
    put32(tcp + 4, seq);
    put32(tcp + 8, ack);
    tcp[12] = 5 << 4;
    tcp[13] = flags;
    put16(tcp + 14, 65535);
    memcpy(pseudo, f + 26, 8);
    put16(pseudo + 8, 6);
    put16(pseudo + 10, (unsigned)(20 + len));
    put16(tcp + 16, checksum_sum(pseudo, 12));
    if (len)
        memcpy(tcp + 20, data, len);
    send_frame(w, f, 54 + len, &o);
}

static void test_tcp_with_a_large_segment(void **state)
{
    struct net_user_options o = {0};
    struct wire *w = wire_new(&o);
    static u8 data[BIG], back[BIG];
    size_t done = 0;
    const u8 *f;
    u32 ack;
    u16 port;
    int listener = listen_somewhere(&port), peer;

    for (unsigned i = 0; i < BIG; i++)
        data[i] = (u8)(i * 31 >> 3);
    say_hello(w);
    send_tcp(w, port, 1000, 0, 2, NULL, 0);
    f = wait_frame(w, is_tcp);
    assert_int_equal(f[47] & 0x12, 0x12);
    ack = get32(f + 38) + 1;
    send_tcp(w, port, 1001, ack, 0x10, NULL, 0);
    peer = accept(listener, NULL, NULL);
    assert_true(peer >= 0);
    send_tcp(w, port, 1001, ack, 0x18, data, BIG);
    for (unsigned round = 0; round < ROUNDS && done < BIG; round++) {
        ssize_t n = recv(peer, back + done, BIG - done, MSG_DONTWAIT);

        if (n > 0)
            done += (size_t)n;
        else
            loop_once(w->loop, 1000000);
    }
    assert_int_equal(done, BIG);
    assert_memory_equal(data, back, BIG);
    assert_int_equal(write(peer, "answer", 6), 6);
    do
        f = wait_frame(w, is_tcp);
    while (f[17] != 46);
    assert_memory_equal(f + 54, "answer", 6);
    close(peer);
    close(listener);
    wire_free(w);
}

static void test_forwarded_port(void **state)
{
    u16 port;
    int probe = listen_somewhere(&port);
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct net_hostfwd fwd = {.host_addr.s_addr = htonl(INADDR_LOOPBACK), .guest_port = 22};
    struct net_user_options o = {.fwd = &fwd, .nfwds = 1};
    struct netport *second = NULL;
    struct err err = ERR_INIT;
    struct wire *w;
    const u8 *f;
    int fd;

    close(probe);
    fwd.host_port = port;
    w = wire_new(&o);
    assert_true(net_user_open(w->loop, &o, &second, &err) < 0); /* taken */
    assert_non_null(strstr(err.msg, "127.0.0.1"));
    say_hello(w);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    sin.sin_port = htons(port);
    connect(fd, (struct sockaddr *)&sin, sizeof(sin));
    f = wait_frame(w, is_tcp);
    assert_int_equal(f[36] << 8 | f[37], 22);
    assert_int_equal(f[47], 2);
    close(fd);
    wire_free(w);
}

/* A datagram to the host's port comes out at the guest's, and the answer finds its way back. */
static void test_forwarded_datagrams(void **state)
{
    u16 port;
    int probe = listen_somewhere(&port);
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct net_hostfwd fwd = {
        .udp = true, .host_addr.s_addr = htonl(INADDR_LOOPBACK), .guest_port = 53};
    struct net_user_options o = {.fwd = &fwd, .nfwds = 1};
    char answer[16] = "";
    ssize_t n = -1;
    u8 f[46] = {0};
    struct wire *w;
    const u8 *got;
    int fd;

    close(probe);
    fwd.host_port = port;
    w = wire_new(&o);
    say_hello(w);
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    sin.sin_port = htons(port);
    assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
    assert_int_equal(write(fd, "ping", 4), 4);
    got = wait_frame(w, is_udp);
    assert_int_equal(got[36] << 8 | got[37], 53);
    assert_memory_equal(got + 42, "ping", 4);
    ipv4(f, get32(got + 26), 17, 12);
    put16(f + 34, 53);
    memcpy(f + 36, got + 34, 2); /* to where it came from */
    put16(f + 38, 12);
    memcpy(f + 42, "pong", 4);
    send_frame(w, f, sizeof(f), NULL);
    for (unsigned round = 0; round < ROUNDS && n < 0; round++) {
        n = read(fd, answer, sizeof(answer));
        if (n < 0)
            loop_once(w->loop, 1000000);
    }
    assert_int_equal(n, 4);
    assert_string_equal(answer, "pong");
    close(fd);
    wire_free(w);
}

/* No connection leaves a restricted network: the frames before and after it are answered, this one reaches nobody. */
static void test_restricted(void **state)
{
    struct net_user_options o = {.restricted = true};
    struct wire *w = wire_new(&o);
    u16 port;
    int listener = listen_somewhere(&port);
    unsigned answers = 0;

    say_hello(w);
    send_tcp(w, port, 1000, 0, 2, NULL, 0);
    say_hello(w);
    for (unsigned i = 0; i < w->ngot; i++)
        answers += is_tcp(w->got[i].data, w->got[i].len) && (w->got[i].data[47] & 0x12) == 0x12;
    assert_int_equal(answers, 0);
    assert_int_equal(fcntl(listener, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(accept(listener, NULL, NULL), -1);
    close(listener);
    wire_free(w);
}

/* Whatever a guest sends, the stack must live. */
static void test_garbage(void **state)
{
    struct net_user_options o = {.restricted = true};
    struct wire *w = wire_new(&o);
    static u8 f[NET_FRAME_MAX];
    u32 x = 7;

    say_hello(w);
    for (unsigned round = 0; round < 3000; round++) {
        size_t len = round % 5 ? 14 + round % 200 : round % 7 ? sizeof(f) : 1514;

        for (size_t i = 0; i < MIN(len, 400); i++) {
            x = x * 1664525 + 1013904223;
            f[i] = (u8)(x >> 24);
        }
        ethernet(f, gateway_mac, round % 3 ? 0x0800 : round % 2 ? 0x0806 : 0x86dd);
        if (round % 4)
            f[14] = 0x45;
        send_frame(w, f, len, NULL);
    }
    loop_once(w->loop, 0);
    wire_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arp),
        cmocka_unit_test(test_dhcp),
        cmocka_unit_test(test_tcp_with_a_large_segment),
        cmocka_unit_test(test_forwarded_port),
        cmocka_unit_test(test_forwarded_datagrams),
        cmocka_unit_test(test_restricted),
        cmocka_unit_test(test_garbage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
