/*
 * ELF kernels with a PVH note: entered in 32-bit protected mode with EBX at a start_info. Xen's
 * documents "PVH" and public/arch-x86/hvm/start_info.h (the x86/HVM direct boot ABI); the note is
 * XEN_ELFNOTE_PHYS32_ENTRY.
 */
#include "board/boot.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define NOTE_OWNER "Xen"
#define NOTE_PHYS32_ENTRY 18
#define START_MAGIC 0x336ec578u
#define KERNEL_FLOOR (64 * KiB + BOOT_CMDLINE + BOOT_CMDLINE_MAX)

struct start_info {
    u32 magic, version, flags, nr_modules;
    u64 modules, cmdline, rsdp, memory_map;
    u32 memory_entries, reserved;
};

struct start_module {
    u64 paddr, len, cmdline, reserved;
};

struct start_memory {
    u64 addr, len;
    u32 type, reserved;
};

/* The entry point in the note; false when there is no proper one. */
static bool find_entry(const struct blob *k, const struct elf *e, u32 *ret_entry)
{
    u64 entry = 0;
    int len = elf_note(k, e, NOTE_OWNER, NOTE_PHYS32_ENTRY, &entry, sizeof(entry));

    if ((len != 4 && len != 8) || entry > UINT32_MAX)
        return false;
    *ret_entry = (u32)entry;
    return true;
}

static bool probe(const struct blob *kernel)
{
    struct elf e;
    u32 entry;

    return elf_probe(kernel) && !elf_parse(kernel, &e, NULL) && find_entry(kernel, &e, &entry);
}

static int put_modules(struct board *b, const struct boot_image *image, u64 floor,
                       struct start_info *info, struct err *err)
{
    const struct blob *disk = &image->module[0].blob;
    struct start_module m = {.len = disk->len};
    int rc;

    if (!image->nmodules)
        return 0;
    m.paddr = boot_place_high(b, disk->len, floor, boot_low_ram_end(b));
    if (!m.paddr)
        return err_set(err, ENOSPC, "%s: %" PRIu64 " MiB of RAM disk do not fit beside the kernel",
                       disk->name, disk->len >> 20);
    rc = blob_load(disk, 0, b->config.ram, m.paddr, disk->len, err);
    if (rc)
        return rc;
    info->nr_modules = 1;
    info->modules = BOOT_LISTS + BOOT_PAGE;
    gmem_write(b->config.ram, info->modules, &m, sizeof(m));
    return 0;
}

static void put_memory_map(struct board *b, struct start_info *info)
{
    struct start_memory list[E820_MAX] = {0};
    struct e820_entry map[E820_MAX];
    unsigned n = e820_fill(b, map, E820_MAX);

    for (unsigned i = 0; i < n; i++)
        list[i] =
            (struct start_memory){.addr = map[i].addr, .len = map[i].len, .type = map[i].type};
    info->memory_map = BOOT_LISTS;
    info->memory_entries = n;
    gmem_write(b->config.ram, BOOT_LISTS, list, n * sizeof(list[0]));
}

static int load(struct board *b, struct boot_image *image, struct x86_cpu *cpu, struct err *err)
{
    struct start_info info = {
        .magic = START_MAGIC, .version = 1, .cmdline = BOOT_CMDLINE, .rsdp = MEMMAP_ACPI};
    struct elf e = {0};
    u32 entry = 0;
    int rc = elf_parse(&image->kernel, &e, err);

    if (rc)
        return rc;
    if (!find_entry(&image->kernel, &e, &entry))
        return err_set(err, EINVAL, "%s: the PVH note has changed", image->kernel.name);
    if (e.paddr_first < KERNEL_FLOOR || entry < e.paddr_first || entry >= e.paddr_end)
        return err_set(err, EINVAL, "%s: PVH: the kernel must lie above 0x%llx and its entry in it",
                       image->kernel.name, KERNEL_FLOOR);
    rc = boot_put_cmdline(b, image->cmdline, BOOT_CMDLINE_MAX - 1, err);
    rc = rc ? rc : elf_load(&image->kernel, &e, b->config.ram, 0, err);
    rc = rc ? rc : put_modules(b, image, ALIGN_UP(e.paddr_end, BOOT_PAGE), &info, err);
    if (rc)
        return rc;
    put_memory_map(b, &info);
    gmem_write(b->config.ram, BOOT_PARAMS, &info, sizeof(info));
    rc = boot_cpu_protected(b, cpu, entry, err);
    cpu->gpr[RBX] = BOOT_PARAMS;
    return rc;
}

const struct boot_kind boot_pvh = {.name = "ELF with a PVH note", .probe = probe, .load = load};
