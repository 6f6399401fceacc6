/*
 * Page walk, SDM 3A chapter 4 (4.3 32-bit, 4.4 PAE, 4.5 4-level, 4.6 access rights, 4.7 error codes, 4.8 A and D).
 *
 * Invariants:
 * 1. Tables belong to the guest and change under us: an entry is read once, and accessed/dirty bits are set by
 *    compare-exchange; if the entry has changed since, the whole walk starts again.
 * 2. Nothing is written unless the walk succeeds.
 * 3. Tables in absent pages come first; a bit that is set is a write that the dirty log hears of.
 * 4. In PAE mode the four PDPTEs are read from memory on each walk (as under nested paging), not kept in registers.
 * Light code: runs with the guest's vector registers live. Any thread.
 */
#include "x86/walk.h"
#include "mem/dirty.h"
#include "mem/lazy.h"
#include "x86/cpu.h"

#define PTE_P BIT(0)
#define PTE_W BIT(1)
#define PTE_U BIT(2)
#define PTE_A BIT(5)
#define PTE_D BIT(6)
#define PTE_PS BIT(7)
#define PTE_G BIT(8)
#define PTE_NX BIT(63)
#define ADDR_52 0x000ffffffffff000ull
#define WALK_RETRIES 64

/* One entry that was read on the way down. */
struct step {
    void *host; /* NULL: not RAM */
    u64 value;
    bool wide; /* 8 bytes, else 4 */
    bool readonly;
};

struct walk {
    const struct walk_regs *r;
    struct step step[4];
    unsigned nsteps;
    u64 rights;   /* AND of R/W and U/S, OR of NX */
    u64 reserved; /* bits that must be 0 in every entry */
};

static void *find_ram(const struct gmem *ram, u64 gpa, u64 len, bool *ret_readonly)
{
    for (unsigned i = 0; i < ram->nslots; i++) {
        const struct gmem_slot *s = &ram->slot[i];
        if (gpa >= s->gpa && range_fits(gpa - s->gpa, len, s->len)) {
            if (!lazy_need(ram, s->offset + (gpa - s->gpa)))
                return NULL;
            *ret_readonly = s->readonly;
            return s->hva + (gpa - s->gpa);
        }
    }
    return NULL;
}

void *walk_ram(const struct gmem *ram, u64 gpa, u64 len)
{
    bool readonly = false;
    void *p = find_ram(ram, gpa, len, &readonly);
    return readonly ? NULL : p;
}

static u64 read_entry(struct walk *w, u64 gpa, bool wide)
{
    struct step *s = &w->step[w->nsteps++];
    s->readonly = false;
    s->host = find_ram(w->r->ram, gpa, wide ? 8 : 4, &s->readonly);
    s->wide = wide;
    if (!s->host)
        s->value = wide ? ~0ull : ~0u;
    else if (wide)
        s->value = __atomic_load_n((u64 *)s->host, __ATOMIC_RELAXED);
    else
        s->value = __atomic_load_n((u32 *)s->host, __ATOMIC_RELAXED);
    return s->value;
}

static bool set_bits(const struct gmem *ram, const struct step *s, u64 bits)
{
    if ((s->value & bits) == bits || !s->host || s->readonly)
        return true;
    if (dirty_on(ram))
        dirty_note(ram, (u64)((u8 *)s->host - ram->base));
    if (s->wide) {
        u64 old = s->value;
        return __atomic_compare_exchange_n((u64 *)s->host, &old, old | bits, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    }
    u32 old = (u32)s->value;
    return __atomic_compare_exchange_n((u32 *)s->host, &old, old | (u32)bits, false,
                                       __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* Result of reading the tables: the leaf was found, or the bits of an error code (P or RSVD). */
enum { LEAF = -1 };

static u64 phys_mask(const struct walk_regs *r)
{
    return r->phys_bits >= 52 ? ADDR_52 : ADDR_52 & (BIT(r->phys_bits) - 1);
}

static void take_rights(struct walk *w, u64 e)
{
    w->rights = (w->rights & e & (PTE_W | PTE_U)) | ((w->rights | e) & PTE_NX);
}

static int walk_32(struct walk *w, u64 lin, struct walk_page *p)
{
    const struct walk_regs *r = w->r;
    u64 e = read_entry(w, (r->cr3 & 0xfffff000) + ((lin >> 22) & 0x3ff) * 4, false);
    if (!(e & PTE_P))
        return 0;
    take_rights(w, e);
    if ((e & PTE_PS) && (r->cr4 & CR4_PSE)) {
        unsigned high =
            MIN(r->phys_bits, 40) - 32; /* address bits 32 and up live in bits 13 and up */
        u64 extra = (e >> 13) & 0x1ff;
        if (extra >> high)
            return PF_PRESENT | PF_RSVD;
        p->page_bytes = 4 * MiB;
        p->gpa = (e & 0xffc00000) | extra << 32 | (lin & 0x3fffff);
        return LEAF;
    }
    e = read_entry(w, (e & 0xfffff000) + ((lin >> 12) & 0x3ff) * 4, false);
    if (!(e & PTE_P))
        return 0;
    take_rights(w, e);
    p->page_bytes = 4 * KiB;
    p->gpa = (e & 0xfffff000) | (lin & 0xfff);
    return LEAF;
}

/* The two lowest levels are the same in PAE and 4-level paging; `e` is the entry that points at the directory. */
static int walk_directory(struct walk *w, u64 table, u64 lin, struct walk_page *p)
{
    u64 mask = phys_mask(w->r);
    u64 e = read_entry(w, table + ((lin >> 21) & 0x1ff) * 8, true);
    if (!(e & PTE_P))
        return 0;
    if (e & w->reserved)
        return PF_PRESENT | PF_RSVD;
    take_rights(w, e);
    if (e & PTE_PS) {
        if (e & 0x1fe000)
            return PF_PRESENT | PF_RSVD;
        p->page_bytes = 2 * MiB;
        p->gpa = (e & mask & ~(2 * MiB - 1)) | (lin & (2 * MiB - 1));
        return LEAF;
    }
    e = read_entry(w, (e & mask) + ((lin >> 12) & 0x1ff) * 8, true);
    if (!(e & PTE_P))
        return 0;
    if (e & w->reserved)
        return PF_PRESENT | PF_RSVD;
    p->pte = w->step[w->nsteps - 1].host;
    p->writable_above = w->rights & PTE_W;
    take_rights(w, e);
    p->page_bytes = 4 * KiB;
    p->gpa = (e & mask) | (lin & 0xfff);
    return LEAF;
}

static int walk_pae(struct walk *w, u64 lin, struct walk_page *p)
{
    w->reserved |= 0x7ffull << 52;
    u64 e = read_entry(w, (w->r->cr3 & 0xffffffe0) + ((lin >> 30) & 3) * 8, true);
    w->nsteps = 0; /* PDPTEs have no accessed bit, nor rights */
    if (!(e & PTE_P))
        return 0;
    if (e & (w->reserved | PTE_NX | 0x1e6))
        return PF_PRESENT | PF_RSVD;
    return walk_directory(w, e & phys_mask(w->r), lin, p);
}

static int walk_4level(struct walk *w, u64 lin, struct walk_page *p)
{
    u64 mask = phys_mask(w->r);
    u64 e = read_entry(w, (w->r->cr3 & mask) + ((lin >> 39) & 0x1ff) * 8, true);
    if (!(e & PTE_P))
        return 0;
    if (e & (w->reserved | PTE_PS))
        return PF_PRESENT | PF_RSVD;
    take_rights(w, e);
    e = read_entry(w, (e & mask) + ((lin >> 30) & 0x1ff) * 8, true);
    if (!(e & PTE_P))
        return 0;
    if (e & w->reserved)
        return PF_PRESENT | PF_RSVD;
    take_rights(w, e);
    if (e & PTE_PS) {
        if (e & 0x3fffe000)
            return PF_PRESENT | PF_RSVD;
        p->page_bytes = GiB;
        p->gpa = (e & mask & ~(GiB - 1)) | (lin & (GiB - 1));
        return LEAF;
    }
    return walk_directory(w, e & mask, lin, p);
}

static bool allowed(const struct walk_regs *r, const struct walk_page *p, unsigned access)
{
    if (access & WALK_USER) {
        if (!p->user || ((access & WALK_WRITE) && !p->writable))
            return false;
    } else {
        if ((access & WALK_WRITE) && !p->writable && (r->cr0 & CR0_WP))
            return false;
        if (p->user && (access & WALK_FETCH) && (r->cr4 & CR4_SMEP))
            return false;
        if (p->user && !(access & (WALK_FETCH | WALK_AC)) && (r->cr4 & CR4_SMAP))
            return false;
    }
    return !((access & WALK_FETCH) && p->nx);
}

static bool no_paging(u64 lin, struct walk_page *p)
{
    p->gpa = lin & 0xffffffff;
    p->page_bytes = 4 * KiB;
    p->writable = p->user = p->dirty = true;
    p->nx = p->global = false;
    p->pte = NULL;
    return true;
}

/* Sets A on all entries used and D on the leaf. False: an entry changed under us. */
static bool mark_used(const struct walk *w, unsigned access)
{
    for (unsigned i = 0; i < w->nsteps; i++) {
        bool leaf = i + 1 == w->nsteps;
        if (!set_bits(w->r->ram, &w->step[i], PTE_A | (leaf && (access & WALK_WRITE) ? PTE_D : 0)))
            return false;
    }
    return true;
}

static bool walk_once(const struct walk_regs *r, u64 lin, unsigned access, struct walk_page *p,
                      int *ret_result)
{
    bool pae = r->cr4 & CR4_PAE, nx = pae && (r->efer & EFER_NXE);
    struct walk w;
    w.r = r;
    w.nsteps = 0;
    p->pte = NULL;
    p->writable_above = false;
    w.rights = PTE_W | PTE_U;
    w.reserved = (ADDR_52 & ~phys_mask(r)) | (nx ? 0 : PTE_NX);
    int result = r->efer & EFER_LMA ? walk_4level(&w, lin, p)
                 : pae              ? walk_pae(&w, lin, p)
                                    : walk_32(&w, lin, p);
    if (result == LEAF) {
        u64 leaf = w.step[w.nsteps - 1].value;
        p->writable = w.rights & PTE_W;
        p->user = w.rights & PTE_U;
        p->nx = pae && (w.rights & PTE_NX);
        p->global = (leaf & PTE_G) && (r->cr4 & CR4_PGE);
        p->dirty = leaf & PTE_D;
        if (!allowed(r, p, access))
            result = PF_PRESENT;
        else if (!(access & WALK_PEEK)) {
            p->dirty |= !!(access & WALK_WRITE);
            if (!mark_used(&w, access))
                return false;
        }
    }
    *ret_result = result;
    return true;
}

bool walk_page(const struct walk_regs *r, u64 lin, unsigned access, struct walk_page *ret_page,
               u32 *ret_error)
{
    struct walk_page p;
    int result = 0;
    if (!(r->cr0 & CR0_PG))
        return no_paging(lin, ret_page);
    /* Bounded: another processor that keeps rewriting its tables must not hold this one forever. */
    for (unsigned i = 0; i < WALK_RETRIES; i++)
        if (walk_once(r, lin, access, &p, &result))
            break;
    if (result == LEAF) {
        *ret_page = p;
        return true;
    }
    u32 error = (u32)result;
    if (access & WALK_WRITE)
        error |= PF_WRITE;
    if (access & WALK_USER)
        error |= PF_USER;
    bool nx = (r->cr4 & CR4_PAE) && (r->efer & EFER_NXE);
    if ((access & WALK_FETCH) && (nx || (r->cr4 & CR4_SMEP)))
        error |= PF_FETCH;
    *ret_error = error;
    return false;
}
