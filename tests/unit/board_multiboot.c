/* Multiboot 1 kernels, proper and hostile. hostile.md 51, 52. */
#include "board_image.h"

#define MAGIC 0x1badb002u
#define BASE 0x100000ull
#define HEADER_AT 0x40
#define KLUDGE 0x10000u

static void put_header(struct image *i, u32 flags)
{
    image_put(i, HEADER_AT, MAGIC, 4);
    image_put(i, HEADER_AT + 4, flags, 4);
    image_put(i, HEADER_AT + 8, -(MAGIC + flags), 4);
}

/* A flat file of 4 KiB that goes to BASE, with 4 KiB of bss. */
static void make_flat(struct image *i)
{
    memset(i->bytes, 0, 0x2000);
    i->len = 0;
    put_header(i, KLUDGE | 3);
    image_put(i, HEADER_AT + 12, BASE + HEADER_AT, 4);
    image_put(i, HEADER_AT + 16, BASE, 4);
    image_put(i, HEADER_AT + 20, BASE + 0x1000, 4);
    image_put(i, HEADER_AT + 24, BASE + 0x2000, 4);
    image_put(i, HEADER_AT + 28, BASE + 0x80, 4);
    image_put(i, 0x80, 0xf4, 1);
    image_put(i, 0xfff, 0xaa, 1);
}

static void test_flat(void **state)
{
    struct image *i = image_new();
    u64 info = BOOT_PARAMS, modules;
    char mods[128];

    make_flat(i);
    image_write(i->initrd, "module one", 10);
    snprintf(mods, sizeof(mods), "%s first arg,%s second", i->initrd, i->initrd);
    memset(gmem_ptr(&i->ram, BASE, 0x3000), 0xee, 0x3000);
    assert_int_equal(image_boot(i, mods, "verbose"), 0);
    assert_string_equal(board_boot_way(i->b), "Multiboot");
    assert_int_equal(i->cpu.rip, BASE + 0x80);
    assert_int_equal(i->cpu.gpr[RAX], 0x2badb002);
    assert_int_equal(i->cpu.gpr[RBX], info);
    assert_int_equal(image_ram(i, BASE + 0xfff, 2), 0x00aa);
    assert_int_equal(image_ram(i, BASE + 0x1ff8, 8), 0);
    assert_int_equal(image_ram(i, info, 4),
                     0x24d); /* memory, command line, modules, map, loader name */
    assert_int_equal(image_ram(i, info + 8, 4), (IMAGE_RAM - MiB) / KiB);
    assert_int_equal(image_ram(i, info + 20, 4), 2);
    modules = image_ram(i, info + 24, 4);
    assert_int_equal(image_ram(i, image_ram(i, modules + 16, 4), 6), 0x656c75646f6d); /* module */
    assert_int_equal(image_ram(i, modules + 4, 4) - image_ram(i, modules, 4), 10);
    assert_true(image_ram(i, modules, 4) >= BASE + 0x2000);
    assert_non_null(strstr(gmem_ptr(&i->ram, image_ram(i, modules + 8, 4), 100), " first arg"));
    assert_non_null(strstr(gmem_ptr(&i->ram, image_ram(i, info + 16, 4), 100), " verbose"));
    assert_int_equal(image_ram(i, image_ram(i, info + 48, 4), 4), 20);
    image_free(i);
}

static void test_elf(void **state)
{
    struct image_phdr p = {1, 0x1000, BASE, BASE, 0x10, 0x20};
    struct image *i = image_new();

    image_elf64(i, 0, BASE + 4, 1);
    image_phdr64(i, 0, 0, &p);
    image_put(i, 0x400, MAGIC, 4);
    image_put(i, 0x404, 2, 4);
    image_put(i, 0x408, -(MAGIC + 2), 4);
    image_put(i, 0x100f, 0, 1);
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    assert_int_equal(i->cpu.rip, BASE + 4);
    image_put(i, 24, BASE + 0x20, 8); /* entry outside */
    assert_int_equal(image_boot(i, NULL, NULL), -EINVAL);
    image_put(i, 24, BASE, 8);
    image_put(i, 0x404, 0x10, 4); /* requires something unknown */
    image_put(i, 0x408, -(MAGIC + 0x10), 4);
    assert_int_equal(image_boot(i, NULL, NULL), -EINVAL);
    image_free(i);
}

static void test_hostile_addresses(void **state)
{
    static const struct {
        unsigned field; /* from header_addr on */
        u64 value;
        int rc;
    } damage[] = {
        {0, 0, -EINVAL},
        {0, 0xffffffff, -EINVAL},
        {1, 0, -EINVAL},
        {1, 0xffffffff, -EINVAL},
        {1, 0x1000, -EINVAL},
        {2, BASE - 1, -EINVAL}, /* 52 */
        {2, 1, -EINVAL},
        {2, 0xffffffff, -EINVAL},
        {2, BASE + 0x1001, -EINVAL},
        {2, 0, 0},
        {3, BASE + 0xfff, -EINVAL},
        {3, 1, -EINVAL},
        {3, 0xffffffff, -EFAULT},
        {3, 0, 0},
        {4, 0, -EINVAL},
        {4, BASE + 0x2000, -EINVAL},
        {4, BASE + 0x1fff, 0},
    };
    struct image *i = image_new();

    for (size_t n = 0; n < ARRAY_LEN(damage); n++) {
        make_flat(i);
        image_put(i, HEADER_AT + 12 + 4 * damage[n].field, damage[n].value, 4);
        assert_int_equal(image_boot(i, NULL, NULL), damage[n].rc);
    }
    for (size_t len = HEADER_AT; len < 0x1000; len += 61) {
        make_flat(i);
        i->len = len;
        assert_int_equal(image_boot(i, NULL, NULL), -EINVAL);
    }
    image_free(i);
}

static void test_modules_that_do_not_fit(void **state)
{
    struct image *i = image_new();
    char mods[BOOT_MODULES * 40 + 64] = "";

    make_flat(i);
    image_write(i->initrd, "x", 1);
    assert_int_equal(truncate(i->initrd, IMAGE_RAM), 0);
    assert_int_equal(image_boot(i, i->initrd, NULL), -ENOSPC);
    assert_int_equal(truncate(i->initrd, 100), 0);
    for (unsigned n = 0; n < BOOT_MODULES + 1; n++) {
        strncat(mods, i->initrd, sizeof(mods) - strlen(mods) - 2);
        strncat(mods, ",", 2);
    }
    assert_int_equal(image_boot(i, mods, NULL), -E2BIG);
    image_free(i);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_flat),
    cmocka_unit_test(test_elf),
    cmocka_unit_test(test_hostile_addresses),
    cmocka_unit_test(test_modules_that_do_not_fit),
};

UNIT_MAIN(tests)
