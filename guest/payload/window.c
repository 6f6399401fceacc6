/* Several accesses through one base register, which a translator may check together: whatever happens to the register between
 * them, each must reach its own page. Long mode. */
#include "lib/map64.h"

#define RW (PTE_P | PTE_W)
#define FAR_AWAY (4ul << 30)
#define PARTS_VA (TEST_VA + (1ul << 36))
#define STRADDLE_VA (TEST_VA + (1ul << 37))

static u64 *page_with(u64 value)
{
    u64 *p = page_alloc();

    for (unsigned i = 0; i < 512; i++)
        p[i] = value;
    return p;
}

/* Loads through register `reg`, changes it by `text`, loads again; the second value must be `want`. */
#define CHECK(constraint, reg, base, text, want, name)                                      \
    do {                                                                                    \
        u64 at = (base), first, second;                                                     \
        asm volatile("mov (%%" reg "), %0\n" text "\nmov (%%" reg "), %1\nxor %%edx, %%edx" \
                     : "=&r"(first), "=&r"(second), "+" constraint(at)                      \
                     :                                                                      \
                     : "rdx", "memory", "cc");                                              \
        report(first == 1 && second == (want), name);                                       \
    } while (0)

/* Sums of constants that do not fit 32 bits. */
static void check_distance(void)
{
    const u64 *near = page_with(1), *far = page_with(2);

    map(TEST_VA, near, RW);
    map(TEST_VA + FAR_AWAY, far, RW);
    map(TEST_VA - FAR_AWAY, far, RW);
    CHECK("b", "rbx", TEST_VA, "add $0x7fffffff, %%rbx\nadd $0x7fffffff, %%rbx\nadd $2, %%rbx", 2,
          "additions of 4 GiB in all");
    CHECK("b", "rbx", TEST_VA, "sub $-0x80000000, %%rbx\nsub $-0x80000000, %%rbx", 2,
          "subtractions of the smallest number");
    CHECK("b", "rbx", TEST_VA, "sub $-0x80000000, %%rbx\nadd $0x7fffffff, %%rbx\nadd $1, %%rbx", 2,
          "subtraction and addition");
    CHECK("b", "rbx", TEST_VA, "add $-0x80000000, %%rbx\nadd $-0x80000000, %%rbx", 2, "downwards");
    CHECK("b", "rbx", TEST_VA,
          "lea 0x7fffffff(%%rbx), %%rdx\nlea 0x7fffffff(%%rdx), %%rbx\nlea 2(%%rbx), %%rbx", 2,
          "by LEA");
}

/* Registers written by half. */
static void check_parts(void)
{
    const u64 *near = page_with(1), *other = page_with(2);

    map(PARTS_VA + 0xf000, near, RW);
    map(PARTS_VA, other, RW);
    CHECK("a", "rax", PARTS_VA + 0xf000, "mov $0, %%ah", 2, "AH set");
    CHECK("a", "rax", PARTS_VA + 0xf000, "xor %%edx, %%edx\nmov %%dl, %%ah", 2,
          "AH set from a register");
    CHECK("a", "rax", PARTS_VA + 0xf000, "xor %%edx, %%edx\nxchg %%dh, %%ah", 2, "AH exchanged");
    CHECK("a", "rax", PARTS_VA + 0xf000, "and $0xf, %%ah", 2, "AH masked");
    CHECK("a", "rax", PARTS_VA + 0xf000, "clc\nsetc %%ah", 2, "AH set by a condition");
    CHECK("a", "rax", PARTS_VA + 0xf000, "mov $0, %%ax", 2, "AX set");
    CHECK("a", "rax", PARTS_VA + 0xf000, "movabs $0x11000000000, %%rdx\nxchg %%rdx, %%rax", 2,
          "RAX exchanged");
}

/* The check may be moved up across additions to where flags are dead. */
static void check_moved(void)
{
    u64 first, second, at = TEST_VA + FAR_AWAY; /* as check_distance() left it */

    asm volatile(
        "add $-0x80000000, %2\nadd $-0x80000000, %2\nstc\nmov (%2), %0\nmov 8(%2), %1\nadc $0, %1"
        : "=&r"(first), "=&r"(second), "+r"(at)
        :
        : "memory", "cc");
    report(first == 1 && second == 2, "a base that comes from 4 GiB away");
}

/* Not canonical: #SS through a register of the stack, #GP through others. Twice each, as one window. */
static void check_canonical(void)
{
    TRY_LABEL("mov %0, %%rbp\n1: mov (%%rbp), %%rdx; mov 8(%%rbp), %%rcx", "b"(0x800000000000ul));
    report_trap(VEC_SS, 0, "SS: through RBP, not canonical");
    TRY_LABEL("mov %0, %%rbp\n1: mov %%rdx, (%%rbp); mov %%rcx, 8(%%rbp)", "b"(0x7fffffffffffffff));
    report_trap(VEC_SS, 0, "SS: a store");
    TRY_LABEL("mov %0, %%rbp\n1: movups (%%rbp), %%xmm0; movups 16(%%rbp), %%xmm0",
              "b"(0x7ffffffffff8ul));
    report_trap(VEC_SS, 0, "SS: bytes beyond the last canonical one");
    TRY("mov (%0), %%rdx; mov 8(%0), %%rcx", "b"(0x8000000000000000));
    report_trap(VEC_GP, 0, "GP: through RBX, not canonical");
    TRY("mov (%0), %%rdx; mov 8(%0), %%rcx", "b"(0x7fffffffffff8ul));
    report_trap(VEC_GP, 0, "GP: near the border");
}

/* Whether a thousand calls with that frame give its first and third word, 1, and `imm`, which is part of the code. */
static bool sums_up(u8 *code, const u64 *frame, u32 imm)
{
    /* stc; mov (%rdi), %rax; mov 16(%rdi), %rdx; adc %rdx, %rax; add $imm, %rax; ret */
    static const u8 sum[] = {0xf9, 0x48, 0x8b, 0x07, 0x48, 0x8b, 0x57, 0x10, 0x48,
                             0x11, 0xd0, 0x48, 0x05, 0,    0,    0,    0,    0xc3};
    bool good = true;

    memcpy(code, sum, sizeof(sum));
    memcpy(code + 13, &imm, 4);
    for (unsigned i = 0; i < 1000; i++) {
        u64 value;

        asm volatile("call *%1" : "=a"(value) : "r"(code), "D"(frame) : "rdx", "memory", "cc");
        good &= value == frame[0] + frame[2] + 1 + imm;
    }
    return good;
}

/* One check cannot do for both pages; what does instead must know, too, when the code is changed or the frame moves. */
static void check_straddling(void)
{
    u8 *code = page_alloc();
    const u64 *inside = (const u64 *)(STRADDLE_VA + 64),
              *across = (const u64 *)(STRADDLE_VA + PAGE - 16);

    map(STRADDLE_VA, page_with(1), RW);
    map(STRADDLE_VA + PAGE, page_with(100), RW);
    report(sums_up(code, across, 5), "a frame in two pages");
    report(sums_up(code, inside, 5), "then in one");
    report(sums_up(code, across, 6), "again in two, with other code");
    report(sums_up(code, across - 1, 7) && sums_up(code, across + 1, 8),
           "a word before, a word behind");
    map(STRADDLE_VA + PAGE, page_with(1000), RW);
    asm volatile("invlpg (%0)" : : "r"(STRADDLE_VA + PAGE) : "memory");
    report(sums_up(code, across, 8), "another second page");
}

void payload_main(void)
{
    check_straddling();
    check_distance();
    check_parts();
    check_moved();
    check_canonical();
}
