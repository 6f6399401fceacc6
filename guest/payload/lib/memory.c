/* Pages handed out from 4 MiB up, and what the compiler expects to find. */
#include "payload.h"

#define POOL_BASE 0x400000ul
#define POOL_LIMIT 0x2000000ul
#define PAGE 4096ul

static word pool_next = POOL_BASE;

void *pages_alloc(unsigned pages)
{
    void *p = (void *)pool_next;

    pool_next += pages * PAGE;
    if (pool_next > POOL_LIMIT) {
        report(false, "enough memory for the payload");
        finish();
    }
    return memset(p, 0, pages * PAGE);
}

void *page_alloc(void)
{
    return pages_alloc(1);
}

void *memset(void *dst, int c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((volatile u8 *)dst)[i] = (u8)c;
    return dst;
}

void *memcpy(void *dst, const void *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((volatile u8 *)dst)[i] = ((const u8 *)src)[i];
    return dst;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const volatile u8 *x = a, *y = b;

    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i])
            return x[i] - y[i];
    return 0;
}
