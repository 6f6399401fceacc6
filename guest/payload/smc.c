/* Self-modifying and cross-page code: what is written is what runs next (SDM 3A 8.1.3, 11.6), without any flush in the program
 * beyond a jump. Long mode. */
#include "lib/map64.h"

#define RW (PTE_P | PTE_W)

typedef u32 code_fn(void);

static const u8 mov_ret[] = {0xb8, 0, 0, 0, 0, 0xc3}; /* mov $imm, %eax; ret */

static void emit(u8 *at, u32 imm)
{
    memcpy(at, mov_ret, sizeof(mov_ret));
    *(u32 *)(at + 1) = imm;
}

static u32 run(void *code)
{
    u32 v;

    asm volatile("call *%1" : "=a"(v) : "r"(code) : "memory", "cc");
    return v;
}

static void check_rewrite(void)
{
    u8 *code = page_alloc();
    bool ok = true;

    for (u32 i = 0; i < 1000; i++) {
        emit(code, i * 3);
        ok &= run(code) == i * 3;
    }
    report(ok, "a function rewritten 1000 times");
    ok = true;
    emit(code, 0);
    for (u32 i = 0; i < 1000; i++) {
        *(volatile u32 *)(code + 1) = i; /* nothing but the immediate */
        ok &= run(code) == i;
    }
    report(ok, "an immediate rewritten 1000 times");
    ok = true;
    for (u32 i = 0; i < 300; i++) {
        code[1] = (u8)i;
        ok &= (run(code) & 0xff) == (i & 0xff);
    }
    report(ok, "one byte of it");
    for (u32 i = 0; i < 64; i++)
        emit(code + 64 * i, i);
    for (u32 i = 0; i < 64; i++)
        ok &= run(code + 64 * i) == i;
    emit(code + 64 * 5, 555);
    report(ok && run(code + 64 * 5) == 555 && run(code + 64 * 6) == 6 && run(code + 64 * 4) == 4,
           "one of 64 on a page");
}

static void check_string_write(void)
{
    static u8 image[64];
    u8 *code = page_alloc(), *to = code;
    const u8 *from = image;
    word count = sizeof(image);

    emit(code, 1);
    run(code);
    emit(image, 2);
    asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(count) : : "memory");
    report(run(code) == 2, "code written by rep movsb");
    emit(image, 3);
    asm volatile("movups (%0), %%xmm0; movups %%xmm0, (%1)" : : "r"(image), "r"(code) : "memory");
    report(run(code) == 3, "code written by an SSE store");
    asm volatile("lock addl $1, (%0)" : : "r"(code + 1) : "memory");
    report(run(code) == 4, "code changed by a locked addition");
    asm volatile(
        "push (%0); mov %%rsp, %%rax; lea 8(%0), %%rsp; push (%1); mov %%rax, %%rsp; pop %%rax"
        :
        : "r"(code), "r"(image)
        : "rax", "memory");
    report(run(code) == 3, "code written by push");
}

/* The write hits the instruction right behind it, in the same straight line of code. */
static void check_next_instruction(void)
{
    static const u8 line[] = {
        0xc7, 0x05, 1, 0, 0, 0, 0x78, 0x56, 0x34, 0x12, /* movl $0x12345678, 1(%rip) */
        0xb8, 0,    0, 0, 0,                            /* mov $0, %eax */
        0xc3,
    };
    u8 *code = page_alloc();
    bool ok = true;

    for (int i = 0; i < 10; i++) {
        memcpy(code, line, sizeof(line));
        ok &= run(code) == 0x12345678;
    }
    report(ok, "a store changes the next instruction");
    /* A loop that counts by changing its own immediate: inc of the byte, five times. */
    static const u8 loop[] = {
        0xb9, 5,    0,    0,    0,          /* mov $5, %ecx */
        0xb8, 0,    0,    0,    0,          /* 5: mov $0, %eax */
        0xfe, 0x05, 0xf6, 0xff, 0xff, 0xff, /* incb -10(%rip): the immediate's first byte */
        0xff, 0xc9,                         /* dec %ecx */
        0x75, 0xf1,                         /* jnz 5 */
        0xc3,
    };
    memcpy(code, loop, sizeof(loop));
    report(run(code) == 4 && code[6] == 5, "a loop that changes its own body");
}

static void check_aliases(void)
{
    u8 *page = page_alloc(), *other = page_alloc();
    u64 *pte = map(TEST_VA, page, RW);

    emit(page, 10);
    report(run((void *)TEST_VA) == 10, "code through a second mapping");
    emit(page, 11);
    report(run((void *)TEST_VA) == 11, "changed through the first");
    emit(other, 12);
    *pte = (word)other | RW;
    invlpg((void *)TEST_VA);
    report(run((void *)TEST_VA) == 12, "another page at the same address");
    emit(page, 13);
    *pte = (word)page | RW;
    invlpg((void *)TEST_VA);
    report(run((void *)TEST_VA) == 13, "and back, changed meanwhile");
    *pte = 0;
    invlpg((void *)TEST_VA);
}

static void check_across_pages(void)
{
    u8 *a = page_alloc(), *gap = page_alloc(), *b = page_alloc(), *c = page_alloc();
    u8 *code = (u8 *)(TEST_VA + PAGE - 3);
    u64 *second;

    (void)gap;
    map(TEST_VA, a, RW);
    second = map(TEST_VA + PAGE, b, RW);
    emit(code, 0x11223344);
    report(run(code) == 0x11223344, "an instruction across two pages");
    b[1] = 0x55;
    report(run(code) == 0x55223344, "its second half changed");
    memcpy(c, b, PAGE);
    c[1] = 0x66;
    *second = (word)c | RW;
    invlpg(code + 8);
    report(run(code) == 0x66223344, "its second half on another page");
    b[1] = 0x77;
    report(run(code) == 0x66223344, "the old second half does not matter any more");
    /* A chain of jumps over pages, one of which is then replaced. */
    memcpy((void *)TEST_VA, "\xe9\xfb\x0f\x00\x00", 5); /* jmp to TEST_VA + PAGE */
    emit((u8 *)TEST_VA + PAGE, 7);
    report(run((void *)TEST_VA) == 7, "a jump to another page");
    emit(b, 8);
    *second = (word)b | RW;
    invlpg((void *)(TEST_VA + PAGE));
    report(run((void *)TEST_VA) == 8, "the page it jumps to replaced");
}

/* Data next to code: stores to the page must not disturb it, and be seen. */
static void check_mixed(void)
{
    u8 *page = page_alloc();
    volatile u32 *data = (volatile u32 *)(page + 2048);
    bool ok = true;

    emit(page, 9);
    for (u32 i = 0; i < 1000; i++) {
        *data = i;
        ok &= run(page) == 9 && *data == i;
    }
    report(ok, "data on a page of code");
}

void payload_main(void)
{
    check_rewrite();
    check_string_write();
    check_next_instruction();
    check_aliases();
    check_across_pages();
    check_mixed();
}
