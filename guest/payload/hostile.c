/*
 * What a guest may try against whoever runs it: addresses at every edge, tables and code outside RAM, garbage to load
 * registers from, every port and model-specific register. Each must end as the manual says, or in some exception; the
 * machine must live, and memory that was not addressed stay as it was. Long mode.
 */
#include "lib/map64.h"

#define RAM_END 0x4000000ul /* payloads run with 64 MiB */
#define CANARY_WORDS 512

static u64 *canary;
static u64 seed = 0x9e3779b97f4a7c15;

static u64 random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static void plant_canary(void)
{
    canary = page_alloc();
    for (unsigned i = 0; i < CANARY_WORDS; i++)
        canary[i] = i * 0x0101010101010101ul;
}

static bool canary_lives(void)
{
    for (unsigned i = 0; i < CANARY_WORDS; i++)
        if (canary[i] != i * 0x0101010101010101ul)
            return false;
    return true;
}

/* --- one instruction of each kind at an address --- */
static void load1(word at)
{
    TRY("mov (%0), %%al", "D"(at));
}
static void load8(word at)
{
    TRY("mov (%0), %%rax", "D"(at));
}
static void store8(word at)
{
    TRY("mov %%rax, (%0)", "D"(at));
}
static void add4(word at)
{
    TRY("addl $1, (%0)", "D"(at));
}
static void locked(word at)
{
    TRY("lock xadd %%rax, (%0)", "D"(at));
}
static void exchange16(word at)
{
    TRY("cmpxchg16b (%0)", "D"(at & ~15ul));
}
static void vector16(word at)
{
    TRY("movups (%0), %%xmm0", "D"(at));
}
static void vector_store(word at)
{
    TRY("movups %%xmm0, (%0)", "D"(at));
}
static void masked(word at)
{
    TRY_LABEL("pcmpeqd %%xmm1, %%xmm1; 1: maskmovdqu %%xmm1, %%xmm0", "D"(at));
}
static void fxsave(word at)
{
    TRY("fxsave (%0)", "D"(at & ~15ul));
}
static void fld(word at)
{
    TRY("fldt (%0); fstp %%st", "D"(at));
}
static void move(word at)
{
    TRY("rep movsb", "S"(canary), "D"(at), "c"(100));
}
static void fill(word at)
{
    TRY("rep stosq", "D"(at), "c"(1ul << 40), "a"(0));
}
static void load_table(word at)
{
    TRY("lgdt (%0)", "D"(at));
}
static void jump(word at)
{
    TRY("jmp *%0", "D"(at));
}
static void call_through(word at)
{
    TRY("call *(%0)", "D"(at));
}
static void push_to(word at)
{
    TRY_LABEL("lea 8(%0), %%rsp; 1: push %%rax", "D"(at));
}
static void pop_from(word at)
{
    TRY_LABEL("mov %0, %%rsp; 1: pop %%rax", "D"(at));
}
static void return_at(word at)
{
    TRY_LABEL("mov %0, %%rsp; 1: ret", "D"(at));
}
static void indexed(word at)
{
    TRY("mov 0x7fffffff(%0, %1, 8), %%rax", "D"(at - 0x7fffffff - 0x8000), "S"(0x1000ul));
}

static void (*const attempts[])(word at) = {
    load1,        load8,        store8,  add4,     locked,    exchange16, vector16,
    vector_store, masked,       fxsave,  fld,      move,      fill,       load_table,
    jump,         call_through, push_to, pop_from, return_at, indexed,
};

static void check_addresses(void)
{
    static const word edges[] = {
        0x7ffffffffff8,     0x7fffffffffff,     0x7ffffffff000,     0x800000000000,
        0x800000000008,     0xffff7ffffffffff8, 0xffff800000000000, 0xfffffffffffffff8,
        0xffffffffffffffff, 0xffffffff80000000, 1ul << 48,          1ul << 52,
        1ul << 62,          1ul << 63,          0x123456789abcdef0, 0x555555555000,
        0x7fff00000000,     0x100000000000,     0x400000000000,     0x600000000000,
        0xffffea0000000000,
    };
    unsigned silent = 0;

    for (unsigned i = 0; i < ARRAY_LEN(attempts); i++) {
        for (unsigned k = 0; k < ARRAY_LEN(edges); k++) {
            attempts[i](edges[k]);
            silent += trap.vector == VEC_NONE;
        }
        for (unsigned k = 0; k < 200; k++) {
            attempts[i](random() | 1ul << 41 | 1ul << 43); /* nothing is mapped there */
            silent += trap.vector == VEC_NONE;
        }
    }
    report(silent == 0, "every access outside the mappings traps");
    report(canary_lives(), "and touches nothing");
}

static void check_wrapping(void)
{
    u64 value = 0;

    asm volatile("mov (%1, %2), %0" : "=r"(value) : "r"(-0x1000ul), "r"((word)&canary[7] + 0x1000));
    report(value == canary[7], "addresses wrap at 2^64");
    asm volatile("mov (%k1, %k2, 8), %0"
                 : "=r"(value)
                 : "r"((u32)(word)canary + 0x80000000u), "r"(0xf0000000u + 9));
    report(value == canary[9], "32-bit addresses wrap at 2^32");
    asm volatile("mov 0x7fffffff(%k1), %0"
                 : "=r"(value)
                 : "r"((word)&canary[3] - 0x7fffffff + (0xabcdul << 32)));
    report(value == canary[3], "and ignore upper halves");
    wrmsr(0xc0000101, -0x10000ul);
    asm volatile("mov %%gs:0x10000(%1), %0" : "=r"(value) : "r"(&canary[5]));
    report(value == canary[5], "so does a segment's base");
    wrmsr(0xc0000101, 0);
    asm volatile("mov %%rsp, %%rbx; push %%rsp; pop %0; sub %%rbx, %0" : "=r"(value) : : "rbx");
    report(value == 0, "push rsp pushes what it was");
    asm volatile("mov %%rsp, %%rbx; push %1; pop %%rsp; mov %%rsp, %0; mov %%rbx, %%rsp"
                 : "=r"(value)
                 : "r"(&canary[64])
                 : "rbx");
    report(value == (word)&canary[64], "pop rsp");
}

/* --- physical addresses that are not RAM --- */
static void check_outside_ram(void)
{
    volatile u64 *across = (volatile u64 *)(TEST_VA + PAGE - 4);
    u64 *last = (u64 *)(RAM_END - PAGE), *pdpte = entry_of(page_tables, TEST_VA + PAGE_1G * 16, 3);

    map(TEST_VA, last, PTE_P | PTE_W);
    map(TEST_VA + PAGE, (void *)RAM_END, PTE_P | PTE_W);
    last[511] = 0x1122334455667788;
    report(*across == 0xffffffff11223344, "across the end of RAM: ones behind it");
    *across = 0;
    report(last[511] == 0x55667788 && *(volatile u64 *)(TEST_VA + PAGE) == ~0ul,
           "stores behind it are dropped");
    TRY("jmp *%0", "r"(TEST_VA + PAGE));
    report(trap.vector == VEC_UD, "#UD: ones are executed behind the end of RAM");
    /* A page directory that is not in RAM reads as ones: present, but with reserved bits. */
    *pdpte = (RAM_END + 0x1000000) | PTE_P | PTE_W;
    TRY("mov (%0), %%al", "r"(TEST_VA + PAGE_1G * 16));
    report(trap.vector == VEC_PF, "#PF: tables outside RAM");
    *pdpte = 0xffffffff000ul | PTE_P | PTE_W;
    TRY("mov (%0), %%al", "r"(TEST_VA + PAGE_1G * 16));
    report(trap.vector == VEC_PF, "#PF: tables at the end of physical space");
    *pdpte = 0;
    write_cr3(read_cr3());
    TRY("jmp *%0", "D"(0xfee00000ul), "a"(0ul));
    report(trap.vector != VEC_NONE, "code in device memory traps, sooner or later");
    TRY("fxsave (%0)", "r"(TEST_VA + PAGE));
    TRY("rep movsq", "S"(TEST_VA + PAGE), "D"(TEST_VA + PAGE), "c"(512));
    report(canary_lives(), "nothing else is touched");
}

/* The PML4 maps itself: tables are then data like all others. */
static void check_recursive(void)
{
    const word slot = 300, base = 0xffff000000000000ul | slot << 39;
    volatile u64 *tables = (volatile u64 *)(base | slot << 30 | slot << 21 | slot << 12);
    u64 *page = page_alloc(), *other = page_alloc(), *pte = map(TEST_VA, page, PTE_P | PTE_W);
    volatile u64 *pte_seen = (volatile u64 *)(base | (TEST_VA >> 9 & 0x7ffffffff8));

    *page = 1;
    *other = 2;
    page_tables[slot] = (word)page_tables | PTE_P | PTE_W;
    report(tables[0] == page_tables[0], "the top table through itself");
    report(*(volatile u64 *)TEST_VA == 1 && *pte_seen == *pte,
           "an entry through the recursive mapping");
    *pte_seen = (word)other | PTE_P | PTE_W;
    invlpg((void *)TEST_VA);
    report(*(volatile u64 *)TEST_VA == 2, "changed through it");
    page_tables[slot] = 0;
    write_cr3(read_cr3());
}

/* --- garbage --- */
static void check_garbage(void)
{
    static u8 area[1024] __attribute__((aligned(64)));
    unsigned odd = 0;

    for (unsigned i = 0; i < 300; i++) {
        for (unsigned k = 0; k < sizeof(area) / 8; k++)
            ((u64 *)area)[k] = random();
        TRY("fxrstor (%0)", "r"(area));
        odd += trap.vector != VEC_GP && trap.vector != VEC_NONE;
        TRY("fldenv (%0); fninit", "r"(area));
        TRY("frstor (%0); fld1; fninit", "r"(area));
        odd += trap.vector != VEC_MF && trap.vector != VEC_NONE;
        TRY("fninit; ldmxcsr (%0)", "r"(area));
        TRY("xrstor (%0)", "r"(area), "a"(7), "d"(0));
        odd += trap.vector != VEC_GP && trap.vector != VEC_UD && trap.vector != VEC_NONE;
    }
    asm volatile("fninit; ldmxcsr %0" : : "m"((u32){0x1f80}));
    report(odd == 0, "garbage for the FPU's state is taken or refused");
    odd = 0;
    for (unsigned i = 0; i < 500; i++) {
        u64 cs = random() & 0x1ff, ss = random() & 0x1ff, flags = random() & ~(FL_TF | FL_NT);
        TRY_LABEL("push %0; push %1; push %2; push %3; push %1; 1: iretq", "r"(ss),
                  "r"(random() | 1ul << 41), "r"(flags), "r"(cs));
        odd += trap.vector == VEC_NONE;
    }
    report(odd == 0, "garbage for iretq traps");
    report(canary_lives(), "and touches nothing");
}

static void check_long_instructions(void)
{
    u8 *page = page_alloc();

    map(TEST_VA, page, PTE_P | PTE_W);
    *entry_of(page_tables, TEST_VA + PAGE, 1) = 0;
    invlpg((void *)(TEST_VA + PAGE));
    memset(page, 0x66, PAGE);
    TRY("jmp *%0", "r"(TEST_VA + PAGE - 15));
    report(trap.vector == VEC_GP && trap.ip == TEST_VA + PAGE - 15,
           "#GP: 15 prefixes at the end of a page");
    TRY("jmp *%0", "r"(TEST_VA + PAGE - 14));
    report(trap.vector == VEC_PF && trap.cr2 == TEST_VA + PAGE && trap.ip == TEST_VA + PAGE - 14,
           "#PF: 14, and the next page is missing");
    page[PAGE - 1] = 0x90;
    page[PAGE - 2] = 0x0f;
    TRY("jmp *%0", "r"(TEST_VA + PAGE - 2));
    report(trap.vector == VEC_UD || trap.vector == VEC_PF,
           "an opcode that ends at the end of a page");
    memset(page, 0x90, PAGE);
    TRY("jmp *%0", "r"(TEST_VA));
    report(trap.vector == VEC_PF && trap.ip == TEST_VA + PAGE, "running off a page");
}

static void check_msrs(void)
{
    static const u32 ranges[][2] = {{0, 0x2000},
                                    {0x40000000, 0x40000100},
                                    {0x4b564d00, 0x4b564d20},
                                    {0xc0000000, 0xc0002000},
                                    {0xc0010000, 0xc0011200}};
    unsigned odd = 0;

    for (unsigned i = 0; i < ARRAY_LEN(ranges); i++)
        for (u32 msr = ranges[i][0]; msr < ranges[i][1]; msr++) {
            TRY("rdmsr", "c"(msr));
            odd += trap.vector != VEC_NONE && !trapped(VEC_GP, 0);
        }
    report(odd == 0, "rdmsr of everything gives a value or #GP");
}

/* Ports that end or reset the machine, or carry this report. */
static bool is_vital(u32 port)
{
    return port == 0xe9 || (port >= 0xf4 && port < 0xf8) || port == 0x64 || port == 0x92 ||
           (port >= 0xcf8 && port < 0xd00) || (port >= 0x500 && port < 0x620) ||
           (port >= 0xb000 && port < 0xb040);
}

static void check_ports(void)
{
    u32 value;

    for (u32 port = 0; port < 0x10000; port++) {
        asm volatile("in %%dx, %%al" : "=a"(value) : "d"(port));
        if (port < 0xffff)
            asm volatile("in %%dx, %%ax" : "=a"(value) : "d"(port));
        if (port < 0xfffd)
            asm volatile("in %%dx, %%eax" : "=a"(value) : "d"(port));
    }
    report(true, "every port is read in every width");
    for (u32 port = 0; port < 0x10000; port++)
        if (!is_vital(port) && !is_vital(port + 1) && !is_vital(port + 2) && !is_vital(port + 3)) {
            asm volatile("out %%al, %%dx" : : "a"((u32)random()), "d"(port));
            asm volatile("out %%eax, %%dx" : : "a"((u32)random()), "d"(port));
        }
    report(true, "and written");
}

void payload_main(void)
{
    /* Stacks are among what is attacked. */
    for (unsigned i = 0; i < 32; i++)
        idt[i].ist = 1;
    plant_canary();
    check_addresses();
    check_wrapping();
    check_outside_ram();
    check_recursive();
    check_garbage();
    check_long_instructions();
    check_msrs();
    if (cpuid(0x40000000, 0).ebx != 0x54474354) /* "TCGT": QEMU, which asserts on some */
        check_ports();
    else
        report_skip("ports", "some end QEMU itself");
    report(canary_lives(), "memory is as it was");
}
