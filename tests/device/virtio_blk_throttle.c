/* Limits of a disk: what a guest gets in a given time, that nothing is lost, and that queues share. The clock is stepped. */
#include "device/virtio_blk.h"
#include "driver.h"
#include <fcntl.h>
#include <unistd.h>

#define IMAGE_BYTES (4 * MiB)
#define PIECE (64 * KiB)
#define MS 1000000ll

struct machine {
    struct bench b;
    struct drv d;
    struct block_engine *engine;
    struct block *disk;
    char path[64];
    u64 buf;
};

static struct machine *machine_new(u64 bytes_per_s, u64 requests_per_s, unsigned queues)
{
    struct machine *m = calloc(1, sizeof(*m));
    struct block_options o = {.format = "raw"};
    struct virtio_blk_options vo = {
        .queues = queues, .bytes_per_s = bytes_per_s, .requests_per_s = requests_per_s};
    int fd;

    bench_init(&m->b);
    strcpy(m->path, "/tmp/trapeze-throttle-XXXXXX");
    fd = mkstemp(m->path);
    assert_int_equal(ftruncate(fd, IMAGE_BYTES), 0);
    close(fd);
    assert_int_equal(block_engine_new("threads", &m->engine, NULL), 0);
    assert_int_equal(block_open(m->path, &o, m->engine, &m->disk, NULL), 0);
    vo.disk = m->disk;
    assert_int_equal(virtio_new(&m->b.env, &virtio_blk_type, 1, &vo, NULL, NULL), 0);
    drv_find(&m->d, &m->b, 1);
    drv_start(&m->d, 0);
    m->buf = bench_alloc(&m->b, PIECE + 4096, 4096);
    return m;
}

static void machine_free(struct machine *m)
{
    bench_fini(&m->b);
    block_close(m->disk);
    block_engine_free(m->engine);
    unlink(m->path);
    free(m);
}

/* n reads of `len` bytes into one queue. */
static void add_reads(struct machine *m, unsigned queue, unsigned n, u32 len)
{
    u8 header[16] = {0};
    struct seg s[3] = {{m->buf + PIECE, 16, 0, 0},
                       {m->buf, len, SEG_WRITE, 0},
                       {m->buf + PIECE + 16, 1, SEG_WRITE, 0}};

    drv_put(&m->d, m->buf + PIECE, header, 16);
    while (n--)
        drv_add(&m->d, queue, s, 3);
    drv_kick(&m->d, queue);
}

static unsigned take_used(struct machine *m, unsigned queue)
{
    unsigned n = 0;
    u32 id, len;

    block_drain(m->disk);
    while (drv_used(&m->d, queue, &id, &len))
        n++;
    return n;
}

/* What arrives in `ms`, looked at each millisecond. */
static unsigned run_for(struct machine *m, unsigned queue, unsigned ms)
{
    unsigned n = 0;

    while (ms--) {
        timerq_step(&m->b.timers, MS);
        n += take_used(m, queue);
    }
    return n;
}

static void test_requests(void **state)
{
    struct machine *m = machine_new(0, 100, 1);
    unsigned n;

    add_reads(m, 0, 60, 512);
    n = take_used(m, 0);
    assert_in_range(n, 10, 11); /* a tenth of a second's worth at once */
    n = run_for(m, 0, 200);
    assert_in_range(n, 19, 21);
    n = run_for(m, 0, 1000); /* all that are left */
    assert_in_range(n, 28, 31);
    timerq_step(&m->b.timers, 60000 * MS); /* a long rest earns no more than the burst */
    add_reads(m, 0, 60, 512);
    n = take_used(m, 0);
    assert_in_range(n, 10, 11);
    machine_free(m);
}

static void test_bytes(void **state)
{
    struct machine *m = machine_new(MiB, 0, 1);
    unsigned n;

    add_reads(m, 0, 60, PIECE);
    n = take_used(m, 0) + run_for(m, 0, 2000); /* 2 MiB and the burst */
    assert_in_range(n, 33, 35);
    n = run_for(m, 0, 2000);
    assert_in_range(n, 25, 27);
    machine_free(m);
}

/* Larger than all that may be saved up: it starts, and those behind it wait for it. */
static void test_large_requests(void **state)
{
    struct machine *m = machine_new(64 * KiB, 0, 1);
    unsigned n;

    add_reads(m, 0, 3, PIECE);
    n = take_used(m, 0);
    assert_int_equal(n, 1);
    assert_int_equal(run_for(m, 0, 890), 0);
    assert_int_equal(run_for(m, 0, 20), 1);
    assert_int_equal(run_for(m, 0, 980), 0);
    assert_int_equal(run_for(m, 0, 30), 1);
    machine_free(m);
}

static void test_queues_share(void **state)
{
    struct machine *m = machine_new(0, 50, 4);
    unsigned n[4] = {0};

    for (unsigned q = 0; q < 4; q++)
        add_reads(m, q, 60, 512);
    for (unsigned ms = 0; ms < 2000; ms++) {
        timerq_step(&m->b.timers, MS);
        for (unsigned q = 0; q < 4; q++)
            n[q] += take_used(m, q);
    }
    assert_in_range(n[0] + n[1] + n[2] + n[3], 100, 106);
    for (unsigned q = 0; q < 4; q++)
        assert_in_range(n[q], 20, 32);
    machine_free(m);
}

/* Reset and pause with chains that wait. */
static void test_life(void **state)
{
    struct machine *m = machine_new(0, 10, 1);
    unsigned n;

    add_reads(m, 0, 20, 512);
    take_used(m, 0);
    drv_reset(&m->d);
    assert_int_equal(drv_status(&m->d), 0);
    drv_start(&m->d, 0);
    timerq_step(&m->b.timers, 1000 * MS);
    assert_int_equal(take_used(m, 0), 0);
    add_reads(m, 0, 20, 512);
    n = take_used(m, 0);
    assert_in_range(n, 1, 2);
    pci_host_quiesce(m->b.pci);
    timerq_step(&m->b.timers, 1000 * MS);
    assert_int_equal(take_used(m, 0), 0);
    pci_host_resume(m->b.pci);
    n += run_for(m, 0, 2000);
    assert_int_equal(n, 20);
    machine_free(m);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_requests),       cmocka_unit_test(test_bytes),
    cmocka_unit_test(test_large_requests), cmocka_unit_test(test_queues_share),
    cmocka_unit_test(test_life),
};

UNIT_MAIN(tests)
