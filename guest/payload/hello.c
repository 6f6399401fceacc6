/* The smallest payload: ports, a few instructions, memory. Built for 32 and for 64 bits. */
#include "payload.h"

static void check_arithmetic(void)
{
    u32 quotient, remainder, carry;
    u64 wide = 0x123456789abcdef0ull;

    asm("div %4" : "=a"(quotient), "=d"(remainder) : "a"(0x12345678u), "d"(0x9u), "r"(0x1000u));
    report(quotient == 0x00912345 && remainder == 0x678, "div");
    asm("add %2, %0; adc $0, %1" : "+r"(quotient), "=r"(carry) : "r"(0xffffffffu), "1"(0u) : "cc");
    report(quotient == 0x00912344 && carry == 1, "add, adc");
    report((wide >> 12) == 0x123456789abcdull && wide * 3 == 0x369d0369d0369cd0ull,
           "64-bit arithmetic");
}

static void check_memory(void)
{
    u32 *page = page_alloc(), *end = page;
    u32 count = 1024;

    for (u32 i = 0; i < 1024; i++)
        page[i] = i * i;
    report(page[1023] == 1023 * 1023, "stores and loads");
    asm volatile("rep stosl" : "+D"(end), "+c"(count) : "a"(0x5a5a5a5a) : "memory");
    report(end == page + 1024 && count == 0 && page[0] == 0x5a5a5a5a && page[1023] == 0x5a5a5a5a,
           "rep stos");
    TRY("ud2");
    report_trap(VEC_UD, 0, "ud2 traps");
}

void payload_main(void)
{
    report(true, "a payload runs");
    report(sizeof(word) == 4 || (rdmsr(0xc0000080) & EFER_LMA),
           "the mode is the one it was built for");
    check_arithmetic();
    check_memory();
}
