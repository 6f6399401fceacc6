/*
 * The page walk: linear address -> guest-physical, as the processor does it in every paging mode (none, 32-bit with
 * PSE-36, PAE, 4-level). SDM 3A, chapter 4. Sets accessed and dirty bits. Light code (no libc, no vector registers);
 * any thread.
 */
#ifndef X86_WALK_H
#define X86_WALK_H

#include "mem/gmem.h"

/* What paging depends on. */
struct walk_regs {
    u64 cr0, cr3, cr4, efer;
    u8 phys_bits;           /* MAXPHYADDR */
    const struct gmem *ram; /* where the tables are; entries outside it read as all ones */
};

enum walk_access {
    WALK_WRITE = 1,
    WALK_USER = 2, /* at CPL 3 */
    WALK_FETCH = 4,
    WALK_AC = 8,    /* explicit supervisor access with RFLAGS.AC set: SMAP does not apply */
    WALK_PEEK = 16, /* leave accessed and dirty bits alone (prefetching, debuggers) */
};

enum { PF_PRESENT = 1, PF_WRITE = 2, PF_USER = 4, PF_RSVD = 8, PF_FETCH = 16 }; /* #PF error code */

struct walk_page {
    u64 gpa;        /* of the address itself, not of its page */
    u64 page_bytes; /* 4 KiB, 2 MiB, 4 MiB or 1 GiB; 4 KiB without paging */
    bool
        writable; /* R/W is set on all levels. With CR0.WP = 0 a supervisor may write even when false */
    bool user; /* U/S is set on all levels */
    bool nx;
    bool
        dirty; /* D is set (also when this walk set it); without it a later write must walk again */
    bool global; /* G is set and CR4.PGE */
    const u64 *pte; /* 4 KiB page in a table of 8-byte entries: its entry, in host memory, else NULL */
    bool writable_above; /* then: R/W is set on the levels above it */
};

/* True: *ret_page is filled. False: *ret_error is the #PF error code. `access` combines enum walk_access. */
bool walk_page(const struct walk_regs *r, u64 lin, unsigned access, struct walk_page *ret_page,
               u32 *ret_error);
/* Physical RAM at gpa (len bytes within one slot) or NULL; the light twin of gmem_ptr(). */
void *walk_ram(const struct gmem *ram, u64 gpa, u64 len);

#endif
