/*
 * Address translation of the guest, cached in the flat tables that generated code reads. Light code, vCPU thread.
 *
 * Invariants:
 *  1. A data table entry is 0 or (host address - linear address) of a page of guest RAM that the table's mode may
 *     read. It leads into bt->gview only when the mode may also write the page and the guest's dirty bit is set,
 *     else into bt->roview, where a store faults. While there is a dirty log, the page must also be noted in it; the
 *     collector drops all such entries when it takes the notes (mmu_forget()). No entry leads to an absent page.
 *  2. An exec table entry is 0 or EXEC_VALID | page number of a page the table's mode may fetch from.
 *  3. Every page of a table that holds a non-zero entry is in touched[].
 *  4. Entries are a TLB: they may outlive changes of the guest's page tables until the guest flushes (SDM 3A 4.10).
 */
#include "accel/bt/vcpu.h"
#include "accel/bt/cache.h"
#include "mem/dirty.h"
#include "mem/lazy.h"
#include "x86/walk.h"

static inline u64 page_index(u64 lin)
{
    return (lin & PAGE_INDEX_MASK) >> 12;
}

static inline u64 *data_entry(const struct table *t, u64 lin)
{
    return (u64 *)t->base + page_index(lin);
}

static inline u32 *exec_entry(struct table *t, u64 lin)
{
    return (u32 *)(t->base + EXEC_TABLE) + page_index(lin);
}

static inline void zero_words(void *p, u64 nwords)
{
    __asm__ volatile("rep stosq" : "+D"(p), "+c"(nwords) : "a"(0ull) : "memory");
}

static inline u32 region_of(u64 lin)
{
    return (lin & PAGE_INDEX_MASK) >> 21;
}

static inline bool region_touched(const struct table *t, u32 region)
{
    return t->bits[region >> 3] & (1u << (region & 7));
}

static void region_zero(struct table *t, u32 region)
{
    zero_words((u64 *)t->base + (u64)region * 512, 512);
    zero_words((u32 *)(t->base + EXEC_TABLE) + (u64)region * 512, 256);
}

/* Empties a table; with keep_global, regions that hold only global pages stay. */
static void table_flush(struct table *t, bool keep_global)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < t->ntouched; i++) {
        struct touched *r = &t->touched[i];

        if (keep_global && !r->local) {
            t->touched[kept++] = *r;
            continue;
        }
        region_zero(t, r->index);
        t->bits[r->index >> 3] &= ~(1u << (r->index & 7));
    }
    t->ntouched = kept;
}

static struct touched *region_find(struct table *t, u32 region)
{
    for (unsigned i = 0; i < t->ntouched; i++)
        if (t->touched[i].index == region)
            return &t->touched[i];
    return NULL;
}

static struct touched *region_touch(struct table *t, u64 lin)
{
    u32 region = region_of(lin);

    if (region_touched(t, region))
        return region_find(t, region);
    if (t->ntouched == t->max_touched)
        table_flush(t, false);
    t->bits[region >> 3] |= 1u << (region & 7);
    t->touched[t->ntouched] = (struct touched){.index = region};
    return &t->touched[t->ntouched++];
}

static void region_note(struct touched *r, const struct walk_page *p)
{
    r->local |= !p->global;
    r->large |= p->page_bytes > 4096;
    r->huge |= p->page_bytes > 4 * MiB;
}

static struct table *table_for(struct cpu *c, enum mem_as as)
{
    struct slot *s = c->vcpu->cur;

    if (as == AS_SYSTEM)
        return &s->table[(c->cr4 & CR4_SMAP) ? TABLE_KERNEL : TABLE_KERNEL_AC];
    if (c->mode & MODE_USER)
        return &s->table[TABLE_USER];
    return &s->table[(c->mode & MODE_AC) ? TABLE_KERNEL_AC : TABLE_KERNEL];
}

void mmu_select(struct cpu *c)
{
    u64 base = (u64)table_for(c, AS_CPL)->base;

    __asm__ volatile("wrgsbase %0" : : "r"(base));
}

static inline struct walk_regs regs_of(const struct cpu *c)
{
    return (struct walk_regs){.cr0 = c->cr0, .cr3 = c->cr3, .cr4 = c->cr4, .efer = c->msr.efer,
                              .phys_bits = c->model->phys_bits, .ram = c->m->ram};
}

static unsigned access_of(const struct cpu *c, enum mem_as as)
{
    if (as == AS_SYSTEM)
        return 0;
    if (c->mode & MODE_USER)
        return WALK_USER;
    return (c->rflags & FL_AC) ? WALK_AC : 0;
}

/* What to add to `lin` to reach its page, at `offset` in RAM's file, in one of the guest's views. */
static u64 view_delta(const struct cpu *c, u64 lin, u64 offset, bool writable)
{
    const u8 *view = writable ? c->vcpu->bt->gview : c->vcpu->bt->roview;

    return (u64)view + offset - (lin & ~0xfffull);
}

/* The same for a page that nobody needs yet. 0 when it is not RAM, or nothing may lead there before it has come (lazy.h) or
 * its first write is noted (dirty.h). */
static u64 page_delta(const struct cpu *c, u64 lin, u64 gpa, bool writable)
{
    const struct gmem *ram = c->m->ram;
    const struct gmem_slot *s = ram_slot(ram, gpa & ~0xfffull);

    if (!s)
        return 0;
    u64 offset = s->offset + (gpa & ~0xfffull) - s->gpa;
    writable = writable && !s->readonly;
    if (lazy_absent(ram, offset) || (writable && dirty_on(ram) && !dirty_noted(ram, offset >> 12)))
        return 0;
    return view_delta(c, lin, offset, writable);
}

/* The same for an access that comes now: the page is made present, and noted if it is written. 0: it is not RAM.
 * *ret_once: the result may not go into a table.
 * A log may begin meanwhile, so that is looked at once: who begins it waits for us to be outside, and drops what we enter. */
static u64 delta_now(struct cpu *c, u64 lin, u64 gpa, bool writable, bool write, bool *ret_once)
{
    const struct gmem *ram = c->m->ram;
    const struct gmem_slot *s = ram_slot(ram, gpa & ~0xfffull);
    bool noting = dirty_on(ram);

    *ret_once = false;
    if (!s)
        return 0;
    u64 offset = s->offset + (gpa & ~0xfffull) - s->gpa;
    if (s->readonly)
        return view_delta(c, lin, offset, false);
    if (!lazy_need(ram, offset))
        return 0;
    if (ram->absent)
        __atomic_store_n(&c->vcpu->bt->reached, offset >> 12, __ATOMIC_RELAXED);
    if (!writable || !noting || dirty_noted(ram, offset >> 12))
        return view_delta(c, lin, offset, writable);
    enum heat_guess guess = HEAT_NOTE;
    if (write)
        heat_store(c->vcpu->bt, offset >> 12);
    else
        guess = heat_load(c->vcpu->bt, offset >> 12);
    if (guess == HEAT_NOTE)
        dirty_note(ram, offset);
    *ret_once = guess == HEAT_ONCE;
    return view_delta(c, lin, offset, guess == HEAT_NOTE);
}

/* How many neighbours are filled in along with a page. */
#define AROUND_PAGES 16
/* Of a run of stores: from how many pages on it is one, and how many are noted ahead of it at most. */
#define AHEAD_MIN 4
#define AHEAD_MAX 64

/* The rest of a large page's entries in its part of the table: the same distance holds for all. */
static void fill_large(struct cpu *c, struct table *t, u64 lin, const struct walk_page *p, u64 delta)
{
    u64 first = lin & ~(u64)(2 * MiB - 1), gpa = p->gpa - (lin - first);
    const struct gmem_slot *s = ram_slot(c->m->ram, gpa);

    if (!s || s->readonly || gpa + 2 * MiB > s->gpa + s->len)
        return;
    u64 *e = data_entry(t, first);
    for (unsigned i = 0; i < 512; i++)
        e[i] = delta;
}

/* The same page by page, for a few neighbours, while pages may be absent or wait to be noted. */
static void fill_large_watched(struct cpu *c, struct table *t, u64 lin, const struct walk_page *p, bool writable)
{
    u64 first = lin & ~(AROUND_PAGES * 4096ull - 1), gpa = p->gpa - (lin - first);
    u64 *e = data_entry(t, first);

    for (unsigned i = 0; i < AROUND_PAGES; i++)
        if (!e[i])
            e[i] = page_delta(c, first + i * 4096ull, gpa + i * 4096ull, writable);
}

#define PTE_P BIT(0)
#define PTE_W BIT(1)
#define PTE_U BIT(2)
#define PTE_A BIT(5)
#define PTE_D BIT(6)
#define PTE_G BIT(8)

/* The page `by` pages behind that of lin, in the same 2 MiB. Of a small one only if its page-table entry has been used
 * already (accessed; dirty, to be written) and is of the same kind: a processor may have it in its TLB, so we may. */
static bool neighbour(const struct cpu *c, const struct walk_page *p, int by, bool writable, u64 *ret_gpa, bool *ret_writable)
{
    u64 mask = (BIT(c->model->phys_bits) - 1) & ~0xfffull;

    if (!p->pte) {
        *ret_gpa = (p->gpa & ~0xfffull) + (u64)((s64)by * 4096);
        *ret_writable = writable;
        return p->page_bytes >= 2 * MiB;
    }
    u64 own = *p->pte, v = __atomic_load_n(p->pte + by, __ATOMIC_RELAXED);
    if ((v & (PTE_P | PTE_A)) != (PTE_P | PTE_A) || ((v ^ own) & (PTE_U | PTE_G)))
        return false;
    if (v & ~mask & 0x000ffffffffff000ull)
        return false; /* reserved bits: let the walk complain */
    *ret_gpa = v & mask;
    *ret_writable = (v & PTE_D) && (v & PTE_W) && p->writable_above;
    return true;
}

static void fill_around(struct cpu *c, struct table *t, struct touched *r, u64 lin, const struct walk_page *p)
{
    u64 first = lin & ~(AROUND_PAGES * 4096ull - 1);
    int own = (int)((lin - first) >> 12);
    u64 *e = data_entry(t, first);

    for (int i = 0; i < AROUND_PAGES; i++) {
        u64 gpa;
        bool writable;

        if (e[i] || !neighbour(c, p, i - own, false, &gpa, &writable))
            continue;
        e[i] = page_delta(c, first + (u64)i * 4096, gpa, writable);
        r->stores |= writable;
    }
}

static bool leads_to_gview(const struct bt *bt, const struct table *t, u64 lin)
{
    return region_touched(t, region_of(lin)) && *data_entry(t, lin) + lin - (u64)bt->gview < bt->view_bytes;
}

/* A store is to be noted whose page lies behind pages that are noted already: a program that goes through memory. As many
 * pages in front of it are noted, too, so that most of its pages cost it nothing. What it does not write after all, fewer
 * pages than it has written, is copied for nothing. */
static void note_ahead(struct cpu *c, struct table *t, u64 lin, const struct walk_page *p)
{
    const struct gmem *ram = c->m->ram;
    u64 *e = data_entry(t, lin &= ~0xfffull);
    int run = 0;

    while (run < AHEAD_MAX && leads_to_gview(c->vcpu->bt, t, lin - (u64)(run + 1) * 4096))
        run++;
    for (int i = 1; run >= AHEAD_MIN && i <= run && region_of(lin + (u64)i * 4096) == region_of(lin); i++) {
        u64 at = lin + (u64)i * 4096, gpa;
        bool writable;

        if (!neighbour(c, p, i, true, &gpa, &writable) || !writable)
            continue;
        const struct gmem_slot *s = ram_slot(ram, gpa);
        if (!s || s->readonly || lazy_absent(ram, s->offset + gpa - s->gpa))
            continue;
        dirty_note(ram, s->offset + gpa - s->gpa);
        e[i] = page_delta(c, at, gpa, true);
    }
}

static void fill(struct cpu *c, struct table *t, u64 lin, const struct walk_page *p, bool writable, u64 delta)
{
    struct touched *r = region_touch(t, lin);
    bool watched = dirty_on(c->m->ram) || c->m->ram->absent;

    region_note(r, p);
    r->stores |= writable;
    if (p->page_bytes >= 2 * MiB && (c->cr0 & CR0_PG)) {
        if (watched)
            fill_large_watched(c, t, lin, p, writable);
        else
            fill_large(c, t, lin, p, delta);
    }
    if (p->pte)
        fill_around(c, t, r, lin, p);
    *data_entry(t, lin) = delta;
}

/* False: *ret_error. will_write: as if it were for a write, but the guest's dirty bit is left alone. */
static bool lookup(struct cpu *c, u64 lin, unsigned access, bool will_write, enum mem_as as, struct mmu_page *ret,
                   u32 *ret_error)
{
    struct walk_regs regs = regs_of(c);
    struct walk_page p;
    bool once;

    c->vcpu->stat_slow++;
    if (!walk_page(&regs, lin, access, &p, ret_error))
        return false;
    bool writable = (p.writable || (!(c->cr0 & CR0_WP) && !(access & WALK_USER))) && p.dirty;
    if (!(c->cr0 & CR0_PG))
        writable = true;
    u64 delta = delta_now(c, lin, p.gpa, writable, will_write, &once);

    ret->gpa = p.gpa;
    ret->delta = delta;
    ret->ram = delta != 0;
    ret->writable = writable;
    if (delta && !once)
        fill(c, table_for(c, as), lin, &p, writable, delta);
    if (delta && will_write && writable && dirty_on(c->m->ram))
        note_ahead(c, table_for(c, as), lin, &p);
    return true;
}

void mmu_lookup(struct cpu *c, u64 lin, bool write, enum mem_as as, struct mmu_page *ret)
{
    u32 error;

    if (!lookup(c, lin, access_of(c, as) | (write ? WALK_WRITE : 0), write, as, ret, &error))
        raise_page_fault(c, lin, error);
}

u64 mmu_peek(struct cpu *c, u64 lin)
{
    return *data_entry(table_for(c, AS_CPL), lin);
}

/* The guest-physical address of a byte in one of the guest's views. */
u64 gpa_of_offset(const struct gmem *m, u64 offset)
{
    for (unsigned i = 0; i < m->nslots; i++)
        if (offset - m->slot[i].offset < m->slot[i].len)
            return m->slot[i].gpa + (offset - m->slot[i].offset);
    return ~0ull;
}

void mmu_find(struct cpu *c, u64 lin, bool write, struct mmu_page *ret)
{
    struct bt *bt = c->vcpu->bt;
    u64 delta = mmu_peek(c, lin);
    u64 offset = lin + delta - (u64)bt->gview;

    if (delta && offset >= bt->view_bytes && !write)
        offset = lin + delta - (u64)bt->roview;
    if (!delta || offset >= bt->view_bytes) {
        mmu_lookup(c, lin, write, AS_CPL, ret);
        return;
    }
    *ret = (struct mmu_page){.gpa = gpa_of_offset(c->m->ram, offset), .delta = delta, .ram = true, .writable = write};
}

bool mmu_try(struct cpu *c, u64 lin, bool will_write, struct mmu_page *ret)
{
    u32 error;

    return lookup(c, lin, access_of(c, AS_CPL), will_write, AS_CPL, ret, &error);
}

u64 mmu_fetch(struct cpu *c, u64 lin)
{
    struct walk_regs regs = regs_of(c);
    struct table *t = table_for(c, AS_CPL);
    u32 entry = *exec_entry(t, lin);
    struct walk_page p;
    u32 error;

    if (entry)
        return ((u64)(entry & ~EXEC_VALID) << 12) | (lin & 0xfff);
    unsigned access = WALK_FETCH | ((c->mode & MODE_USER) ? WALK_USER : 0);
    if (!walk_page(&regs, lin, access, &p, &error))
        raise_page_fault(c, lin, error);
    const struct gmem_slot *s = ram_slot(c->m->ram, p.gpa);
    if (s)
        lazy_need(c->m->ram, s->offset + (p.gpa - s->gpa));
    struct touched *r = region_touch(t, lin);
    region_note(r, &p);
    *exec_entry(t, lin) = EXEC_VALID | (u32)(p.gpa >> 12);
    return p.gpa;
}

/* --- flushing --- */

static void table_flush_page(struct table *t, u64 lin)
{
    u32 region = region_of(lin);

    if (!region_touched(t, region)) {
        return;
    }
    struct touched *r = region_find(t, region);
    if (r->huge) {
        u32 first = region & ~511u;
        for (unsigned i = 0; i < t->ntouched; i++)
            if ((t->touched[i].index & ~511u) == first)
                region_zero(t, t->touched[i].index);
    } else if (r->large) {
        region_zero(t, region & ~1u);
        region_zero(t, region | 1u);
    } else {
        *data_entry(t, lin) = 0;
        *exec_entry(t, lin) = 0;
    }
}

void mmu_flush_page(struct cpu *c, u64 lin)
{
    struct vcpu *v = c->vcpu;

    for (unsigned i = 0; i < v->nslots; i++)
        for (unsigned k = 0; v->slot[i].used && k < TABLE_KINDS; k++)
            table_flush_page(&v->slot[i].table[k], lin);
}

/* Drops the entries of a region that lead into gview. */
static void region_forget_stores(const struct vcpu *v, struct table *t, u32 region)
{
    u64 lin = (u64)((s64)((u64)region << 37) >> 16), *e = data_entry(t, lin);
    u64 gview = (u64)v->bt->gview, view_bytes = v->bt->view_bytes;

    for (unsigned i = 0; i < 512; i++)
        if (e[i] + lin + i * 4096ull - gview < view_bytes)
            e[i] = 0;
}

void mmu_forget(struct vcpu *v, bool all)
{
    for (unsigned i = 0; i < v->nslots * TABLE_KINDS; i++) {
        struct table *t = &v->slot[i / TABLE_KINDS].table[i % TABLE_KINDS];

        if (all)
            table_flush(t, false);
        for (unsigned n = 0; n < t->ntouched; n++) {
            if (t->touched[n].stores)
                region_forget_stores(v, t, t->touched[n].index);
            t->touched[n].stores = 0;
        }
    }
}

static void slot_flush(struct slot *s, bool keep_global)
{
    for (unsigned k = 0; k < TABLE_KINDS; k++)
        table_flush(&s->table[k], keep_global);
}

void mmu_flush_all(struct cpu *c, bool global)
{
    struct vcpu *v = c->vcpu;

    v->stat_flush++;
    for (unsigned i = 0; i < v->nslots; i++)
        slot_flush(&v->slot[i], !global);
}

void mmu_flush_pcid(struct cpu *c, u16 pcid, bool one, u64 lin)
{
    struct vcpu *v = c->vcpu;

    for (unsigned i = 0; i < v->nslots; i++) {
        struct slot *s = &v->slot[i];
        if (!s->used || s->pcid != pcid)
            continue;
        for (unsigned k = 0; k < TABLE_KINDS; k++) {
            if (one)
                table_flush_page(&s->table[k], lin);
            else
                table_flush(&s->table[k], true);
        }
    }
}

/* The slot for an address space: the one it has, a free one, or the least recently used, emptied of local pages.
 * Global pages are the same in every address space, so they stay. *ret_had: it was there. */
static struct slot *slot_find(struct vcpu *v, u64 base, u16 pcid, bool by_pcid, bool *ret_had)
{
    struct slot *best = &v->slot[0];

    for (unsigned i = 0; i < v->nslots; i++) {
        struct slot *s = &v->slot[i];
        if (s->used && (by_pcid ? s->pcid == pcid : s->cr3 == base)) {
            *ret_had = true;
            return s;
        }
        if (s->stamp < best->stamp)
            best = s;
    }
    slot_flush(best, true);
    *ret_had = false;
    return best;
}

void mmu_set_cr3(struct cpu *c, u64 cr3, bool keep)
{
    struct vcpu *v = c->vcpu;
    bool pcide = c->cr4 & CR4_PCIDE;
    u64 base = cr3 & 0x000ffffffffff000ull;
    u16 pcid = pcide ? cr3 & 0xfff : 0;
    bool had;
    struct slot *s = slot_find(v, base, pcid, pcide, &had);

    if (had && !keep)
        slot_flush(s, true);
    s->used = true;
    s->cr3 = base;
    s->pcid = pcid;
    s->stamp = ++v->stamp;
    v->cur = s;
    c->cr3 = cr3 & ~BIT(63);
    mmu_select(c);
}
