/*
 * Device memory: every access that an instruction makes is made once, in the right size and order. Long mode. Needs the
 * scratch device of tests/payload (ports.h); elsewhere it is skipped.
 */
#include "lib/map64.h"

struct scratch_page {
    char signature[4]; /* "TRAP" */
    u32 accesses;      /* since any of the first 16 bytes was written */
    u32 last_size;
    u32 reserved;
    u8 bytes[4080];
};

static volatile struct scratch_page *const dev = (volatile struct scratch_page *)0xd0000000;

static bool accessed(u32 times, u32 size)
{
    bool ok = dev->accesses == times && dev->last_size == size;

    if (!ok)
        say("# %u accesses, the last of %u bytes\n", dev->accesses, dev->last_size);
    dev->accesses = 0;
    return ok;
}

static void check_sizes(void)
{
    volatile u8 *p = dev->bytes;
    u64 value;

    *(volatile u64 *)p = 0x8877665544332211;
    report(accessed(1, 8), "8-byte store");
    value = *(volatile u64 *)p;
    report(accessed(1, 8) && value == 0x8877665544332211, "8-byte load");
    value = *(volatile u32 *)(p + 4);
    report(accessed(1, 4) && value == 0x88776655, "4-byte load");
    *(volatile u16 *)(p + 2) = 0xabcd;
    report(accessed(1, 2), "2-byte store");
    p[1] = 0x99;
    report(accessed(1, 1) && *(volatile u64 *)p == 0x88776655abcd9911, "1-byte store");
    dev->accesses = 0;
    asm volatile("movzbl (%1), %k0" : "=r"(value) : "r"(p + 1));
    report(accessed(1, 1) && value == 0x99, "movzx");
    asm volatile("movsbq (%1), %0" : "=r"(value) : "r"(p + 1));
    report(accessed(1, 1) && value == 0xffffffffffffff99, "movsx");
    asm volatile("movbe (%1), %k0" : "=r"(value) : "r"(p + 4));
    report(accessed(1, 4) && value == 0x55667788, "movbe");
}

static void check_modify(void)
{
    volatile u8 *p = dev->bytes;
    u64 value = 5;

    *(volatile u32 *)p = 100;
    dev->accesses = 0;
    asm volatile("addl %k1, (%0)" : : "r"(p), "r"(value) : "memory", "cc");
    report(accessed(2, 4) && *(volatile u32 *)p == 105, "add to memory: a load and a store");
    dev->accesses = 0;
    asm volatile("lock xaddl %k1, (%0)" : : "r"(p), "r"(value) : "memory", "cc");
    report(*(volatile u32 *)p == 110, "lock xadd");
    dev->accesses = 0;
    asm volatile("cmpl $110, (%1); sete %b0" : "+q"(value) : "r"(p) : "cc");
    report(accessed(1, 4) && (value & 1), "cmp: a load");
    asm volatile("xchg %k0, (%1)" : "+r"(value) : "r"(p) : "memory");
    report((u32)value == 110, "xchg");
    dev->accesses = 0;
    asm volatile("push (%0); pop 8(%0)" : : "r"(p) : "memory");
    report(dev->accesses == 2 && dev->last_size == 8, "push from and pop to device memory");
    dev->accesses = 0;
    asm volatile("testl $0, (%0); btl $3, (%0)" : : "r"(p) : "cc");
    report(accessed(2, 4), "test and bt: loads");
}

static void check_string(void)
{
    static u8 text[64] = "the quick brown fox jumps over the lazy dog", back[64];
    const void *s = text;
    volatile void *d = dev->bytes + 16;
    word n = 8;

    dev->accesses = 0;
    asm volatile("rep movsl" : "+S"(s), "+D"(d), "+c"(n) : : "memory");
    report(accessed(8, 4), "rep movsl to device memory");
    s = (const void *)(dev->bytes + 16);
    d = back;
    n = 4;
    asm volatile("rep movsq" : "+S"(s), "+D"(d), "+c"(n) : : "memory");
    report(accessed(4, 8) && !memcmp(text, back, 32), "rep movsq from it");
    d = dev->bytes;
    n = 5;
    asm volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(0x55) : "memory");
    report(accessed(5, 1) && dev->bytes[4] == 0x55, "rep stosb");
}

static void check_vector(void)
{
    static u8 in[32] __attribute__((aligned(32))) = "0123456789abcdefghijklmnopqrstu",
                     out[32] __attribute__((aligned(32)));

    asm volatile("movups (%0), %%xmm0; movups %%xmm0, (%1)"
                 :
                 : "r"(in), "r"(dev->bytes)
                 : "memory");
    asm volatile("movups (%0), %%xmm1; movups %%xmm1, (%1)"
                 :
                 : "r"(dev->bytes), "r"(out)
                 : "memory");
    report(!memcmp(in, out, 16), "SSE store and load");
    asm volatile("movq (%0), %%xmm2; movq %%xmm2, (%1)"
                 :
                 : "r"(dev->bytes + 8), "r"(out)
                 : "memory");
    report(!memcmp(in + 8, out, 8), "movq");
    asm volatile("pxor %%xmm3, %%xmm3; paddb (%0), %%xmm3; movups %%xmm3, (%1)"
                 :
                 : "r"(dev->bytes), "r"(out)
                 : "memory");
    report(!memcmp(in, out, 16), "an SSE operand in device memory");
    asm volatile("fldl (%0); fstpl 32(%0)" : : "r"(dev->bytes) : "memory");
    report(!memcmp((void *)(dev->bytes + 32), in, 8), "x87");
}

static void check_odd(void)
{
    volatile u8 *p = dev->bytes + 101;

    *(volatile u32 *)p = 0x01020304;
    report(*(volatile u32 *)p == 0x01020304 && p[3] == 1, "misaligned within the device");
    map(TEST_VA, page_alloc(), PTE_P | PTE_W);
    map(TEST_VA + PAGE, (void *)dev, PTE_P | PTE_W);
    *(volatile u64 *)(TEST_VA + PAGE - 4) = 0x1122334455667788;
    report(*(volatile u32 *)(TEST_VA + PAGE - 4) == 0x55667788,
           "across memory and device: memory's half");
    report(*(volatile u32 *)0xd8000000 == ~0u, "where nothing is, ones are read");
    *(volatile u32 *)0xd8000000 = 1;
    report(true, "and stores are dropped");
    asm volatile("in %%dx, %%eax" : : "d"(0x1234) : "eax");
    report(inb(0x1234) == 0xff, "ports, too");
}

void payload_main(void)
{
    if (memcmp((const void *)dev->signature, "TRAP", 4)) {
        report_skip("device memory", "there is no scratch device");
        return;
    }
    dev->accesses = 0;
    check_sizes();
    check_modify();
    check_string();
    check_vector();
    check_odd();
}
