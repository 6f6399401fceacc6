/* Several accesses through one base register, which a translator may check together: whatever happens to the register between
 * them, each must reach its own page. Long mode. */
#include "lib/map64.h"

#define RW (PTE_P | PTE_W)
#define FAR_AWAY (4ul << 30)
#define PARTS_VA (TEST_VA + (1ul << 36))

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

void payload_main(void)
{
    check_distance();
    check_parts();
    check_moved();
    check_canonical();
}
