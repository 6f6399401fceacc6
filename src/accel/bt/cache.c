/*
 * The code cache, see cache.h. Light code: stubs call it with the guest's vector registers live.
 *
 * Invariants:
 *  1. page_map[n] has PAGE_IS_CODE exactly for pages that have a struct code_page; they are read-only in bt->gview.
 *  2. A block that is not dead is in its bucket, in the list of the page it starts in (and the one it crosses into), and
 *     every link into it is in its incoming list.
 *  3. A dead block is reachable by no link, bucket or (since its entry is a jump away) jump table.
 *  4. Host code, and what the arena holds, is reused only by cache_flush(), when no vCPU is inside: a block, link or site
 *     that was found stays valid until the vCPU leaves, whatever happens to it meanwhile.
 *  5. The lock is a leaf: whoever holds it takes no other and waits for nobody. So devices may call while a vCPU waits for
 *     a device, and a flush, which does wait for vCPUs, waits without it.
 */
#include <sys/mman.h>
#include <sys/syscall.h>
#include "accel/bt/cache.h"
#include "accel/bt/rawcall.h"

static void zero(void *p, u64 bytes)
{
    u64 words = bytes / 8;
    __asm__ volatile("rep stosq" : "+D"(p), "+c"(words) : "a"(0ull) : "memory");
}

/* --- who may run --- */

void cache_enter(struct bt *bt, struct vcpu *v)
{
    for (;;) {
        __atomic_store_n(&v->sync, VCPU_INSIDE, __ATOMIC_SEQ_CST);
        if (!__atomic_load_n(&bt->cache->exclusive, __ATOMIC_SEQ_CST))
            return;
        __atomic_store_n(&v->sync, VCPU_OUTSIDE, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&bt->cache->exclusive, __ATOMIC_SEQ_CST))
            raw_syscall3(SYS_sched_yield, 0, 0, 0);
    }
}

void cache_leave(struct bt *bt, struct vcpu *v)
{
    __atomic_store_n(&v->sync, VCPU_OUTSIDE, __ATOMIC_SEQ_CST);
}

void cache_lock(struct bt *bt)
{
    struct code_cache *k = bt->cache;
    unsigned spins = 0;

    while (__atomic_load_n(&k->lock, __ATOMIC_RELAXED) || __atomic_exchange_n(&k->lock, 1, __ATOMIC_ACQUIRE)) {
        if (++spins % 64 == 0)
            raw_syscall3(SYS_sched_yield, 0, 0, 0);
        else
            __builtin_ia32_pause();
    }
}

void cache_unlock(struct bt *bt)
{
    __atomic_store_n(&bt->cache->lock, 0, __ATOMIC_RELEASE);
}

/* --- blocks --- */

static inline unsigned block_hash(u64 gpa, u32 mode)
{
    u64 h = (gpa ^ (u64)mode << 44) * 0x9e3779b97f4a7c15ull;
    return h >> 48;
}

static bool is_at(const struct block *b, u64 vpc)
{
    return b->vpc == vpc || (b->relative && relative_address(vpc));
}

struct block *block_find(struct bt *bt, u64 gpa, u64 gpa2, u64 vpc, u32 mode)
{
    const struct code_cache *k = bt->cache;
    struct block *b = arena_at(k, k->bucket[block_hash(gpa, mode)]);

    while (b && !(b->gpa == gpa && is_at(b, vpc) && b->mode == mode && (gpa2 == ANY_GPA || b->gpa2 == gpa2)))
        b = arena_at(k, b->hash_next);
    return b;
}

struct block *block_of_host(struct bt *bt, const u8 *rx)
{
    struct code_cache *k = bt->cache;
    u32 lo = 0, hi = k->norder;
    code_ref at = code_ref_of(k, rx);

    while (lo < hi) {
        u32 mid = (lo + hi) / 2;
        if (block_at_ref(k, k->order[mid])->code_end <= at)
            lo = mid + 1;
        else
            hi = mid;
    }
    struct block *b = lo < k->norder ? arena_at(k, k->order[lo]) : NULL;
    return b && b->start <= at ? b : NULL;
}

static struct code_page *page_find(struct bt *bt, u64 gpn)
{
    struct code_page *p = bt->cache->page[gpn % PAGE_BUCKETS];

    while (p && p->gpn != gpn)
        p = p->hash_next;
    return p;
}

static void lines_add(struct code_page *p, unsigned from, unsigned to)
{
    for (unsigned l = from / 64; l <= (to - 1) / 64; l++)
        p->lines |= BIT(l);
}

/* Stores look at k->lines behind themselves (gen_store.c), translation sets all of a page's before it reads it. */
static void lines_set(struct bt *bt, const struct code_page *p, u64 lines)
{
    u64 *at = (u64 *)(bt->cache->lines + ((u64)memfd_page(bt, p->gpn << 12) << 6));

    for (unsigned i = 0; i < 8; i++, lines >>= 8) { /* 8 bits to 8 bytes */
        u64 bytes;
        __asm__("pdep %2, %1, %0" : "=r"(bytes) : "r"(lines), "r"(0x0101010101010101ull));
        __atomic_store_n(&at[i], bytes, __ATOMIC_RELAXED);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void page_lines(struct bt *bt, u64 gpa, bool known)
{
    const struct code_page *p = page_find(bt, gpa >> 12);

    if (p)
        lines_set(bt, p, known ? p->lines : ~0ull);
}

/* Offsets in its first (which == 0) or second page: the bytes that a block's translation depends on. */
static unsigned bytes_from(const struct block *b, unsigned which)
{
    return which ? 0 : b->dep_from;
}

static unsigned bytes_to(const struct block *b, unsigned which)
{
    return which ? ((b->vpc + b->bytes - 1) & 0xfff) + 1 : b->dep_to;
}

static void page_recount(struct bt *bt, struct code_page *p)
{
    const struct code_cache *k = bt->cache;

    p->lines = 0;
    for (unsigned which = 0; which < 2; which++)
        for (struct block *b = arena_at(k, p->blocks[which]); b; b = arena_at(k, b->page_next[which]))
            lines_add(p, bytes_from(b, which), bytes_to(b, which));
    lines_set(bt, p, p->lines);
}

void block_add(struct bt *bt, struct block *b)
{
    struct code_cache *k = bt->cache;
    unsigned h = block_hash(b->gpa, b->mode);
    arena_ref ref = arena_ref_of(k, b);

    b->hash_next = k->bucket[h];
    k->bucket[h] = ref;
    for (unsigned which = 0; which <= b->crosses; which++) {
        struct code_page *p = page_find(bt, (which ? b->gpa2 : b->gpa) >> 12);
        if (!p)
            continue;
        b->page_next[which] = p->blocks[which];
        p->blocks[which] = ref;
        lines_add(p, bytes_from(b, which), bytes_to(b, which));
    }
    k->order[k->norder++] = ref;
}

static u8 *writable(struct code_cache *k, u8 *rx)
{
    return k->rw + (rx - k->rx);
}

static void patch_rel32(struct code_cache *k, code_ref at, code_ref target)
{
    __atomic_store_n((u32 *)(k->rw + at), target - (at + 4), __ATOMIC_RELEASE);
}

/* Within a page of the guest's memory, whatever is mapped at its address by now. */
enum entry_kind link_kind(const struct code_cache *k, const struct link *l, const struct block *to)
{
    const struct block *from = link_from(k, l);
    bool same_page = link_in_page(k, l) && (to->gpa >> 12) == (from->gpa >> 12);

    if (from->relative != to->relative || l->target != to->vpc)
        return ENTRY_INDIRECT; /* another frame */
    return same_page && !to->crosses && !from->crosses ? ENTRY_NEAR : ENTRY_FAR;
}

static void link_to(struct code_cache *k, struct link *l, struct block *to, code_ref entry)
{
    l->to = arena_ref_of(k, to);
    l->next_in = to->incoming;
    to->incoming = arena_ref_of(k, l);
    patch_rel32(k, l->jmp, entry);
}

void link_set(struct bt *bt, struct link *l, struct block *to, code_ref bridge)
{
    struct code_cache *k = bt->cache;
    const struct block *from = link_from(k, l);
    enum entry_kind kind = link_kind(k, l, to);

    if (l->to || from->dead || to->dead)
        return;
    code_ref near = to->vpc <= from->vpc + from->bytes ? to->poll : to->entry;
    link_to(k, l, to, kind == ENTRY_NEAR ? near : kind == ENTRY_FAR ? to->far : bridge);
}

static struct link *link_at_ref(const struct code_cache *k, arena_ref ref)
{
    return arena_at(k, ref);
}

/* The link that owns the jump, which is made when it is asked for: few windows ever need one. NULL: no room. */
static struct link *twin_link(struct bt *bt, struct block *from, const struct block *to, code_ref jmp, code_ref stub)
{
    struct code_cache *k = bt->cache;
    struct link *l = arena_at(k, from->outgoing);

    while (l && l->jmp != jmp)
        l = arena_at(k, l->next_out);
    if (l || !cache_has_room(bt))
        return l;
    l = arena_alloc(bt, sizeof(*l));
    *l = (struct link){
        .target = to->vpc, .jmp = jmp, .stub = stub, .from = arena_ref_of(k, from), .next_out = from->outgoing};
    from->outgoing = arena_ref_of(k, l);
    return l;
}

void link_twin(struct bt *bt, code_ref jmp, code_ref stub, struct block *to)
{
    struct code_cache *k = bt->cache;

    cache_lock(bt);
    struct block *from = block_of_host(bt, code_at(k, jmp));
    if (from && !from->dead && !to->dead) {
        struct link *l = twin_link(bt, from, to, jmp, stub);
        /* Never its polling entry: the instruction may be in the shadow of an STI. */
        if (l && !l->to && link_kind(k, l, to) == ENTRY_NEAR)
            link_to(k, l, to, to->entry);
    }
    cache_unlock(bt);
}

static void link_remove_from_target(const struct code_cache *k, struct link *l)
{
    arena_ref *p = &block_at_ref(k, l->to)->incoming, ref = arena_ref_of(k, l);

    while (*p && *p != ref)
        p = &link_at_ref(k, *p)->next_in;
    if (*p)
        *p = l->next_in;
    l->to = 0;
}

/* Jump tables still lead to a dead block: its first instruction, of 7 bytes, becomes a jump to the look-up. Another vCPU
 * may be about to run it or the next one, which begins with the 8th byte of the aligned word: that stays. */
static void lead_to_miss(struct code_cache *k, u8 *indirect)
{
    u32 rel = (u32)(k->tramp[STUB_JT_MISS] - (indirect + 5));
    u64 word = 0x9090ull << 40 | (u64)rel << 8 | 0xe9 | (u64)indirect[7] << 56;

    __atomic_store_n((u64 *)writable(k, indirect), word, __ATOMIC_RELEASE);
}

/* Unlinks a block from everything; its code stays for whoever is running it. */
static void block_kill(struct bt *bt, struct block *b)
{
    struct code_cache *k = bt->cache;
    arena_ref *p = &k->bucket[block_hash(b->gpa, b->mode)], ref = arena_ref_of(k, b);

    while (*p && *p != ref)
        p = &block_at_ref(k, *p)->hash_next;
    if (*p)
        *p = b->hash_next;
    for (struct link *l = arena_at(k, b->incoming), *next; l; l = next) {
        next = arena_at(k, l->next_in);
        patch_rel32(k, l->jmp, l->stub);
        l->to = 0;
    }
    b->incoming = 0;
    for (struct link *l = arena_at(k, b->outgoing); l; l = arena_at(k, l->next_out))
        if (l->to)
            link_remove_from_target(k, l);
    if (b->indirect)
        lead_to_miss(k, code_at(k, b->indirect));
    b->dead = true;
    k->stat_invalidated++;
}

static void page_list_remove(const struct code_cache *k, struct code_page *p, struct block *b, unsigned which)
{
    arena_ref *at = &p->blocks[which], ref = arena_ref_of(k, b);

    while (*at && *at != ref)
        at = &block_at_ref(k, *at)->page_next[which];
    if (*at)
        *at = b->page_next[which];
}

static void block_drop(struct bt *bt, struct block *b)
{
    for (unsigned which = 0; which <= b->crosses; which++) {
        struct code_page *p = page_find(bt, (which ? b->gpa2 : b->gpa) >> 12);
        if (p)
            page_list_remove(bt->cache, p, b, which);
    }
    block_kill(bt, b);
}

/* --- pages --- */

struct code_page *page_mark(struct bt *bt, u64 gpa)
{
    struct code_cache *k = bt->cache;
    s64 n = memfd_page(bt, gpa);
    struct code_page *p = page_find(bt, gpa >> 12);

    if (p || n < 0)
        return p;
    p = arena_alloc(bt, sizeof(*p));
    p->gpn = gpa >> 12;
    p->hash_next = k->page[p->gpn % PAGE_BUCKETS];
    k->page[p->gpn % PAGE_BUCKETS] = p;
    k->npages++;
    __atomic_fetch_or(&k->page_map[n], PAGE_IS_CODE, __ATOMIC_SEQ_CST);
    raw_syscall3(SYS_mprotect, (u64)bt->gview + ((u64)n << 12), 4096, PROT_READ);
    return p;
}

static void page_unmark(struct bt *bt, struct code_page *p)
{
    struct code_cache *k = bt->cache;
    s64 n = memfd_page(bt, p->gpn << 12);
    struct code_page **at = &k->page[p->gpn % PAGE_BUCKETS];

    while (*at && *at != p)
        at = &(*at)->hash_next;
    if (*at)
        *at = p->hash_next;
    k->npages--;
    lines_set(bt, p, 0);
    raw_syscall3(SYS_mprotect, (u64)bt->gview + ((u64)n << 12), 4096, PROT_READ | PROT_WRITE);
    __atomic_fetch_and(&k->page_map[n], (u8)~PAGE_IS_CODE, __ATOMIC_SEQ_CST);
}

static bool hits(const struct block *b, unsigned which, unsigned from, unsigned to)
{
    return from < bytes_to(b, which) && bytes_from(b, which) < to;
}

/*
 * A page that is written beside its translated lines may no longer be code at all (freed and used for data). After some
 * such stores its translations are dropped and it becomes plain memory. If it turns out to be code again and again, the
 * patience grows: it is a page that mixes both, and the stores are better done one by one.
 */
static bool too_many_data_writes(struct bt *bt, struct code_page *p)
{
    s64 n = memfd_page(bt, p->gpn << 12);
    u8 drops = bt->cache->page_map[n] & ~PAGE_IS_CODE;

    if (++p->data_writes < 16u << MIN(drops * 2, 16))
        return false;
    if (drops < 8)
        bt->cache->page_map[n]++;
    return true;
}

static void page_written(struct bt *bt, struct code_page *p, unsigned from, unsigned to)
{
    u64 lines = 0;
    bool dropped = false;

    for (unsigned l = from / 64; l <= (to - 1) / 64; l++)
        lines |= BIT(l);
    if (!(p->lines & lines) && too_many_data_writes(bt, p)) {
        from = 0;
        to = 4096;
        lines = ~0ull;
    }
    if (p->lines & lines) {
        for (unsigned which = 0; which < 2; which++)
            for (struct block *b = arena_at(bt->cache, p->blocks[which]), *next; b; b = next) {
                next = arena_at(bt->cache, b->page_next[which]);
                if (hits(b, which, from, to)) {
                    block_drop(bt, b);
                    dropped = true;
                }
            }
    }
    if (dropped)
        page_recount(bt, p);
    if (!p->lines)
        page_unmark(bt, p);
}

void code_invalidate(struct bt *bt, u64 gpa, u64 len)
{
    cache_lock(bt);
    for (u64 at = gpa; at - gpa < len; at = (at | 0xfff) + 1) {
        struct code_page *p = page_find(bt, at >> 12);
        unsigned from = at & 0xfff;
        if (p)
            page_written(bt, p, from, (unsigned)MIN(4096 - from, len - (at - gpa)) + from);
    }
    cache_unlock(bt);
}

/* --- room --- */

void *arena_alloc(struct bt *bt, u64 bytes)
{
    struct code_cache *k = bt->cache;
    void *p = k->arena + k->arena_used;

    k->arena_used += (bytes + 7) & ~7ull;
    return p;
}

#define ROOM_BYTES 65536
/* Each protected page may split a mapping in three, and the kernel allows a process 65530 of them. */
#define MAX_CODE_PAGES 24000

bool cache_has_room(struct bt *bt)
{
    struct code_cache *k = bt->cache;
    return k->used + ROOM_BYTES < k->size && k->arena_used + ROOM_BYTES < k->arena_size && k->norder < k->max_order &&
           k->npages + 2 <= MAX_CODE_PAGES;
}

static void wait_until_outside(struct bt *bt)
{
    for (unsigned i = 0; i < bt->nvcpus; i++)
        if (bt->vcpu[i])
            __atomic_fetch_or(&bt->vcpu[i]->c->events, BT_EV_SYNC, __ATOMIC_SEQ_CST);
    for (unsigned i = 0; i < bt->nvcpus; i++)
        while (bt->vcpu[i] && __atomic_load_n(&bt->vcpu[i]->sync, __ATOMIC_SEQ_CST) == VCPU_INSIDE)
            raw_syscall3(SYS_sched_yield, 0, 0, 0);
}

void cache_stop_all(struct bt *bt)
{
    while (__atomic_exchange_n(&bt->cache->exclusive, 1, __ATOMIC_SEQ_CST))
        raw_syscall3(SYS_sched_yield, 0, 0, 0);
    wait_until_outside(bt);
}

void cache_let_go(struct bt *bt)
{
    __atomic_store_n(&bt->cache->exclusive, 0, __ATOMIC_SEQ_CST);
}

static void jump_table_reset(struct vcpu *v)
{
    for (unsigned i = 0; i < JT_ENTRIES; i++)
        v->jt[i] = (u64)stub_address[STUB_JT_MISS];
}

static void drop_all(struct bt *bt)
{
    struct code_cache *k = bt->cache;

    for (unsigned i = 0; i < bt->nvcpus; i++)
        if (bt->vcpu[i])
            jump_table_reset(bt->vcpu[i]);
    for (unsigned i = 0; i < PAGE_BUCKETS; i++)
        while (k->page[i])
            page_unmark(bt, k->page[i]);
    zero(k->bucket, BLOCK_BUCKETS * sizeof(*k->bucket));
    zero(k->arena, ALIGN_UP(k->arena_used, 8));
    k->arena_used = ARENA_FIRST;
    k->norder = 0;
    k->used = k->fixed;
    k->stat_flushes++;
}

void cache_flush(struct bt *bt)
{
    struct code_cache *k = bt->cache;

    if (__atomic_exchange_n(&k->exclusive, 1, __ATOMIC_SEQ_CST))
        return; /* another vCPU is at it (or cache_stop_all()): cache_enter() waits for it */
    wait_until_outside(bt);
    cache_lock(bt);
    if (!cache_has_room(bt))
        drop_all(bt);
    cache_unlock(bt);
    __atomic_store_n(&k->exclusive, 0, __ATOMIC_SEQ_CST);
}

/* --- instructions that are better done carefully from the start --- */

bool careful_get(struct bt *bt, u64 gpa)
{
    return bt->cache->careful[(gpa * 0x9e3779b97f4a7c15ull) >> 52] == gpa + 1;
}

void careful_add(struct bt *bt, u64 gpa)
{
    bt->cache->careful[(gpa * 0x9e3779b97f4a7c15ull) >> 52] = gpa + 1;
}

#define FAULTS_MAX 6

void cache_note_fault(struct bt *bt, struct block *b, unsigned offset)
{
    struct code_cache *k = bt->cache;
    u64 gpa = b->gpa + offset;
    u8 *n = &k->faults[(gpa * 0x9e3779b97f4a7c15ull) >> 52];

    if (b->crosses || ++*n < FAULTS_MAX)
        return;
    *n = 0;
    cache_lock(bt);
    careful_add(bt, gpa);
    if (!b->dead) {
        struct code_page *p = page_find(bt, b->gpa >> 12);
        block_drop(bt, b);
        if (p)
            page_recount(bt, p);
        if (p && !p->lines)
            page_unmark(bt, p);
    }
    cache_unlock(bt);
}
