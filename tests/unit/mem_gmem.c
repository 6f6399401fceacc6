/* Guest memory: layout around the hole, ROMs, and ranges a hostile guest would try. */
#include "unit.h"

#include "mem/gmem.h"

#include <sys/stat.h>

static void new_gmem(struct gmem *m, u64 size)
{
    struct err err = ERR_INIT;

    assert_int_equal(gmem_init(m, size, &err), 0);
}

static void test_bad_sizes_are_refused(void **state)
{
    struct err err = ERR_INIT;
    struct gmem m;

    assert_int_equal(gmem_init(&m, 0, &err), -EINVAL);
    assert_int_equal(gmem_init(&m, 3 * MiB, &err), -EINVAL);
    assert_int_equal(gmem_init(&m, 1024 * GiB + 2 * MiB, &err), -EINVAL);
    assert_int_equal(gmem_init(&m, ALIGN_DOWN(UINT64_MAX, 2 * MiB), &err), -EINVAL);
    gmem_fini(&m);
}

static void test_small_ram_is_one_slot(void **state)
{
    struct gmem m;

    new_gmem(&m, 64 * MiB);
    assert_int_equal(m.nslots, 1);
    assert_ptr_equal(gmem_ptr(&m, 0, 64 * MiB), m.base);
    assert_null(gmem_ptr(&m, 64 * MiB, 1));
    assert_null(gmem_ptr(&m, 64 * MiB - 1, 2));
    assert_null(gmem_ptr(&m, 4096, UINT64_MAX));
    assert_null(gmem_ptr(&m, UINT64_MAX, 2));
    assert_non_null(gmem_ptr(&m, 64 * MiB - 1, 1));
    gmem_fini(&m);
}

static void test_large_ram_leaves_the_hole_and_is_sparse(void **state)
{
    struct gmem m;
    struct stat st;
    u32 word = 0x12345678, back = 0;

    new_gmem(&m, 64 * GiB);
    assert_int_equal(m.nslots, 2);
    assert_null(gmem_ptr(&m, 3 * GiB - 1, 2));
    assert_null(gmem_find(&m, 3 * GiB));
    assert_null(gmem_find(&m, 4 * GiB - 1));
    assert_int_equal(gmem_write(&m, 65 * GiB - 4, &word, 4), 0);
    assert_int_equal(gmem_read(&m, 65 * GiB - 4, &back, 4), 0);
    assert_int_equal(back, word);
    assert_int_equal(gmem_read(&m, 65 * GiB - 3, &back, 4), -EFAULT);
    assert_int_equal(gmem_find(&m, 4 * GiB)->offset, 3 * GiB);
    assert_int_equal(fstat(m.memfd, &st), 0);
    assert_true((u64)st.st_blocks * 512 <= 2 * MiB);
    gmem_fini(&m);
}

static void test_rom_is_padded_and_not_writable(void **state)
{
    struct gmem m;
    u8 rom[5000], back[8192];

    memset(rom, 0xaa, sizeof(rom));
    new_gmem(&m, 4 * MiB);
    assert_int_equal(gmem_add_rom(&m, 0xfffc0000, rom, sizeof(rom), NULL), 0);
    assert_int_equal(gmem_add_rom(&m, 0xffff0000, rom, 4096, NULL), 0);
    assert_int_equal(gmem_read(&m, 0xfffc0000, back, sizeof(back)), 0);
    assert_memory_equal(back, rom, sizeof(rom));
    assert_int_equal(back[5000], 0);
    assert_int_equal(gmem_find(&m, 0xffff0000)->offset, 4 * MiB + 8192);
    assert_null(gmem_ptr(&m, 0xfffc0000, 1));
    assert_non_null(gmem_ptr_ro(&m, 0xfffc0000, 8192));
    assert_null(gmem_ptr_ro(&m, 0xfffc0000, 8193));
    assert_int_equal(gmem_write(&m, 0xfffc0000, rom, 1), -EFAULT);
    gmem_fini(&m);
}

static void test_bad_roms_are_refused(void **state)
{
    struct err err = ERR_INIT;
    struct gmem m;
    u8 rom[4096] = {0};

    new_gmem(&m, 4 * MiB);
    assert_int_equal(gmem_add_rom(&m, 0x10000000, rom, 0, &err), -EINVAL);
    assert_int_equal(gmem_add_rom(&m, 0x10000000, rom, UINT64_MAX, &err), -EINVAL);
    assert_int_equal(gmem_add_rom(&m, 0x10000001, rom, 4096, &err), -EINVAL);
    assert_int_equal(gmem_add_rom(&m, UINT64_MAX - 4095, rom, 4096, &err), -EINVAL);
    assert_int_equal(gmem_add_rom(&m, 4 * MiB - 4096, rom, 4096, &err), -EEXIST);
    for (unsigned i = 1; i < GMEM_SLOTS; i++)
        assert_int_equal(gmem_add_rom(&m, 0x10000000 + i * 4096, rom, 4096, &err), 0);
    assert_int_equal(gmem_add_rom(&m, 0x20000000, rom, 4096, &err), -ENOSPC);
    gmem_fini(&m);
}

struct written {
    u64 gpa, len;
    unsigned calls;
};

static void note_write(void *opaque, u64 gpa, u64 len)
{
    struct written *w = opaque;

    *w = (struct written){.gpa = gpa, .len = len, .calls = w->calls + 1};
}

static void test_writes_are_reported(void **state)
{
    struct written w = {0};
    struct gmem m;

    new_gmem(&m, 4 * MiB);
    m.wrote = note_write;
    m.wrote_opaque = &w;
    assert_int_equal(gmem_write(&m, 100, "abc", 3), 0);
    assert_int_equal(w.gpa, 100);
    assert_int_equal(w.len, 3);
    assert_int_equal(gmem_write(&m, 4 * MiB, "abc", 3), -EFAULT);
    assert_int_equal(gmem_write(&m, 100, "", 0), 0);
    assert_int_equal(w.calls, 1);
    gmem_fini(&m);
}

static void test_zeroed_object(void **state)
{
    struct gmem m = {0};

    gmem_fini(&m);
    gmem_fini(&m);
    gmem_fini(NULL);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_bad_sizes_are_refused),
    cmocka_unit_test(test_small_ram_is_one_slot),
    cmocka_unit_test(test_large_ram_leaves_the_hole_and_is_sparse),
    cmocka_unit_test(test_rom_is_padded_and_not_writable),
    cmocka_unit_test(test_bad_roms_are_refused),
    cmocka_unit_test(test_writes_are_reported),
    cmocka_unit_test(test_zeroed_object),
};
UNIT_MAIN(tests)
