/* Saved state of PCI and virtio: a machine goes on in another one; states that cannot be are refused. */
#include "device/virtio_console.h"
#include "device/virtio_net.h"
#include "device/virtio_rng.h"
#include "driver.h"
#include "state/set.h"

enum { RNG = 1, CONSOLE = 2, NET = 3 };

struct machine {
    struct bench b;
    struct state_set set;
    struct chardev port;
    struct netport net;
    struct virtio *net_device;
    size_t written, room;
};

static size_t port_write(struct chardev *c, const u8 *buf, size_t len)
{
    struct machine *m = CONTAINER_OF(c, struct machine, port);
    size_t take = MIN(len, m->room);

    m->room -= take;
    m->written += take;
    return take;
}

static const struct netport_ops net_ops = {.name = "test"};

static struct machine *machine_with_mac(u8 last)
{
    struct machine *m = calloc(1, sizeof(*m));
    struct virtio_console_options con = {.port = &m->port, .cols = 80, .rows = 25};
    struct virtio_net_options net = {.mac = {2, 0, 0, 0, 0, last}, .port = &m->net};

    bench_init(&m->b);
    m->port.write = port_write;
    m->net.ops = &net_ops;
    assert_int_equal(virtio_new(&m->b.env, &virtio_rng_type, RNG, NULL, NULL, NULL), 0);
    assert_int_equal(virtio_new(&m->b.env, &virtio_console_type, CONSOLE, &con, NULL, NULL), 0);
    assert_int_equal(virtio_new(&m->b.env, &virtio_net_type, NET, &net, &m->net_device, NULL), 0);
    assert_int_equal(pci_host_register(m->b.pci, &m->set, NULL), 0);
    return m;
}

static struct machine *machine_new(void)
{
    return machine_with_mac(1);
}

static void machine_free(struct machine *m)
{
    bench_fini(&m->b);
    free(m);
}

static struct state_buf save(struct machine *m)
{
    struct state_buf buf = {0};
    struct state_sink sink = state_buf_sink(&buf);

    pci_host_quiesce(m->b.pci);
    assert_int_equal(state_set_save(&m->set, &sink, NULL), 0);
    return buf;
}

static void load(struct machine *m, struct state_buf *buf)
{
    struct state_source source = state_buf_source(buf);
    struct err err = ERR_INIT;

    pci_host_quiesce(m->b.pci);
    if (state_set_load(&m->set, &source, &err))
        fail_msg("%s", err.msg);
}

static void test_goes_on_elsewhere(void **state)
{
    struct machine *a = machine_new(), *b = machine_new();
    struct drv rng, con;
    struct state_buf first, second;
    u64 buf = bench_alloc(&a->b, 4096, 16);
    u32 id, len;

    drv_find(&rng, &a->b, RNG);
    drv_start(&rng, 0);
    drv_find(&con, &a->b, CONSOLE);
    drv_start(&con, 0);
    drv_add(&rng, 0, &(struct seg){buf, 16, SEG_WRITE, 0}, 1);
    drv_kick(&rng, 0);
    assert_true(drv_used(&rng, 0, &id, &len));
    a->room = 30; /* the console is in the middle of a chain */
    drv_add(&con, 1, &(struct seg){buf, 100, 0, 0}, 1);
    drv_kick(&con, 1);
    assert_int_equal(a->written, 30);
    bench_config_write(&a->b, RNG, PCI_BAR0, 4, 0xd0000000);

    first = save(a);
    memcpy(b->b.ram.base, a->b.ram.base, BENCH_RAM);
    load(b, &first);
    second = save(b);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);

    b->room = 1000;
    pci_host_resume(b->b.pci);
    assert_int_equal(b->written, 70);
    rng.b = con.b = &b->b;
    rng.common += 0xd0000000 - rng.bar;
    rng.notify += 0xd0000000 - rng.bar;
    assert_true(drv_used(&con, 1, &id, &len));
    assert_healthy(&rng);
    drv_add(&rng, 0, &(struct seg){buf, 16, SEG_WRITE, 0}, 1);
    drv_kick(&rng, 0);
    assert_true(drv_used(&rng, 0, &id, &len));
    state_buf_fini(&first);
    state_buf_fini(&second);
    machine_free(a);
    machine_free(b);
}

/* The network's address as the driver reads it; its last byte. */
static u8 mac_read(struct drv *net)
{
    return (u8)bench_read(net->b, net->config + 5, 1);
}

/* Does a frame to that address reach the driver? */
static bool hears(struct machine *m, struct drv *net, u64 buf, u8 last)
{
    u8 frame[60] = {2, 0, 0, 0, 0, last};
    struct net_offload o = {0};
    struct iovec iov = {frame, sizeof(frame)};
    u32 id, len;

    drv_add(net, 0, &(struct seg){buf, 2048, SEG_WRITE, 0}, 1);
    drv_kick(net, 0);
    assert_true(m->net.receive(m->net.opaque, &o, &iov, 1, sizeof(frame)));
    return drv_used(net, 0, &id, &len);
}

/* A clone with another address, which its machine shows once the state is loaded (vm/snapshot/restore.c): the driver has the
 * old one until it is bound again, and the new one from then on. */
static void test_other_address(void **state)
{
    static const u8 mac[6] = {2, 0, 0, 0, 0, 9};
    struct machine *a = machine_new(), *b = machine_with_mac(9);
    u64 buf = bench_alloc(&a->b, 4096, 16);
    struct state_buf saved;
    struct drv net;

    drv_find(&net, &a->b, NET);
    drv_start(&net, 0);
    saved = save(a);
    memcpy(b->b.ram.base, a->b.ram.base, BENCH_RAM);
    load(b, &saved);
    virtio_config_set(b->net_device, 0, mac, sizeof(mac));
    pci_host_resume(b->b.pci);
    net.b = &b->b;
    assert_true(hears(b, &net, buf, 1));
    assert_false(hears(b, &net, buf, 9));
    drv_reset(&net);
    drv_start(&net, 0);
    assert_int_equal(mac_read(&net), 9);
    assert_true(hears(b, &net, buf, 9));
    assert_false(hears(b, &net, buf, 1));
    state_buf_fini(&saved);
    machine_free(a);
    machine_free(b);
}

static struct state_entry *find(struct machine *m, const char *name, u32 slot)
{
    for (struct state_entry *e = m->set.first; e; e = e->next)
        if (!strcmp(e->name, name) && e->instance == slot * PCI_FNS)
            return e;
    fail_msg("no section %s of slot %u", name, slot);
    return NULL;
}

static void expect(struct machine *m, struct virtio_state *s, bool good)
{
    struct state_entry *e = find(m, "virtio", RNG);
    struct err err = ERR_INIT;

    assert_int_equal(e->check(e->opaque, s, &err) == 0, good);
    assert_true(good || err.msg[0]);
}

static void test_impossible_states(void **state)
{
    struct machine *m = machine_new();
    struct state_entry *e = find(m, "virtio", RNG);
    struct virtio_state good, s;
    struct drv d;

    drv_find(&d, &m->b, RNG);
    drv_start(&d, 0);
    e->pre_save(e->opaque);
    good = *(struct virtio_state *)e->object;
    expect(m, &good, true);
#define BAD(change)           \
    do {                      \
        s = good;             \
        s.change;             \
        expect(m, &s, false); \
    } while (0)
    BAD(status = 0x10);
    BAD(status = 7);
    BAD(acked |= 1);
    BAD(acked = 0);
    BAD(isr = 4);
    BAD(config_vector = 2);
    BAD(config[0] = 1);
    BAD(queue[0].size = 0);
    BAD(queue[0].size = 3);
    BAD(queue[0].size = 128);
    BAD(queue[0].vector = 9);
    BAD(queue[0].desc = 1ull << 40);
    BAD(queue[0].avail += 1);
    BAD(queue[0].used = BENCH_RAM);
    BAD(queue[0].last_avail = 1);
    BAD(queue[0].signalled = 100);
    BAD(queue[0].enabled = 0; s.queue[0].used_idx = 1);
#undef BAD
    machine_free(m);
}

static void test_other_hardware_is_refused(void **state)
{
    struct machine *m = machine_new();
    struct state_entry *e = find(m, "pci", RNG);
    struct pci_func_state s;
    struct err err = ERR_INIT;

    e->pre_save(e->opaque);
    s = *(struct pci_func_state *)e->object;
    assert_int_equal(e->check(e->opaque, &s, NULL), 0);
    s.config[PCI_DEVICE] ^= 1;
    assert_int_equal(e->check(e->opaque, &s, &err), -EINVAL);
    s.config[PCI_DEVICE] ^= 1;
    s.msix[0].control = 2;
    assert_int_equal(e->check(e->opaque, &s, &err), -EINVAL);
    s.msix[0].control = 0;
    s.msix_pending = 4;
    assert_int_equal(e->check(e->opaque, &s, &err), -EINVAL);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on_elsewhere),
        cmocka_unit_test(test_other_address),
        cmocka_unit_test(test_impossible_states),
        cmocka_unit_test(test_other_hardware_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
