/*
 * When the host cannot do what the guest wants of its disk, the machine stops and the guest never learns: requests are
 * held, saved, carried elsewhere, and done again. An image that is cut fails reads with EIO, a small tmpfs fails writes
 * with ENOSPC.
 */
#include "device/virtio_blk.h"
#include "driver.h"
#include "state/set.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMAGE_BYTES (4 * MiB)
#define PIECE 4096u
#define CHAINS 8u

enum { IN = 0, OUT = 1 };

struct machine {
    struct bench b;
    struct drv d;
    struct block_engine *engine;
    struct block *disk;
    struct state_set set;
    u64 buf;
    atomic_uint stops;
    atomic_int error;
    bool refuse; /* there is nobody to resume the machine */
};

static bool on_stopped(void *opaque, struct block *disk, int error)
{
    struct machine *m = opaque;

    assert_ptr_equal(disk, m->disk);
    m->error = error;
    atomic_fetch_add(&m->stops, 1);
    return !m->refuse;
}

static struct machine *machine_new(const char *path, enum virtio_blk_on_error what)
{
    struct machine *m = calloc(1, sizeof(*m));
    struct block_options o = {.format = "raw"};
    struct virtio_blk_options vo = {
        .on_read = what, .on_write = what, .stopped = on_stopped, .opaque = m};

    bench_init(&m->b);
    assert_int_equal(block_engine_new("threads", &m->engine, NULL), 0);
    assert_int_equal(block_open(path, &o, m->engine, &m->disk, NULL), 0);
    vo.disk = m->disk;
    assert_int_equal(virtio_new(&m->b.env, &virtio_blk_type, 1, &vo, NULL, NULL), 0);
    assert_int_equal(pci_host_register(m->b.pci, &m->set, NULL), 0);
    drv_find(&m->d, &m->b, 1);
    drv_start(&m->d, 0);
    m->buf = bench_alloc(&m->b, CHAINS * 2 * PIECE, PIECE);
    return m;
}

static void machine_free(struct machine *m)
{
    bench_fini(&m->b);
    block_close(m->disk);
    block_engine_free(m->engine);
    free(m);
}

/* Of chain i: data at one page, header and status at the next. */
static u64 data_of(const struct machine *m, unsigned i)
{
    return m->buf + i * 2ull * PIECE;
}

static u64 status_of(const struct machine *m, unsigned i)
{
    return data_of(m, i) + PIECE + 16;
}

/* Chains with one request each, the i-th for the i-th piece behind `first`. */
static void add_chains(struct machine *m, u32 type, u64 first)
{
    for (unsigned i = 0; i < CHAINS; i++) {
        struct {
            u32 type, reserved;
            u64 sector;
        } h = {type, 0, (first + i * PIECE) / 512};
        struct seg s[3] = {{data_of(m, i) + PIECE, 16, 0, 0},
                           {data_of(m, i), PIECE, type == IN ? SEG_WRITE : 0, 0},
                           {status_of(m, i), 1, SEG_WRITE, 0}};
        u8 bytes[PIECE], status = 0xee;

        memset(bytes, (int)i + 1, PIECE);
        drv_put(&m->d, data_of(m, i), bytes, PIECE);
        drv_put(&m->d, data_of(m, i) + PIECE, &h, sizeof(h));
        drv_put(&m->d, status_of(m, i), &status, 1);
        drv_add(&m->d, 0, s, 3);
    }
    drv_kick(&m->d, 0);
}

static unsigned take_used(struct machine *m)
{
    unsigned n = 0;
    u32 id, len;

    while (drv_used(&m->d, 0, &id, &len))
        n++;
    return n;
}

static void expect_status(struct machine *m, u8 want)
{
    for (unsigned i = 0; i < CHAINS; i++) {
        u8 status;

        drv_get(&m->d, status_of(m, i), &status, 1);
        assert_int_equal(status, want);
    }
}

static void expect_zeros(struct machine *m)
{
    static const u8 zeros[PIECE];
    u8 bytes[PIECE];

    for (unsigned i = 0; i < CHAINS; i++) {
        drv_get(&m->d, data_of(m, i), bytes, PIECE);
        assert_memory_equal(bytes, zeros, PIECE);
    }
}

static int make_image(char path[64])
{
    int fd;

    strcpy(path, "/tmp/trapeze-stop-XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, IMAGE_BYTES), 0);
    return fd;
}

static void test_reads_wait(void **state)
{
    char path[64];
    int fd = make_image(path);
    struct machine *m = machine_new(path, VIRTIO_BLK_STOP);

    assert_int_equal(ftruncate(fd, 4096), 0);
    add_chains(m, IN, IMAGE_BYTES / 2);
    pci_host_quiesce(m->b.pci);
    assert_int_equal(m->stops, CHAINS);
    assert_int_equal(m->error, EIO);
    expect_status(m, 0xee);
    assert_int_equal(take_used(m), 0);
    /* Not mended yet: held once more. */
    pci_host_resume(m->b.pci);
    pci_host_quiesce(m->b.pci);
    assert_int_equal(m->stops, 2 * CHAINS);
    assert_int_equal(take_used(m), 0);
    assert_int_equal(ftruncate(fd, IMAGE_BYTES), 0);
    pci_host_resume(m->b.pci);
    pci_host_quiesce(m->b.pci);
    assert_int_equal(m->stops, 2 * CHAINS);
    assert_int_equal(take_used(m), CHAINS);
    expect_status(m, 0);
    expect_zeros(m);
    assert_healthy(&m->d);
    machine_free(m);
    close(fd);
    unlink(path);
}

/* A reset drops what was held; it must not be done afterwards. */
static void test_reset_forgets(void **state)
{
    char path[64];
    int fd = make_image(path);
    struct machine *m = machine_new(path, VIRTIO_BLK_STOP);

    for (unsigned round = 0; round < 20; round++) {
        assert_int_equal(ftruncate(fd, 4096), 0);
        add_chains(m, IN, IMAGE_BYTES / 2);
        if (round % 2)
            block_drain(m->disk);
        drv_reset(&m->d);
        while (drv_status(&m->d))
            sched_yield();
        assert_int_equal(ftruncate(fd, IMAGE_BYTES), 0);
        drv_start(&m->d, 0);
        pci_host_quiesce(m->b.pci);
        pci_host_resume(m->b.pci);
        block_drain(m->disk);
        assert_int_equal(take_used(m), 0);
    }
    machine_free(m);
    close(fd);
    unlink(path);
}

static void test_goes_on_elsewhere(void **state)
{
    char path[64];
    int fd = make_image(path);
    struct machine *a = machine_new(path, VIRTIO_BLK_STOP), *b;
    struct state_buf first = {0}, second = {0};
    struct state_sink sink = state_buf_sink(&first), again = state_buf_sink(&second);
    struct state_source source;
    struct err err = ERR_INIT;

    assert_int_equal(ftruncate(fd, 4096), 0);
    add_chains(a, IN, IMAGE_BYTES / 2);
    pci_host_quiesce(a->b.pci);
    assert_int_equal(state_set_save(&a->set, &sink, NULL), 0);
    assert_int_equal(ftruncate(fd, IMAGE_BYTES), 0);
    assert_int_equal(block_set_lock(a->disk, BLOCK_UNLOCKED, NULL), 0);
    b = machine_new(path, VIRTIO_BLK_STOP);
    memcpy(b->b.ram.base, a->b.ram.base, BENCH_RAM);
    pci_host_quiesce(b->b.pci);
    source = state_buf_source(&first);
    if (state_set_load(&b->set, &source, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(state_set_save(&b->set, &again, NULL), 0);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    b->d.q[0] = a->d.q[0];
    b->buf = a->buf;
    pci_host_resume(b->b.pci);
    block_drain(b->disk);
    assert_int_equal(take_used(b), CHAINS);
    expect_status(b, 0);
    expect_zeros(b);
    assert_healthy(&b->d);
    state_buf_fini(&first);
    state_buf_fini(&second);
    machine_free(b);
    machine_free(a);
    close(fd);
    unlink(path);
}

/* With nobody who could resume the machine, and by default, the guest gets the error. */
static void test_errors_are_told(void **state)
{
    char path[64];
    int fd = make_image(path);

    for (unsigned i = 0; i < 2; i++) {
        struct machine *m =
            machine_new(path, i ? VIRTIO_BLK_STOP : VIRTIO_BLK_STOP_FULL); /* EIO is not "full" */

        m->refuse = i == 1;
        assert_int_equal(ftruncate(fd, 4096), 0);
        add_chains(m, IN, IMAGE_BYTES / 2);
        block_drain(m->disk);
        assert_int_equal(m->stops != 0, i == 1);
        assert_int_equal(take_used(m), CHAINS);
        expect_status(m, 1);
        machine_free(m);
        assert_int_equal(ftruncate(fd, IMAGE_BYTES), 0);
    }
    close(fd);
    unlink(path);
}

static void fill(const char *path, bool full)
{
    static const u8 bytes[64 * KiB];
    int fd;

    if (!full) {
        assert_int_equal(unlink(path), 0);
        return;
    }
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    while (write(fd, bytes, sizeof(bytes)) > 0)
        ;
    close(fd);
}

static void test_full_host(void **state)
{
    char dir[] = "/tmp/trapeze-stop-XXXXXX", path[64], filler[64];
    struct machine *m;
    u8 bytes[PIECE];
    int fd;

    assert_non_null(mkdtemp(dir));
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("full", dir, "tmpfs", 0, "size=1m")) {
        rmdir(dir);
        UNIT_SKIP("no file system of our own to fill here");
    }
    snprintf(path, sizeof(path), "%s/image", dir);
    snprintf(filler, sizeof(filler), "%s/filler", dir);
    fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, IMAGE_BYTES), 0);
    m = machine_new(path, VIRTIO_BLK_STOP_FULL);
    fill(filler, true);
    add_chains(m, OUT, 0);
    pci_host_quiesce(m->b.pci);
    assert_int_equal(m->stops, CHAINS);
    assert_int_equal(m->error, ENOSPC);
    assert_int_equal(take_used(m), 0);
    fill(filler, false);
    pci_host_resume(m->b.pci);
    pci_host_quiesce(m->b.pci);
    assert_int_equal(take_used(m), CHAINS);
    expect_status(m, 0);
    for (unsigned i = 0; i < CHAINS; i++) {
        assert_int_equal(pread(fd, bytes, PIECE, i * PIECE), PIECE);
        assert_int_equal(bytes[0], i + 1);
        assert_int_equal(bytes[PIECE - 1], i + 1);
    }
    machine_free(m);
    close(fd);
    umount(dir);
    rmdir(dir);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_reads_wait),        cmocka_unit_test(test_reset_forgets),
    cmocka_unit_test(test_goes_on_elsewhere), cmocka_unit_test(test_errors_are_told),
    cmocka_unit_test(test_full_host),
};

UNIT_MAIN(tests)
