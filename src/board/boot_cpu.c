/*
 * The first processor's state when a kernel is entered without firmware. SDM 3A chapters 3
 * (segments), 4.5 (paging), 9.8 (modes); segments as the Linux boot protocol wants them: 0x10 code,
 * 0x18 data.
 */
#include "board/boot.h"

#include <errno.h>
#include <string.h>

#define SEL_CODE 0x10
#define SEL_DATA 0x18
#define SEL_TSS 0x20
#define DESC_CODE64 0x00af9b000000ffffull
#define DESC_CODE32 0x00cf9b000000ffffull
#define DESC_DATA 0x00cf93000000ffffull
#define DESC_TSS 0x00008b0000000067ull
#define PTE_PRESENT BIT(0)
#define PTE_WRITE BIT(1)
#define PTE_LARGE BIT(7)
#define MAP_GIB 4

static struct x86_seg segment(u16 sel, u64 desc)
{
    u32 limit = (u32)(desc & 0xffff) | (u32)(desc >> 32 & 0xf0000);
    u32 attr = (u32)(desc >> 40 & 0xf0ff);

    if (attr & SEG_ATTR_G)
        limit = limit << 12 | 0xfff;
    return (struct x86_seg){.sel = sel, .limit = limit, .attr = attr};
}

static int put_gdt(struct board *b, struct x86_cpu *cpu, u64 code, struct err *err)
{
    u64 gdt[6] = {0, 0, code, DESC_DATA, DESC_TSS, 0};

    if (gmem_write(b->config.ram, BOOT_GDT, gdt, sizeof(gdt)))
        return err_set(err, EFAULT, "no RAM at 0x%llx for the GDT", BOOT_GDT);
    cpu->gdt = (struct x86_dtable){.base = BOOT_GDT, .limit = sizeof(gdt) - 1};
    cpu->idt = (struct x86_dtable){0};
    for (unsigned i = 0; i < X86_SEGS; i++)
        cpu->seg[i] = segment(SEL_DATA, DESC_DATA);
    cpu->seg[SEG_CS] = segment(SEL_CODE, code);
    cpu->tr = segment(SEL_TSS, DESC_TSS);
    cpu->rflags = 2;
    return 0;
}

/* One PML4, one PDPT and a page directory of 2 MiB pages per GiB. */
static int put_page_tables(struct board *b, struct err *err)
{
    u64 pml4 = BOOT_PAGE_TABLES, pdpt = pml4 + BOOT_PAGE, pd = pdpt + BOOT_PAGE;
    u64 *table = gmem_ptr(b->config.ram, pml4, (2 + MAP_GIB) * BOOT_PAGE);

    if (!table)
        return err_set(err, EFAULT, "no RAM at 0x%llx for page tables", BOOT_PAGE_TABLES);
    memset(table, 0, (2 + MAP_GIB) * BOOT_PAGE);
    table[0] = pdpt | PTE_PRESENT | PTE_WRITE;
    for (u64 i = 0; i < MAP_GIB; i++)
        table[512 + i] = (pd + i * BOOT_PAGE) | PTE_PRESENT | PTE_WRITE;
    for (u64 i = 0; i < MAP_GIB * 512; i++)
        table[1024 + i] = i * 2 * MiB | PTE_PRESENT | PTE_WRITE | PTE_LARGE;
    gmem_wrote(b->config.ram, pml4, (2 + MAP_GIB) * BOOT_PAGE);
    return 0;
}

int boot_cpu_long(struct board *b, struct x86_cpu *cpu, u64 entry, struct err *err)
{
    int rc = put_gdt(b, cpu, DESC_CODE64, err);

    rc = rc ? rc : put_page_tables(b, err);
    if (rc)
        return rc;
    cpu->cr3 = BOOT_PAGE_TABLES;
    cpu->cr4 = CR4_PAE;
    cpu->msr.efer = EFER_LME | EFER_LMA;
    cpu->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    cpu->rip = entry;
    cpu->gpr[RSP] = BOOT_STACK;
    return 0;
}

int boot_cpu_protected(struct board *b, struct x86_cpu *cpu, u32 entry, struct err *err)
{
    int rc = put_gdt(b, cpu, DESC_CODE32, err);

    if (rc)
        return rc;
    cpu->cr0 = CR0_PE | CR0_ET;
    cpu->cr4 = 0;
    cpu->rip = entry;
    cpu->gpr[RSP] = BOOT_STACK;
    return 0;
}
