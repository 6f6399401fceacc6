/* Linux bzImages, proper and hostile: both ways to start them. hostile.md 50, 53, 55. */
#include "board_image.h"
#include <dirent.h>
#include <lz4.h>
#include <zlib.h>

#define SETUP (5 * 512)
#define KERNEL_MAP 0xffffffff80000000ull
#define PREF 0x1000000ull
#define PAYLOAD_AT 0x1000

/* A bzImage without payload: its entry is 0x200 into what follows the setup part. */
static void make_bzimage(struct image *i)
{
    i->len = 0;
    image_put(i, 0x1f1, 4, 1);
    image_put(i, 0x1fe, 0xaa55, 2);
    image_put(i, 0x200, 0x66eb, 2);
    memcpy(i->bytes + 0x202, "HdrS", 4);
    image_put(i, 0x206, 0x20f, 2);
    image_put(i, 0x211, 1, 1);
    image_put(i, 0x22c, 0x7fffffff, 4);
    image_put(i, 0x230, 0x200000, 4);
    image_put(i, 0x234, 1, 1);
    image_put(i, 0x236, 1, 2);
    image_put(i, 0x238, 2047, 4);
    image_put(i, 0x258, PREF, 8);
    image_put(i, 0x260, 0x800000, 4);
    image_put(i, SETUP + 0x200, 0x90909090, 4);
    image_put(i, SETUP + 0x7ff, 0, 1);
}

/* A vmlinux of one segment of 8 KiB, with a word to relocate of each kind, and its relocations. */
static size_t make_vmlinux(u8 *out, bool inverse_list)
{
    static const s32 lists[] = {0, (s32)0x81000100, 0, (s32)0x81000300, 0, (s32)0x81000200};
    static const s32 new_lists[] = {0, (s32)0x81000100, 0, (s32)0x81000200};
    struct image *v = calloc(1, sizeof(*v));
    struct image_phdr p = {1, 0x1000, KERNEL_MAP + PREF, PREF, 0x2000, 0x4000};
    size_t len;

    assert_non_null(v);
    image_elf64(v, 0, PREF + 0x10, 1);
    image_phdr64(v, 0, 0, &p);
    image_put(v, 0x1000 + 0x100, KERNEL_MAP + PREF + 0x1234, 8);
    image_put(v, 0x1000 + 0x200, (u32)(KERNEL_MAP + PREF + 0x1234), 4);
    image_put(v, 0x1000 + 0x300, 0x10000000, 4);
    image_put(v, 0x1000 + 0x1fff, 0, 1);
    memcpy(out, v->bytes, v->len);
    len = v->len;
    free(v);
    if (inverse_list) {
        memcpy(out + len, lists, sizeof(lists));
        return len + sizeof(lists);
    }
    memcpy(out + len, new_lists, sizeof(new_lists));
    return len + sizeof(new_lists);
}

static void set_payload(struct image *i, const u8 *bytes, size_t len)
{
    for (size_t n = 0; n < len; n++)
        image_put(i, SETUP + PAYLOAD_AT + n, bytes[n], 1);
    image_put(i, 0x248, PAYLOAD_AT, 4);
    image_put(i, 0x24c, len, 4);
}

/* Packs as the kernel's build does: the legacy LZ4 frame and the length. */
static void pack_lz4(struct image *i, const u8 *in, size_t len, u32 claimed)
{
    u8 out[32768] = {0x02, 0x21, 0x4c, 0x18};
    int n = LZ4_compress_default((const char *)in, (char *)out + 8, (int)len, sizeof(out) - 16);
    u32 block = (u32)n;

    assert_true(n > 0);
    memcpy(out + 4, &block, 4);
    memcpy(out + 8 + n, &claimed, 4);
    set_payload(i, out, 12 + (size_t)n);
}

static void test_plain(void **state)
{
    struct image *i = malloc(sizeof(*i));

    image_init(i);
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
    image_fini(i);
    free(i);
}

static void test_ramdisk(void **state)
{
    struct image *i = malloc(sizeof(*i));
    static u8 disk[10000];

    image_init(i);
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
    image_fini(i);
    free(i);
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
    struct image *i = malloc(sizeof(*i));
    u8 vmlinux[20000];
    u64 first, different = 0;
    size_t len;

    image_init(i);
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
    image_fini(i);
    free(i);
}

static void pack_gzip(struct image *i, u8 *in, size_t len)
{
    u8 packed[20000];
    z_stream z = {
        .next_in = in, .avail_in = (uInt)len, .next_out = packed, .avail_out = sizeof(packed)};

    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END); /* ends with the length itself */
    set_payload(i, packed, z.total_out);
    deflateEnd(&z);
}

static void test_gzip(void **state)
{
    struct image *i = malloc(sizeof(*i));
    u8 vmlinux[20000];
    size_t len = make_vmlinux(vmlinux, true);

    image_init(i);
    make_bzimage(i);
    pack_gzip(i, vmlinux, len);
    assert_int_equal(image_boot(i, NULL, NULL), 0);
    check_relocated(i, true);
    image_fini(i);
    free(i);
}

/* All of these start the bzImage's own decompressor, and never read or write outside. */
static void test_unfamiliar_payloads(void **state)
{
    struct image *i = malloc(sizeof(*i));
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

    image_init(i);
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
    image_fini(i);
    free(i);
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
    struct image *i = malloc(sizeof(*i));
    u8 vmlinux[20000];
    size_t len = make_vmlinux(vmlinux, true);

    image_init(i);
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
    image_fini(i);
    free(i);
}

static void test_hostile_headers(void **state)
{
    static const struct {
        size_t at;
        u64 value;
        unsigned bytes;
        int rc;
    } damage[] = {
        {0x1f1, 255, 1, -EINVAL},   /* setup_sects: the whole file and more */
        {0x206, 0x20b, 2, -EINVAL}, /* version */
        {0x211, 0, 1, -EINVAL},     /* not loaded high */
        {0x236, 0, 2, -EINVAL},     /* no 64-bit entry */
        {0x230, 0, 4, -EINVAL},     /* alignment */
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
    struct image *i = malloc(sizeof(*i));

    image_init(i);
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
    image_fini(i);
    free(i);
}

static void test_command_line(void **state)
{
    struct image *i = malloc(sizeof(*i));
    char text[2049];

    image_init(i);
    make_bzimage(i);
    memset(text, 'a', sizeof(text));
    text[2047] = '\0';
    assert_int_equal(image_boot(i, NULL, text), 0);
    text[2047] = 'a';
    text[2048] = '\0';
    assert_int_equal(image_boot(i, NULL, text), -E2BIG);
    assert_non_null(strstr(i->err.msg, "2047"));
    image_fini(i);
    free(i);
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

static void test_cache(void **state)
{
    char dir[] = "/tmp/cache.XXXXXX", path[300];
    struct image *i = malloc(sizeof(*i));
    u8 vmlinux[20000];
    size_t len = make_vmlinux(vmlinux, true);
    u64 value = 0;
    FILE *f;

    image_init(i);
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
    image_fini(i);
    free(i);
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
};

UNIT_MAIN(tests)
