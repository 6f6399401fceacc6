/* Page tables of a long-mode payload, changed by hand. Nothing here flushes a TLB: that is what tests are about. */
#ifndef PAYLOAD_MAP64_H
#define PAYLOAD_MAP64_H

#include "payload.h"

#define PTE_P 1ul
#define PTE_W 2ul
#define PTE_U 4ul
#define PTE_A 0x20ul
#define PTE_D 0x40ul
#define PTE_PS 0x80ul
#define PTE_G 0x100ul
#define PTE_NX (1ul << 63)
#define PTE_ADDR 0xffffffffff000ul
#define PAGE 4096ul
#define PAGE_2M (2ul << 20)
#define PAGE_1G (1ul << 30)

#define PF_P 1
#define PF_W 2
#define PF_U 4
#define PF_RSVD 8
#define PF_I 16

/* An address range that is empty at the start. */
#define TEST_VA 0x10000000000ul

extern u64 page_tables[512]; /* the PML4 */

/* The entry for va at `level` (1: page table, 2: 2 MiB, 3: 1 GiB, 4: PML4) in the tables under pml4, which are made on the
 * way, open to everything. */
u64 *entry_of(u64 *pml4, word va, unsigned level);
/* Maps [va, +4 KiB) to pa in the running tables; flags without the address. Returns the entry. */
u64 *map(word va, const void *pa, u64 flags);

#endif
