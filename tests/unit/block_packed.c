/* Copies into compressed clusters: what they show, that they are whole, when the host fails in the middle too. */
#include "block/copy.h"
#include "block/prealloc.h"
#include "block/qcow2.h"
#include "block/qcow2_pack.h"
#include "block_memory.h"
#include "unit.h"

#define DISK_BYTES (2 * MiB + 77 * 512)

static u64 next_random(u64 *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

static const struct qcow2_create variants[] = {
    {.version = 3, .cluster_bits = 9, .refcount_order = 4},
    {.version = 2, .cluster_bits = 12, .refcount_order = 4},
    {.version = 3, .cluster_bits = 12, .refcount_order = 0},
    {.version = 3, .cluster_bits = 13, .refcount_order = 1, .compression = QCOW2_ZSTD},
    {.version = 3, .cluster_bits = 16, .refcount_order = 4, .lazy_refcounts = true},
    {.version = 3, .cluster_bits = 16, .refcount_order = 6, .compression = QCOW2_ZSTD},
    {.version = 3, .cluster_bits = 21, .refcount_order = 3},
};

/* Runs of text, of noise and of zeros. */
static void fill(u8 *disk, u64 seed)
{
    for (u64 at = 0, len; at < DISK_BYTES; at += len) {
        u64 kind = next_random(&seed) % 3, wish = 512 * (1 + next_random(&seed) % 300);

        len = MIN(wish, DISK_BYTES - at);
        for (u64 i = at; i < at + len; i++)
            disk[i] = kind == 0 ? (u8)(i / 7 % 60) : kind == 1 ? (u8)next_random(&seed) : 0;
    }
}

static struct block_image *opened(struct memory_file *m, const char *format)
{
    struct block_image_options o = {.format = format};
    struct block_image *image;
    struct err err = ERR_INIT;

    assert_non_null(m);
    if (block_image_from(&m->file, &o, &image, &err))
        fail_msg("%s", err.msg);
    return image;
}

static struct memory_file *target_of(const struct qcow2_create *v)
{
    struct qcow2_create o = *v;
    struct memory_file *m = memory_file_new(NULL, 0);

    o.size = DISK_BYTES;
    assert_non_null(m);
    assert_int_equal(qcow2_create(&m->file, &o, NULL), 0);
    return m;
}

/* What its file says, opened anew. */
static struct block_image *reopened(struct block_image *image)
{
    struct memory_file *old = memory_of(image->file), *copy;

    image->fmt->ops->close(image->fmt);
    image->fmt = NULL;
    copy = memory_file_new(old->bytes, old->file.size);
    block_image_close(image);
    return opened(copy, "qcow2");
}

/* Returns the compressed clusters. */
static u64 expect_whole(struct block_image *image, bool leaks_allowed)
{
    struct qcow2_check c = {0};

    assert_int_equal(qcow2_check(image->fmt, QCOW2_REPAIR_NONE, &c, NULL), 0);
    assert_int_equal(c.corruptions, 0);
    if (!leaks_allowed)
        assert_int_equal(c.leaks, 0);
    return c.packed;
}

static void expect_shows(struct block_image *image, const u8 *disk)
{
    u8 *seen = malloc(DISK_BYTES);
    struct err err = ERR_INIT;

    if (block_image_read(image, seen, DISK_BYTES, 0, &err))
        fail_msg("%s", err.msg);
    assert_memory_equal(seen, disk, DISK_BYTES);
    free(seen);
}

static void scribble(struct block_image *image, u8 *disk, u64 seed)
{
    static u8 buf[100 * KiB];

    for (unsigned n = 0; n < 40; n++) {
        u64 offset = next_random(&seed) % (DISK_BYTES / 512) * 512;
        u64 wish = 512 * (1 + next_random(&seed) % (sizeof(buf) / 512));
        u64 len = MIN(wish, DISK_BYTES - offset);

        memset(buf, n % 3 ? (int)n : 0, len);
        memcpy(disk + offset, buf, len);
        if (n % 3)
            assert_int_equal(block_image_write(image, buf, len, offset, NULL), 0);
        else
            assert_int_equal(block_image_zero(image, offset, len, n % 2, NULL), 0);
    }
}

static void copies_show_what_they_are_of(void **state)
{
    u8 *disk = malloc(DISK_BYTES), *changed = malloc(DISK_BYTES);

    for (unsigned v = 0; v < ARRAY_LEN(variants); v++) {
        struct block_copy copy = {.compress = true, .to_is_zero = true, .threads = 3};
        struct err err = ERR_INIT;
        u64 packed;

        print_message("# variant %u\n", v);
        fill(disk, v);
        memcpy(changed, disk, DISK_BYTES);
        copy.from = opened(memory_file_new(disk, DISK_BYTES), "raw");
        copy.to = opened(target_of(&variants[v]), "qcow2");
        if (block_copy(&copy, &err))
            fail_msg("%s", err.msg);
        expect_shows(copy.to, disk);
        copy.to = reopened(copy.to);
        expect_shows(copy.to, disk);
        packed = expect_whole(copy.to, false);
        assert_true(packed > 0);
        scribble(copy.to, changed, v);
        expect_shows(copy.to, changed);
        copy.to = reopened(copy.to);
        expect_shows(copy.to, changed);
        expect_whole(copy.to, false);
        /* Once more, over what is there. */
        copy.to_is_zero = false;
        assert_int_equal(block_copy(&copy, NULL), 0);
        copy.to = reopened(copy.to);
        expect_shows(copy.to, disk);
        assert_int_equal(expect_whole(copy.to, false), packed);
        block_image_close(copy.from);
        block_image_close(copy.to);
    }
    free(disk);
    free(changed);
}

/* Each change of the file in turn fails: the image is whole, and what is in it is the disk's. */
static void failing_copies(void **state)
{
    u8 *disk = malloc(DISK_BYTES);

    fill(disk, 5);
    for (unsigned nth = 1; nth < 400; nth += nth < 40 ? 1 : 37) {
        struct block_copy copy = {.compress = true, .to_is_zero = true, .threads = 1};
        struct memory_file *m = target_of(&variants[nth % ARRAY_LEN(variants)]);
        struct err err = ERR_INIT;

        m->changes = 0;
        m->fail_with = nth % 2 ? ENOSPC : EIO;
        m->fail_at = nth;
        copy.from = opened(memory_file_new(disk, DISK_BYTES), "raw");
        copy.to = opened(m, "qcow2");
        if (block_copy(&copy, &err))
            assert_true(err.code == ENOSPC || err.code == EIO);
        m->fail_at = 0;
        copy.to = reopened(copy.to);
        expect_whole(copy.to, true);
        assert_int_equal(block_copy(&copy, NULL), 0);
        copy.to = reopened(copy.to);
        expect_whole(copy.to, true);
        expect_shows(copy.to, disk);
        block_image_close(copy.from);
        block_image_close(copy.to);
    }
    free(disk);
}

/* Noise is not packed; noise that comes twice within reach is, although all of its bytes are equally frequent. */
static void what_is_worth_packing(void **state)
{
    enum { CLUSTER = 64 * KiB, REPEATED = 2 * KiB };
    static u8 cluster[CLUSTER], packed[CLUSTER];

    for (unsigned type = QCOW2_ZLIB; type <= QCOW2_ZSTD; type++) {
        struct qcow2_create o = variants[4];
        struct block_image *image;
        struct qcow2_packer *p;
        u64 seed = 1;

        o.compression = type;
        image = opened(target_of(&o), "qcow2");
        p = qcow2_packer_new(image->fmt);
        assert_non_null(p);
        for (unsigned i = 0; i < CLUSTER; i++)
            cluster[i] = (u8)next_random(&seed);
        assert_int_equal(qcow2_pack(p, cluster, packed), 0);
        for (unsigned i = REPEATED; i < CLUSTER; i++)
            cluster[i] = cluster[i - REPEATED];
        assert_in_range(qcow2_pack(p, cluster, packed), 1, CLUSTER / 8);
        for (unsigned i = 0; i < CLUSTER; i++)
            cluster[i] = (u8)(next_random(&seed) % 100);
        assert_in_range(qcow2_pack(p, cluster, packed), CLUSTER / 2, CLUSTER - 1);
        memset(cluster, 7, CLUSTER);
        assert_in_range(qcow2_pack(p, cluster, packed), 1, 200);
        qcow2_packer_free(p);
        block_image_close(image);
    }
}

/* All clusters have their place, and hold zeros; the end of the disk is within one. */
static void preallocated(void **state)
{
    u8 *disk = calloc(1, DISK_BYTES);

    for (unsigned v = 0; v < ARRAY_LEN(variants); v++)
        for (unsigned how = BLOCK_PREALLOC_METADATA; how <= BLOCK_PREALLOC_FULL; how++) {
            struct block_image *image = opened(target_of(&variants[v]), "qcow2");
            struct block_extent e;

            assert_int_equal(block_image_preallocate(image, 0, DISK_BYTES, how, NULL), 0);
            image = reopened(image);
            expect_whole(image, false);
            expect_shows(image, disk);
            for (u64 at = 0; at < DISK_BYTES; at += e.len) {
                assert_int_equal(image->fmt->ops->map(image->fmt, at, DISK_BYTES - at, &e, NULL),
                                 0);
                assert_int_equal(e.kind, BLOCK_KIND_DATA);
            }
            block_image_close(image);
        }
    free(disk);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(copies_show_what_they_are_of),
    cmocka_unit_test(failing_copies),
    cmocka_unit_test(what_is_worth_packing),
    cmocka_unit_test(preallocated),
};

UNIT_MAIN(tests)
