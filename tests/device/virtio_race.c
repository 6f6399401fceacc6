/*
 * List item 26: a second vCPU rewrites descriptors and indices while the first one's notification is being handled
 * (double fetch), and resets and moved BARs meet requests in flight. Nothing is expected of the results; a sanitizer
 * or a crash is the judge. Rounds are bounded, there is no waiting on time.
 */
#include "device/virtio_blk.h"
#include "driver.h"
#include <fcntl.h>
#include <unistd.h>

#define ROUNDS 100000u

struct race {
    struct bench b;
    struct drv d;
    struct block_engine *engine;
    struct block *disk;
    struct drv_queue rings; /* where they are in every round */
    u64 buf;
    atomic_bool started, stop;
};

static u32 next(u32 *x)
{
    *x = *x * 1664525 + 1013904223;
    return *x >> 8;
}

/* Plain stores into the rings, as guest code would do them. */
static void *scribble(void *opaque)
{
    struct race *r = opaque;
    const struct drv_queue *q = &r->rings;
    struct seg *desc = gmem_ptr(&r->b.ram, q->desc, 16ull * q->size);
    u16 *avail = gmem_ptr(&r->b.ram, q->avail, 6 + 2ull * q->size);
    u8 *header = gmem_ptr(&r->b.ram, r->buf, 16);
    u32 x = 77;

    atomic_store(&r->started, true);
    while (!atomic_load(&r->stop)) {
        unsigned i = next(&x) % 8;

        *(volatile u64 *)&desc[i].gpa =
            next(&x) % 16 ? r->buf + next(&x) % 65536 : BENCH_RAM - next(&x) % 64;
        *(volatile u32 *)&desc[i].len = next(&x) % 8 ? next(&x) % 2048 : next(&x) << 8;
        *(volatile u16 *)&desc[i].flags = (u16)(next(&x) % 4);
        *(volatile u16 *)&desc[i].next = (u16)(next(&x) % 9);
        *(volatile u16 *)&avail[2 + next(&x) % q->size] = (u16)(next(&x) % 9);
        *(volatile u8 *)&header[next(&x) % 16] = (u8)(next(&x) % 16);
    }
    return NULL;
}

static void run(const char *engine)
{
    struct race *r = calloc(1, sizeof(*r));
    struct block_options o = {0};
    struct virtio_blk_options vo = {0};
    char path[] = "/tmp/trapeze-race-XXXXXX";
    int fd = mkstemp(path);
    pthread_t thread;
    u32 x = 5;

    bench_init(&r->b);
    assert_int_equal(ftruncate(fd, MiB), 0);
    assert_int_equal(block_engine_new(engine, &r->engine, NULL), 0);
    assert_int_equal(block_open(path, &o, r->engine, &r->disk, NULL), 0);
    vo.disk = r->disk;
    assert_int_equal(virtio_new(&r->b.env, &virtio_blk_type, 1, &vo, NULL, NULL), 0);
    drv_find(&r->d, &r->b, 1);
    r->buf = bench_alloc(&r->b, 1 * MiB, 4096);
    drv_start(&r->d, 0);
    r->rings = r->d.q[0];
    assert_int_equal(pthread_create(&thread, NULL, scribble, r), 0);
    while (!atomic_load(&r->started))
        sched_yield();
    for (unsigned i = 0; i < ROUNDS; i++) {
        drv_offer(&r->d, 0, (u16)(next(&x) % 8));
        if (next(&x) % 4 == 0)
            drv_kick(&r->d, 0);
        if (next(&x) % 64 == 0)
            bench_config_write(&r->b, 1, PCI_BAR0, 4, (u32)r->d.bar);
        if (!(drv_status(&r->d) & VIRTIO_NEEDS_RESET))
            continue;
        drv_reset(&r->d);
        while (drv_status(&r->d))
            sched_yield();
        r->b.ram_next = r->buf + MiB; /* the rings go round in one place */
        drv_start(&r->d, 0);
        r->d.q[0].avail_idx = 0;
    }
    atomic_store(&r->stop, true);
    pthread_join(thread, NULL);
    bench_fini(&r->b);
    block_close(r->disk);
    block_engine_free(r->engine);
    close(fd);
    unlink(path);
    free(r);
}

static void test_26_with_threads(void **state)
{
    run("threads");
}

static void test_26_with_uring(void **state)
{
    run("auto");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_26_with_threads),
        cmocka_unit_test(test_26_with_uring),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
