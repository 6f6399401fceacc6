/*
 * Linux bzImage, 64-bit entry. Linux' Documentation/arch/x86/boot.rst (protocol 2.12 and later) and
 * zero-page.rst.
 *
 * Two ways to enter it: the bzImage's own decompressor, as the protocol says; or, many times
 * faster, the vmlinux that it contains, unpacked and placed on the host (boot_vmlinux.c). Whatever
 * is unfamiliar takes the first way.
 *
 * Every header field is hostile: it is copied once and checked before use.
 */
#include "board/boot.h"
#include "board/kernel_cache.h"
#include "board/unpack.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SETUP_HEADER 0x1f1
#define MAGIC_AT 0x202
#define HEADER_END 0x268
#define ZERO_PAGE 4096
#define VERSION_MIN 0x20c
#define SECTOR 512u
#define ENTRY_64 0x200
#define XLF_KERNEL_64 BIT(0)
#define LOADED_HIGH BIT(0)
#define KASLR_FLAG BIT(1)
#define LOADER_OTHER 0xff
#define INIT_SIZE_MAX GiB
#define KERNEL_FLOOR MiB

/* Offsets in the zero page, which are those in the file too. */
enum {
    ZP_ACPI_RSDP = 0x070,
    ZP_RAMDISK_HIGH = 0x0c0,
    ZP_RAMDISK_SIZE_HIGH = 0x0c4,
    ZP_E820_ENTRIES = 0x1e8,
    ZP_SETUP_SECTS = 0x1f1,
    ZP_SYSSIZE = 0x1f4,
    ZP_BOOT_FLAG = 0x1fe,
    ZP_JUMP = 0x201,
    ZP_VERSION = 0x206,
    ZP_LOADER = 0x210,
    ZP_LOADFLAGS = 0x211,
    ZP_RAMDISK = 0x218,
    ZP_RAMDISK_SIZE = 0x21c,
    ZP_CMDLINE = 0x228,
    ZP_RAMDISK_MAX = 0x22c,
    ZP_ALIGN = 0x230,
    ZP_RELOCATABLE = 0x234,
    ZP_XLOADFLAGS = 0x236,
    ZP_CMDLINE_SIZE = 0x238,
    ZP_PAYLOAD = 0x248,
    ZP_PAYLOAD_LEN = 0x24c,
    ZP_PREF = 0x258,
    ZP_INIT_SIZE = 0x260,
    ZP_E820 = 0x2d0,
};

struct bzimage {
    u8 header[HEADER_END];
    u64 kernel, kernel_len;   /* the protected-mode part, in the file */
    u64 payload, payload_len; /* within that; length 0: none */
    u64 init_size, pref, align;
    u64 ramdisk_max, cmdline_max;
    bool relocatable;
};

static u64 get(const u8 *page, unsigned at, unsigned bytes)
{
    u64 v = 0;

    memcpy(&v, page + at, bytes);
    return v;
}

static void put(u8 *page, unsigned at, u64 value, unsigned bytes)
{
    memcpy(page + at, &value, bytes);
}

static bool probe(const struct blob *kernel)
{
    u8 magic[4];

    return kernel->len >= HEADER_END && !blob_read(kernel, MAGIC_AT, magic, 4, NULL) &&
           !memcmp(magic, "HdrS", 4);
}

static int bad(const struct blob *k, struct err *err, const char *what)
{
    return err_set(err, EINVAL, "%s: bzImage: %s", k->name, what);
}

static int check_sizes(const struct blob *k, struct bzimage *z, struct err *err)
{
    u64 sectors = get(z->header, ZP_SETUP_SECTS, 1), said = get(z->header, ZP_SYSSIZE, 4) * 16;

    z->kernel = ((sectors ? sectors : 4) + 1) * SECTOR;
    if (z->kernel >= k->len)
        return bad(k, err, "the setup part is as long as the file");
    z->kernel_len = k->len - z->kernel;
    if (z->kernel_len < said) /* more is usual: a signature */
        return err_set(err, EINVAL,
                       "%s: bzImage: is cut off; its header speaks of %" PRIu64 " bytes, %" PRIu64
                       " are there",
                       k->name, z->kernel + said, k->len);
    if (z->init_size > INIT_SIZE_MAX)
        return bad(k, err, "init_size is above 1 GiB");
    /* the decompressor runs in this memory: it cannot be less than what is loaded */
    z->init_size = MAX(z->init_size, z->kernel_len);
    if (z->align < BOOT_PAGE || z->align > 1 * GiB || (z->align & (z->align - 1)))
        return bad(k, err, "kernel_alignment is not a power of two from 4 KiB to 1 GiB");
    if (z->pref < KERNEL_FLOOR || z->pref >= GMEM_LOW_MAX || z->pref % z->align)
        return bad(k, err, "pref_address is not an aligned address from 1 MiB to 3 GiB");
    if (!range_fits(z->payload, z->payload_len, z->kernel_len))
        z->payload_len = 0; /* only the fast way needs it */
    return 0;
}

static int parse(const struct blob *k, struct bzimage *z, struct err *err)
{
    int rc = blob_read(k, 0, z->header, HEADER_END, err);
    const u8 *h = z->header;

    if (rc)
        return rc;
    if (memcmp(h + MAGIC_AT, "HdrS", 4) || get(h, ZP_BOOT_FLAG, 2) != 0xaa55)
        return bad(k, err, "the header's magic has changed");
    if (get(h, ZP_VERSION, 2) < VERSION_MIN)
        return bad(k, err, "the boot protocol is older than 2.12 (Linux 3.8)");
    if (!(get(h, ZP_XLOADFLAGS, 2) & XLF_KERNEL_64) || !(get(h, ZP_LOADFLAGS, 1) & LOADED_HIGH))
        return bad(k, err, "has no 64-bit entry; a 64-bit kernel is needed");
    z->payload = get(h, ZP_PAYLOAD, 4);
    z->payload_len = get(h, ZP_PAYLOAD_LEN, 4);
    z->init_size = get(h, ZP_INIT_SIZE, 4);
    z->pref = get(h, ZP_PREF, 8);
    z->align = get(h, ZP_ALIGN, 4);
    z->relocatable = get(h, ZP_RELOCATABLE, 1);
    z->ramdisk_max = get(h, ZP_RAMDISK_MAX, 4);
    z->cmdline_max = get(h, ZP_CMDLINE_SIZE, 4);
    return check_sizes(k, z, err);
}

/* The RAM disk goes to the top of low memory, above all that the kernel needs. */
static int load_ramdisk(struct board *b, const struct boot_image *image, const struct bzimage *z,
                        u64 *ret_at, struct err *err)
{
    const struct blob *disk = &image->module[0].blob;
    u64 at;

    *ret_at = boot_low_ram_end(b);
    if (!image->nmodules)
        return 0;
    at = boot_place_high(b, disk->len, KERNEL_FLOOR + z->init_size, z->ramdisk_max + 1);
    if (!at)
        return err_set(err, ENOSPC,
                       "%s: %" PRIu64 " MiB of RAM disk do not fit beside the kernel into %" PRIu64
                       " MiB of memory; give the machine more",
                       disk->name, disk->len >> 20, b->config.ram->size >> 20);
    *ret_at = at;
    return blob_load(disk, 0, b->config.ram, at, disk->len, err);
}

static bool has_word(const char *cmdline, const char *word)
{
    size_t len = strlen(word);

    for (const char *p = cmdline; (p = strstr(p, word)) != NULL; p += len) {
        if ((p == cmdline || p[-1] == ' ') && (p[len] == ' ' || p[len] == '\0'))
            return true;
    }
    return false;
}

static int read_payload(const struct boot_image *image, const struct bzimage *z, struct blob *ret,
                        struct err *err)
{
    struct blob p = BLOB_INIT;
    int rc;

    if (!z->payload_len)
        return err_set(err, ENOTSUP, "the bzImage names no payload");
    rc = blob_alloc(&p, z->payload_len, "payload", err);
    rc = rc ? rc : blob_read(&image->kernel, z->kernel + z->payload, p.mem, z->payload_len, err);
    if (rc)
        blob_close(&p);
    else
        *ret = p;
    return rc;
}

/* LZ4 unpacks as fast as a file is read. */
static bool worth_keeping(const struct blob *payload)
{
    const char *format = unpack_format(payload->mem, payload->len);

    return format && strcmp(format, "LZ4");
}

/* With a cache: unpacks now, or finds what was unpacked before. */
static void prepare(struct boot_image *image)
{
    struct blob payload = BLOB_INIT;
    struct bzimage z = {0};

    if (!image->cache_dir || parse(&image->kernel, &z, NULL) ||
        read_payload(image, &z, &payload, NULL))
        return;
    if (worth_keeping(&payload) && kernel_cache_open(image->cache_dir, &payload, &image->vmlinux) &&
        !vmlinux_unpack(&payload, image->unpacked_max, &image->vmlinux, NULL))
        kernel_cache_store(image->cache_dir, &payload, &image->vmlinux, NULL);
    blob_close(&payload);
}

/* What to start: prepared, or unpacked now. */
static int get_vmlinux(struct boot_image *image, const struct bzimage *z, struct blob *ret,
                       struct err *err)
{
    struct blob payload = BLOB_INIT;
    int rc;

    if (image->vmlinux.mem || image->vmlinux.fd >= 0) {
        *ret = image->vmlinux;
        image->vmlinux = BLOB_INIT;
        return 0;
    }
    rc = read_payload(image, z, &payload, err);
    rc = rc ? rc : vmlinux_unpack(&payload, image->unpacked_max, ret, err);
    blob_close(&payload);
    return rc;
}

/* The fast way. -ENOTSUP: take the other. */
static int load_unpacked(struct board *b, struct boot_image *image, const struct bzimage *z,
                         u64 limit, u64 *ret_entry, struct err *err)
{
    struct linux_place where = {.floor = z->pref,
                                .limit = limit,
                                .align = z->align,
                                .pref = z->pref,
                                .kaslr = !has_word(image->cmdline, "nokaslr")};
    struct blob vmlinux = BLOB_INIT;
    int rc = get_vmlinux(image, z, &vmlinux, err);

    rc = rc ? rc : vmlinux_load(b, &vmlinux, &where, ret_entry, err);
    if (vmlinux.fd >= 0)
        image->vmlinux = vmlinux; /* a file costs nothing: it stays for the next reset */
    else
        blob_close(&vmlinux);
    return rc;
}

/* The protocol's way: the bzImage as it is, at its preferred address. */
static int load_packed(struct board *b, const struct boot_image *image, const struct bzimage *z,
                       u64 limit, u64 *ret_entry, struct err *err)
{
    u64 at = z->pref;

    if (z->relocatable && !range_fits(at, z->init_size, limit))
        at = ALIGN_UP(KERNEL_FLOOR, z->align);
    if (!range_fits(at, z->init_size, limit))
        return err_set(err, ENOSPC,
                       "%s: the kernel needs %" PRIu64 " MiB of memory from 0x%" PRIx64
                       "; give the machine more",
                       image->kernel.name, z->init_size >> 20, at);
    *ret_entry = at + ENTRY_64;
    return blob_load(&image->kernel, z->kernel, b->config.ram, at, z->kernel_len, err);
}

/* Tells the kernel about its machine: a page that starts as a copy of the setup header. */
static int put_zero_page(struct board *b, const struct boot_image *image, const struct bzimage *z,
                         u64 ramdisk, struct err *err)
{
    u64 header_end = MIN(MAGIC_AT + get(z->header, ZP_JUMP, 1), (u64)HEADER_END);
    struct e820_entry map[E820_MAX];
    u8 page[ZERO_PAGE] = {0};
    unsigned n = e820_fill(b, map, E820_MAX);

    memcpy(page + SETUP_HEADER, z->header + SETUP_HEADER,
           MAX(header_end, ZP_INIT_SIZE + 4) - SETUP_HEADER);
    put(page, ZP_LOADER, LOADER_OTHER, 1);
    put(page, ZP_CMDLINE, BOOT_CMDLINE, 4);
    put(page, ZP_ACPI_RSDP, MEMMAP_ACPI, 8);
    put(page, ZP_LOADFLAGS, get(page, ZP_LOADFLAGS, 1) & ~KASLR_FLAG, 1);
    if (b->boot_kaslr)
        put(page, ZP_LOADFLAGS, get(page, ZP_LOADFLAGS, 1) | KASLR_FLAG, 1);
    if (image->nmodules) {
        put(page, ZP_RAMDISK, (u32)ramdisk, 4);
        put(page, ZP_RAMDISK_SIZE, (u32)image->module[0].blob.len, 4);
    }
    put(page, ZP_E820_ENTRIES, n, 1);
    memcpy(page + ZP_E820, map, n * sizeof(map[0]));
    if (gmem_write(b->config.ram, BOOT_PARAMS, page, sizeof(page)))
        return err_set(err, EFAULT, "no RAM at 0x%llx for the zero page", BOOT_PARAMS);
    return 0;
}

static int load(struct board *b, struct boot_image *image, struct x86_cpu *cpu, struct err *err)
{
    struct err why = ERR_INIT;
    u64 limit = 0, entry = 0;
    struct bzimage z = {0};
    int rc = parse(&image->kernel, &z, err);

    rc = rc ? rc : boot_put_cmdline(b, image->cmdline, z.cmdline_max, err);
    rc = rc ? rc : load_ramdisk(b, image, &z, &limit, err);
    if (rc)
        return rc;
    b->boot_way = "Linux, unpacked and placed on the host";
    b->boot_kaslr = !has_word(image->cmdline, "nokaslr");
    rc = load_unpacked(b, image, &z, limit, &entry, &why);
    if (rc) {
        b->boot_way = "Linux bzImage";
        b->boot_kaslr = false; /* its own decompressor decides */
        rc = load_packed(b, image, &z, limit, &entry, err);
    }
    rc = rc ? rc : put_zero_page(b, image, &z, limit, err);
    rc = rc ? rc : boot_cpu_long(b, cpu, entry, err);
    cpu->gpr[RSI] = BOOT_PARAMS;
    return rc;
}

const struct boot_kind boot_linux = {
    .name = "Linux bzImage", .probe = probe, .prepare = prepare, .load = load};
