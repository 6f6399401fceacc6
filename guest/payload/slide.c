/* Code that runs at several addresses: programs and libraries that a kernel places at random. A translator may keep one
 * translation for all; the code must see its own addresses nevertheless. Long mode, ring 3. */
#include "lib/map64.h"

#define PAGES 3
#define RWU (PTE_P | PTE_W | PTE_U)
#define HERE 0x555500000000ul
#define THERE 0x7f1234567000ul
#define LIBRARY 0x7f0000203000ul

/* Three pages: code, code, data. Fills in struct seen, which rdi points to. An instruction lies in both code pages. */
asm(".pushsection .data\n.balign 4096\nslide_image:\n"
    "lea slide_image(%rip), %rax\nmov %rax, (%rdi)\n"
    "mov slide_value(%rip), %rax\nmov %rax, 8(%rdi)\n"
    "call slide_function\nmov %rax, 16(%rdi)\n"
    "lea slide_function(%rip), %rdx\ncall *%rdx\nmov %rax, 24(%rdi)\n"
    "mov 32(%rdi), %rdx\ncall *%rdx\nmov %rax, 40(%rdi)\n"
    "decq 48(%rdi)\njnz slide_image\n"
    "call slide_straddling\nmov %rax, 56(%rdi)\nret\n"
    ".balign 4096, 0x90\n"
    "slide_page1:\n.long 0x04030201\n.byte 5\nlea slide_image(%rip), %rdx\nsub %rdx, %rax\nret\n"
    "slide_function:\nlea slide_function(%rip), %rax\nadd $0, %rax\nret\n"
    ".balign 4096\nslide_value:\n.quad 0x1122334455667788\n.balign 4096\n"
    ".set slide_straddling, slide_page1 - 5\n.popsection");
extern u8 slide_image[], slide_page1[], slide_function[], slide_straddling[];

static struct seen {
    word base, value, direct, indirect, callee, called, rounds, straddled;
} seen;

#define FUNCTION ((word)(slide_function - slide_image))
#define ADDEND ((word)(slide_function - slide_image) + 10) /* the immediate of its ADD */
#define STRADDLING ((word)(slide_straddling - slide_image))
#define STRADDLED 0x0504030201aabbccul

static u8 *pages[PAGES];

static void make_pages(void)
{
    for (unsigned i = 0; i < PAGES; i++) {
        pages[i] = page_alloc();
        memcpy(pages[i], slide_image + i * PAGE, PAGE);
    }
    /* movabs $STRADDLED, %rax: five bytes at the end of the first page, five in the second */
    memcpy(pages[0] + PAGE - 5, "\x48\xb8\xcc\xbb\xaa", 5);
}

static void map_at(word va, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        map(va + i * PAGE, pages[i], RWU);
        invlpg((void *)(va + i * PAGE));
    }
}

static void run_at(word va, word callee)
{
    memset(&seen, 0, sizeof(seen));
    seen.callee = callee;
    seen.rounds = 5;
    user_call((void (*)(word))(va - USER_ALIAS), (word)user_ptr(&seen));
}

static bool right(word va, word callee, word added)
{
    run_at(va, callee);
    return trap.vector == VEC_USER_EXIT && seen.base == va && seen.value == 0x1122334455667788 &&
           seen.direct == va + FUNCTION + added && seen.indirect == va + FUNCTION + added &&
           seen.called == callee + added && seen.straddled == STRADDLED - va;
}

static void check_places(void)
{
    map_at(HERE, PAGES);
    map_at(THERE, PAGES);
    map_at(LIBRARY, PAGES);
    report(right(HERE, HERE + FUNCTION, 0), "at its first address");
    report(right(THERE, THERE + FUNCTION, 0), "at another");
    report(right(HERE, HERE + FUNCTION, 0), "at the first again");
    report(right(HERE, LIBRARY + FUNCTION, 0), "calling itself elsewhere");
    report(right(THERE, LIBRARY + FUNCTION, 0), "from another distance");
    report(right(LIBRARY, THERE + FUNCTION, 0), "and back");
    report(right(USER_ALIAS + (word)pages[0], HERE + FUNCTION, 0) || pages[1] != pages[0] + PAGE,
           "where it lies in memory");
}

/* The second code page is another one: a copy whose function adds something. */
static void check_remapping(void)
{
    u8 *old = pages[1], *other = page_alloc();

    memcpy(other, old, PAGE);
    other[ADDEND - PAGE] = 7;
    pages[1] = other;
    map_at(THERE, PAGES);
    report(right(THERE, THERE + FUNCTION, 7), "with another second page");
    report(right(HERE, HERE + FUNCTION, 0), "which is not there at the first address");
    pages[1] = old;
    map_at(THERE, PAGES);
    report(right(THERE, THERE + FUNCTION, 0), "with the old second page");
}

static void check_rewriting(void)
{
    pages[1][ADDEND - PAGE] = 9;
    report(right(HERE, LIBRARY + FUNCTION, 9), "rewritten");
    report(right(THERE, HERE + FUNCTION, 9), "rewritten, at another address");
    pages[1][ADDEND - PAGE] = 0;
}

static void check_faults(void)
{
    map(THERE + 2 * PAGE, NULL, 0);
    invlpg((void *)(THERE + 2 * PAGE));
    run_at(THERE, 0);
    report(trap.vector == VEC_PF && trap.cr2 == THERE + 2 * PAGE && trap.ip == THERE + 10,
           "a fault of an operand relative to RIP");
    map_at(THERE, PAGES);
    map(THERE + PAGE, NULL, 0);
    invlpg((void *)(THERE + PAGE));
    run_at(THERE, 0);
    report(trap.vector == VEC_PF && trap.cr2 == THERE + FUNCTION && trap.ip == THERE + FUNCTION,
           "a fault of the fetch from the next page");
    report(right(HERE, HERE + FUNCTION, 0), "none at the first address");
    map_at(THERE, PAGES);
    run_at(HERE, (HERE + FUNCTION) | 1ul << 48);
    report(trap.vector == VEC_GP, "an address with wrong upper bits");
    run_at(HERE, (HERE + FUNCTION) | 1ul << 63);
    report(trap.vector == VEC_GP, "an address with a wrong sign");
    run_at(HERE, (HERE + FUNCTION) | 0xffff800000000000);
    report(trap.vector == VEC_PF, "its image in the upper half");
}

void payload_main(void)
{
    make_pages();
    check_places();
    check_remapping();
    check_rewriting();
    check_faults();
    check_places();
}
