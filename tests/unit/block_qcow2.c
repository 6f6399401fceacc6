/* qcow2 against a plain buffer: random changes in every variant, reopened and checked. */
#include "block/image.h"
#include "block/qcow2.h"
#include "block_memory.h"
#include "unit.h"

#define STEPS 400

static u64 next_random(u64 *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

struct variant {
    u32 version, cluster_bits, refcount_order;
    bool lazy;
    u64 size;
};

static const struct variant variants[] = {
    {3, 9, 4, false, 3 * MiB},    {3, 9, 0, false, 300 * KiB}, {3, 9, 6, true, 200 * KiB},
    {3, 12, 3, false, 4 * MiB},   {3, 16, 4, false, 8 * MiB},  {3, 16, 1, true, 8 * MiB + 512},
    {2, 9, 4, false, 1 * MiB},    {2, 16, 4, false, 5 * MiB},  {3, 21, 5, false, 20 * MiB},
    {3, 10, 2, false, 700 * KiB},
};

struct disk {
    struct memory_file *file;
    struct block_image *image;
    u8 *shadow;
    u64 size;
};

static void start(struct disk *d, const struct variant *v)
{
    struct qcow2_create o = {.size = v->size,
                             .version = v->version,
                             .cluster_bits = v->cluster_bits,
                             .refcount_order = v->refcount_order,
                             .lazy_refcounts = v->lazy};
    struct block_image_options io = {.format = "qcow2"};
    struct err err = ERR_INIT;

    *d = (struct disk){.file = memory_file_new(NULL, 0), .size = v->size};
    assert_non_null(d->file);
    assert_int_equal(qcow2_create(&d->file->file, &o, &err), 0);
    assert_int_equal(block_image_from(&d->file->file, &io, &d->image, &err), 0);
    d->shadow = calloc(1, v->size);
}

/* Closes the image and opens what it left. */
static void reopen(struct disk *d)
{
    struct block_image_options io = {.format = "qcow2"};
    struct memory_file *copy;
    struct err err = ERR_INIT;

    d->image->fmt->ops->close(d->image->fmt);
    d->image->fmt = NULL;
    copy = memory_file_new(d->file->bytes, d->file->file.size);
    block_image_close(d->image);
    d->file = copy;
    if (block_image_from(&copy->file, &io, &d->image, &err))
        fail_msg("%s", err.msg);
}

static void compare(struct disk *d)
{
    u8 *seen = malloc(d->size);
    struct err err = ERR_INIT;

    if (block_image_read(d->image, seen, d->size, 0, &err))
        fail_msg("%s", err.msg);
    assert_memory_equal(seen, d->shadow, d->size);
    free(seen);
}

static void print_fault(struct qcow2_check *c, bool leak, const char *text)
{
    print_message("# %s: %s\n", leak ? "leak" : "corrupt", text);
}

static void check(struct disk *d, bool leaks_allowed)
{
    struct qcow2_check c = {.report = leaks_allowed ? NULL : print_fault};

    assert_int_equal(qcow2_check(d->image->fmt, QCOW2_REPAIR_NONE, &c, NULL), 0);
    assert_int_equal(c.corruptions, 0);
    if (!leaks_allowed)
        assert_int_equal(c.leaks, 0);
}

static void finish(struct disk *d)
{
    block_image_close(d->image);
    free(d->shadow);
}

static int step(struct disk *d, u64 *seed, struct err *err)
{
    u64 what = next_random(seed) % 16, offset = next_random(seed) % (d->size / 512) * 512;
    u64 most = what < 8 ? 32 * KiB : 512 * KiB;
    u64 wish = (next_random(seed) % (most / 512) + 1) * 512, len = MIN(wish, d->size - offset);
    u64 bytes = d->image->fmt->cluster_bytes;
    int rc;

    if (what < 10) {
        u8 *buf = malloc(len);

        for (u64 i = 0; i < len; i++)
            buf[i] = (u8)(next_random(seed) | 1);
        rc = block_image_write(d->image, buf, len, offset, err);
        if (!rc)
            memcpy(d->shadow + offset, buf, len);
        free(buf);
        return rc;
    }
    if (what < 12) {
        rc = block_image_zero(d->image, offset, len, what == 10, err);
        if (!rc)
            memset(d->shadow + offset, 0, len);
        return rc;
    }
    if (what < 14) {
        rc = block_image_discard(d->image, offset, len, err);
        u64 first = ALIGN_UP(offset, bytes), end = offset + len;
        u64 last = end == d->size ? end : ALIGN_DOWN(end, bytes);
        if (!rc && first < last)
            memset(d->shadow + first, 0, last - first);
        return rc;
    }
    return what == 14 ? block_image_flush(d->image, err) : 0;
}

static void random_changes(void **state)
{
    for (unsigned v = 0; v < ARRAY_LEN(variants); v++) {
        struct err err = ERR_INIT;
        struct disk d;
        u64 seed = v + 1;

        print_message("# variant %u\n", v);
        start(&d, &variants[v]);
        for (unsigned i = 0; i < STEPS; i++) {
            if (step(&d, &seed, &err))
                fail_msg("step %u: %s", i, err.msg);
            if (i % 128 == 127) {
                compare(&d);
                reopen(&d);
                check(&d, false);
            }
        }
        compare(&d);
        assert_int_equal(block_image_flush(d.image, &err), 0);
        reopen(&d);
        compare(&d);
        check(&d, false);
        finish(&d);
    }
}

static void resize_keeps_what_is_there(void **state)
{
    static const struct variant v = {3, 9, 4, false, 40 * KiB};
    static const u64 sizes[] = {100 * KiB, 3 * MiB, 70 * KiB + 512, 1 * MiB,
                                20 * MiB,  512,     60 * KiB};
    struct err err = ERR_INIT;
    struct disk d;
    u64 seed = 5;

    start(&d, &v);
    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        for (unsigned k = 0; k < 20; k++)
            assert_int_equal(step(&d, &seed, &err), 0);
        if (block_image_resize(d.image, sizes[i], &err))
            fail_msg("%s", err.msg);
        d.shadow = realloc(d.shadow, MAX(sizes[i], d.size));
        if (sizes[i] > d.size)
            memset(d.shadow + d.size, 0, sizes[i] - d.size);
        d.size = sizes[i];
        compare(&d);
        reopen(&d);
        compare(&d);
        check(&d, false);
    }
    finish(&d);
}

/* A change that fails for want of room, or by a bad disk, leaves an image that is whole. */
static void failing_changes(void **state)
{
    static const struct variant v = {3, 9, 4, false, 200 * KiB};

    for (unsigned nth = 1; nth < 400; nth += 3) {
        struct err err = ERR_INIT;
        struct disk d;
        u64 seed = 11;
        unsigned failed = 0;

        start(&d, &v);
        d.file->fail_with = nth % 2 ? ENOSPC : EIO;
        d.file->fail_at = nth;
        for (unsigned i = 0; i < 60; i++)
            failed += step(&d, &seed, &err) != 0;
        failed += block_image_flush(d.image, &err) != 0;
        if (d.file->changes >= nth && failed)
            assert_true(err.code == ENOSPC || err.code == EIO);
        d.file->fail_at = 0;
        reopen(&d);
        check(&d, true);
        finish(&d);
    }
}

static void counts_of_every_width(void **state)
{
    u64 block[64];

    for (u32 order = 0; order <= 6; order++) {
        u64 n = MIN(sizeof(block) * 8 >> order, 64ull),
            max = order == 6 ? UINT64_MAX : BIT(1u << order) - 1;

        memset(block, 0, sizeof(block));
        for (u64 i = 0; i < n; i++)
            qcow2_count_set(block, order, i, (i * 7 + 1) & max);
        for (u64 i = 0; i < n; i++)
            assert_int_equal(qcow2_count_get(block, order, i), (i * 7 + 1) & max);
    }
    memset(block, 0, sizeof(block));
    qcow2_count_set(block, 0, 0, 1); /* the first is in the lowest bit */
    assert_int_equal(((u8 *)block)[0], 1);
    qcow2_count_set(block, 4, 1, 0x1234);
    assert_int_equal(((u8 *)block)[2], 0x12);
}

/* Leaks, wrong counts and wrong flags, mended; a marked image is refused until then. */
static void repair(void **state)
{
    static const struct variant v = {3, 12, 4, false, 1 * MiB};
    struct block_image_options io = {.format = "qcow2", .repair = true};
    struct qcow2_check c = {0};
    struct err err = ERR_INIT;
    struct memory_file *copy;
    struct disk d;
    struct qcow2 *q;
    u64 seed = 3;

    start(&d, &v);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(step(&d, &seed, &err), 0);
    reopen(&d);
    q = qcow2_of(d.image->fmt);
    for (u64 cluster = 0; cluster < 40; cluster += 4) /* of all things, the header's too */
        qcow2_refcount_add(q, cluster, cluster % 8 ? 1 : -1, NULL);
    assert_int_equal(qcow2_write_counts(q, NULL), 0);
    assert_int_equal(qcow2_corrupt(q, NULL), 0);
    copy = memory_file_new(d.file->bytes, d.file->file.size);
    block_image_close(d.image);
    d.file = copy;
    assert_int_equal(block_image_from(&copy->file, &io, &d.image, &err), 0);
    assert_int_equal(qcow2_check(d.image->fmt, QCOW2_REPAIR_NONE, &c, &err), 0);
    assert_true(c.corruptions > 0 && c.leaks > 0);
    c = (struct qcow2_check){0};
    if (qcow2_check(d.image->fmt, QCOW2_REPAIR_ALL, &c, &err))
        fail_msg("%s", err.msg);
    assert_int_equal(c.corruptions, 0);
    assert_int_equal(c.leaks, 0);
    assert_true(c.corruptions_fixed > 0);
    reopen(&d);
    compare(&d);
    check(&d, false);
    finish(&d);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(counts_of_every_width),
    cmocka_unit_test(random_changes),
    cmocka_unit_test(resize_keeps_what_is_there),
    cmocka_unit_test(failing_changes),
    cmocka_unit_test(repair),
};

UNIT_MAIN(tests)
