/*
 * A machine's PCI devices made and freed: whatever could not be had, what was made is given back. Also run with each
 * call failing in turn (tests/fault).
 */
#include "device/virtio_blk.h"
#include "device/virtio_console.h"
#include "device/virtio_net.h"
#include "device/virtio_rng.h"
#include "unit.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define IMAGE_BYTES 65536

struct parts {
    struct aspace mmio, pio;
    struct timerq timers;
    struct pci_host *pci;
    struct block_engine *engine;
    struct block *disk;
    struct netport *port;
    struct gmem ram;
    int fd;
};

static int add_devices(struct parts *p, struct err *err)
{
    struct virtio_env env = {.pci = p->pci, .ram = &p->ram, .timers = &p->timers, .cpus = 9};
    struct virtio_blk_options blk = {.disk = p->disk, .serial = "more than twenty bytes"};
    struct virtio_net_options net = {.port = p->port, .mac = {2}};
    struct virtio_console_options con = {0};
    struct virtio *v = NULL;
    int rc;

    assert_true(virtio_new(&env, &virtio_blk_type, PCI_SLOT_ANY, &blk, &v, err) < 0);
    assert_null(v);
    *err = ERR_INIT;
    blk.serial = NULL;
    rc = virtio_new(&env, &virtio_blk_type, PCI_SLOT_ANY, &blk, &v, err);
    if (!rc) {
        assert_int_equal(v->nqueues, 4);
        rc = virtio_new(&env, &virtio_net_type, PCI_SLOT_ANY, &net, NULL, err);
    }
    if (!rc)
        rc = virtio_new(&env, &virtio_console_type, PCI_SLOT_ANY, &con, NULL, err);
    if (!rc)
        rc = virtio_new(&env, &virtio_rng_type, PCI_SLOT_ANY, NULL, NULL, err);
    return rc;
}

static int make(struct parts *p, const char *engine, struct err *err)
{
    struct pci_host_config c = {.mmio = &p->mmio,
                                .pio = &p->pio,
                                .ecam_base = 0xe0000000,
                                .mmio32_base = 0xc0000000,
                                .mmio32_len = 0x20000000};
    struct block_options o = {0};
    char path[32];
    int rc;

    p->fd = memfd_create("image", MFD_CLOEXEC);
    if (p->fd < 0 || ftruncate(p->fd, IMAGE_BYTES))
        return err_set(err, errno, "the test's own image");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", p->fd);
    rc = block_engine_new(engine, &p->engine, err);
    rc = rc ? rc : block_open(path, &o, p->engine, &p->disk, err);
    rc = rc ? rc : net_none_open(&p->port, err);
    rc = rc ? rc : pci_host_new(&c, &p->pci, err);
    return rc ? rc : add_devices(p, err);
}

static void give_back(struct parts *p)
{
    pci_host_free(p->pci);
    netport_close(p->port);
    block_close(p->disk);
    block_engine_free(p->engine);
    if (p->fd >= 0)
        close(p->fd);
    timerq_fini(&p->timers);
    aspace_fini(&p->mmio);
    aspace_fini(&p->pio);
}

static void make_and_free(const char *engine)
{
    static struct parts p;
    struct err err = ERR_INIT;
    int rc;

    memset(&p, 0, sizeof(p));
    p.fd = -1;
    aspace_init(&p.mmio, 1ull << 40);
    aspace_init(&p.pio, 65536);
    timerq_init(&p.timers);
    rc = make(&p, engine, &err);
    assert_int_equal(p.mmio.nregions != 0, p.pci != NULL);
    give_back(&p);
    assert_int_equal(rc, 0);
}

static void test_with_threads(void **state)
{
    make_and_free("threads");
}

static void test_with_any_engine(void **state)
{
    make_and_free("auto");
}

static void test_unknown_engine(void **state)
{
    struct block_engine *e = NULL;
    struct err err = ERR_INIT;

    assert_int_equal(block_engine_new("steam", &e, &err), -EINVAL);
    assert_non_null(strstr(err.msg, "threads"));
    assert_null(e);
    block_engine_free(NULL);
    block_close(NULL);
    netport_close(NULL);
    pci_host_free(NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_with_threads),
    cmocka_unit_test(test_with_any_engine),
    cmocka_unit_test(test_unknown_engine),
};

UNIT_MAIN(tests)
