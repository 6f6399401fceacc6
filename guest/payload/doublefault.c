/* Double faults, and at the end a triple fault (SDM 3A 6.15, table 6-5). Long mode. */
#include "lib/map64.h"

static u8 df_stack[4096] __attribute__((aligned(16)));

void payload_main(void)
{
    struct __attribute__((packed)) {
        u16 limit;
        word base;
    } none = {0, 0};
    u64 *pte = map(TEST_VA, page_alloc(), PTE_P | PTE_W);

    tss.ist[2] = (word)(df_stack + sizeof(df_stack));
    idt[VEC_DF].ist = 2;

    idt[VEC_GP].type &= ~0x80;
    TRY("mov (%0), %%al", "r"(1ul << 47));
    report(trap.vector == VEC_DF && trap.error == 0, "#GP whose gate is missing: #DF");
    idt[VEC_GP].type |= 0x80;

    idt[VEC_PF].type &= ~0x80;
    TRY("mov (%0), %%al", "r"(TEST_VA + PAGE));
    report(trap.vector == VEC_DF && trap.error == 0, "#PF whose gate is missing: #DF");
    idt[VEC_PF].type |= 0x80;

    /* A page fault while a page fault is delivered: the stack is not there. */
    *pte = 0;
    invlpg((void *)TEST_VA);
    TRY_LABEL("mov %0, %%rsp; 1: push %%rax", "r"(TEST_VA + 2048));
    report(trap.vector == VEC_DF && trap.error == 0 && (trap.cr2 & ~(PAGE - 1)) == TEST_VA,
           "#PF on the way into #PF: #DF");

    /* A contributory exception after a benign one is just itself. */
    idt[VEC_UD].type &= ~0x80;
    TRY("ud2");
    report(trap.vector == VEC_NP && trap.error == VEC_UD * 8 + 2 + 1,
           "#UD whose gate is missing: #NP with EXT");
    idt[VEC_UD].type |= 0x80;

    /* A page fault after a contributory one is just itself, too. */
    idt[VEC_DE].ist = 3;
    tss.ist[3] = TEST_VA + 2048;
    idt[VEC_PF].ist = 2;
    TRY("div %0", "r"(0ul), "a"(1ul), "d"(0ul));
    report(trap.vector == VEC_DF || trap.vector == VEC_PF, "#DE whose stack is missing");
    idt[VEC_DE].ist = 0;

    expect_shutdown();
    asm volatile("lidt %0; ud2" : : "m"(none));
}
