/* One short life of a qcow2 image, also for the fault tier: every allocation of it fails once. */
#include "block/copy.h"
#include "block/image.h"
#include "block/prealloc.h"
#include "block/qcow2.h"
#include "block_memory.h"
#include "unit.h"

#define DISK_BYTES (200 * KiB)

static const struct block_image_options qcow2 = {.format = "qcow2"};

static struct block_image *opened(struct memory_file *m)
{
    struct block_image *image = NULL;

    assert_non_null(m);
    assert_int_equal(block_image_from(&m->file, &qcow2, &image, NULL), 0);
    return image;
}

static struct memory_file *made(void)
{
    struct qcow2_create o = {.size = DISK_BYTES,
                             .version = 3,
                             .cluster_bits = 9,
                             .refcount_order = 4,
                             .backing_name = "below",
                             .backing_format = "raw"};
    struct memory_file *m = memory_file_new(NULL, 0);

    assert_non_null(m);
    if (qcow2_create(&m->file, &o, NULL)) {
        block_file_close(&m->file);
        fail();
    }
    return m;
}

static void from_first_to_last(void **state)
{
    static u8 data[5000], seen[5000];
    struct memory_file *m = made(), *copy;
    struct block_image *image = opened(m);
    struct qcow2_check c = {0};
    int failed = 0;

    memset(data, 7, sizeof(data));
    for (u64 at = 0; at + sizeof(data) < DISK_BYTES; at += 40000)
        failed += block_image_write(image, data, sizeof(data), at, NULL) != 0;
    failed += block_image_zero(image, 1000, 3000, false, NULL) != 0;
    failed += block_image_discard(image, 40960, 4096, NULL) != 0;
    failed += block_image_resize(image, 3 * DISK_BYTES, NULL) != 0;
    failed += qcow2_set_backing(image->fmt, "other", "raw", NULL) != 0;
    failed += block_image_flush(image, NULL) != 0;
    copy = memory_file_new(m->bytes, m->file.size);
    block_image_close(image);
    image = opened(copy);
    assert_int_equal(qcow2_check(image->fmt, QCOW2_REPAIR_NONE, &c, NULL), 0);
    assert_int_equal(c.corruptions, 0);
    if (!failed) {
        assert_string_equal(image->fmt->backing_name, "other");
        assert_int_equal(block_image_size(image), 3 * DISK_BYTES);
        assert_int_equal(block_image_read(image, seen, sizeof(seen), 80000, NULL), 0);
        assert_memory_equal(seen, data, sizeof(data));
    }
    block_image_close(image);
    assert_int_equal(failed, 0);
}

static void copy_and_compare(void **state)
{
    static u8 data[5000];
    struct block_image *a = opened(made()), *b = opened(made());
    struct block_copy copy = {.from = a, .to = b, .to_is_zero = true};
    u64 offset = 0;

    memset(data, 7, sizeof(data));
    assert_int_equal(block_image_write(a, data, sizeof(data), 12345, NULL), 0);
    assert_int_equal(block_compare(a, b, NULL, &offset, NULL), 1);
    assert_int_equal(offset, 12345);
    assert_int_equal(block_copy(&copy, NULL), 0);
    assert_int_equal(block_compare(a, b, NULL, &offset, NULL), 0);
    block_image_close(a);
    block_image_close(b);
}

/* Compressed, and into space that was set apart. */
static void copy_packed(void **state)
{
    static u8 data[5000];
    struct block_image *a = opened(made()), *b = opened(made());
    struct block_copy copy = {
        .from = a, .to = b, .to_is_zero = true, .compress = true, .threads = 1};
    int failed = 0;
    u64 offset;

    memset(data, 7, sizeof(data));
    failed += block_image_write(a, data, sizeof(data), 12345, NULL) != 0;
    failed += block_copy(&copy, NULL) != 0;
    if (!failed)
        assert_int_equal(block_compare(a, b, NULL, &offset, NULL), 0);
    failed += block_image_preallocate(b, 0, DISK_BYTES, BLOCK_PREALLOC_FULL, NULL) != 0;
    failed += block_image_flush(b, NULL) != 0;
    block_image_close(a);
    block_image_close(b);
    assert_int_equal(failed, 0);
}

static int hole_behind(struct block_file *f, u64 offset, bool *ret_data, u64 *ret_end)
{
    u64 hole = memory_of(f)->hole;

    *ret_data = offset < hole;
    *ret_end = *ret_data ? hole : f->size;
    return 0;
}

/* Bytes that the file says it has not are not looked at. */
static void holes_are_not_read(void **state)
{
    static u8 data[50000], zeros[sizeof(data)], seen[sizeof(data)];
    struct block_file_ops ops = memory_ops;
    struct memory_file *m = made();
    struct block_image *a = opened(m), *b = opened(made());
    struct block_copy copy = {.from = a, .to = b, .to_is_zero = true};

    memset(data, 7, sizeof(data));
    assert_int_equal(block_image_write(a, data, sizeof(data), 0, NULL), 0);
    m->hole = m->file.size;
    assert_int_equal(block_image_write(a, data, sizeof(data), 100000, NULL), 0);
    ops.next = hole_behind;
    m->file.ops = &ops;
    assert_int_equal(block_copy(&copy, NULL), 0);
    assert_int_equal(block_image_read(b, seen, sizeof(seen), 0, NULL), 0);
    assert_memory_equal(seen, data, sizeof(seen));
    assert_int_equal(block_image_read(b, seen, sizeof(seen), 100000, NULL), 0);
    assert_memory_equal(seen, zeros, sizeof(seen));
    block_image_close(a);
    block_image_close(b);
}

static void zeros_are_seen(void **state)
{
    static u8 buf[1000];

    for (unsigned len = 0; len < sizeof(buf); len += 37) {
        assert_true(block_is_zero(buf, len));
        for (unsigned at = 0; at < len; at += 11) {
            buf[at] = 1;
            assert_false(block_is_zero(buf, len));
            buf[at] = 0;
        }
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(from_first_to_last), cmocka_unit_test(copy_and_compare),
    cmocka_unit_test(copy_packed),        cmocka_unit_test(holes_are_not_read),
    cmocka_unit_test(zeros_are_seen),
};

UNIT_MAIN(tests)
