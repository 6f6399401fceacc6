/* A board made, and one kernel of each way started on it: small, for the tier in which each call fails in turn. */
#include "board_bzimage.h"

static void test_bzimage(void **state)
{
    struct image *i = image_new();

    make_bzimage(i);
    image_write(i->initrd, "disk", 4);
    assert_int_equal(image_boot(i, i->initrd, "quiet"), 0);
    image_free(i);
}

static void test_unpacked(void **state)
{
    struct image *i = image_new();
    u8 vmlinux[20000];
    size_t len = make_vmlinux(vmlinux, true);

    make_bzimage(i);
    pack_lz4(i, vmlinux, len, (u32)len);
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    assert_int_equal(board_boot(i->b, &i->cpu, NULL), 0);
    image_free(i);
}

static void test_cached(void **state)
{
    struct image *i = image_new();
    u8 vmlinux[20000];
    char clean[100], dir[64]; /* always the same, so that failing runs leave one folder at most */

    snprintf(dir, sizeof(dir), "/tmp/trapeze-test-cache-%u", (unsigned)getuid());
    snprintf(clean, sizeof(clean), "rm -rf '%s'", dir);
    assert_int_equal(system(clean), 0);
    i->cache_dir = dir;
    make_bzimage(i);
    pack_gzip(i, vmlinux, make_vmlinux(vmlinux, true));
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    assert_int_equal(system(clean), 0);
    image_free(i);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_bzimage),
    cmocka_unit_test(test_unpacked),
    cmocka_unit_test(test_cached),
};

UNIT_MAIN(tests)
