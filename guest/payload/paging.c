/* Paging in long mode: rights, accessed and dirty bits, page sizes, TLB maintenance (SDM 3A, chapter 4). */
#include "lib/map64.h"

#define RW (PTE_P | PTE_W)
#define RWU (PTE_P | PTE_W | PTE_U)

static volatile u32 *const va = (volatile u32 *)TEST_VA;

static void check_accessed_dirty(void)
{
    u64 *pte = map(TEST_VA, page_alloc(), RW);

    (void)*va;
    report((*pte & (PTE_A | PTE_D)) == PTE_A, "a load sets A");
    report(*entry_of(page_tables, TEST_VA, 2) & *entry_of(page_tables, TEST_VA, 3) &
               *entry_of(page_tables, TEST_VA, 4) & PTE_A,
           "A is set on every level");
    *va = 1;
    report((*pte & (PTE_A | PTE_D)) == (PTE_A | PTE_D), "a store after a load sets D");
    *pte &= ~(PTE_A | PTE_D);
    invlpg((void *)va);
    (void)*va;
    report((*pte & (PTE_A | PTE_D)) == PTE_A, "A is set again after clearing and invlpg");
    *pte &= ~(PTE_A | PTE_D);
    invlpg((void *)va);
    *va = 2;
    report((*pte & (PTE_A | PTE_D)) == (PTE_A | PTE_D), "a first store sets both");
    *pte = (*pte & ~(PTE_A | PTE_D | PTE_W));
    invlpg((void *)va);
    TRY("movl $3, (%0)", "r"(va));
    report_page_fault(PF_P | PF_W, TEST_VA, "store to a read-only page");
    report(!(*pte & PTE_D), "a store that faults does not set D");
    *pte = 0;
    invlpg((void *)va);
}

static void check_rights(void)
{
    u64 *pte = map(TEST_VA, page_alloc(), PTE_P), *pde = entry_of(page_tables, TEST_VA, 2);

    write_cr0(read_cr0() & ~CR0_WP);
    TRY("movl $3, (%0)", "r"(va));
    report_no_trap("a supervisor writes a read-only page with WP clear");
    report(*pte & PTE_D, "which sets D");
    write_cr0(read_cr0() | CR0_WP);
    TRY("movl $3, (%0)", "r"(va));
    report_page_fault(PF_P | PF_W, TEST_VA, "setting WP takes effect at once");
    *pte |= PTE_W;
    TRY("movl $3, (%0)", "r"(va));
    report(trap.vector == VEC_NONE || trapped(VEC_PF, PF_P | PF_W), "more rights, without invlpg");
    invlpg((void *)va);
    *pde &= ~PTE_W;
    invlpg((void *)va);
    TRY("movl $3, (%0)", "r"(va));
    report_page_fault(PF_P | PF_W, TEST_VA, "read-only in the page directory");
    *pde |= PTE_W;
    *pte = 0;
    invlpg((void *)va);
    TRY("movl (%0), %%eax", "r"(va));
    report_page_fault(0, TEST_VA, "not present after invlpg");
    *pte = (word)page_alloc() | RW;
    TRY("movl (%0), %%eax", "r"(va));
    report_no_trap("from not present to present needs no invlpg");
    *pte |= 1ul << 51;
    invlpg((void *)va);
    TRY("movl (%0), %%eax", "r"(va));
    report_page_fault(PF_P | PF_RSVD, TEST_VA, "reserved address bit in an entry");
    *pte = 0;
    invlpg((void *)va);
}

static void check_no_execute(void)
{
    u8 *code = page_alloc();
    u64 *pte = map(TEST_VA, code, RW);

    code[0] = 0xc3; /* ret */
    TRY("call *%0", "r"(va));
    report_no_trap("a page without NX executes");
    *pte |= PTE_NX;
    invlpg((void *)va);
    TRY("call *%0", "r"(va));
    report(trap.vector == VEC_PF && trap.error == (PF_P | PF_I) && trap.cr2 == TEST_VA &&
               trap.ip == TEST_VA,
           "fetch from a page with NX");
    TRY("movl (%0), %%eax", "r"(va));
    report_no_trap("a page with NX can be read");
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~EFER_NXE);
    invlpg((void *)va);
    TRY("movl (%0), %%eax", "r"(va));
    report_page_fault(PF_P | PF_RSVD, TEST_VA, "NX is a reserved bit without EFER.NXE");
    wrmsr(0xc0000080, rdmsr(0xc0000080) | EFER_NXE);
    *pte &= ~PTE_NX;
    *entry_of(page_tables, TEST_VA, 3) |= PTE_NX;
    invlpg((void *)va);
    TRY("call *%0", "r"(va));
    report(trap.vector == VEC_PF && trap.error == (PF_P | PF_I), "NX in an upper level");
    *entry_of(page_tables, TEST_VA, 3) &= ~PTE_NX;
    *pte = 0;
    invlpg((void *)va);
}

/* Run in ring 3. */
static void user_load(word addr)
{
    asm volatile("mov (%0), %%eax" : : "r"(addr) : "eax");
}

static void user_store(word addr)
{
    asm volatile("movl $1, (%0)" : : "r"(addr) : "memory");
}

static void user_jump(word addr)
{
    asm volatile("jmp *%0" : : "r"(addr));
}

static bool user_fault(word error)
{
    bool ok = trap.vector == VEC_PF && trap.error == error && trap.cr2 == TEST_VA;

    if (!ok)
        say("# got vector %lu error 0x%lx cr2 0x%lx\n", trap.vector, trap.error, trap.cr2);
    return ok;
}

static void check_user(void)
{
    u8 *code = page_alloc();
    u64 *pte = map(TEST_VA, code, RW), *pde = entry_of(page_tables, TEST_VA, 2);

    user_call(user_load, TEST_VA);
    report(user_fault(PF_P | PF_U), "ring 3 loads from a supervisor page");
    user_call(user_store, TEST_VA);
    report(user_fault(PF_P | PF_W | PF_U), "ring 3 stores to a supervisor page");
    user_call(user_jump, TEST_VA);
    report(user_fault(PF_P | PF_U | PF_I) && trap.ip == TEST_VA,
           "ring 3 jumps to a supervisor page");
    *pte |= PTE_U;
    invlpg((void *)va);
    user_call(user_store, TEST_VA);
    report(trap.vector == VEC_USER_EXIT && *va == 1, "ring 3 stores to a user page");
    *pde &= ~PTE_U;
    invlpg((void *)va);
    user_call(user_load, TEST_VA);
    report(user_fault(PF_P | PF_U), "supervisor in the page directory");
    *pde |= PTE_U;
    *pte &= ~PTE_W;
    invlpg((void *)va);
    write_cr0(read_cr0() & ~CR0_WP);
    user_call(user_store, TEST_VA);
    report(user_fault(PF_P | PF_W | PF_U), "WP does not matter to ring 3");
    write_cr0(read_cr0() | CR0_WP);
    *pte = 0;
    invlpg((void *)va);
    user_call(user_load, TEST_VA);
    report(user_fault(PF_U), "ring 3 loads from a page not present");
}

static void check_smep_smap(void)
{
    u8 *code = page_alloc();
    u64 *pte = map(TEST_VA, code, RWU);

    code[0] = 0xc3;
    if (!(cpuid(7, 0).ebx & BIT(7))) {
        report_skip("SMEP", "not in CPUID");
    } else {
        write_cr4(read_cr4() | CR4_SMEP);
        TRY("call *%0", "r"(va));
        report(trap.vector == VEC_PF && trap.error == (PF_P | PF_I),
               "SMEP: ring 0 fetches from a user page");
        write_cr4(read_cr4() & ~CR4_SMEP);
        TRY("call *%0", "r"(va));
        report_no_trap("the same without SMEP");
    }
    if (!(cpuid(7, 0).ebx & BIT(20))) {
        report_skip("SMAP", "not in CPUID");
    } else {
        write_cr4(read_cr4() | CR4_SMAP);
        asm volatile("clac");
        TRY("movl (%0), %%eax", "r"(va));
        report_page_fault(PF_P, TEST_VA, "SMAP: load from a user page");
        TRY("movl $1, (%0)", "r"(va));
        report_page_fault(PF_P | PF_W, TEST_VA, "SMAP: store to a user page");
        TRY_LABEL("stac; 1: movl (%0), %%eax; clac", "r"(va));
        report_no_trap("SMAP: load between stac and clac");
        TRY("movl (%0), %%eax", "r"(va));
        report_page_fault(PF_P, TEST_VA, "SMAP: load after clac");
        user_call(user_load, TEST_VA);
        report(trap.vector == VEC_USER_EXIT, "SMAP does not concern ring 3");
        user_call_as(user_load, TEST_VA, SEL_UCODE64, SEL_UDATA, 2 | FL_AC);
        report(trap.vector == VEC_USER_EXIT && (trap.flags & FL_AC),
               "nor does AC there without CR0.AM");
        write_cr4(read_cr4() & ~CR4_SMAP);
        TRY("movl (%0), %%eax", "r"(va));
        report_no_trap("load without SMAP");
    }
    *pte = 0;
    invlpg((void *)va);
}

static void check_large(void)
{
    u32 *first = pages_alloc(1024),
        *aligned = (u32 *)(((word)first + PAGE_2M - 1) & ~(PAGE_2M - 1));
    word large_va = TEST_VA + 4 * PAGE_1G, giant_va = TEST_VA + 8 * PAGE_1G;
    u64 *pde = entry_of(page_tables, large_va, 2), *pdpte = entry_of(page_tables, giant_va, 3);

    aligned[0x12345] = 0x11112222;
    *pde = (word)aligned | RW | PTE_PS;
    report(((volatile u32 *)large_va)[0x12345] == 0x11112222, "2 MiB page");
    report((*pde & (PTE_A | PTE_D)) == PTE_A, "2 MiB page: A");
    ((volatile u32 *)large_va)[0x12346] = 5;
    report((*pde & PTE_D) && aligned[0x12346] == 5, "2 MiB page: store, D");
    *pde &= ~PTE_W;
    invlpg((void *)(large_va + 0x5000)); /* any address of the page will do */
    TRY("movl $1, (%0)", "r"(large_va + 0x100000));
    report_page_fault(PF_P | PF_W, large_va + 0x100000,
                      "2 MiB page, read-only; invlpg by another address in it");
    *pde = ((word)aligned + 0x2000) | RW | PTE_PS;
    invlpg((void *)large_va);
    TRY("movl (%0), %%eax", "r"(large_va));
    report_page_fault(PF_P | PF_RSVD, large_va, "2 MiB page, misaligned: reserved bits");
    *pde = 0;
    invlpg((void *)large_va);
    if (!(cpuid(0x80000001, 0).edx & BIT(26))) {
        report_skip("1 GiB page", "not in CPUID");
        return;
    }
    *pdpte = RW | PTE_PS; /* physical 0 */
    report(*(volatile u32 *)(giant_va + (word)&aligned[0x12345]) == 0x11112222, "1 GiB page");
    *pdpte = 0;
    invlpg((void *)giant_va);
    TRY("movl (%0), %%eax", "r"(giant_va));
    report_page_fault(0, giant_va, "1 GiB page after invlpg");
    page_tables[100] = (word)aligned | RW | PTE_PS;
    TRY("movl (%0), %%eax", "r"(100ul << 39));
    report_page_fault(PF_P | PF_RSVD, 100ul << 39, "PS in the PML4 is reserved");
    page_tables[100] = 0;
}

static void check_tlb(void)
{
    u32 *a = page_alloc(), *b = page_alloc();
    u64 *pte = map(TEST_VA, a, RW);

    *a = 0xaaaa;
    *b = 0xbbbb;
    report(*va == 0xaaaa, "a mapping");
    *pte = (word)b | RW;
    invlpg((void *)va);
    report(*va == 0xbbbb, "changed, after invlpg");
    *pte = (word)a | RW;
    write_cr3(read_cr3());
    report(*va == 0xaaaa, "changed, after mov to cr3");
    write_cr4(read_cr4() | CR4_PGE);
    *pte = (word)a | RW | PTE_G;
    invlpg((void *)va);
    (void)*va;
    *pte = (word)b | RW | PTE_G;
    invlpg((void *)va);
    report(*va == 0xbbbb, "a global page, after invlpg");
    *pte = (word)a | RW;
    write_cr4(read_cr4() & ~CR4_PGE);
    report(*va == 0xaaaa, "a global page, after clearing PGE");
    *pte = (word)b | RW;
    write_cr0(read_cr0() & ~CR0_WP);
    write_cr3(read_cr3());
    write_cr0(read_cr0() | CR0_WP);
    report(*va == 0xbbbb, "changed, after mov to cr3 and cr0");
    *pte = 0;
    invlpg((void *)va);
}

static void invpcid(word type, u64 pcid, u64 addr)
{
    struct {
        u64 pcid, addr;
    } d = {pcid, addr};

    asm volatile("invpcid %0, %1" : : "m"(d), "r"(type) : "memory");
}

/* Two address spaces that differ in one page. */
struct two_spaces {
    u64 *pml4;
    u64 *pte0, *pte1;
    u32 *a, *b;
};

static void make_spaces(struct two_spaces *s)
{
    s->a = page_alloc();
    s->b = page_alloc();
    *s->a = 0xa0;
    *s->b = 0xb0;
    s->pml4 = page_alloc();
    memcpy(s->pml4, page_tables, PAGE);
    s->pml4[TEST_VA >> 39 & 511] = 0;
    s->pte0 = map(TEST_VA, s->a, RW);
    s->pte1 = entry_of(s->pml4, TEST_VA, 1);
    *s->pte1 = (word)s->b | RW;
}

static void check_pcid(void)
{
    const word noflush = 1ul << 63, cr3_0 = (word)page_tables;
    struct two_spaces s;
    word cr3_1;
    bool ok = true;

    if (!(cpuid(1, 0).ecx & BIT(17))) {
        report_skip("PCID", "not in CPUID");
        return;
    }
    make_spaces(&s);
    cr3_1 = (word)s.pml4 | 5;
    write_cr4(read_cr4() | CR4_PCIDE);
    report(read_cr4() & CR4_PCIDE, "PCIDE can be set");
    for (int i = 0; i < 10; i++) {
        write_cr3(cr3_1 | noflush);
        ok &= *va == 0xb0;
        write_cr3(cr3_0 | noflush);
        ok &= *va == 0xa0;
    }
    report(ok, "two address spaces, switched without a flush");
    report(read_cr3() == cr3_0, "bit 63 of cr3 is not kept");
    TRY("mov %0, %%cr4", "r"(read_cr4() & ~CR4_PAE & ~CR4_PCIDE));
    report_trap(VEC_GP, 0, "#GP: PAE off with PCID");
    *s.pte1 = (word)s.a | RW;
    write_cr3(cr3_1);
    report(*va == 0xa0, "mov to cr3 without bit 63 flushes that PCID");
    if (!(cpuid(7, 0).ebx & BIT(10))) {
        report_skip("INVPCID", "not in CPUID");
    } else {
        *s.pte1 = (word)s.b | RW;
        invpcid(0, 5, TEST_VA);
        report(*va == 0xb0, "invpcid of one address");
        *s.pte1 = (word)s.a | RW;
        invpcid(1, 5, 0);
        report(*va == 0xa0, "invpcid of one PCID");
        *s.pte1 = (word)s.b | RW;
        invpcid(2, 0, 0);
        report(*va == 0xb0, "invpcid of all, with globals");
        *s.pte0 = (word)s.b | RW;
        invpcid(3, 0, 0);
        write_cr3(cr3_0 | noflush);
        report(*va == 0xb0, "invpcid of all from another PCID");
        TRY("sub $16, %%rsp; movq $0, (%%rsp); movq $0, 8(%%rsp); invpcid (%%rsp), %0; add $16, "
            "%%rsp",
            "r"(4ul));
        report(trap.vector == VEC_GP, "#GP: invpcid of type 4");
    }
    write_cr3(cr3_0);
    write_cr4(read_cr4() & ~CR4_PCIDE);
    write_cr3(cr3_0 | 8); /* PWT here */
    TRY("mov %0, %%cr4", "r"(read_cr4() | CR4_PCIDE));
    report_trap(VEC_GP, 0, "#GP: PCIDE with low bits in cr3");
    write_cr3(cr3_0);
    *s.pte0 = 0;
    invlpg((void *)va);
}

static void check_crossing(void)
{
    u8 *a = page_alloc(), *gap = page_alloc(), *b = page_alloc();
    volatile u64 *across = (volatile u64 *)(TEST_VA + PAGE - 3);
    u64 *second;

    (void)gap; /* so that the two are not neighbours */
    map(TEST_VA, a, RW);
    second = map(TEST_VA + PAGE, b, RW);
    *across = 0x1122334455667788;
    report(*across == 0x1122334455667788, "8 bytes across two pages");
    report(a[PAGE - 3] == 0x88 && a[PAGE - 1] == 0x66 && b[0] == 0x55 && b[4] == 0x11,
           "they are in both");
    asm volatile("lock addq %0, (%1)" : : "r"(0x100000001ul), "r"(across) : "memory");
    report(*across == 0x1122334555667789, "locked addition across two pages");
    asm volatile("movups (%0), %%xmm0; movups %%xmm0, (%1)"
                 :
                 : "r"(TEST_VA + PAGE - 7), "r"(TEST_VA + 0x100)
                 : "memory");
    report(!memcmp((void *)(TEST_VA + 0x100), (void *)(TEST_VA + PAGE - 7), 16),
           "16 bytes across two pages");
    *second = 0;
    invlpg((void *)(TEST_VA + PAGE));
    TRY("movq (%0), %%rax", "r"(across));
    report_page_fault(0, TEST_VA + PAGE, "load: cr2 is the second page's start");
    TRY("movq %%rax, (%0)", "r"(across));
    report_page_fault(PF_W, TEST_VA + PAGE, "store: cr2 is the second page's start");
    report(a[PAGE - 3] == 0x89 && a[PAGE - 1] == 0x66, "and the first page is as it was");
    TRY("addq $1, (%0)", "r"(across));
    report_page_fault(PF_W, TEST_VA + PAGE, "read-modify-write across, second page not present");
    *second = (word)b | PTE_P;
    TRY("movq %%rax, (%0)", "r"(across));
    report_page_fault(PF_P | PF_W, TEST_VA + PAGE, "store across, second page read-only");
    report(a[PAGE - 3] == 0x89, "and again the first page is as it was");
    /* mov $imm32, %eax with three bytes on the first page; then ret. */
    memcpy(a + PAGE - 3, "\xb8\x78\x56", 3);
    memcpy(b, "\x34\x12\xc3", 3);
    TRY("call *%0; mov %%eax, %1", "r"(across), "m"(a[0x20]));
    report(trap.vector == VEC_NONE && *(u32 *)(a + 0x20) == 0x12345678,
           "an instruction across two pages");
    *second = 0;
    invlpg((void *)(TEST_VA + PAGE));
    TRY("call *%0", "r"(across));
    report(trap.vector == VEC_PF && trap.error == PF_I && trap.ip == (word)across &&
               trap.cr2 == TEST_VA + PAGE,
           "an instruction across, second page not present");
}

void payload_main(void)
{
    idt[VEC_PF].ist = idt[VEC_DF].ist = 1;
    check_accessed_dirty();
    check_rights();
    check_no_execute();
    check_user();
    check_smep_smap();
    check_large();
    check_tlb();
    check_pcid();
    check_crossing();
}
