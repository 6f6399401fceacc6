/* String instructions: directions, widths, repeat conditions, page ends, and faults in the middle (SDM 1, 7.3.9). Long mode. */
#include "lib/map64.h"

#define RW (PTE_P | PTE_W)
#define SRC (TEST_VA)
#define DST (TEST_VA + 0x100000)

static u64 *src_pte[3], *dst_pte[3];
static u8 *src_page[3], *dst_page[3];

/* Three pages each, none next to the other in physical memory. */
static void make_buffers(void)
{
    for (unsigned i = 0; i < 3; i++) {
        src_page[i] = page_alloc();
        dst_page[i] = page_alloc();
        src_pte[i] = map(SRC + i * PAGE, src_page[i], RW);
        dst_pte[i] = map(DST + i * PAGE, dst_page[i], RW);
    }
    for (unsigned i = 0; i < 3 * PAGE; i++)
        ((u8 *)SRC)[i] = (u8)(i * 7 + (i >> 8));
}

static void wipe(void)
{
    memset((void *)DST, 0xee, 3 * PAGE);
}

static void set_present(u64 *pte, word va, bool present)
{
    *pte = present ? *pte | PTE_P : *pte & ~PTE_P;
    invlpg((void *)va);
}

struct regs {
    word si, di, cx, flags;
};

static struct regs rep_movsb(word si, word di, word cx)
{
    struct regs r = {si, di, cx, 0};

    asm volatile("rep movsb" : "+S"(r.si), "+D"(r.di), "+c"(r.cx) : : "memory");
    return r;
}

static void check_movs(void)
{
    struct regs r;

    wipe();
    r = rep_movsb(SRC + 100, DST + 50, 2 * PAGE);
    report(!memcmp((void *)(SRC + 100), (void *)(DST + 50), 2 * PAGE),
           "rep movsb across pages copies");
    report(r.si == SRC + 100 + 2 * PAGE && r.di == DST + 50 + 2 * PAGE && r.cx == 0,
           "and moves rsi, rdi, rcx");
    report(((u8 *)DST)[49] == 0xee && ((u8 *)DST)[50 + 2 * PAGE] == 0xee, "and no more than that");
    r = rep_movsb(SRC, DST, 0);
    report(r.si == SRC && r.di == DST && r.cx == 0, "rep with rcx = 0 does nothing");
    wipe();
    r = (struct regs){SRC + 3, DST + 1, PAGE / 4, 0};
    asm volatile("rep movsq" : "+S"(r.si), "+D"(r.di), "+c"(r.cx) : : "memory");
    report(!memcmp((void *)(SRC + 3), (void *)(DST + 1), 2 * PAGE),
           "rep movsq, misaligned, elements across pages");
    wipe();
    r = (struct regs){SRC + 2 * PAGE - 1, DST + 2 * PAGE - 1, 2 * PAGE, 0};
    asm volatile("std; rep movsb; cld" : "+S"(r.si), "+D"(r.di), "+c"(r.cx) : : "memory");
    report(!memcmp((void *)SRC, (void *)DST, 2 * PAGE) && r.si == SRC - 1 && r.di == DST - 1,
           "rep movsb downwards");
    wipe();
    r = (struct regs){SRC + 2 * PAGE - 4, DST + 2 * PAGE - 4, PAGE / 4, 0};
    asm volatile("std; rep movsl; cld" : "+S"(r.si), "+D"(r.di), "+c"(r.cx) : : "memory");
    report(!memcmp((void *)(SRC + PAGE), (void *)(DST + PAGE), PAGE) &&
               ((u8 *)DST)[PAGE - 1] == 0xee,
           "rep movsl downwards");
    /* Overlap by less than an element's distance repeats the first byte. */
    memset((void *)DST, 0, 64);
    *(u8 *)DST = 0x77;
    rep_movsb(DST, DST + 1, 63);
    report(((u8 *)DST)[63] == 0x77, "an overlapping rep movsb goes byte by byte");
    for (unsigned i = 0; i < 64; i++)
        ((u8 *)DST)[i] = ((u8 *)DST)[PAGE + i] = (u8)i;
    r = (struct regs){DST, DST + 4, 6, 0};
    asm volatile("rep movsq" : "+S"(r.si), "+D"(r.di), "+c"(r.cx) : : "memory");
    for (unsigned i = 0; i < 6; i++)
        *(u64 *)(DST + PAGE + 4 + 8 * i) = *(volatile u64 *)(DST + PAGE + 8 * i);
    report(!memcmp((void *)DST, (void *)(DST + PAGE), 64),
           "an overlapping rep movsq goes element by element");
    r = (struct regs){(word)src_page[0], (word)dst_page[0] | 1ul << 40, 1ul << 32 | 4, 0};
    asm volatile("addr32 rep movsb" : "+S"(r.si), "+D"(r.di), "+c"(r.cx) : : "memory");
    report(r.cx == 0 && r.di == (u32)(word)dst_page[0] + 4,
           "with 32-bit addresses ecx, esi, edi count");
}

static void check_movs_faults(void)
{
    wipe();
    set_present(dst_pte[1], DST + PAGE, false);
    TRY("rep movsb", "S"(SRC), "D"(DST + 10), "c"(2 * PAGE));
    report_page_fault(PF_W, DST + PAGE, "rep movsb, destination not present");
    report(trap.di == DST + PAGE && trap.si == SRC + PAGE - 10 && trap.cx == PAGE + 10,
           "registers say how far it came");
    report(!memcmp((void *)SRC, (void *)(DST + 10), PAGE - 10), "and so much is done");
    report(trap.flags & FL_RF, "RF is set in the saved flags");
    TRY("rep movsq", "S"(SRC), "D"(DST + 4), "c"(PAGE / 8));
    report(trap.vector == VEC_PF && trap.cr2 == DST + PAGE && trap.cx == 1 &&
               trap.di == DST + PAGE - 4,
           "rep movsq, an element half on the missing page");
    TRY_LABEL("std; 1: rep movsb", "S"(SRC + 2 * PAGE + 5), "D"(DST + 2 * PAGE + 5), "c"(PAGE));
    report(trap.vector == VEC_PF && trap.cr2 == DST + 2 * PAGE - 1 && trap.cx == PAGE - 6,
           "rep movsb downwards");
    set_present(dst_pte[1], DST + PAGE, true);
    set_present(src_pte[1], SRC + PAGE, false);
    TRY("rep movsb", "S"(SRC + 1), "D"(DST), "c"(2 * PAGE));
    report_page_fault(0, SRC + PAGE, "rep movsb, source not present");
    report(trap.si == SRC + PAGE && trap.cx == PAGE + 1, "registers say how far it came");
    TRY("rep lodsb", "S"(SRC + 1), "c"(2 * PAGE));
    report(trap.vector == VEC_PF && trap.si == SRC + PAGE &&
               (trap.ax & 0xff) == src_page[0][PAGE - 1],
           "rep lodsb");
    set_present(src_pte[1], SRC + PAGE, true);
    *dst_pte[1] &= ~PTE_W;
    invlpg((void *)(DST + PAGE));
    TRY("rep stosl", "D"(DST + PAGE - 64), "a"(0x12345678), "c"(32));
    report_page_fault(PF_P | PF_W, DST + PAGE, "rep stosl into a read-only page");
    report(trap.cx == 16 && *(u32 *)(DST + PAGE - 4) == 0x12345678,
           "registers say how far it came");
    *dst_pte[1] |= PTE_W;
    invlpg((void *)(DST + PAGE));
    TRY("rep movsb", "S"(SRC), "D"(0x7ffffffffff0ul), "c"(64));
    report(trap.vector == VEC_PF && trap.cr2 == 0x7ffffffffff0ul,
           "rep movsb near the canonical limit");
    TRY("rep movsb", "S"(SRC), "D"(0x800000000000ul), "c"(64));
    report(trap.vector == VEC_GP && trap.cx == 64, "#GP: rep movsb to a non-canonical address");
}

/* The hook for a fault that is repaired: the instruction must go on where it was. */
static unsigned repaired;

static bool repair(struct trap_frame *f)
{
    if (f->vector != VEC_PF)
        return false;
    repaired++;
    *entry_of(page_tables, read_cr2(), 1) |= PTE_P;
    return true;
}

static void check_restart(void)
{
    struct regs r;

    wipe();
    for (unsigned i = 0; i < 3; i++) {
        set_present(src_pte[i], SRC + i * PAGE, false);
        set_present(dst_pte[i], DST + i * PAGE, false);
    }
    trap_hook = repair;
    r = rep_movsb(SRC, DST, 3 * PAGE);
    trap_hook = NULL;
    report(repaired == 6 && r.cx == 0 && !memcmp((void *)SRC, (void *)DST, 3 * PAGE),
           "six faults repaired on the way");
}

static void check_scan(void)
{
    struct regs r = {0, DST, 3 * PAGE, 0};
    u8 equal;

    memset((void *)DST, 0x11, 3 * PAGE);
    ((u8 *)DST)[PAGE + 77] = 0x22;
    asm volatile("repne scasb" : "+D"(r.di), "+c"(r.cx), "=@ccz"(equal) : "a"(0x22) : "memory");
    report(equal && r.di == DST + PAGE + 78 && r.cx == 2 * PAGE - 78, "repne scasb finds");
    r = (struct regs){0, DST, PAGE, 0};
    asm volatile("repne scasb" : "+D"(r.di), "+c"(r.cx), "=@ccz"(equal) : "a"(0x33) : "memory");
    report(!equal && r.cx == 0 && r.di == DST + PAGE, "repne scasb does not find");
    r = (struct regs){0, DST, 3 * PAGE, 0};
    asm volatile("repe scasb" : "+D"(r.di), "+c"(r.cx), "=@ccz"(equal) : "a"(0x11) : "memory");
    report(!equal && r.di == DST + PAGE + 78, "repe scasb");
    memcpy((void *)DST, (void *)SRC, 3 * PAGE);
    ((u8 *)DST)[2 * PAGE + 3] ^= 1;
    r = (struct regs){SRC, DST, 3 * PAGE, 0};
    asm volatile("repe cmpsb" : "+S"(r.si), "+D"(r.di), "+c"(r.cx), "=@ccz"(equal) : : "memory");
    report(!equal && r.si == SRC + 2 * PAGE + 4, "repe cmpsb");
    r = (struct regs){SRC, DST, 2 * PAGE / 4, 0};
    asm volatile("repe cmpsl" : "+S"(r.si), "+D"(r.di), "+c"(r.cx), "=@ccz"(equal) : : "memory");
    report(equal && r.cx == 0, "repe cmpsl to the end");
    asm volatile("cmp %%eax, %%eax; repe cmpsb"
                 : "+S"(r.si), "+D"(r.di), "+c"(r.cx), "=@ccz"(equal)
                 :
                 : "memory");
    report(equal, "repe cmpsb with rcx = 0 leaves the flags alone");
    set_present(dst_pte[1], DST + PAGE, false);
    TRY_LABEL("cmp %%eax, %%eax; 1: repe cmpsb", "S"(SRC), "D"(DST), "c"(2 * PAGE));
    report(trap.vector == VEC_PF && trap.di == DST + PAGE && trap.cx == PAGE,
           "repe cmpsb that faults");
    set_present(dst_pte[1], DST + PAGE, true);
}

void payload_main(void)
{
    make_buffers();
    check_movs();
    check_movs_faults();
    check_restart();
    check_scan();
}
