/* The PCI bus: finding functions, BARs that move and collide (list 33), garbage (34), MSI-X, INTx. */
#include "device/virtio_rng.h"
#include "driver.h"

struct pci_test {
    struct bench b;
    struct drv d;
    u64 buf;
};

static int setup(void **state)
{
    struct pci_test *t = calloc(1, sizeof(*t));

    bench_init(&t->b);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(virtio_new(&t->b.env, &virtio_rng_type, PCI_SLOT_ANY, NULL, NULL, NULL),
                         0);
    drv_find(&t->d, &t->b, 1);
    t->buf = bench_alloc(&t->b, 4096, 16);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct pci_test *t = *state;

    bench_fini(&t->b);
    free(t);
    return 0;
}

static void out(struct pci_test *t, u16 port, unsigned size, u32 value)
{
    aspace_write(&t->b.pio, port, size, value);
}

static u32 in(struct pci_test *t, u16 port, unsigned size)
{
    return (u32)aspace_read(&t->b.pio, port, size);
}

static void kick_one(struct pci_test *t)
{
    drv_add(&t->d, 0, &(struct seg){t->buf, 16, SEG_WRITE, 0}, 1);
    drv_kick(&t->d, 0);
}

static void test_both_ways_see_the_same(void **state)
{
    struct pci_test *t = *state;

    for (unsigned devfn = 0; devfn < 256; devfn++) {
        for (unsigned reg = 0; reg < 256; reg += 4) {
            out(t, 0xcf8, 4, 0x80000000u | devfn << 8 | reg);
            assert_int_equal(in(t, 0xcfc, 4),
                             (u32)bench_read(&t->b, BENCH_ECAM + devfn * 4096 + reg, 4));
            assert_int_equal(in(t, 0xcfe, 1),
                             (u8)bench_read(&t->b, BENCH_ECAM + devfn * 4096 + reg + 2, 1));
        }
    }
    assert_int_equal(bench_config_read(&t->b, 0, PCI_CLASS + 1, 2), 0x0600);
    assert_int_equal(bench_config_read(&t->b, 1, PCI_VENDOR, 4), 0x10441af4);
    assert_int_equal(bench_config_read(&t->b, 2, PCI_VENDOR, 4), 0x10441af4);
    assert_int_equal(bench_config_read(&t->b, 3, PCI_VENDOR, 4), 0xffffffff);
}

static void test_34_garbage(void **state)
{
    struct pci_test *t = *state;
    u32 x = 9;

    out(t, 0xcf8, 4, 0x80010800); /* bus 1 */
    assert_int_equal(in(t, 0xcfc, 4), 0xffffffff);
    out(t, 0xcf8, 4, 0x00000800); /* not enabled */
    assert_int_equal(in(t, 0xcfc, 4), 0xffffffff);
    out(t, 0xcf8, 1, 0x80);
    assert_int_equal(in(t, 0xcf8, 4), 0x00000800);
    assert_int_equal(in(t, 0xcf9, 2), 0xffff);
    for (unsigned i = 0; i < 100000; i++) {
        x = x * 1664525 + 1013904223;
        out(t, 0xcf8, 4, x | 0x80000000);
        in(t, (u16)(0xcf8 + (x >> 20) % 8), 1u << (x >> 10) % 3);
        out(t, (u16)(0xcf8 + (x >> 24) % 8), 1u << (x >> 13) % 3, x * 3);
        bench_write(&t->b, BENCH_ECAM + x % (2 * MiB), 1u << (x >> 28) % 4, ~(u64)x);
        bench_read(&t->b, BENCH_ECAM + x % (2 * MiB), 1u << (x >> 28) % 4);
    }
    assert_int_equal((u32)bench_read(&t->b, BENCH_ECAM + 1 * MiB, 4), 0xffffffff);
    assert_int_equal((u32)bench_read(&t->b, BENCH_ECAM + 0x8100, 4), 0xffffffff);
    pci_host_reset(t->b.pci);
    drv_find(&t->d, &t->b, 1);
    drv_start(&t->d, 0);
}

static bool bar_at(struct pci_test *t, u64 addr)
{
    return bench_read(&t->b, addr + REG_NUM_QUEUES, 2) == 1;
}

static void set_bar(struct pci_test *t, unsigned slot, u32 addr)
{
    bench_config_write(&t->b, slot, PCI_BAR0, 4, addr);
}

static u32 get_bar(struct pci_test *t, unsigned slot)
{
    return bench_config_read(&t->b, slot, PCI_BAR0, 4);
}

static void test_bar_sizing_and_moving(void **state)
{
    struct pci_test *t = *state;
    u32 home = get_bar(t, 1);

    assert_true(bar_at(t, home));
    set_bar(t, 1, 0xffffffff);
    assert_int_equal(get_bar(t, 1), 0xffff8000);
    assert_false(bar_at(t, home));
    assert_false(bar_at(t, 0xffff8000));
    set_bar(t, 1, 0xd0000000);
    assert_true(bar_at(t, 0xd0000000));
    bench_config_write(&t->b, 1, PCI_COMMAND, 2, 0);
    assert_false(bar_at(t, 0xd0000000));
    bench_config_write(&t->b, 1, PCI_COMMAND, 2, PCI_COMMAND_MEM);
    assert_true(bar_at(t, 0xd0000000));
    for (unsigned i = 1; i < 6; i++)
        assert_int_equal(bench_config_read(&t->b, 1, PCI_BAR0 + i * 4, 4), 0);
    pci_host_reset(t->b.pci);
    assert_int_equal(get_bar(t, 1), home);
    assert_true(bar_at(t, home));
}

static void test_33_bar_onto_others(void **state)
{
    struct pci_test *t = *state;
    static const u32 bad[] = {0,          0x100000,   0x03ff8000, 0xfec00000,
                              0xfee00000, 0xe0000000, 0xe0008000, 0xbfff8000};
    u32 first = get_bar(t, 1), second = get_bar(t, 2);
    u8 byte = 0x5a;

    drv_put(&t->d, 0x100000, &byte, 1);
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        set_bar(t, 1, bad[i]);
        assert_false(bar_at(t, first));
        assert_int_equal(bench_config_read(&t->b, 1, PCI_VENDOR, 2),
                         0x1af4); /* ECAM is still there */
    }
    drv_get(&t->d, 0x100000, &byte, 1);
    assert_int_equal(byte, 0x5a);
    set_bar(t, 1, second); /* onto its neighbour: that one stays */
    assert_true(bar_at(t, second));
    bench_write(&t->b, second + REG_STATUS, 1, 1);
    set_bar(t, 2, first);
    assert_int_equal(bench_read(&t->b, first + REG_STATUS, 1), 1);
    assert_false(bar_at(t, second));
    set_bar(t, 1, second); /* written again, now it is free */
    assert_true(bar_at(t, second));
    /* A reset with both exchanged puts both back. */
    pci_host_reset(t->b.pci);
    assert_true(bar_at(t, first));
    assert_true(bar_at(t, second));
}

static void test_msix_masking(void **state)
{
    struct pci_test *t = *state;
    u64 entry = t->d.msix + 16, pba = t->d.bar + 0x4800;
    unsigned cap = 0x40;

    drv_start(&t->d, 0);
    assert_int_equal(bench_config_read(&t->b, 1, cap, 1), 0x11);
    bench_write(&t->b, entry + 12, 4, 1);
    kick_one(t);
    assert_int_equal(bench_count_msi(&t->b, DRIVER_MSI_DATA), 0);
    assert_int_equal(bench_read(&t->b, pba, 8), 2);
    bench_write(&t->b, entry + 8, 4, 0x55); /* new data before it is unmasked */
    bench_write(&t->b, entry + 12, 4, 0);
    assert_int_equal(bench_count_msi(&t->b, 0x55), 1);
    assert_int_equal(bench_read(&t->b, pba, 8), 0);
    bench_config_write(&t->b, 1, cap + 2, 2, 0xc000); /* the whole function */
    bench_write(&t->b, pba, 8, UINT64_MAX);           /* not the guest's to write */
    drv_set_reg(&t->d, REG_STATUS, 1, 15);
    u16 event = 1;
    drv_put(&t->d, t->d.q[0].avail + 4 + 2u * t->d.q[0].size, &event, 2);
    kick_one(t);
    assert_int_equal(bench_count_msi(&t->b, 0x55), 1);
    assert_int_equal(bench_read(&t->b, pba, 4), 2);
    bench_config_write(&t->b, 1, cap + 2, 2, 0x8000);
    assert_int_equal(bench_count_msi(&t->b, 0x55), 2);
}

static void test_no_interrupts_without_bus_mastering(void **state)
{
    struct pci_test *t = *state;

    drv_start(&t->d, 0);
    bench_write(&t->b, t->d.msix + 16 + 12, 4, 1);
    kick_one(t);
    bench_config_write(&t->b, 1, PCI_COMMAND, 2, PCI_COMMAND_MEM);
    bench_write(&t->b, t->d.msix + 16 + 12, 4, 0);
    assert_int_equal(bench_count_msi(&t->b, DRIVER_MSI_DATA), 0);
    bench_config_write(&t->b, 1, PCI_COMMAND, 2, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
    assert_int_equal(bench_count_msi(&t->b, DRIVER_MSI_DATA), 1);
}

static void test_intx(void **state)
{
    struct pci_test *t = *state;

    assert_int_equal(bench_config_read(&t->b, 1, PCI_INT_LINE, 2), 0x0111); /* 16 + 1, INTA */
    bench_config_write(&t->b, 1, 0x42, 2, 0);                               /* MSI-X off */
    drv_start(&t->d, 0);
    kick_one(t);
    assert_true(t->b.intx[1]);
    assert_true(bench_config_read(&t->b, 1, PCI_STATUS, 2) & PCI_STATUS_INTX);
    bench_config_write(&t->b, 1, PCI_COMMAND, 2, 6 | PCI_COMMAND_NO_INTX);
    assert_false(t->b.intx[1]);
    bench_config_write(&t->b, 1, PCI_COMMAND, 2, 6);
    assert_true(t->b.intx[1]);
    assert_int_equal(bench_read(&t->b, t->d.isr, 1), 1);
    assert_false(t->b.intx[1]);
    assert_int_equal(bench_read(&t->b, t->d.isr, 1), 0);
    kick_one(t);
    drv_reset(&t->d);
    assert_false(t->b.intx[1]);
}

/* Two devices on one line: it stays up until both are done. */
static void test_intx_is_shared(void **state)
{
    struct pci_test *t = *state;
    struct pci_func *a = pci_host_func(t->b.pci, 1, 0);
    struct drv other;

    assert_int_equal(virtio_new(&t->b.env, &virtio_rng_type, 9, NULL, NULL, NULL), 0);
    drv_find(&other, &t->b, 9);
    pci_intx(a, true);
    pci_intx(pci_host_func(t->b.pci, 9, 0), true);
    pci_intx(a, false);
    assert_true(t->b.intx[1]);
    pci_intx(pci_host_func(t->b.pci, 9, 0), false);
    assert_false(t->b.intx[1]);
}

static unsigned find_access_cap(struct pci_test *t)
{
    unsigned cap = bench_config_read(&t->b, 1, PCI_CAP_PTR, 1);

    while (cap && !(bench_config_read(&t->b, 1, cap, 1) == 9 &&
                    bench_config_read(&t->b, 1, cap + 3, 1) == 5))
        cap = bench_config_read(&t->b, 1, cap + 1, 1);
    assert_true(cap);
    return cap;
}

/* 4.1.4.9: registers through configuration space, and nothing else through it. */
static void test_config_access_capability(void **state)
{
    struct pci_test *t = *state;
    unsigned cap = find_access_cap(t);

    bench_config_write(&t->b, 1, cap + 4, 1, 0);
    bench_config_write(&t->b, 1, cap + 8, 4, REG_NUM_QUEUES);
    bench_config_write(&t->b, 1, cap + 12, 4, 2);
    assert_int_equal(bench_config_read(&t->b, 1, cap + 16, 4), 1);
    bench_config_write(&t->b, 1, cap + 8, 4, REG_STATUS);
    bench_config_write(&t->b, 1, cap + 12, 4, 1);
    bench_config_write(&t->b, 1, cap + 16, 4, 0xffffff01);
    assert_int_equal(drv_status(&t->d), 1);
    for (unsigned bar = 0; bar < 256; bar++) {
        static const u32 odd[] = {0, 0x7fff, 0x8000, 0xfffffffc, 0xffffffff, 0x80000000};

        bench_config_write(&t->b, 1, cap + 4, 1, bar);
        for (unsigned i = 0; i < ARRAY_LEN(odd); i++) {
            bench_config_write(&t->b, 1, cap + 8, 4, odd[i]);
            bench_config_write(&t->b, 1, cap + 12, 4, bar % 9);
            bench_config_read(&t->b, 1, cap + 16, 4);
            bench_config_write(&t->b, 1, cap + 16, 4, bar & 1 ? 0 : 0xffffffff);
        }
    }
}

static void test_slots_run_out(void **state)
{
    struct pci_test *t = *state;
    struct err err = ERR_INIT;
    int rc = 0, n = 2;

    assert_int_equal(virtio_new(&t->b.env, &virtio_rng_type, 1, NULL, NULL, &err), -EEXIST);
    assert_int_equal(virtio_new(&t->b.env, &virtio_rng_type, 32, NULL, NULL, &err), -EINVAL);
    while (!(rc = virtio_new(&t->b.env, &virtio_rng_type, PCI_SLOT_ANY, NULL, NULL, &err)))
        n++;
    assert_int_equal(rc, -ENOSPC);
    assert_int_equal(n, 31);
}

static const struct io_ops nothing;

/* A 64-bit BAR that does not fit the low window goes above RAM, and moves within that window. */
static void test_64_bit_bar(void **state)
{
    struct pci_test *t = *state;
    static const struct pci_func_ops ops = {0};
    const struct pci_id id = {.vendor = 0x1af4, .device = 0x1234, .class_code = 0xff0000};
    struct pci_func *f = calloc(1, sizeof(*f));

    pci_func_init(f, &id, &ops, "big");
    pci_bar_init(f, 2, 1 * GiB, true, &nothing, NULL, NULL);
    assert_int_equal(pci_func_add(t->b.pci, f, 5, 0, NULL), 0);
    assert_true(f->bar[2].region.mapped);
    assert_int_equal(f->bar[2].region.base, BENCH_WINDOW64);
    bench_config_write(&t->b, 5, PCI_BAR0 + 8, 4, 0xffffffff);
    bench_config_write(&t->b, 5, PCI_BAR0 + 12, 4, 0xffffffff);
    assert_int_equal(bench_config_read(&t->b, 5, PCI_BAR0 + 8, 4), 0xc0000004);
    assert_int_equal(bench_config_read(&t->b, 5, PCI_BAR0 + 12, 4), 0xffffffff);
    assert_false(f->bar[2].region.mapped);
    bench_config_write(&t->b, 5, PCI_BAR0 + 8, 4, 0x40000000);
    bench_config_write(&t->b, 5, PCI_BAR0 + 12, 4, 2);
    assert_true(f->bar[2].region.mapped);
    assert_int_equal(f->bar[2].region.base, 0x240000000);
    pci_func_fini(f);
    free(f);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_both_ways_see_the_same),
        CASE(test_34_garbage),
        CASE(test_bar_sizing_and_moving),
        CASE(test_33_bar_onto_others),
        CASE(test_msix_masking),
        CASE(test_no_interrupts_without_bus_mastering),
        CASE(test_intx),
        CASE(test_intx_is_shared),
        CASE(test_config_access_capability),
        CASE(test_slots_run_out),
        CASE(test_64_bit_bar),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
