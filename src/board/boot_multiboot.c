/*
 * Multiboot 1 kernels: 32-bit protected mode with EAX = magic, EBX at the information structure.
 * Multiboot specification 0.6.96, chapter 3.
 *
 * A kernel is an ELF file, or any file whose header says itself where it goes (flag 16, "a.out
 * kludge").
 */
#include "board/boot.h"
#include "board/zero.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HEADER_MAGIC 0x1badb002u
#define BOOT_MAGIC 0x2badb002u
#define SEARCH_LEN 8192
#define FLAG_ADDRESSES BIT(16)
#define FLAGS_REFUSED \
    0xfff8u /* requirements (bits 0-15) we do not know; 2 (video mode) is not met but harmless */
#define KERNEL_FLOOR (BOOT_CMDLINE + BOOT_CMDLINE_MAX)
#define MODULE_LIST BOOT_LISTS
#define MEMORY_MAP (BOOT_LISTS + 1 * BOOT_PAGE)
#define LOADER_NAME (BOOT_LISTS + 2 * BOOT_PAGE)
#define MODULE_NAMES (BOOT_LISTS + 3 * BOOT_PAGE)
#define MODULE_NAME_MAX 512

struct header {
    u32 magic, flags, checksum;
    u32 header_addr, load_addr, load_end, bss_end, entry;
};

enum {
    INFO_MEMORY = 1 << 0,
    INFO_CMDLINE = 1 << 2,
    INFO_MODULES = 1 << 3,
    INFO_MAP = 1 << 6,
    INFO_LOADER = 1 << 9
};

struct info {
    u32 flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4], mmap_len,
        mmap_addr;
    u32 drives_len, drives_addr, config_table, loader_name, apm_table;
};

struct module {
    u32 start, end, string, reserved;
};

struct memory {
    u32 size;
    u64 addr, len;
    u32 type;
} __attribute__((packed));

/* Finds the header; its offset in the file, or -1. */
static s64 find_header(const struct blob *k, struct header *ret)
{
    u8 buf[SEARCH_LEN];
    u64 len = MIN(k->len, sizeof(buf));

    if (len < 12 || blob_read(k, 0, buf, len, NULL))
        return -1;
    for (u64 at = 0; at + 12 <= len; at += 4) {
        struct header h = {0};

        memcpy(&h, buf + at, MIN(sizeof(h), len - at));
        if (h.magic != HEADER_MAGIC || h.magic + h.flags + h.checksum != 0)
            continue;
        if ((h.flags & FLAG_ADDRESSES) && len - at < sizeof(h))
            return -1;
        *ret = h;
        return (s64)at;
    }
    return -1;
}

static bool probe(const struct blob *kernel)
{
    struct header h;

    return find_header(kernel, &h) >= 0;
}

static int bad(const struct blob *k, struct err *err, const char *what)
{
    return err_set(err, EINVAL, "%s: Multiboot: %s", k->name, what);
}

/* Where the header's addresses put the file. */
static int load_addresses(struct board *b, const struct blob *k, const struct header *h,
                          u64 header_at, u64 *ret_end, struct err *err)
{
    u64 before = (u64)h->header_addr - h->load_addr, file, len, bss;
    int rc;

    if (h->header_addr < h->load_addr || before > header_at)
        return bad(k, err, "load_addr does not fit to header_addr");
    file = header_at - before;
    len = h->load_end ? (u64)h->load_end - h->load_addr : k->len - file;
    if ((h->load_end && h->load_end < h->load_addr) || !range_fits(file, len, k->len))
        return bad(k, err, "load_end_addr lies before load_addr or past the end of the file");
    bss = h->load_addr + len;
    if (h->bss_end && h->bss_end < bss)
        return bad(k, err, "bss_end_addr lies before the end of the data");
    bss = h->bss_end ? h->bss_end : bss;
    if (h->load_addr < KERNEL_FLOOR || h->entry < h->load_addr || h->entry >= bss)
        return bad(k, err, "load_addr is below 192 KiB, or the entry is not in the kernel");
    rc = blob_load(k, file, b->config.ram, h->load_addr, len, err);
    if (!rc && zero_guest(b->config.ram, h->load_addr + len, bss - h->load_addr - len))
        rc = err_set(err, EFAULT, "%s: its bss does not fit into memory", k->name);
    *ret_end = bss;
    return rc;
}

static int load_elf(struct board *b, const struct blob *k, u64 *ret_end, u32 *ret_entry,
                    struct err *err)
{
    struct elf e = {0};
    int rc = elf_parse(k, &e, err);

    if (rc)
        return rc;
    if (e.paddr_first < KERNEL_FLOOR)
        return bad(k, err, "a segment lies below 192 KiB");
    if (e.entry > UINT32_MAX || e.entry < e.paddr_first || e.entry >= e.paddr_end)
        return bad(k, err, "the entry is not in the kernel");
    *ret_end = e.paddr_end;
    *ret_entry = (u32)e.entry;
    return elf_load(k, &e, b->config.ram, 0, err);
}

static int put_modules(struct board *b, const struct boot_image *image, u64 at, struct info *info,
                       struct err *err)
{
    struct module list[BOOT_MODULES] = {0};

    for (unsigned i = 0; i < image->nmodules; i++) {
        const struct boot_module *m = &image->module[i];
        u64 name = MODULE_NAMES + i * MODULE_NAME_MAX;
        char text[MODULE_NAME_MAX];
        int rc;

        at = ALIGN_UP(at, BOOT_PAGE);
        if (!range_fits(at, m->blob.len, boot_low_ram_end(b)))
            return err_set(err, ENOSPC, "%s: the module does not fit into memory", m->blob.name);
        rc = blob_load(&m->blob, 0, b->config.ram, at, m->blob.len, err);
        if (rc)
            return rc;
        snprintf(text, sizeof(text), "%s", m->cmdline ? m->cmdline : "");
        gmem_write(b->config.ram, name, text, strlen(text) + 1);
        list[i] =
            (struct module){.start = (u32)at, .end = (u32)(at + m->blob.len), .string = (u32)name};
        at += m->blob.len;
    }
    info->flags |= INFO_MODULES;
    info->mods_count = image->nmodules;
    info->mods_addr = MODULE_LIST;
    gmem_write(b->config.ram, MODULE_LIST, list, sizeof(list));
    return 0;
}

static void put_memory(struct board *b, struct info *info)
{
    struct e820_entry map[E820_MAX];
    struct memory list[E820_MAX];
    unsigned n = e820_fill(b, map, E820_MAX);

    for (unsigned i = 0; i < n; i++)
        list[i] = (struct memory){
            .size = 20, .addr = map[i].addr, .len = map[i].len, .type = map[i].type};
    gmem_write(b->config.ram, MEMORY_MAP, list, n * sizeof(list[0]));
    info->flags |= INFO_MEMORY | INFO_MAP;
    info->mem_lower = MEMMAP_EBDA / KiB;
    info->mem_upper = (u32)((boot_low_ram_end(b) - MiB) / KiB);
    info->mmap_addr = MEMORY_MAP;
    info->mmap_len = (u32)(n * sizeof(list[0]));
}

/* The command line starts with the kernel's name, as other loaders have it. */
static int put_strings(struct board *b, const struct boot_image *image, struct info *info,
                       struct err *err)
{
    static const char name[] = "trapeze";
    auto_free char *text = NULL;
    int rc;

    if (asprintf(&text, "%s %s", image->kernel.name, image->cmdline) < 0)
        return err_set(err, ENOMEM, "no memory");
    rc = boot_put_cmdline(b, text, BOOT_CMDLINE_MAX - 1, err);
    gmem_write(b->config.ram, LOADER_NAME, name, sizeof(name));
    info->flags |= INFO_CMDLINE | INFO_LOADER;
    info->cmdline = BOOT_CMDLINE;
    info->loader_name = LOADER_NAME;
    return rc;
}

static int load_kernel(struct board *b, const struct blob *k, u64 *ret_end, u32 *ret_entry,
                       struct err *err)
{
    struct header h = {0};
    s64 at = find_header(k, &h);

    if (at < 0)
        return bad(k, err, "the header has changed");
    if (h.flags & FLAGS_REFUSED)
        return bad(k, err, "it requires features this loader does not know");
    if (!(h.flags & FLAG_ADDRESSES))
        return load_elf(b, k, ret_end, ret_entry, err);
    *ret_entry = h.entry;
    return load_addresses(b, k, &h, (u64)at, ret_end, err);
}

static int load(struct board *b, struct boot_image *image, struct x86_cpu *cpu, struct err *err)
{
    struct info info = {0};
    u32 entry = 0;
    u64 end = 0;
    int rc = load_kernel(b, &image->kernel, &end, &entry, err);

    rc = rc ? rc : put_modules(b, image, MAX(end, MiB), &info, err);
    rc = rc ? rc : put_strings(b, image, &info, err);
    if (rc)
        return rc;
    put_memory(b, &info);
    gmem_write(b->config.ram, BOOT_PARAMS, &info, sizeof(info));
    rc = boot_cpu_protected(b, cpu, entry, err);
    cpu->gpr[RAX] = BOOT_MAGIC;
    cpu->gpr[RBX] = BOOT_PARAMS;
    return rc;
}

const struct boot_kind boot_multiboot = {
    .name = "Multiboot", .probe = probe, .modules = true, .load = load};
