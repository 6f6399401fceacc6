/*
 * The guest's memory as the ways to start a kernel see it: the map they report and the places they
 * choose. Thread: the one that starts or resets the machine.
 */
#include "board/boot.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

u64 boot_low_ram_end(const struct board *b)
{
    return MIN(b->config.ram->size, GMEM_LOW_MAX);
}

unsigned e820_fill(const struct board *b, struct e820_entry *ret, unsigned max)
{
    u64 size = b->config.ram->size;
    const struct e820_entry map[] = {
        {0, MEMMAP_EBDA, E820_RAM},
        {MEMMAP_EBDA, 0xa0000 - MEMMAP_EBDA, E820_RESERVED},
        {MEMMAP_ACPI, MiB - MEMMAP_ACPI, E820_RESERVED},
        {MiB, boot_low_ram_end(b) - MiB, E820_RAM},
        {MEMMAP_ECAM_BASE, MEMMAP_ECAM_LEN, E820_RESERVED},
        {MEMMAP_IOAPIC, 4 * KiB, E820_RESERVED},
        {MEMMAP_LAPIC, 4 * KiB, E820_RESERVED},
        {GMEM_HIGH_BASE, size > GMEM_LOW_MAX ? size - GMEM_LOW_MAX : 0, E820_RAM},
    };
    unsigned n = 0;

    for (size_t i = 0; i < ARRAY_LEN(map) && n < max; i++) {
        if (map[i].len)
            ret[n++] = map[i];
    }
    return n;
}

u64 boot_place_high(const struct board *b, u64 len, u64 floor, u64 limit)
{
    u64 end = MIN(boot_low_ram_end(b), limit), at;

    if (len > end)
        return 0;
    at = ALIGN_DOWN(end - len, BOOT_PAGE);
    return at >= floor ? at : 0;
}

int boot_put_cmdline(struct board *b, const char *cmdline, u64 max, struct err *err)
{
    u64 len = strlen(cmdline);

    max = MIN(max, BOOT_CMDLINE_MAX - 1);
    if (len > max)
        return err_set(err, E2BIG,
                       "the command line has %" PRIu64 " characters; the kernel takes %" PRIu64,
                       len, max);
    if (gmem_write(b->config.ram, BOOT_CMDLINE, cmdline, len + 1))
        return err_set(err, EFAULT, "no RAM at 0x%llx for the command line", BOOT_CMDLINE);
    return 0;
}
