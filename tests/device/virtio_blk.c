/* virtio-blk as a driver sees it: every request type, the errors, and what a hostile driver may try
 * (list 27). */
#include "device/virtio_blk.h"
#include "driver.h"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTORS 2048u
#define IMAGE_BYTES (SECTORS * 512ull)

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, ZEROES = 13 };

struct blk_test {
    struct bench b;
    struct drv d;
    struct block_engine *engine;
    struct block *disk;
    char path[64];
    int fd; /* of our own, to look at the image */
    u64 header, data, status;
};

static void open_with(struct blk_test *t, bool readonly, const char *engine)
{
    struct block_options o = {.readonly = readonly};
    struct virtio_blk_options vo = {.serial = "disk-0"};

    bench_init(&t->b);
    strcpy(t->path, "/tmp/trapeze-blk-XXXXXX");
    t->fd = mkstemp(t->path);
    assert_true(t->fd >= 0);
    assert_int_equal(ftruncate(t->fd, IMAGE_BYTES), 0);
    assert_int_equal(block_engine_new(engine, &t->engine, NULL), 0);
    assert_int_equal(block_open(t->path, &o, t->engine, &t->disk, NULL), 0);
    vo.disk = t->disk;
    assert_int_equal(virtio_new(&t->b.env, &virtio_blk_type, PCI_SLOT_ANY, &vo, NULL, NULL), 0);
    drv_find(&t->d, &t->b, 1);
    drv_start(&t->d, 0);
    t->header = bench_alloc(&t->b, 16, 16);
    t->data = bench_alloc(&t->b, 1 * MiB, 4096);
    t->status = bench_alloc(&t->b, 1, 1);
}

static int setup(void **state)
{
    struct blk_test *t = calloc(1, sizeof(*t));

    open_with(t, false, "threads");
    *state = t;
    return 0;
}

static int setup_uring(void **state)
{
    struct blk_test *t = calloc(1, sizeof(*t));

    open_with(t, false, "auto");
    *state = t;
    return 0;
}

static int setup_readonly(void **state)
{
    struct blk_test *t = calloc(1, sizeof(*t));

    open_with(t, true, "threads");
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct blk_test *t = *state;

    bench_fini(&t->b);
    block_close(t->disk);
    block_engine_free(t->engine);
    close(t->fd);
    unlink(t->path);
    free(t);
    return 0;
}

/* One request with data segments of len bytes in all; waits for the interrupt and returns the
 * status byte. */
static u8 request(struct blk_test *t, u32 type, u64 sector, u32 len, bool device_writes)
{
    struct {
        u32 type, reserved;
        u64 sector;
    } h = {type, 0, sector};
    struct seg s[3] = {{t->header, 16, 0, 0},
                       {t->data, len, device_writes ? SEG_WRITE : 0, 0},
                       {t->status, 1, SEG_WRITE, 0}};
    unsigned before = bench_count_msi(&t->b, DRIVER_MSI_DATA);
    u8 status = 0xee;
    u32 id, used;

    drv_put(&t->d, t->header, &h, 16);
    drv_put(&t->d, t->status, &status, 1);
    if (!len)
        s[1] = s[2];
    /* used_event follows, so that every completion interrupts */
    drv_put(&t->d, t->d.q[0].avail + 4 + 2u * t->d.q[0].size, &t->d.q[0].used_idx, 2);
    drv_add(&t->d, 0, s, len ? 3 : 2);
    drv_kick(&t->d, 0);
    bench_wait_msi(&t->b, DRIVER_MSI_DATA, before + 1);
    assert_true(drv_used(&t->d, 0, &id, &used));
    assert_false(drv_used(&t->d, 0, &id, &used));
    drv_get(&t->d, t->status, &status, 1);
    return status;
}

static void test_config_space(void **state)
{
    struct blk_test *t = *state;

    assert_int_equal(bench_read(&t->b, t->d.config, 8), SECTORS);
    assert_int_equal(bench_read(&t->b, t->d.config + 20, 4), 512);
    assert_int_equal(bench_read(&t->b, t->d.config + 34, 2), 1);
    assert_int_equal(bench_read(&t->b, t->d.config + 200, 4), 0);
}

static void test_write_then_read(void **state)
{
    struct blk_test *t = *state;
    u8 out[4096], in[4096];

    for (unsigned i = 0; i < sizeof(out); i++)
        out[i] = (u8)(i * 7 + i / 256);
    drv_put(&t->d, t->data, out, sizeof(out));
    assert_int_equal(request(t, OUT, 16, sizeof(out), false), 0);
    assert_int_equal(pread(t->fd, in, sizeof(in), 16 * 512), sizeof(in));
    assert_memory_equal(in, out, sizeof(in));
    bench_alloc(&t->b, 0, 1);
    memset(gmem_ptr(&t->b.ram, t->data, 4096), 0, 4096);
    assert_int_equal(request(t, IN, 16, sizeof(in), true), 0);
    drv_get(&t->d, t->data, in, sizeof(in));
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(request(t, FLUSH, 0, 0, false), 0);
}

/* More than is done inline: goes through the engine. */
static void test_large_requests(void **state)
{
    struct blk_test *t = *state;
    u8 *p = gmem_ptr(&t->b.ram, t->data, 1 * MiB);
    u32 len = (u32)MiB;

    for (unsigned i = 0; i < len; i++)
        p[i] = (u8)(i ^ i >> 8 ^ i >> 16);
    assert_int_equal(request(t, OUT, 0, len, false), 0);
    memset(p, 0, len);
    assert_int_equal(request(t, IN, 0, len, true), 0);
    for (unsigned i = 0; i < len; i++)
        if (p[i] != (u8)(i ^ i >> 8 ^ i >> 16))
            fail_msg("byte %u differs", i);
}

static void test_get_id(void **state)
{
    struct blk_test *t = *state;
    char id[21] = {0};

    assert_int_equal(request(t, GET_ID, 0, 20, true), 0);
    drv_get(&t->d, t->data, id, 20);
    assert_string_equal(id, "disk-0");
}

static void test_discard_and_zeroes(void **state)
{
    struct blk_test *t = *state;
    struct {
        u64 sector;
        u32 sectors, flags;
    } range = {8, 16, 0};
    u8 ones[16 * 512], back[16 * 512], none[16 * 512] = {0};

    memset(ones, 0xff, sizeof(ones));
    assert_int_equal(pwrite(t->fd, ones, sizeof(ones), 8 * 512), sizeof(ones));
    drv_put(&t->d, t->data, &range, 16);
    assert_int_equal(request(t, ZEROES, 0, 16, false), 0);
    assert_int_equal(pread(t->fd, back, sizeof(back), 8 * 512), sizeof(back));
    assert_memory_equal(back, none, sizeof(back));
    assert_int_equal(request(t, DISCARD, 0, 16, false), 0);
    range.sector = SECTORS - 1;
    drv_put(&t->d, t->data, &range, 16);
    assert_int_equal(request(t, DISCARD, 0, 16, false), 1);
    range.sector = UINT64_MAX / 512;
    drv_put(&t->d, t->data, &range, 16);
    assert_int_equal(request(t, ZEROES, 0, 16, false), 1);
    range = (__typeof__(range)){0, 8, 6};
    drv_put(&t->d, t->data, &range, 16);
    assert_int_equal(request(t, ZEROES, 0, 16, false), 2);
    assert_int_equal(request(t, ZEROES, 0, 15, false), 1);
    assert_int_equal(request(t, DISCARD, 0, 32, false), 1);
    assert_healthy(&t->d);
}

static void test_out_of_range_is_an_io_error(void **state)
{
    struct blk_test *t = *state;
    static const u64 bad[] = {SECTORS,    SECTORS - 7,      1ull << 63,
                              UINT64_MAX, UINT64_MAX / 512, 1ull << 55};

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(request(t, IN, bad[i], 4096, true), 1);
        assert_int_equal(request(t, OUT, bad[i], 4096, false), 1);
    }
    assert_int_equal(request(t, IN, 0, 511, true), 1);
    assert_int_equal(request(t, OUT, 0, 513, false), 1);
    assert_healthy(&t->d);
}

static void test_unknown_types_are_unsupported(void **state)
{
    struct blk_test *t = *state;
    static const u32 types[] = {2, 3, 5, 7, 9, 10, 12, 14, 15, 16, 0x80000000, UINT32_MAX};

    for (unsigned i = 0; i < ARRAY_LEN(types); i++)
        assert_int_equal(request(t, types[i], 0, 512, true), 2);
    assert_healthy(&t->d);
}

static void test_short_header_and_no_status(void **state)
{
    struct blk_test *t = *state;

    for (u32 len = 1; len < 16; len++) {
        struct seg s[2] = {{t->header, len, 0, 0}, {t->status, 1, SEG_WRITE, 0}};

        drv_add(&t->d, 0, s, 2);
        drv_kick(&t->d, 0);
        assert_needs_reset(&t->d);
        drv_reset(&t->d);
        drv_start(&t->d, 0);
    }
    struct seg only_header = {t->header, 16, 0, 0};

    drv_add(&t->d, 0, &only_header, 1);
    drv_kick(&t->d, 0);
    assert_needs_reset(&t->d);
}

/* Framing is the driver's choice (2.7.4): header and status may be cut anywhere. */
static void test_any_framing(void **state)
{
    struct blk_test *t = *state;
    u8 header[16] = {IN, 0, 0, 0, 0, 0, 0, 0, 1};
    struct seg s[5] = {{t->header, 3, 0, 0},
                       {t->header + 3, 13, 0, 0},
                       {t->data, 100, SEG_WRITE, 0},
                       {t->data + 100, 400, SEG_WRITE, 0},
                       {t->data + 500, 13, SEG_WRITE, 0}};
    u8 byte = 0xab, last[13];
    u32 id, len;

    assert_int_equal(pwrite(t->fd, &byte, 1, 512), 1);
    assert_int_equal(pwrite(t->fd, &byte, 1, 512 + 511), 1);
    drv_put(&t->d, t->header, header, 16);
    drv_add(&t->d, 0, s, 5);
    drv_kick(&t->d, 0);
    bench_wait_msi(&t->b, DRIVER_MSI_DATA, 1);
    assert_true(drv_used(&t->d, 0, &id, &len));
    assert_int_equal(len, 513);
    drv_get(&t->d, t->data, &byte, 1);
    assert_int_equal(byte, 0xab);
    drv_get(&t->d, t->data + 500, last, 13);
    assert_int_equal(last[11], 0xab);
    assert_int_equal(last[12], 0);
}

static void test_readonly(void **state)
{
    struct blk_test *t = *state;

    assert_true(t->d.features & BIT(5));
    assert_int_equal(request(t, IN, 0, 512, true), 0);
    assert_int_equal(request(t, OUT, 0, 512, false), 1);
    assert_int_equal(request(t, DISCARD, 0, 16, false), 2);
    assert_healthy(&t->d);
}

/* 49: the image is cut while it is in use. */
static void test_truncated_image_is_an_io_error(void **state)
{
    struct blk_test *t = *state;

    assert_int_equal(ftruncate(t->fd, 4096), 0);
    assert_int_equal(request(t, IN, 64, 4096, true), 1);
    assert_int_equal(request(t, IN, 0, 4096, true), 0);
    assert_int_equal(request(t, IN, 4, 4096, true), 1);
}

/* 25: resets with large requests in flight. Nothing may be written to the rings or to memory after
 * the status is 0. */
static void test_reset_storm(void **state)
{
    struct blk_test *t = *state;

    u8 before[2048];

    for (unsigned round = 0; round < 40; round++) {
        u8 header[16] = {round & 1 ? OUT : IN};
        struct seg s[3] = {{t->header, 16, 0, 0},
                           {t->data, 1 << 20, round & 1 ? 0 : SEG_WRITE, 0},
                           {t->status, 1, SEG_WRITE, 0}};

        const u8 *used = gmem_ptr(&t->b.ram, t->d.q[0].used, sizeof(before));

        drv_put(&t->d, t->header, header, 16);
        for (unsigned i = 0; i < 4; i++)
            drv_add(&t->d, 0, s, 3);
        drv_kick(&t->d, 0);
        drv_reset(&t->d);
        while (drv_status(&t->d))
            sched_yield();
        memcpy(before, used, sizeof(before));
        block_drain(t->disk);
        assert_memory_equal(used, before, sizeof(before));
        drv_start(&t->d, 0);
    }
    assert_int_equal(request(t, IN, 0, 512, true), 0);
}

static void test_second_user_is_refused(void **state)
{
    struct blk_test *t = *state;
    struct block_options ro = {.readonly = true}, rw = {0};
    struct block *other = NULL;
    struct err err = ERR_INIT;

    assert_int_equal(block_open(t->path, &rw, t->engine, &other, &err), -EBUSY);
    assert_int_equal(block_open(t->path, &ro, t->engine, &other, &err), -EBUSY);
    assert_null(other);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_config_space),
        CASE(test_write_then_read),
        cmocka_unit_test_setup_teardown(test_write_then_read, setup_uring, teardown),
        CASE(test_large_requests),
        cmocka_unit_test_setup_teardown(test_large_requests, setup_uring, teardown),
        CASE(test_get_id),
        CASE(test_discard_and_zeroes),
        cmocka_unit_test_setup_teardown(test_discard_and_zeroes, setup_uring, teardown),
        CASE(test_out_of_range_is_an_io_error),
        CASE(test_unknown_types_are_unsupported),
        CASE(test_short_header_and_no_status),
        CASE(test_any_framing),
        cmocka_unit_test_setup_teardown(test_readonly, setup_readonly, teardown),
        CASE(test_truncated_image_is_an_io_error),
        cmocka_unit_test_setup_teardown(test_truncated_image_is_an_io_error, setup_uring, teardown),
        CASE(test_reset_storm),
        cmocka_unit_test_setup_teardown(test_reset_storm, setup_uring, teardown),
        CASE(test_second_user_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
