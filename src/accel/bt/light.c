/*
 * The C side of the stubs: what translated code asks for. Light, vCPU thread; see enter.c for how they are called.
 *
 * Each leaves struct cpu such that the guest can go on at the returned host address, or returns 0 to leave to the run
 * loop with the reason in vcpu->exit and the guest's rip at the next instruction. Here: how to go on at an address.
 */
#include "accel/bt/light.h"
#include "accel/bt/sys_fns.h"

/* --- going on at c->rip --- */

/* What is looked for, and what was found. */
struct search {
    u64 vpc, gpa, gpa2;
    enum entry_kind kind;
    struct block *b;
};

static u64 heavy_translate(u64 cpu, u64 search, u64 unused)
{
    struct cpu *c = (struct cpu *)cpu;
    struct search *s = (struct search *)search;

    (void)unused;
    if (s->b)
        translate_entry(c, s->b, s->kind);
    else
        s->b = translate(c, s->vpc, s->gpa, s->kind);
    return 0;
}

static struct block *find_or_translate(struct cpu *c, struct search *s)
{
    struct bt *bt = c->vcpu->bt;

    cache_lock(bt);
    s->b = block_find(bt, s->gpa, s->gpa2, s->vpc, c->mode);
    bool missing = !s->b || !block_has_entry(s->b, s->kind);
    c->vcpu->cache_full = missing && !cache_has_room(bt);
    c->vcpu->translating = true;
    if (missing && !c->vcpu->cache_full)
        heavy_call(c, heavy_translate, (u64)c, (u64)s, 0);
    c->vcpu->translating = false;
    cache_unlock(bt);
    if (!s->b || c->vcpu->cache_full)
        bt_unwind(c);
    return s->b;
}

struct block *block_at(struct cpu *c, u64 vpc, enum entry_kind kind)
{
    struct search s = {.vpc = vpc, .gpa = mmu_fetch(c, vpc), .gpa2 = ANY_GPA, .kind = kind};
    struct block *b = find_or_translate(c, &s);

    if (!b->crosses)
        return b;
    s.gpa2 = mmu_fetch(c, (vpc | 0xfff) + 1);
    return b->gpa2 == s.gpa2 ? b : find_or_translate(c, &s);
}

static void check_fetch(struct cpu *c, u64 vpc)
{
    if (code64(c) && (u64)((s64)(vpc << 16) >> 16) != vpc)
        raise_error(c, VEC_GP, 0);
    if (!code64(c) && (c->mode & (MODE_REAL | MODE_CSBASE)) && (u32)c->rip > c->seg[SEG_CS].limit)
        raise_error(c, VEC_GP, 0);
}

/* One instruction in careful mode at c->rip, not polling: for interrupt shadows and for accesses that must be slow. */
struct stub_ret run_careful(struct cpu *c)
{
    u64 vpc = lin_of(c, c->rip);
    u32 mode = c->mode;

    check_fetch(c, vpc);
    c->vcpu->stat_careful++;
    c->mode |= MODE_CAREFUL;
    struct block *b = block_at(c, vpc, ENTRY_NEAR);
    c->mode = mode;
    return go_to(c, b->entry);
}

struct stub_ret resume(struct cpu *c)
{
    u64 vpc = lin_of(c, c->rip);

    look_for_interrupts(c);
    if (c->activity != X86_RUNNING)
        return exit_with(c, EXIT_HALT);
    if (c->shadow) {
        struct stub_ret r = run_careful(c);
        c->vcpu->shadow_rip = c->rip;
        c->vcpu->shadow = c->shadow;
        c->shadow = 0;
        return r;
    }
    if ((c->mode & MODE_DEBUG) && !(c->rflags & FL_RF))
        debug_fetch(c, vpc);
    c->rflags &= ~FL_RF;
    c->priv[P_S1] = vpc;
    return (struct stub_ret){.host = c->vcpu->jt[vpc & 0xffff]};
}

struct stub_ret light_jt_miss(struct cpu *c, u64 vpc, u64 s2)
{
    (void)s2;
    c->vcpu->stat_miss++;
    relative_reset(c);
    c->rip = rip_of(c, vpc);
    check_fetch(c, vpc);
    struct block *b = block_at(c, vpc, ENTRY_INDIRECT);
    c->vcpu->jt[vpc & 0xffff] = (u64)code_at(c->vcpu->bt->cache, b->indirect);
    relative_enter(c, b, vpc);
    c->priv[P_S1] = vpc;
    return go_to(c, b->poll);
}

static u64 heavy_bridge(u64 cpu, u64 link, u64 block)
{
    struct cpu *c = (struct cpu *)cpu;
    struct link *l = (struct link *)link;

    link_set(c->vcpu->bt, l, (struct block *)block, translate_bridge(c, l, (struct block *)block));
    return 0;
}

struct stub_ret light_link(struct cpu *c, u64 s1, u64 rec)
{
    struct bt *bt = c->vcpu->bt;
    struct link *l = record_at(c, rec);
    u64 target = guest_address(c, l->target, link_from(bt->cache, l)->relative);

    (void)s1;
    c->vcpu->stat_link++;
    c->rip = rip_of(c, target);
    check_fetch(c, target);
    struct block *b = block_at(c, target, link_in_page(bt->cache, l) ? ENTRY_NEAR : ENTRY_FAR);
    enum entry_kind kind = link_kind(bt->cache, l, b);
    if (!block_has_entry(b, kind))
        b = block_at(c, target, kind);
    cache_lock(bt);
    if (kind != ENTRY_INDIRECT)
        link_set(bt, l, b, 0);
    else if (cache_has_room(bt))
        heavy_call(c, heavy_bridge, (u64)c, (u64)l, (u64)b);
    cache_unlock(bt);
    relative_enter(c, b, target);
    return go_to(c, b->poll);
}

#define EVENTS_FOR_RUN_LOOP (VCPU_EV_STOP | VCPU_EV_INIT | VCPU_EV_SIPI | BT_EV_TIMER | BT_EV_SYNC)

struct stub_ret light_start(struct cpu *c)
{
    u32 events = __atomic_load_n(&c->events, __ATOMIC_ACQUIRE);

    if (events & EVENTS_FOR_RUN_LOOP)
        return exit_with(c, EXIT_REDECODE);
    if (c->vcpu->held.valid) {
        c->delivering = c->vcpu->held.vector + 1;
        deliver(c, c->vcpu->held.vector, c->vcpu->held.has_error, c->vcpu->held.error, c->vcpu->held.kind);
        c->delivering = 0;
    }
    if (events & VCPU_EV_NMI) {
        __atomic_fetch_and(&c->events, ~VCPU_EV_NMI, __ATOMIC_ACQ_REL);
        take_nmi(c);
    }
    if ((events & VCPU_EV_INTR) && c->activity != X86_WAIT_SIPI) {
        __atomic_fetch_and(&c->events, ~VCPU_EV_INTR, __ATOMIC_ACQ_REL);
        take_interrupt(c);
    }
    return resume(c);
}

struct stub_ret light_poll(struct cpu *c, u64 s1, u64 vpc)
{
    (void)s1;
    c->rip = rip_of(c, vpc);
    return light_start(c);
}

/* --- special instructions --- */

/* No trap behind INT and SYSCALL, which clear TF on their way, nor between MOV SS and the next (SDM 3A 6.8.3). */
static bool steps_over(const struct cpu *c, const struct site *s)
{
    bool entered = c->rip_set && !(c->rflags & FL_TF) && s->fn != sys_iret;

    return entered || c->shadow == 2;
}

struct stub_ret light_special(struct cpu *c, u64 s1, u64 rec)
{
    const struct site *s = record_at(c, rec);

    (void)s1;
    u64 vpc = guest_address(c, s->vpc, s->relative);
    c->rip = rip_of(c, vpc);
    c->rip_set = false;
    u64 dropped = c->vcpu->bt->cache->stat_invalidated;
    s->fn(c, &s->in);
    if (!c->rip_set)
        c->rip = rip_of(c, vpc + s->in.len);
    if (s->watched)
        trap_after(c, s->tf && !steps_over(c, s));
    if (s->ends || c->rip_set || c->vcpu->bt->cache->stat_invalidated != dropped)
        return resume(c); /* dropped: it may have rewritten what follows it */
    if (c->shadow) { /* sti: the next instruction is in the same block, and nothing is taken before it */
        c->shadow = 0;
        look_for_interrupts(c);
    }
    return (struct stub_ret){.host = (u64)s->next};
}

