/*
 * Memory accesses that translated code cannot make on its own: the page is not in its tables yet, holds code, is a
 * device's, or the access crosses into another one. Light, vCPU thread.
 */
#include "accel/bt/light.h"
#include "accel/bt/opmask.h"
#include "x86/walk.h"

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
    code_ref to_twin, stub; /* the jump for what lies in two pages; where it goes while there is no twin */
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
    if ((lin & 0xfff) + r->span > 4096)
        link_twin(c->vcpu->bt, r->to_twin, r->stub, b);
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
