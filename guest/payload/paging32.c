/* Paging outside long mode: 32-bit tables with 4 MiB pages, then PAE with NX (SDM 3A 4.3, 4.4). */
#include "payload.h"

#define PTE_P 1u
#define PTE_W 2u
#define PTE_U 4u
#define PTE_A 0x20u
#define PTE_D 0x40u
#define PTE_PS 0x80u
#define TEST_VA 0x40000000u
#define PAGE 4096u
#define PAGE_2M (2u << 20)
#define PAGE_4M (4u << 20)

static volatile u32 *const va = (volatile u32 *)TEST_VA;

static void enable_paging(word cr3, word cr4)
{
    write_cr4((read_cr4() & ~(CR4_PAE | CR4_PSE)) | cr4);
    write_cr3(cr3);
    write_cr0(read_cr0() | (word)CR0_PG | CR0_WP);
}

static void disable_paging(void)
{
    write_cr0(read_cr0() & ~(word)CR0_PG);
}

static void user_load(word addr)
{
    asm volatile("mov (%0), %%eax" : : "r"(addr) : "eax");
}

static void check_32bit(void)
{
    u32 *pd = page_alloc(), *pt = page_alloc(), *a = page_alloc(), *b = page_alloc();

    *a = 0xaaaa;
    *b = 0xbbbb;
    for (u32 i = 0; i < 16; i++)
        pd[i] = i << 22 | PTE_P | PTE_W | PTE_U | PTE_PS;
    pd[TEST_VA >> 22] = (u32)pt | PTE_P | PTE_W | PTE_U;
    pt[0] = (u32)a | PTE_P | PTE_W;
    enable_paging((word)pd, CR4_PSE);
    report(*va == 0xaaaa && (read_cr0() & CR0_PG), "32-bit paging is on");
    report((pt[0] & (PTE_A | PTE_D)) == PTE_A && (pd[TEST_VA >> 22] & PTE_A), "a load sets A");
    *va = 1;
    report((pt[0] & PTE_D) && *a == 1, "a store sets D");
    pt[0] = (u32)b | PTE_P;
    invlpg((void *)va);
    report(*va == 0xbbbb, "changed, after invlpg");
    TRY("movl $1, (%0)", "r"(va));
    report_page_fault(3, TEST_VA, "#PF: store to a read-only page");
    TRY("mov (%0), %%eax", "r"(TEST_VA + PAGE));
    report_page_fault(0, TEST_VA + PAGE, "#PF: not present");
    user_call(user_load, TEST_VA);
    report(trap.vector == VEC_PF && trap.error == 5 && trap.cr2 == TEST_VA,
           "#PF: ring 3 loads from a supervisor page");
    pt[0] |= PTE_U;
    invlpg((void *)va);
    user_call(user_load, TEST_VA);
    report(trap.vector == VEC_USER_EXIT, "ring 3 loads from a user page");
    pd[TEST_VA >> 22] = ((u32)b & ~(PAGE_4M - 1)) | PTE_P | PTE_W | PTE_PS;
    invlpg((void *)va);
    report(*(volatile u32 *)(TEST_VA + ((u32)b & (PAGE_4M - 1))) == 0xbbbb, "4 MiB page");
    pd[TEST_VA >> 22] = 1u << 21 | PTE_P | PTE_W | PTE_PS;
    invlpg((void *)va);
    TRY("mov (%0), %%eax", "r"(va));
    report(trap.vector == VEC_PF && trap.error == 9, "#PF: reserved bits of a 4 MiB page");
    disable_paging();
    report(*a == 1, "paging off again");
}

static void check_pae(void)
{
    u64 *pdpt = page_alloc(), *pd0 = page_alloc(), *pd1 = page_alloc(), *pt = page_alloc();
    u32 *a = page_alloc();
    u8 *code = page_alloc();

    *a = 0xaaaa;
    code[0] = 0xc3;
    for (u32 i = 0; i < 32; i++)
        pd0[i] = i << 21 | PTE_P | PTE_W | PTE_U | PTE_PS;
    pdpt[0] = (u32)pd0 | PTE_P;
    pdpt[1] = (u32)pd1 | PTE_P;
    pd1[0] = (u32)pt | PTE_P | PTE_W | PTE_U;
    pt[0] = (u32)a | PTE_P | PTE_W;
    pt[1] = (u32)code | PTE_P | PTE_W;
    enable_paging((word)pdpt, CR4_PAE);
    report(*va == 0xaaaa, "PAE paging is on");
    *va = 2;
    report((pt[0] & (PTE_A | PTE_D)) == (PTE_A | PTE_D), "A and D");
    TRY("call *%0", "r"(TEST_VA + PAGE));
    report_no_trap("code without NX");
    wrmsr(0xc0000080, rdmsr(0xc0000080) | EFER_NXE);
    pt[1] |= 1ull << 63;
    invlpg((void *)(TEST_VA + PAGE));
    TRY("call *%0", "r"(TEST_VA + PAGE));
    report(trap.vector == VEC_PF && trap.error == 17 && trap.ip == TEST_VA + PAGE,
           "#PF: fetch with NX");
    pd1[1] = ((u32)a & ~(PAGE_2M - 1)) | PTE_P | PTE_W | PTE_PS;
    report(*(volatile u32 *)(TEST_VA + PAGE_2M + ((u32)a & (PAGE_2M - 1))) == 2, "2 MiB page");
    pdpt[1] = 0;
    write_cr3((word)pdpt);
    TRY("mov (%0), %%eax", "r"(va));
    report_page_fault(0, TEST_VA, "a directory pointer removed, after mov to cr3");
    pdpt[1] = (u32)pd1 | PTE_P | 2;
    TRY("mov %0, %%cr3", "r"(pdpt));
    report_trap(VEC_GP, 0, "#GP: reserved bits in a directory pointer");
    pdpt[1] = (u32)pd1 | PTE_P;
    write_cr3((word)pdpt);
    report(*va == 2, "and back");
    disable_paging();
    write_cr4(read_cr4() & ~CR4_PAE);
}

void payload_main(void)
{
    check_32bit();
    check_pae();
}
