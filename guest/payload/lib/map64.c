/* See map64.h. Tables are identity mapped, so that an entry's address is where to look. */
#include "map64.h"

u64 *entry_of(u64 *pml4, word va, unsigned level)
{
    u64 *table = pml4;

    for (unsigned at = 4; at > level; at--) {
        u64 *e = &table[va >> (12 + 9 * (at - 1)) & 511];

        if (!(*e & PTE_P))
            *e = (word)page_alloc() | PTE_P | PTE_W | PTE_U;
        table = (u64 *)(*e & PTE_ADDR);
    }
    return &table[va >> (12 + 9 * (level - 1)) & 511];
}

u64 *map(word va, const void *pa, u64 flags)
{
    u64 *e = entry_of(page_tables, va, 1);

    *e = (word)pa | flags;
    return e;
}
