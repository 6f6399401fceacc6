/* virtio-net on a port of our own: frames out and in, offloads, the control queue, and list items 28 and 23. */
#include "device/virtio_net.h"
#include "driver.h"

enum { RX, TX, CTRL };
#define F_CSUM BIT(0)
#define F_GUEST_CSUM BIT(1)
#define F_HOST_TSO4 BIT(11)
#define F_MRG BIT(15)

struct net_test {
    struct bench b;
    struct drv d;
    struct virtio *v;
    struct netport port;
    u64 buf;
    unsigned sent, resumed;
    struct net_offload offload;
    size_t len;
    u8 frame[NET_FRAME_MAX];
};

static void port_send(struct netport *p, const struct net_offload *o, const struct iovec *iov,
                      unsigned niov, size_t len)
{
    struct net_test *t = CONTAINER_OF(p, struct net_test, port);

    t->sent++;
    t->offload = *o;
    t->len = iov_read(iov, niov, 0, t->frame, sizeof(t->frame));
    assert_int_equal(t->len, len);
}

static void port_resume(struct netport *p)
{
    CONTAINER_OF(p, struct net_test, port)->resumed++;
}

static const struct netport_ops port_ops = {.name = "test",
                                            .caps = NET_CSUM | NET_TSO | NET_RX_CSUM,
                                            .send = port_send,
                                            .resume = port_resume};

static const u8 mac[6] = {0x52, 0x54, 0, 0xaa, 0xbb, 0xcc};

static int setup(void **state)
{
    struct net_test *t = calloc(1, sizeof(*t));
    struct virtio_net_options o = {.port = &t->port};

    bench_init(&t->b);
    t->port.ops = &port_ops;
    memcpy(o.mac, mac, 6);
    assert_int_equal(virtio_new(&t->b.env, &virtio_net_type, PCI_SLOT_ANY, &o, &t->v, NULL), 0);
    drv_find(&t->d, &t->b, 1);
    drv_start(&t->d, 0);
    t->buf = bench_alloc(&t->b, 1 * MiB, 4096);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct net_test *t = *state;

    bench_fini(&t->b);
    free(t);
    return 0;
}

static void restart(struct net_test *t, u64 without)
{
    drv_reset(&t->d);
    drv_start(&t->d, without);
}

static bool used(struct net_test *t, unsigned q, u32 *ret_len)
{
    u32 id;

    return drv_used(&t->d, q, &id, ret_len);
}

/* Sends header + a frame of len bytes; true if the port got it. */
static bool transmit(struct net_test *t, const u8 hdr[12], u32 len)
{
    struct seg s[2] = {{t->buf, 12, 0, 0}, {t->buf + 12, len, 0, 0}};
    unsigned before = t->sent;
    u32 written;

    drv_put(&t->d, t->buf, hdr, 12);
    drv_add(&t->d, TX, s, 2);
    drv_kick(&t->d, TX);
    assert_true(used(t, TX, &written));
    assert_int_equal(written, 0);
    return t->sent != before;
}

static bool receive(struct net_test *t, const void *frame, size_t len)
{
    struct net_offload o = {.csum_good = true};
    struct iovec iov = {(void *)(uintptr_t)frame, len};

    return t->port.receive(t->port.opaque, &o, &iov, 1, len);
}

static void test_config(void **state)
{
    struct net_test *t = *state;

    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(bench_read(&t->b, t->d.config + i, 1), mac[i]);
    assert_int_equal(bench_read(&t->b, t->d.config + 6, 2), 1);
    assert_false(t->d.features & BIT(7)); /* the port cannot */
}

static void test_send(void **state)
{
    struct net_test *t = *state;
    u8 hdr[12] = {0}, frame[100];

    for (unsigned i = 0; i < sizeof(frame); i++)
        frame[i] = (u8)i;
    drv_put(&t->d, t->buf + 12, frame, sizeof(frame));
    assert_true(transmit(t, hdr, sizeof(frame)));
    assert_int_equal(t->len, sizeof(frame));
    assert_memory_equal(t->frame, frame, sizeof(frame));
    assert_false(t->offload.csum_partial);
}

static void test_28_lengths(void **state)
{
    struct net_test *t = *state;
    u8 hdr[12] = {0};

    assert_false(transmit(t, hdr, 1));
    assert_false(transmit(t, hdr, 13));
    assert_true(transmit(t, hdr, 14));
    assert_true(transmit(t, hdr, NET_FRAME_MAX));
    assert_false(transmit(t, hdr, NET_FRAME_MAX + 1));
    assert_false(transmit(t, hdr, 1u << 19));
    assert_healthy(&t->d);
    for (u32 len = 1; len < 12; len++) {
        struct seg s = {t->buf, len, 0, 0};

        drv_add(&t->d, TX, &s, 1);
        drv_kick(&t->d, TX);
        assert_needs_reset(&t->d);
        restart(t, 0);
    }
}

static void set16(u8 *p, unsigned v)
{
    p[0] = (u8)v;
    p[1] = (u8)(v >> 8);
}

static void test_28_offload_headers(void **state)
{
    struct net_test *t = *state;
    u8 hdr[12] = {1};
    static const struct {
        unsigned start, offset;
        bool ok;
    } csum[] = {{34, 16, true},    {98, 0, true},      {99, 0, false},
                {0, 0, false},     {13, 2, false},     {34, 65, false},
                {65535, 1, false}, {34, 65535, false}, {65535, 65535, false}};

    for (unsigned i = 0; i < ARRAY_LEN(csum); i++) {
        set16(hdr + 6, csum[i].start);
        set16(hdr + 8, csum[i].offset);
        assert_int_equal(transmit(t, hdr, 100), csum[i].ok);
    }
    set16(hdr + 6, 34);
    set16(hdr + 8, 16);
    for (unsigned gso = 0; gso < 256; gso++) {
        bool ok = gso == 0 || gso == 0x80 || (gso & 0x7f) == 1 || (gso & 0x7f) == 4;

        hdr[1] = (u8)gso;
        set16(hdr + 2, 54);
        set16(hdr + 4, 1460);
        assert_int_equal(transmit(t, hdr, 5000), ok);
    }
    hdr[1] = 1;
    set16(hdr + 4, 0); /* segments of nothing */
    assert_false(transmit(t, hdr, 5000));
    set16(hdr + 4, 1);
    set16(hdr + 2, 5001); /* headers longer than the frame */
    assert_false(transmit(t, hdr, 5000));
    hdr[0] = 0; /* segmentation without a checksum */
    set16(hdr + 2, 54);
    assert_false(transmit(t, hdr, 5000));
    assert_healthy(&t->d);
}

/* What was not negotiated is not taken. */
static void test_offloads_need_their_features(void **state)
{
    struct net_test *t = *state;
    u8 hdr[12] = {1, 0, 0, 0, 0, 0, 34, 0, 16, 0};

    drv_reset(&t->d);
    drv_features(&t->d, t->d.features & ~F_CSUM); /* 5.1.3.1: TSO needs it */
    assert_int_equal(drv_status(&t->d), 3);
    restart(t, F_CSUM | F_HOST_TSO4 | BIT(12));
    assert_false(transmit(t, hdr, 100));
    hdr[0] = 0;
    assert_true(transmit(t, hdr, 100));
}

static void make_frame(u8 *f, size_t len)
{
    memset(f, 0xff, 6);
    for (size_t i = 6; i < len; i++)
        f[i] = (u8)(i * 5);
}

static void test_receive(void **state)
{
    struct net_test *t = *state;
    struct seg s[2] = {{t->buf, 10, SEG_WRITE, 0}, {t->buf + 10, 2000, SEG_WRITE, 0}};
    u8 f[300], back[312];
    u32 len;

    make_frame(f, sizeof(f));
    assert_false(receive(t, f, sizeof(f))); /* no buffers yet: it has to wait */
    drv_add(&t->d, RX, s, 2);
    drv_kick(&t->d, RX);
    assert_int_equal(t->resumed, 1);
    assert_true(receive(t, f, sizeof(f)));
    assert_true(used(t, RX, &len));
    assert_int_equal(len, sizeof(back));
    drv_get(&t->d, t->buf, back, sizeof(back));
    assert_memory_equal(back + 12, f, sizeof(f));
    assert_int_equal(back[0], 2); /* DATA_VALID */
    assert_int_equal(back[10], 1);
    assert_int_equal(back[11], 0);
    assert_true(bench_count_msi(&t->b, DRIVER_MSI_DATA + RX) >= 1);
}

/* A frame over several buffers, all or nothing; num_buffers may even straddle two segments. */
static void test_receive_merged(void **state)
{
    struct net_test *t = *state;
    u8 f[1000], back[1100];
    u32 len, total = 0;

    make_frame(f, sizeof(f));
    for (unsigned i = 0; i < 3; i++) {
        struct seg s[2] = {{t->buf + i * 300, 11, SEG_WRITE, 0},
                           {t->buf + i * 300 + 11, 289, SEG_WRITE, 0}};

        drv_add(&t->d, RX, s, 2);
    }
    assert_false(receive(t, f, sizeof(f)));
    assert_false(used(t, RX, &len));
    drv_add(&t->d, RX, &(struct seg){t->buf + 900, 300, SEG_WRITE, 0}, 1);
    assert_true(receive(t, f, sizeof(f)));
    for (unsigned i = 0; i < 4; i++) {
        assert_true(used(t, RX, &len));
        total += len;
    }
    assert_false(used(t, RX, &len));
    assert_int_equal(total, 1012);
    drv_get(&t->d, t->buf, back, 1012);
    assert_memory_equal(back + 12, f, sizeof(f));
    assert_int_equal(back[10], 4);
}

static void test_receive_without_merging(void **state)
{
    struct net_test *t = *state;
    u8 f[1000];
    u32 len;

    restart(t, F_MRG);
    make_frame(f, sizeof(f));
    drv_add(&t->d, RX, &(struct seg){t->buf, 500, SEG_WRITE, 0}, 1);
    drv_add(&t->d, RX, &(struct seg){t->buf + 1000, 2000, SEG_WRITE, 0}, 1);
    assert_true(receive(t, f, sizeof(f))); /* does not fit the first: dropped */
    assert_false(used(t, RX, &len));
    assert_true(receive(t, f, 400));
    assert_true(used(t, RX, &len));
    assert_int_equal(len, 412);
}

static void test_receive_into_nonsense(void **state)
{
    struct net_test *t = *state;
    u8 f[100];

    make_frame(f, sizeof(f));
    drv_add(&t->d, RX, &(struct seg){t->buf, 500, 0, 0}, 1); /* readable */
    receive(t, f, sizeof(f));
    assert_needs_reset(&t->d);
    restart(t, 0);
    drv_add(&t->d, RX, &(struct seg){t->buf, 11, SEG_WRITE, 0}, 1); /* no room for the header */
    receive(t, f, sizeof(f));
    assert_needs_reset(&t->d);
    restart(t, 0);
    for (unsigned i = 0; i < 256; i++) /* a byte at a time, and still not enough */
        drv_add(&t->d, RX, &(struct seg){t->buf, i ? 1 : 12, SEG_WRITE, 0}, 1);
    memset(t->frame, 0xff, sizeof(t->frame));
    assert_false(receive(t, t->frame, 60000));
    assert_true(receive(t, f, sizeof(f)));
    assert_healthy(&t->d);
}

static u8 control(struct net_test *t, const void *cmd, u32 len)
{
    struct seg s[2] = {{t->buf, len, 0, 0}, {t->buf + 4096, 1, SEG_WRITE, 0}};
    u8 status = 0xee;
    u32 written;

    drv_put(&t->d, t->buf, cmd, len);
    drv_add(&t->d, CTRL, s, 2);
    drv_kick(&t->d, CTRL);
    assert_true(used(t, CTRL, &written));
    assert_int_equal(written, 1);
    drv_get(&t->d, t->buf + 4096, &status, 1);
    return status;
}

static bool arrives(struct net_test *t, const u8 dst[6])
{
    u8 f[60] = {0};
    u32 len;

    memcpy(f, dst, 6);
    drv_add(&t->d, RX, &(struct seg){t->buf + 8192, 2000, SEG_WRITE, 0}, 1);
    assert_true(receive(t, f, sizeof(f)));
    return used(t, RX, &len);
}

static void test_filter(void **state)
{
    struct net_test *t = *state;
    static const u8 other[6] = {2, 0, 0, 0, 0, 1}, group[6] = {1, 0, 0x5e, 0, 0, 1};

    assert_true(arrives(t, mac));
    assert_true(arrives(t, group));
    assert_false(arrives(t, other));
    assert_int_equal(control(t, "\0\0\1", 3), 0); /* promiscuous */
    assert_true(arrives(t, other));
    assert_int_equal(control(t, "\0\0\0", 3), 0);
    assert_false(arrives(t, other));
    assert_int_equal(control(t, "\1\1\2\0\0\0\0\1", 8), 0); /* another address of its own */
    assert_true(arrives(t, other));
    assert_false(arrives(t, mac));
}

static void test_28_control_garbage(void **state)
{
    struct net_test *t = *state;
    u8 cmd[64];
    u32 x = 3;

    assert_int_equal(control(t, "\0", 1), 1);
    assert_int_equal(control(t, "\0\0", 2), 1);
    assert_int_equal(control(t, "\1\1\1\0\0\0\0\1", 8), 1); /* a multicast address */
    assert_int_equal(control(t, "\1\1\2\0\0\0", 6), 1);
    assert_int_equal(control(t, "\1\0\xff\xff\xff\xff", 6), 1);
    assert_int_equal(control(t, "\4\0\1\0", 4), 1); /* multi-queue: not offered */
    for (unsigned i = 0; i < 2000; i++) {
        for (unsigned k = 0; k < sizeof(cmd); k++) {
            x = x * 1664525 + 1013904223;
            cmd[k] = (u8)(k < 2 ? (x >> 24) % 7 : x >> 24);
        }
        control(t, cmd, 1 + i % sizeof(cmd));
    }
    assert_healthy(&t->d);
    drv_add(&t->d, CTRL, &(struct seg){t->buf, 3, 0, 0}, 1);
    drv_kick(&t->d, CTRL);
    assert_needs_reset(&t->d);
}

/* While the machine is saved, frames wait where they are. */
static void test_pause(void **state)
{
    struct net_test *t = *state;
    u8 f[100];
    u32 len;

    make_frame(f, sizeof(f));
    drv_add(&t->d, RX, &(struct seg){t->buf, 500, SEG_WRITE, 0}, 1);
    pci_host_quiesce(t->b.pci);
    assert_false(receive(t, f, sizeof(f)));
    assert_false(used(t, RX, &len));
    pci_host_resume(t->b.pci);
    assert_int_equal(t->resumed, 1);
    assert_true(receive(t, f, sizeof(f)));
    assert_true(used(t, RX, &len));
}

/* A machine whose state is still to come has no driver: what a network says meanwhile is not kept for it. */
static void test_pause_without_driver(void **state)
{
    struct net_test *t = *state;
    u8 f[100];

    make_frame(f, sizeof(f));
    drv_reset(&t->d);
    pci_host_quiesce(t->b.pci);
    assert_true(receive(t, f, sizeof(f)));
    pci_host_resume(t->b.pci);
    assert_int_equal(t->resumed, 0);
}

/* Switches hear of the address that the guest uses, which need not be the one it was given; nobody waits for a guest that
 * sends just now. */
static void test_announce(void **state)
{
    static const u8 set_mac[] = {1, 1, 0x52, 0x54, 0, 1, 2, 3};
    struct net_test *t = *state;

    assert_int_equal(control(t, set_mac, sizeof(set_mac)), 0);
    pthread_mutex_lock(&t->v->queue[TX].lock);
    virtio_net_announce(t->v);
    pthread_mutex_unlock(&t->v->queue[TX].lock);
    assert_int_equal(t->sent, 0);
    assert_int_equal(control(t, "\3\0", 2), 0);
    unsigned before = bench_count_msi(&t->b, DRIVER_MSI_CONFIG);
    virtio_net_announce(t->v);
    assert_int_equal(t->sent, 1);
    assert_int_equal(t->len, 60);
    assert_memory_equal(t->frame + 6, set_mac + 2, 6);
    assert_memory_equal(t->frame + 12, "\x80\x35", 2);
    assert_memory_equal(t->frame + 32, set_mac + 2, 6);
    assert_int_equal(bench_count_msi(&t->b, DRIVER_MSI_CONFIG), before + 1);
    assert_int_equal(bench_read(&t->b, t->d.config + 6, 2), 3);
    assert_int_equal(control(t, "\3\0", 2), 0);
    assert_int_equal(bench_read(&t->b, t->d.config + 6, 2), 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_config),
        CASE(test_send),
        CASE(test_28_lengths),
        CASE(test_28_offload_headers),
        CASE(test_offloads_need_their_features),
        CASE(test_receive),
        CASE(test_receive_merged),
        CASE(test_receive_without_merging),
        CASE(test_receive_into_nonsense),
        CASE(test_filter),
        CASE(test_28_control_garbage),
        CASE(test_pause),
        CASE(test_pause_without_driver),
        CASE(test_announce),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
