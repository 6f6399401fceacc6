/* Linux bzImages, proper and hostile: both ways to start them. hostile.md 50, 53, 55. */
#include "board_bzimage.h"
#include <dirent.h>

static void test_plain(void **state)
{
    struct image *i = image_new();

    make_bzimage(i);
    assert_int_equal(image_boot(i, NULL, "console=ttyS0"), 0);
    assert_string_equal(board_boot_way(i->b), "Linux bzImage");
    assert_int_equal(i->cpu.rip, PREF + 0x200);
    assert_int_equal(image_ram(i, i->cpu.rip, 4), 0x90909090);
    assert_int_equal(i->cpu.gpr[RSI], BOOT_PARAMS);
    assert_int_equal(i->cpu.rflags, 2);
    assert_int_equal(i->cpu.seg[SEG_CS].sel, 0x10);
    assert_true(i->cpu.seg[SEG_CS].attr & SEG_ATTR_L);
    assert_int_equal(image_ram(i, BOOT_PARAMS + 0x202, 4), 0x53726448);
    assert_int_equal(image_ram(i, BOOT_PARAMS + 0x210, 1), 0xff);
    assert_int_equal(image_ram(i, image_ram(i, BOOT_PARAMS + 0x228, 4), 8),
                     0x3d656c6f736e6f63); /* console= */
    assert_int_equal(image_ram(i, BOOT_PARAMS + 0x70, 8), MEMMAP_ACPI);
    assert_int_equal(image_ram(i, MEMMAP_ACPI, 8), 0x2052545020445352); /* RSD PTR */
    assert_int_equal(image_ram(i, BOOT_PARAMS + 0x1e8, 1), 7);
    assert_int_equal(image_ram(i, BOOT_PAGE_TABLES + 0x2000, 8), 0x83);
    image_free(i);
}

static void test_ramdisk(void **state)
{
    struct image *i = image_new();
    static u8 disk[10000];

    make_bzimage(i);
    memset(disk, 0x5a, sizeof(disk));
    image_write(i->initrd, disk, sizeof(disk));
    assert_int_equal(image_boot(i, i->initrd, NULL), 0);
    assert_int_equal(image_ram(i, BOOT_PARAMS + 0x218, 4), IMAGE_RAM - 3 * BOOT_PAGE);
    assert_int_equal(image_ram(i, BOOT_PARAMS + 0x21c, 4), sizeof(disk));
    assert_int_equal(image_ram(i, IMAGE_RAM - 3 * BOOT_PAGE + sizeof(disk) - 1, 2), 0x5a);
    image_put(i, 0x22c, 0x100000, 4); /* wants it below 1 MiB, where no room is */
    assert_int_equal(image_boot(i, i->initrd, NULL), -ENOSPC);
    make_bzimage(i);
    assert_int_equal(truncate(i->initrd, 60 * (off_t)MiB), 0);
    assert_int_equal(image_boot(i, i->initrd, NULL), -ENOSPC); /* 53 */
    assert_int_equal(truncate(i->initrd, 1ll << 40), 0);
    assert_int_equal(image_boot(i, i->initrd, NULL), -ENOSPC);
    assert_int_equal(image_boot(i, "/no/such/file", NULL), -ENOENT);
    assert_int_equal(image_boot(i, "/tmp", NULL), -EINVAL);
    image_free(i);
}

static void check_relocated(struct image *i, bool inverse)
{
    u64 at = i->cpu.rip - 0x10, delta = image_ram(i, at + 0x100, 8) - (KERNEL_MAP + PREF + 0x1234);

    assert_string_equal(board_boot_way(i->b), "Linux, unpacked and placed on the host");
    assert_int_equal(at % (2 * MiB), 0);
    assert_in_range(at, PREF, IMAGE_RAM - 0x4000);
    assert_int_equal(delta % (2 * MiB), 0);
    assert_true(delta < GiB);
    assert_int_equal(image_ram(i, at + 0x200, 4), (u32)(KERNEL_MAP + PREF + 0x1234 + delta));
    assert_int_equal(image_ram(i, at + 0x300, 4), inverse ? (u32)(0x10000000 - delta) : 0x10000000);
    assert_int_equal(image_ram(i, BOOT_PARAMS + 0x211, 1) & 2, 2); /* KASLR_FLAG */
}

static void test_unpacked(void **state)
{
    struct image *i = image_new();
    u8 vmlinux[20000];
    u64 first, different = 0;
    size_t len;

    make_bzimage(i);
    len = make_vmlinux(vmlinux, true);
    pack_lz4(i, vmlinux, len, (u32)len);
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    check_relocated(i, true);
    first = i->cpu.rip;
    for (unsigned n = 0; n < 20; n++) { /* and again after a reset, somewhere else */
        assert_int_equal(board_boot(i->b, &i->cpu, NULL), 0);
        check_relocated(i, true);
        different += i->cpu.rip != first;
    }
    assert_true(different > 0);
    len = make_vmlinux(vmlinux, false); /* Linux 6.15's two lists */
    pack_lz4(i, vmlinux, len, (u32)len);
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    check_relocated(i, false);
    assert_int_equal(image_boot(i, NULL, "quiet nokaslr"), 0);
    assert_int_equal(i->cpu.rip, PREF + 0x10);
    assert_int_equal(image_ram(i, PREF + 0x100, 8), KERNEL_MAP + PREF + 0x1234);
    assert_int_equal(image_ram(i, BOOT_PARAMS + 0x211, 1) & 2, 0);
    image_free(i);
}

static void test_gzip(void **state)
{
    struct image *i = image_new();
    u8 vmlinux[20000];
    size_t len = make_vmlinux(vmlinux, true);

    make_bzimage(i);
    pack_gzip(i, vmlinux, len);
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    check_relocated(i, true);
    image_free(i);
}

/* All of these start the bzImage's own decompressor, and never read or write outside. */
static void test_unfamiliar_payloads(void **state)
{
    struct image *i = image_new();
    u8 vmlinux[20000];
    size_t len = make_vmlinux(vmlinux, true);
    static const struct {
        size_t at;
        u64 value;
        unsigned bytes;
    } damage[] = {
        {0, 0, 4},                       /* no ELF */
        {18, 3, 2},                      /* another machine */
        {24, 0x10, 8},                   /* entry outside */
        {56, 0xffff, 2},                 /* program headers past the end */
        {64 + 8, UINT64_MAX, 8},         /* offset */
        {64 + 24, UINT64_MAX - 4095, 8}, /* address wraps */
        {64 + 24, 0x1200000, 8},         /* not the preferred address */
        {64 + 32, 0x4001, 8},            /* more bytes in the file than in memory */
        {64 + 40, 1ull << 40, 8},        /* larger than memory */
        {0x3000, 5, 4},                  /* no zero before the first list */
        {0x3004, 0x80000000, 4},         /* a relocation below the image */
        {0x3004, 0x81003ffd, 4},         /* ... over its end */
        {0x3014, 0x7fffffff, 4},         /* ... anywhere */
    };

    for (size_t n = 0; n < ARRAY_LEN(damage); n++) {
        u8 bad[20000];

        memcpy(bad, vmlinux, sizeof(bad));
        memcpy(bad + damage[n].at, &damage[n].value, damage[n].bytes);
        make_bzimage(i);
        pack_lz4(i, bad, len, (u32)len);
        assert_int_equal(image_boot(i, NULL, NULL), 0);
        assert_string_equal(board_boot_way(i->b), "Linux bzImage");
        assert_int_equal(i->cpu.rip, PREF + 0x200);
    }
    image_free(i);
}

static void expect_plain(struct image *i)
{
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    assert_string_equal(board_boot_way(i->b), "Linux bzImage");
}

static void test_bombs_and_lies(void **state)
{
    static const u8 garbage[64] = {0x02, 0x21, 0x4c, 0x18, 0xff, 0xff, 0xff, 0x7f};
    static u8 zeros[16000];
    struct image *i = image_new();
    u8 vmlinux[20000];
    size_t len = make_vmlinux(vmlinux, true);

    make_bzimage(i);
    pack_lz4(i, vmlinux, len, (u32)len - 1); /* longer than it says */
    expect_plain(i);
    pack_lz4(i, vmlinux, len, (u32)len + 4096); /* shorter */
    expect_plain(i);
    pack_lz4(i, zeros, sizeof(zeros), 4096); /* a bomb, small */
    expect_plain(i);
    pack_lz4(i, vmlinux, len, 0xffffffff);
    expect_plain(i);
    set_payload(i, garbage, sizeof(garbage));
    expect_plain(i);
    set_payload(i, garbage, 5);
    expect_plain(i);
    pack_lz4(i, vmlinux, len, (u32)len);
    image_put(i, 0x248, 0xffffffff, 4); /* payload outside the file */
    expect_plain(i);
    image_put(i, 0x248, PAYLOAD_AT, 4);
    image_put(i, 0x24c, 0xffffffff, 4);
    expect_plain(i);
    image_free(i);
}

static void test_hostile_headers(void **state)
{
    static const struct {
        size_t at;
        u64 value;
        unsigned bytes;
        int rc;
    } damage[] = {
        {0x1f1, 255, 1, -EINVAL},     /* setup_sects: the whole file and more */
        {0x1f4, 0x10000, 4, -EINVAL}, /* syssize: more than is there */
        {0x206, 0x20b, 2, -EINVAL},   /* version */
        {0x211, 0, 1, -EINVAL},       /* not loaded high */
        {0x236, 0, 2, -EINVAL},       /* no 64-bit entry */
        {0x230, 0, 4, -EINVAL},       /* alignment */
        {0x230, 0x300000, 4, -EINVAL},
        {0x230, 0x80000000, 4, -EINVAL},
        {0x258, 0, 8, -EINVAL}, /* pref_address */
        {0x258, UINT64_MAX, 8, -EINVAL},
        {0x258, 0x1000001, 8, -EINVAL},
        {0x258, 0xbfe00000, 8, 0},       /* relocatable: goes where there is room */
        {0x260, 0xffffffff, 4, -EINVAL}, /* init_size */
        {0x260, 0x20000000, 4, -ENOSPC},
        {0x260, 0, 4, 0},
        {0x1fe, 0, 2, -EINVAL}, /* boot flag */
        {0x238, 0, 4, -E2BIG},  /* takes no command line */
        {0x22c, 0, 4, 0},       /* without a RAM disk its limit does not matter */
    };
    struct image *i = image_new();

    for (size_t n = 0; n < ARRAY_LEN(damage); n++) {
        make_bzimage(i);
        image_put(i, damage[n].at, damage[n].value, damage[n].bytes);
        assert_int_equal(image_boot(i, NULL, "x"), damage[n].rc);
        if (damage[n].rc)
            assert_true(strlen(i->err.msg) > 10);
    }
    for (size_t len = 0; len < 0x300; len += 13) { /* cut anywhere */
        make_bzimage(i);
        i->len = len;
        assert_int_equal(image_boot(i, NULL, NULL), -EINVAL);
    }
    image_free(i);
}

static void test_command_line(void **state)
{
    struct image *i = image_new();
    char text[2049];

    make_bzimage(i);
    memset(text, 'a', sizeof(text));
    text[2047] = '\0';
    assert_int_equal(image_boot(i, NULL, text), 0);
    text[2047] = 'a';
    text[2048] = '\0';
    assert_int_equal(image_boot(i, NULL, text), -E2BIG);
    assert_non_null(strstr(i->err.msg, "2047"));
    image_free(i);
}

/* The one file in a directory. */
static void only_file(const char *dir, char *path, size_t len)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    assert_non_null(d);
    path[0] = '\0';
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        assert_int_equal(path[0], '\0');
        snprintf(path, len, "%s/%s", dir, e->d_name);
    }
    closedir(d);
}

static unsigned count_files(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    unsigned n = 0;

    assert_non_null(d);
    while ((e = readdir(d)) != NULL)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void test_cache_is_bounded(void **state)
{
    char dir[] = "/tmp/cache.XXXXXX", clean[64];
    struct image *i = image_new();
    u8 vmlinux[20000];
    size_t len = make_vmlinux(vmlinux, true);

    assert_non_null(mkdtemp(dir));
    i->cache_dir = dir;
    for (unsigned n = 0; n < 8; n++) {
        make_bzimage(i);
        vmlinux[0x1800] = (u8)n;
        pack_gzip(i, vmlinux, len);
        assert_int_equal(image_boot(i, NULL, NULL), 0);
        assert_int_equal(count_files(dir), MIN(n + 1, 4));
    }
    snprintf(clean, sizeof(clean), "rm -rf %s", dir);
    assert_int_equal(system(clean), 0);
    image_free(i);
}

static void test_cache(void **state)
{
    char dir[] = "/tmp/cache.XXXXXX", path[300];
    struct image *i = image_new();
    u8 vmlinux[20000];
    size_t len = make_vmlinux(vmlinux, true);
    u64 value = 0;
    FILE *f;

    make_bzimage(i);
    pack_gzip(i, vmlinux, len);
    assert_non_null(mkdtemp(dir));
    i->cache_dir = dir;
    for (unsigned n = 0; n < 2; n++) { /* makes the file, then uses it; each starts twice */
        assert_int_equal(image_boot(i, NULL, NULL), 0);
        check_relocated(i, true);
        assert_int_equal(board_boot(i->b, &i->cpu, NULL), 0);
        check_relocated(i, true);
    }
    only_file(dir, path, sizeof(path));
    f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, 4096 + 0x1000 + 0x100, SEEK_SET); /* shows that it is the file that is used */
    fwrite("\x11\x22", 2, 1, f);
    fclose(f);
    assert_int_equal(image_boot(i, NULL, "nokaslr"), 0);
    assert_int_equal(gmem_read(&i->ram, PREF + 0x100, &value, 2), 0);
    assert_int_equal(value, 0x2211);
    assert_int_equal(truncate(path, 5000), 0); /* cut: not used, and replaced */
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    check_relocated(i, true);
    vmlinux[0x1800] ^= 1; /* another kernel is another file */
    pack_gzip(i, vmlinux, len);
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    check_relocated(i, true);
    i->cache_dir = "/proc/no/such/place";
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    check_relocated(i, true);
    image_free(i);
    assert_int_equal(unlink(path), 0);
    only_file(dir, path, sizeof(path));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_plain),
    cmocka_unit_test(test_ramdisk),
    cmocka_unit_test(test_unpacked),
    cmocka_unit_test(test_gzip),
    cmocka_unit_test(test_unfamiliar_payloads),
    cmocka_unit_test(test_bombs_and_lies),
    cmocka_unit_test(test_hostile_headers),
    cmocka_unit_test(test_command_line),
    cmocka_unit_test(test_cache),
    cmocka_unit_test(test_cache_is_bounded),
};

UNIT_MAIN(tests)
