/* Locked instructions, compare-and-exchange of 8 and 16 bytes, and alignment checks (SDM 3A 8.1). Long mode. */
#include "lib/map64.h"

static u8 area[256] __attribute__((aligned(64)));

static void check_rmw(void)
{
    u64 *p = (u64 *)area, old = 5;
    u8 carry;

    *p = 10;
    asm volatile("lock xadd %0, %1" : "+r"(old), "+m"(*p) : : "cc");
    report(*p == 15 && old == 10, "lock xadd");
    asm volatile("xchg %0, %1" : "+r"(old), "+m"(*p));
    report(*p == 10 && old == 15, "xchg");
    asm volatile("lock btsq $63, %0; setc %1" : "+m"(*p), "=q"(carry) : : "cc");
    report(*p == (10 | 1ul << 63) && !carry, "lock bts");
    asm volatile("lock btrq $63, %0; setc %1" : "+m"(*p), "=q"(carry) : : "cc");
    report(*p == 10 && carry, "lock btr");
    asm volatile("lock btcq %2, %0; setc %1"
                 : "+m"(*(u64(*)[8])area), "=q"(carry)
                 : "r"(130ul)
                 : "cc");
    report(p[2] == 4 && !carry, "lock btc with a bit offset beyond the word");
    asm volatile("lock negq %0" : "+m"(*p) : : "cc");
    report(*p == (u64)-10, "lock neg");
    asm volatile("lock notb %0" : "+m"(area[0]));
    report(area[0] == 9, "lock not, a byte");
    asm volatile("lock orl %1, %0" : "+m"(*(u32 *)(area + 61)) : "r"(0x01010101) : "cc");
    report(area[61] == 1 && area[64] == 1, "locked across a cache line");
}

static void check_cmpxchg(void)
{
    u64 *p = (u64 *)(area + 128);
    u64 ax = 1, dx = 2;
    u8 equal;

    p[0] = 1;
    p[1] = 2;
    asm volatile("lock cmpxchg16b %0; setz %3"
                 : "+m"(*(u64(*)[2])p), "+a"(ax), "+d"(dx), "=q"(equal)
                 : "b"(3ul), "c"(4ul)
                 : "cc");
    report(equal && p[0] == 3 && p[1] == 4, "cmpxchg16b, equal");
    asm volatile("lock cmpxchg16b %0; setz %3"
                 : "+m"(*(u64(*)[2])p), "+a"(ax), "+d"(dx), "=q"(equal)
                 : "b"(5ul), "c"(6ul)
                 : "cc");
    report(!equal && p[0] == 3 && ax == 3 && dx == 4, "cmpxchg16b, not equal");
    asm volatile("cmpxchg8b %0; setz %1"
                 : "+m"(*(u64(*)[2])p), "=q"(equal)
                 : "a"(3), "d"(0), "b"(7), "c"(8)
                 : "cc");
    report(equal && p[0] == (8ul << 32 | 7), "cmpxchg8b");
    ax = 7;
    asm volatile("lock cmpxchgl %2, %0" : "+m"(*p), "+a"(ax) : "r"(9) : "cc");
    report(*p == (8ul << 32 | 9), "cmpxchg, 32 bits");
    ax = 0x1122334455667788;
    asm volatile("lock cmpxchgl %2, %0" : "+m"(*p), "+a"(ax) : "r"(1) : "cc");
    report(ax == 9, "a failed 32-bit cmpxchg clears the upper half of rax");
}

/* A failed cmpxchg writes, too: to a read-only page it faults, whatever it compares. */
static void check_cmpxchg_writes(void)
{
    u64 *pte = map(TEST_VA, page_alloc(), PTE_P | PTE_W);

    *pte &= ~PTE_W;
    invlpg((void *)TEST_VA);
    TRY("lock cmpxchg %%rcx, (%0)", "r"(TEST_VA), "a"(99ul), "c"(1ul));
    report_page_fault(PF_P | PF_W, TEST_VA, "a cmpxchg that would fail, on a read-only page");
    TRY("lock cmpxchg16b (%0)", "r"(TEST_VA), "a"(99ul), "d"(1ul));
    report_page_fault(PF_P | PF_W, TEST_VA, "the same with cmpxchg16b");
    TRY("lock btsl $0, (%0)", "r"(TEST_VA));
    report_page_fault(PF_P | PF_W, TEST_VA, "lock bts on a read-only page");
}

static void user_misaligned(word addr)
{
    asm volatile("movl (%0), %%eax" : : "r"(addr) : "eax");
}

static void user_aligned(word addr)
{
    asm volatile("movb 1(%0), %%al; movw 2(%0), %%ax; movl 4(%0), %%eax; movups 1(%0), %%xmm0"
                 :
                 : "r"(addr)
                 : "eax");
}

static void check_alignment(void)
{
    write_cr0(read_cr0() | CR0_AM);
    user_call_as(user_misaligned, (word)user_ptr(&area[1]), SEL_UCODE64, SEL_UDATA, 2 | FL_AC);
    report(trap.vector == VEC_AC && trap.error == 0,
           "#AC: a misaligned load in ring 3 with AM and AC");
    user_call_as(user_misaligned, (word)user_ptr(&area[1]), SEL_UCODE64, SEL_UDATA, 2);
    report(trap.vector == VEC_USER_EXIT, "not without AC");
    user_call_as(user_aligned, (word)user_ptr(&area[0]), SEL_UCODE64, SEL_UDATA, 2 | FL_AC);
    report(trap.vector == VEC_USER_EXIT, "nor for aligned ones");
    write_flags(read_flags() | FL_AC);
    TRY("movl (%0), %%eax", "r"(area + 1));
    write_flags(read_flags() & ~FL_AC);
    report_no_trap("nor in ring 0");
    write_cr0(read_cr0() & ~CR0_AM);
    user_call_as(user_misaligned, (word)user_ptr(&area[1]), SEL_UCODE64, SEL_UDATA, 2 | FL_AC);
    report(trap.vector == VEC_USER_EXIT, "nor without AM");
}

void payload_main(void)
{
    check_rmw();
    check_cmpxchg();
    check_cmpxchg_writes();
    check_alignment();
}
