/* ELF kernels with a PVH note, proper and hostile. hostile.md 51, 53, 54. */
#include "board_image.h"

#define BASE 0x200000ull
#define NOTE_AT 0x800

/* One segment of code at BASE, one with a note whose description is `len` bytes long. */
static void make_pvh(struct image *i, u32 desc_len, u64 entry)
{
    struct image_phdr code = {1, 0x1000, BASE, BASE, 0x1000, 0x3000};
    struct image_phdr note = {4, NOTE_AT, 0, 0, 32, 32};

    i->len = 0;
    memset(i->bytes, 0, 0x3000);
    image_elf64(i, 0, BASE, 2);
    image_phdr64(i, 0, 0, &code);
    image_phdr64(i, 0, 1, &note);
    image_put(i, NOTE_AT, 4, 4);
    image_put(i, NOTE_AT + 4, desc_len, 4);
    image_put(i, NOTE_AT + 8, 18, 4);
    memcpy(i->bytes + NOTE_AT + 12, "Xen", 4);
    image_put(i, NOTE_AT + 16, entry, 8);
    image_put(i, 0x1000, 0xf4f4f4f4, 4);
    image_put(i, 0x1fff, 0xf4, 1);
}

static void test_start(void **state)
{
    struct image *i = image_new();
    u64 modules;

    make_pvh(i, 4, BASE + 0x10);
    image_write(i->initrd, "disk", 4);
    assert_int_equal(image_boot(i, i->initrd, "hello"), 0);
    assert_string_equal(board_boot_way(i->b), "ELF with a PVH note");
    assert_int_equal(i->cpu.rip, BASE + 0x10);
    assert_int_equal(i->cpu.cr0, CR0_PE | CR0_ET);
    assert_int_equal(i->cpu.seg[SEG_CS].limit, 0xffffffff);
    assert_true(i->cpu.seg[SEG_CS].attr & SEG_ATTR_DB);
    assert_int_equal(i->cpu.gpr[RBX], BOOT_PARAMS);
    assert_int_equal(image_ram(i, BOOT_PARAMS, 4), 0x336ec578);
    assert_int_equal(image_ram(i, image_ram(i, BOOT_PARAMS + 24, 8), 5), 0x6f6c6c6568); /* hello */
    assert_int_equal(image_ram(i, BOOT_PARAMS + 32, 8), MEMMAP_ACPI);
    assert_int_equal(image_ram(i, BOOT_PARAMS + 48, 4), 7);
    modules = image_ram(i, BOOT_PARAMS + 16, 8);
    assert_int_equal(image_ram(i, image_ram(i, modules, 8), 4), 0x6b736964); /* disk */
    assert_int_equal(image_ram(i, BASE, 4), 0xf4f4f4f4);
    image_free(i);
}

/* What the file leaves open is cleared, also after a reset with memory in use. */
static void test_bss(void **state)
{
    struct image *i = image_new();

    make_pvh(i, 4, BASE);
    memset(gmem_ptr(&i->ram, BASE, 0x5000), 0xee, 0x5000);
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    assert_int_equal(image_ram(i, BASE + 0x1000, 8), 0);
    assert_int_equal(image_ram(i, BASE + 0x2ff8, 8), 0);
    assert_int_equal(image_ram(i, BASE + 0x3000, 8), 0xeeeeeeeeeeeeeeee);
    image_free(i);
}

static void test_hostile_notes(void **state)
{
    static const struct {
        u32 desc_len;
        u64 entry;
    } notes[] = {
        {0, BASE},
        {1, BASE},
        {3, BASE},
        {5, BASE},
        {0xffffffff, BASE},
        {0xfffffff0, BASE},
        {8, BASE | 1ull << 40},
    };
    struct image *i = image_new();

    for (size_t n = 0; n < ARRAY_LEN(notes); n++) {
        make_pvh(i, notes[n].desc_len, notes[n].entry);
        assert_int_equal(image_boot(i, NULL, NULL), -EINVAL); /* no kernel at all */
    }
    make_pvh(i, 8, BASE);
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    make_pvh(i, 4, BASE - 1); /* an entry outside */
    assert_int_equal(image_boot(i, NULL, NULL), -EINVAL);
    make_pvh(i, 4, BASE);
    image_put(i, NOTE_AT, 0xffffffff, 4); /* name length */
    assert_int_equal(image_boot(i, NULL, NULL), -EINVAL);
    make_pvh(i, 4, BASE);
    image_put(i, 64 + 56 + 32, 19, 8); /* the note is cut */
    assert_int_equal(image_boot(i, NULL, NULL), -EINVAL);
    image_free(i);
}

static void test_hostile_segments(void **state)
{
    static const struct {
        size_t at; /* in the file */
        u64 value;
        unsigned bytes;
        int rc;
    } damage[] = {
        {56, 0xffff, 2, -EINVAL},
        {32, UINT64_MAX, 8, -EINVAL},
        {54, 1, 2, -EINVAL},
        {64 + 8, UINT64_MAX, 8, -EINVAL},
        {64 + 24, UINT64_MAX - 0xfff, 8, -EINVAL},
        {64 + 24, 0x1000, 8, -EINVAL},
        {64 + 24, 1ull << 40, 8, -EINVAL},
        {64 + 32, 0x3001, 8, -EINVAL},
        {64 + 32, UINT64_MAX, 8, -EINVAL},
        {64 + 40, 1ull << 32, 8, -EFAULT},
        {64 + 40, UINT64_MAX, 8, -EINVAL},
        {64 + 40, 0xfff, 8, -EINVAL},
        {64 + 40, 0, 8, -EINVAL},
        {56, 0, 2, -EINVAL},
        {5, 2, 1, -EINVAL},
    };
    struct image *i = image_new();

    for (size_t n = 0; n < ARRAY_LEN(damage); n++) {
        make_pvh(i, 4, BASE);
        image_put(i, damage[n].at, damage[n].value, damage[n].bytes);
        assert_int_equal(image_boot(i, NULL, NULL), damage[n].rc);
    }
    for (size_t len = 0; len < 0x1100; len += 37) {
        make_pvh(i, 4, BASE);
        i->len = len;
        assert_int_equal(image_boot(i, NULL, NULL), -EINVAL);
    }
    image_free(i);
}

static void test_overlap(void **state)
{
    struct image_phdr second = {1, 0x1000, BASE + 0x2fff, BASE + 0x2fff, 0x10, 0x10};
    struct image *i = image_new();

    make_pvh(i, 4, BASE);
    image_put(i, 56, 3, 2);
    image_phdr64(i, 0, 2, &second);
    assert_int_equal(image_boot(i, NULL, NULL), -EINVAL);
    second.paddr++;
    image_phdr64(i, 0, 2, &second);
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    image_free(i);
}

static void test_no_kernel(void **state)
{
    struct image *i = image_new();

    assert_int_equal(board_boot(i->b, &i->cpu, &i->err), -EINVAL);
    image_put(i, 0, 0, 1);
    assert_int_equal(image_boot(i, NULL, NULL), -EINVAL);
    assert_non_null(strstr(i->err.msg, "bzImage"));
    i->len = 0;
    assert_int_equal(image_boot(i, NULL, NULL), -EINVAL);
    image_free(i);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_start),         cmocka_unit_test(test_bss),
    cmocka_unit_test(test_hostile_notes), cmocka_unit_test(test_hostile_segments),
    cmocka_unit_test(test_overlap),       cmocka_unit_test(test_no_kernel),
};

UNIT_MAIN(tests)
