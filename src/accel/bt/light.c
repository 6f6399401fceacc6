/*
 * The C side of the stubs: what translated code asks for. Light, vCPU thread; see enter.c for how they are called.
 *
 * Each leaves struct cpu such that the guest can go on at the returned host address, or returns 0 to leave to the run
 * loop with the reason in vcpu->exit and the guest's rip at the next instruction.
 */
#include <Zydis/Zydis.h>
#include "accel/bt/cache.h"
#include "accel/bt/gen.h"
#include "accel/bt/opmask.h"
#include "accel/bt/sys.h"
#include "accel/bt/sys_fns.h"
#include "x86/walk.h"

static const struct stub_ret leave = {0, 0};

static u64 code_base(const struct cpu *c)
{
    return code64(c) ? 0 : c->seg[SEG_CS].base;
}

static u64 lin_of(const struct cpu *c, u64 rip)
{
    return code64(c) ? rip : (u32)(rip + c->seg[SEG_CS].base);
}

static u64 rip_of(const struct cpu *c, u64 lin)
{
    if (code64(c))
        return lin;
    u32 rip = (u32)(lin - code_base(c));
    return (c->mode & MODE_REAL) ? rip & 0xffff : rip;
}

static struct stub_ret go_to(const struct cpu *c, code_ref host)
{
    return (struct stub_ret){.host = (u64)code_at(c->vcpu->bt->cache, host)};
}

/* What a stub was told about: a site or link. */
static void *record_at(const struct cpu *c, u64 rec)
{
    return arena_at(c->vcpu->bt->cache, rec);
}

static struct stub_ret exit_with(struct cpu *c, enum cpu_exit why)
{
    c->vcpu->exit = why;
    return leave;
}

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

/* The block at linear address vpc for the current mode, with the entry that is asked for, translated if need be. Raises
 * what the fetch raises. */
static struct block *block_at(struct cpu *c, u64 vpc, enum entry_kind kind)
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
static struct stub_ret run_careful(struct cpu *c)
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

static bool interruptible(const struct cpu *c)
{
    return (c->rflags & FL_IF) && !c->shadow;
}

static void look_for_interrupts(struct cpu *c)
{
    if (c->vcpu->intr_waiting && (c->rflags & FL_IF)) {
        c->vcpu->intr_waiting = false;
        __atomic_fetch_or(&c->events, VCPU_EV_INTR, __ATOMIC_RELAXED);
    }
    if (c->nmi_pending && !c->nmi_masked) {
        c->nmi_pending = 0;
        __atomic_fetch_or(&c->events, VCPU_EV_NMI, __ATOMIC_RELAXED);
    }
}

static struct stub_ret resume(struct cpu *c)
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

/* --- events --- */

static u64 heavy_acknowledge(u64 m, u64 index, u64 unused)
{
    struct accel_machine *machine = (struct accel_machine *)m;

    (void)unused;
    if (!machine->intc.pending(machine->intc.opaque, index))
        return (u64)-1;
    return (u64)(s64)machine->intc.acknowledge(machine->intc.opaque, index);
}

/* An event that is taken but cannot be delivered yet, for want of a page, is held until then. */
static void deliver(struct cpu *c, u8 vector, bool has_error, u32 error, enum deliver_kind kind)
{
    struct vcpu *v = c->vcpu;

    v->held.vector = vector;
    v->held.has_error = has_error;
    v->held.error = error;
    v->held.kind = kind;
    v->held.valid = true;
    deliver_event(c, vector, has_error, error, kind);
    v->held.valid = false;
}

static void take_interrupt(struct cpu *c)
{
    if (!interruptible(c)) {
        c->vcpu->intr_waiting = true;
        return;
    }
    s64 vector = (s64)heavy_call(c, heavy_acknowledge, (u64)c->m, c->index, 0);
    if (vector < 0)
        return;
    c->activity = X86_RUNNING;
    /* More may be waiting: look again when the handler lets us. */
    c->vcpu->intr_waiting = true;
    c->delivering = (u8)vector + 1;
    deliver(c, (u8)vector, false, 0, DELIVER_EXTERNAL);
    c->delivering = 0;
}

static void take_nmi(struct cpu *c)
{
    if (c->nmi_masked) {
        c->nmi_pending = 1;
        return;
    }
    c->nmi_masked = 1;
    c->activity = X86_RUNNING;
    c->delivering = VEC_NMI + 1;
    deliver(c, VEC_NMI, false, 0, DELIVER_NMI);
    c->delivering = 0;
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

/* --- exceptions --- */

noreturn void raise_exception(struct cpu *c, enum x86_vector vector)
{
    c->exc_vector = vector;
    c->exc_has_error = 0;
    c->exc_error = 0;
    bt_unwind(c);
}

noreturn void raise_error(struct cpu *c, enum x86_vector vector, u32 error)
{
    c->exc_vector = vector;
    c->exc_has_error = 1;
    c->exc_error = error;
    bt_unwind(c);
}

noreturn void raise_page_fault(struct cpu *c, u64 lin, u32 error)
{
    c->cr2 = lin;
    raise_error(c, VEC_PF, error);
}

/* Every raise*() ends here, with the helper's stack gone. A raise from within deliver_event() comes again. */
struct stub_ret light_exception(struct cpu *c)
{
    int vector = c->exc_vector;

    c->pinned = false;
    if (c->vcpu->cache_full || c->vcpu->want_page) {
        /* No exception: the run loop makes room or fetches the page, then goes on at c->rip. */
        c->mode &= ~(u32)(MODE_CAREFUL | MODE_NOWINDOW);
        c->delivering = 0;
        if (c->vcpu->want_page && !c->vcpu->held.valid && c->rip == c->vcpu->shadow_rip)
            c->shadow = c->vcpu->shadow;
        return exit_with(c, EXIT_REDECODE);
    }
    c->vcpu->held.valid = false;
    if (c->delivering) {
        vector = deliver_merge(c->delivering - 1, vector);
        if (vector < 0) {
            c->delivering = 0;
            return exit_with(c, EXIT_SHUTDOWN);
        }
        if (vector == VEC_DF) {
            c->exc_has_error = 1;
            c->exc_error = 0;
        }
    }
    c->delivering = vector + 1;
    c->rflags |= FL_RF;
    deliver(c, (u8)vector, c->exc_has_error, c->exc_error, DELIVER_FAULT);
    c->delivering = 0;
    return resume(c);
}

/* --- special instructions --- */

/* Traps that follow an instruction: single step, and accesses that a breakpoint watches. */
static void trap_after(struct cpu *c, bool stepped)
{
    u64 hits = c->dr_hits;

    c->dr_hits = 0;
    if (c->shadow == 2) /* mov ss: together with the next instruction's */
        return;
    if (!stepped && !hits)
        return;
    c->dr6 |= (stepped ? DR6_BS : 0) | hits;
    c->delivering = VEC_DB + 1;
    deliver(c, VEC_DB, false, 0, DELIVER_FAULT);
    c->delivering = 0;
}

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

/* --- memory --- */

struct slow_record {
    u64 vpc;
    s32 resume;
    u8 size, acc, relative;
} __attribute__((packed));

/* Nothing may be raised before it is known what the mask selects: light_begin() looks. */
static struct stub_ret slow_masked(struct cpu *c, u64 lin, const struct slow_record *r)
{
    bool write = r->acc & ACC_W;
    struct mmu_page p;
    if ((lin & 0xfff) + r->size > 4096 || (u64)((s64)(lin << 16) >> 16) != lin ||
        !mmu_try(c, lin, write, &p) || !p.ram || (write && (!p.writable || code_page(c->vcpu->bt, p.gpa))))
        return run_careful(c);
    return (struct stub_ret){.host = (u64)&r->resume + r->resume, .s2 = p.delta};
}

struct stub_ret light_slow(struct cpu *c, u64 lin, u64 info)
{
    const struct slow_record *r = (const struct slow_record *)info;
    struct mmu_page p;
    bool write = r->acc & ACC_W;

    c->rip = rip_of(c, guest_address(c, r->vpc, r->relative));
    c->priv[P_S1] = lin;
    if (r->acc & ACC_WROTE) { /* lin is where in the memfd, the record's address that of the next instruction */
        code_written(c, gpa_of_offset(c->m->ram, lin), r->size);
        return resume(c);
    }
    if (r->acc & ACC_MASKED)
        return slow_masked(c, lin, r);
    if ((r->acc & ACC_ALIGN) && (lin & (r->size - 1u)))
        raise_error(c, VEC_GP, 0); /* comes before a page fault */
    if ((lin & 0xfff) + r->size > 4096 || (code64(c) && (u64)((s64)(lin << 16) >> 16) != lin))
        return run_careful(c);
    if (!write) {
        u64 delta = mmu_peek(c, lin);
        if (delta)
            return (struct stub_ret){.host = (u64)&r->resume + r->resume, .s2 = delta};
    }
    mmu_lookup(c, lin, write, AS_CPL, &p);
    if (!p.ram || (write && code_page(c->vcpu->bt, p.gpa)))
        return run_careful(c);
    return (struct stub_ret){.host = (u64)&r->resume + r->resume, .s2 = p.delta};
}

struct window_record {
    u64 vpc;
    s32 resume;
    u16 span;
    u8 write, relative;
} __attribute__((packed));

/* A window's check failed. Nothing may be raised here: the accesses may never happen. */
struct stub_ret light_window(struct cpu *c, u64 lin, u64 rec)
{
    const struct window_record *r = (const struct window_record *)rec;
    struct mmu_page p;

    u64 vpc = guest_address(c, r->vpc, r->relative);
    c->rip = rip_of(c, vpc);
    bool one_page = (lin & 0xfff) + r->span <= 4096 && (u64)((s64)(lin << 16) >> 16) == lin;
    if (one_page && mmu_try(c, lin, r->write, &p) && p.ram && (!r->write || p.writable))
        return (struct stub_ret){.host = (u64)&r->resume + r->resume, .s2 = p.delta};
    c->mode |= MODE_NOWINDOW;
    struct block *b = block_at(c, vpc, ENTRY_NEAR);
    c->mode &= ~MODE_NOWINDOW;
    relative_enter(c, b, vpc);
    return go_to(c, b->entry);
}

/* Where a careful access goes: straight to RAM in the VMM's view if it can, else through the bounce buffer. */
static void place_access(struct cpu *c, u64 lin, unsigned size, unsigned acc)
{
    struct vcpu *v = c->vcpu;
    unsigned first = MIN(size, 4096 - (unsigned)(lin & 0xfff));
    bool write = acc & ACC_W;
    struct mmu_page p;

    v->access.acc = acc;
    v->access.size = size;
    v->access.lin[0] = lin;
    v->access.len[0] = first;
    v->access.len[1] = size - first;
    v->access.mmio = 0;
    if (c->mode & MODE_DEBUG)
        debug_access(c, lin, size, write);
    mmu_find(c, lin, write, &p);
    v->access.gpa[0] = p.gpa;
    v->access.mmio |= !p.ram;
    if (first < size) {
        u64 lin2 = lin + first;
        if (!code64(c))
            lin2 = (u32)lin2;
        mmu_find(c, lin2, write, &p);
        v->access.lin[1] = lin2;
        v->access.gpa[1] = p.gpa;
        v->access.mmio |= !p.ram << 1;
    }
    v->access.host = ram_byte(c->m->ram, v->access.gpa[0]);
    v->access.bounced = first < size || v->access.mmio;
    const struct gmem_slot *slot = ram_slot(c->m->ram, v->access.gpa[0]);
    if (slot && slot->readonly && write)
        v->access.bounced = 1;
}

static void bounce_in(struct cpu *c)
{
    struct vcpu *v = c->vcpu;
    u8 *out = v->access.host;

    for (unsigned half = 0; half < 2; half++) {
        unsigned len = v->access.len[half], at = 0;
        if (!len)
            continue;
        if (!(v->access.mmio & (1 << half))) {
            const struct gmem_slot *slot = ram_slot(c->m->ram, v->access.gpa[half]);
            const u8 *ram = slot->hva + (v->access.gpa[half] - slot->gpa);
            for (; at < len; at++)
                *out++ = ram[at];
            continue;
        }
        while (at < len) {
            unsigned n = len - at >= 8 ? 8 : len - at >= 4 ? 4 : len - at >= 2 ? 2 : 1;
            u64 value = mem_device_read(c, v->access.gpa[half] + at, n);
            for (unsigned i = 0; i < n; i++)
                *out++ = value >> (8 * i);
            at += n;
        }
    }
}

static void bounce_out(struct cpu *c)
{
    struct vcpu *v = c->vcpu;
    const u8 *in = v->access.host;

    for (unsigned half = 0; half < 2; half++) {
        unsigned len = v->access.len[half], at = 0;
        const struct gmem_slot *slot = len ? ram_slot(c->m->ram, v->access.gpa[half]) : NULL;
        if (!len)
            continue;
        if (slot && !slot->readonly) {
            u8 *ram = slot->hva + (v->access.gpa[half] - slot->gpa);
            for (; at < len; at++)
                ram[at] = *in++;
            code_written(c, v->access.gpa[half], len);
            continue;
        }
        while (at < len) {
            unsigned n = len - at >= 8 ? 8 : len - at >= 4 ? 4 : len - at >= 2 ? 2 : 1;
            u64 value = 0;
            for (unsigned i = 0; i < n; i++)
                value |= (u64)*in++ << (8 * i);
            mem_device_write(c, v->access.gpa[half] + at, n, value);
            at += n;
        }
    }
}

/* A masked instruction that accesses nothing still needs an address. */
static struct stub_ret place_nothing(struct cpu *c, const struct site *s)
{
    struct vcpu *v = c->vcpu;
    v->access.size = v->access.len[0] = v->access.len[1] = v->access.mmio = 0;
    v->access.bounced = 1;
    c->priv[P_S1] = (u64)(v->access.host = v->bounce);
    return (struct stub_ret){.host = (u64)s->next};
}

struct stub_ret light_begin(struct cpu *c, u64 s1, u64 rec)
{
    const struct site *s = record_at(c, rec);
    struct vcpu *v = c->vcpu;
    const struct insn_form *f = s->in.form;
    unsigned first = 0, len = f->mem_bytes;

    (void)s1;
    c->rip = rip_of(c, guest_address(c, s->vpc, s->relative));
    if (f->masked && !opmask_range(&s->in, &first, &len))
        return place_nothing(c, s);
    u64 lin = seg_linear(c, s->in.seg, insn_offset(c, &s->in) + first, len, f->mem_acc & ACC_W);
    if (f->align && ((lin - first) & (f->mem_bytes - 1u)))
        raise_error(c, VEC_GP, 0);
    place_access(c, lin, len, f->mem_acc);
    if ((c->mode & MODE_ALIGN) && f->mem_bytes <= 8 && ((lin - first) & (f->mem_bytes - 1u)))
        raise_error(c, VEC_AC, 0);
    if (v->access.bounced) {
        v->access.host = v->bounce + ((lin - first) & 63) + first;
        if (f->mem_acc & ACC_R || f->masked || f->need == NEED_X87) /* an x87 store may not happen */
            bounce_in(c);
    }
    c->priv[P_S1] = (u64)v->access.host - first;
    return (struct stub_ret){.host = (u64)s->next};
}

struct stub_ret light_end(struct cpu *c, u64 s1, u64 rec)
{
    const struct site *s = record_at(c, rec);
    struct vcpu *v = c->vcpu;
    u64 dropped = v->bt->cache->stat_invalidated;

    (void)s1;
    if (v->access.bounced)
        bounce_out(c);
    else
        code_written(c, v->access.gpa[0], v->access.size);
    if (v->bt->cache->stat_invalidated != dropped) {
        /* It may have been this very block that was written to. */
        c->rip = rip_of(c, guest_address(c, s->vpc, s->relative) + s->in.len);
        if (s->watched)
            trap_after(c, s->tf);
        return resume(c);
    }
    return (struct stub_ret){.host = (u64)s->next};
}

/* After a host signal in translated code: registers are stored, c->rip is the guest's instruction. */
struct stub_ret light_fault(struct cpu *c, u64 s1, u64 s2)
{
    (void)s1, (void)s2;
    c->vcpu->stat_faults++;
    if (c->exc_vector != VEC_PF)
        return light_exception(c);
    return run_careful(c);
}

/* --- functions for sites that are no instruction's own --- */

noreturn static void undefined(struct cpu *c)
{
    raise_exception(c, VEC_UD);
}

void sys_invalid(struct cpu *c, const struct insn *in)
{
    (void)in;
    undefined(c);
}

void sys_too_long(struct cpu *c, const struct insn *in)
{
    (void)in;
    raise_error(c, VEC_GP, 0);
}

void sys_no_unit(struct cpu *c, const struct insn *in)
{
    bool sse = in->form->need >= NEED_SSE;

    if (in->form->mnemonic == ZYDIS_MNEMONIC_FWAIT && (c->cr0 & (CR0_MP | CR0_TS)) != (CR0_MP | CR0_TS))
        return;
    bool os = in->form->need < NEED_SSE ? true
              : in->form->need == NEED_SSE ? (c->cr4 & CR4_OSFXSR) != 0
              : !(c->mode & (in->form->need == NEED_AVX ? MODE_NOAVX : MODE_NOAVX512));

    if (!os || ((c->cr0 & CR0_EM) && (sse || in->form->need == NEED_MMX)))
        undefined(c);
    raise_exception(c, VEC_NM);
}

/* Behind an instruction that was copied while single-stepping: a step of length 0. */
void sys_step(struct cpu *c, const struct insn *in)
{
    (void)in;
    c->rip_set = false;
}

void sys_moffs(struct cpu *c, const struct insn *in)
{
    unsigned size = in->opcode & 1 ? in->opsize : 1;
    bool store = in->opcode & 2;
    u64 lin = seg_linear(c, in->seg, (u64)in->disp, size, store);

    if (store)
        mem_store(c, lin, size, gpr_get(c, RAX, size), AS_CPL);
    else
        gpr_set(c, RAX, size, mem_load(c, lin, size, AS_CPL));
}
