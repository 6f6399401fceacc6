/*
 * Operands of a decoded instruction: addresses, registers, memory, the stack. SDM 1, 3.7; SDM 3A, 5.3 (limits).
 * Light code on the vCPU's thread.
 *
 * A stack (struct stack) is worked on in a copy: only stack_commit() changes RSP, so an instruction that pushes several
 * words and faults on a later one leaves the register as it was.
 */
#include "accel/bt/seg.h"

static u64 address_reg(struct cpu *c, const struct insn *in, unsigned reg)
{
    if (reg == REG_NONE)
        return 0;
    return reg == BASE_RIP ? c->rip + in->len : c->gpr[reg];
}

u64 insn_offset(struct cpu *c, const struct insn *in)
{
    u64 a = address_reg(c, in, in->base) + (u64)in->disp;
    if (in->index != REG_NONE && !in->vsib)
        a += c->gpr[in->index] * in->scale;
    return a & size_mask(in->addrsize);
}

bool seg_covers(const struct x86_seg *s, u64 off, u64 size)
{
    u64 last = off + size - 1;
    if ((s->attr & (SEG_ATTR_S | TYPE_CODE | TYPE_DOWN)) == (SEG_ATTR_S | TYPE_DOWN))
        return off > s->limit && last <= (s->attr & SEG_ATTR_DB ? 0xffffffffu : 0xffffu);
    return last <= s->limit;
}

static bool seg_permits(const struct cpu *c, const struct x86_seg *s, bool write)
{
    if (s->attr & SEG_ATTR_UNUSABLE)
        return false;
    if (real_mode(c))
        return true;
    if (s->attr & TYPE_CODE)
        return !write && (s->attr & TYPE_READ);
    return !write || (s->attr & TYPE_WRITE);
}

u64 seg_linear(struct cpu *c, unsigned seg, u64 offset, unsigned size, bool write)
{
    const struct x86_seg *s = &c->seg[seg];
    if (code64(c)) {
        u64 lin = offset + (seg >= SEG_FS ? s->base : 0);
        if (!canonical(lin) || (size > 1 && !canonical(lin + size - 1)))
            raise_error(c, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
        return lin;
    }
    if (size && (!seg_permits(c, s, write) || !seg_covers(s, offset, size)))
        raise_error(c, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
    return (u32)(s->base + offset);
}

u64 insn_linear(struct cpu *c, const struct insn *in, unsigned size, bool write)
{
    return seg_linear(c, in->seg, insn_offset(c, in), size, write);
}

u64 gpr_get(struct cpu *c, unsigned reg, unsigned size)
{
    return c->gpr[reg] & size_mask(size);
}

void gpr_set(struct cpu *c, unsigned reg, unsigned size, u64 value)
{
    if (size == 8)
        c->gpr[reg] = value;
    else if (size == 4)
        c->gpr[reg] = (u32)value;
    else
        c->gpr[reg] = (c->gpr[reg] & ~size_mask(size)) | (value & size_mask(size));
}

/* AH, CH, DH, BH: byte registers 4..7 without a REX prefix. */
static bool high_byte(const struct insn *in, unsigned reg, unsigned size)
{
    return size == 1 && !in->rex && in->enc == ENC_LEGACY && reg >= 4 && reg < 8;
}

u64 insn_rm_get(struct cpu *c, const struct insn *in, unsigned size)
{
    if (in->has_mem)
        return mem_load(c, insn_linear(c, in, size, false), size, AS_CPL);
    if (high_byte(in, in->rm, size))
        return (c->gpr[in->rm - 4] >> 8) & 0xff;
    return gpr_get(c, in->rm, size);
}

void insn_rm_set(struct cpu *c, const struct insn *in, unsigned size, u64 value)
{
    if (in->has_mem) {
        mem_store(c, insn_linear(c, in, size, true), size, value, AS_CPL);
        return;
    }
    if (high_byte(in, in->rm, size)) {
        c->gpr[in->rm - 4] = (c->gpr[in->rm - 4] & ~0xff00ull) | (value & 0xff) << 8;
        return;
    }
    gpr_set(c, in->rm, size, value);
}

/* --- stacks --- */

struct stack stack_other(struct cpu *c, const struct x86_seg *ss, u64 sp, bool flat, bool inner)
{
    struct stack s;
    s.c = c;
    s.ss = *ss;
    s.sp = sp;
    s.flat = flat;
    s.mask = flat ? ~0ull : ss->attr & SEG_ATTR_DB ? 0xffffffff : 0xffff;
    s.error = 0;
    s.as = inner ? AS_SYSTEM : AS_CPL;
    return s;
}

struct stack stack_current(struct cpu *c)
{
    return stack_other(c, &c->seg[SEG_SS], c->gpr[RSP], code64(c), false);
}

static u64 stack_linear(struct stack *s, u64 off, unsigned size, bool write)
{
    if (s->flat) {
        if (!canonical(off) || !canonical(off + size - 1))
            raise_error(s->c, VEC_SS, s->error);
        return off;
    }
    if ((s->ss.attr & SEG_ATTR_UNUSABLE) || !seg_covers(&s->ss, off, size))
        raise_error(s->c, VEC_SS, s->error);
    if (write && !seg_permits(s->c, &s->ss, true))
        raise_error(s->c, VEC_SS, s->error);
    return (u32)(s->ss.base + off);
}

void stack_push(struct stack *s, unsigned size, u64 value)
{
    u64 sp = (s->sp - size) & s->mask;
    mem_store(s->c, stack_linear(s, sp, size, true), size, value & size_mask(size), s->as);
    s->sp = (s->sp & ~s->mask) | sp;
}

u64 stack_peek(struct stack *s, unsigned offset, unsigned size)
{
    return mem_load(s->c, stack_linear(s, (s->sp + offset) & s->mask, size, false), size, s->as);
}

u64 stack_pop(struct stack *s, unsigned size)
{
    u64 value = stack_peek(s, 0, size);
    s->sp = (s->sp & ~s->mask) | ((s->sp + size) & s->mask);
    return value;
}

void stack_commit(const struct stack *s)
{
    u64 *rsp = &s->c->gpr[RSP];
    if (s->mask == 0xffffffff)
        *rsp = (u32)s->sp; /* 32-bit writes clear the upper half */
    else
        *rsp = (*rsp & ~s->mask) | (s->sp & s->mask);
}

void push(struct cpu *c, unsigned size, u64 value)
{
    struct stack s = stack_current(c);
    stack_push(&s, size, value);
    stack_commit(&s);
}

u64 pop(struct cpu *c, unsigned size)
{
    struct stack s = stack_current(c);
    u64 value = stack_pop(&s, size);
    stack_commit(&s);
    return value;
}
