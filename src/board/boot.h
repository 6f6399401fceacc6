/* What the ways to start a kernel share. Physical addresses below 1 MiB used here are free RAM of
 * the guest's. */
#ifndef BOARD_BOOT_H
#define BOARD_BOOT_H

#include "board/blob.h"
#include "board/elf.h"
#include "board/parts.h"

/* Low memory while a kernel starts; it copies what it needs before it uses the rest. */
#define BOOT_GDT 0x1000ull
#define BOOT_PARAMS \
    0x7000ull                /* Linux zero page, PVH start_info, Multiboot information: one page \
                               */
#define BOOT_STACK 0x9000ull /* grows down */
#define BOOT_PAGE_TABLES 0x9000ull /* 6 pages: identity map of 4 GiB */
#define BOOT_LISTS 0x10000ull      /* module lists, memory maps, names; 64 KiB */
#define BOOT_CMDLINE 0x20000ull    /* 64 KiB */
#define BOOT_CMDLINE_MAX (64 * KiB)
#define BOOT_MODULES 16
#define BOOT_PAGE 4096ull

struct boot_module {
    struct blob blob;
    char *cmdline; /* or NULL */
};

struct boot_kind;

/* What board_open_kernel() has opened. */
struct boot_image {
    const struct boot_kind *kind;
    struct blob kernel;
    struct boot_module module[BOOT_MODULES]; /* Linux: one, the initial RAM disk */
    unsigned nmodules;
    char *cmdline;       /* never NULL */
    struct blob vmlinux; /* Linux: unpacked already, or BLOB_INIT */
    u64 unpacked_max;    /* bytes; a kernel larger than RAM cannot be started */
    char *cache_dir;     /* or NULL */
};

/* One way to start a kernel. */
struct boot_kind {
    const char *name;
    bool (*probe)(const struct blob *kernel);
    bool modules; /* takes several, with arguments */
    /* Work that can be done once, before the machine locks itself in; may be NULL. Its failures show in load(). */
    void (*prepare)(struct boot_image *image);
    /* Loads all and fills in *cpu (which is in power-on state) for the first instruction. */
    int (*load)(struct board *b, struct boot_image *image, struct x86_cpu *cpu, struct err *err);
};

extern const struct boot_kind boot_linux, boot_pvh, boot_multiboot;

void boot_image_free(struct boot_image *image); /* NULL is fine */
/* Chooses image->kind by image->kernel. */
int boot_find_kind(struct boot_image *image, struct err *err);

/* Memory map as firmware would tell it, by address. ACPI 6.4, chapter 15. */
#define E820_MAX 16
enum e820_type { E820_RAM = 1, E820_RESERVED = 2 };
struct e820_entry {
    u64 addr, len;
    u32 type;
} __attribute__((packed));
unsigned e820_fill(const struct board *b, struct e820_entry *ret, unsigned max);

/* End of the guest's RAM below 4 GiB. */
u64 boot_low_ram_end(const struct board *b);
/* Places `len` bytes as high as possible in RAM below `limit`, page-aligned, above `floor`. 0: no
 * room. */
u64 boot_place_high(const struct board *b, u64 len, u64 floor, u64 limit);
/* Writes the command line with its NUL to BOOT_CMDLINE. -E2BIG when it has more than max
 * characters. */
int boot_put_cmdline(struct board *b, const char *cmdline, u64 max, struct err *err);

/* Processor state: 64-bit mode on an identity map of the first 4 GiB (Linux boot protocol, "64-bit
 * boot protocol"), or 32-bit protected mode without paging. Interrupts are off. The GDT is written
 * to BOOT_GDT. */
int boot_cpu_long(struct board *b, struct x86_cpu *cpu, u64 entry, struct err *err);
int boot_cpu_protected(struct board *b, struct x86_cpu *cpu, u32 entry, struct err *err);

/* Linux: a vmlinux found inside a bzImage, see boot_vmlinux.c. */
struct linux_place {
    u64 floor, limit; /* where its image may lie */
    u64 align;
    u64 pref; /* where it is linked to run */
    bool kaslr;
};
/* Unpacks a bzImage's payload. -ENOTSUP: it looks unfamiliar, *err says how. */
int vmlinux_unpack(const struct blob *payload, u64 max, struct blob *ret_vmlinux, struct err *err);
/* Loads it at a random place. *ret_entry: physical entry point. -ENOTSUP: it looks unfamiliar (*err says how), nothing
 * is lost: start the bzImage's own decompressor. */
int vmlinux_load(struct board *b, const struct blob *vmlinux, const struct linux_place *where,
                 u64 *ret_entry, struct err *err);

#endif
