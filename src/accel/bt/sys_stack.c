/*
 * Stack and near control transfer in any mode and with any operand: PUSH, POP, CALL, RET, JMP, Jcc, LOOP, JCXZ, LEAVE, ENTER,
 * PUSHA, POPA. The translator makes code for the common cases itself and comes here for segments, 16-bit stacks and the
 * like. SDM 2, those entries. Light code on the vCPU's thread.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"

/* Where a near transfer goes: masked to the operand size, checked against the code segment. */
static u64 near_target(struct cpu *c, const struct insn *in, u64 rip)
{
    rip &= size_mask(in->mode == 64 ? 8 : in->opsize);
    check_rip(c, &c->seg[SEG_CS], rip, 0);
    return rip;
}

static u64 relative(struct cpu *c, const struct insn *in)
{
    return near_target(c, in, c->rip + in->len + in->imm);
}

static unsigned near_size(const struct insn *in)
{
    return in->mode == 64 ? 8 : in->opsize;
}

/* --- PUSH and POP --- */

static u64 push_value(struct cpu *c, const struct insn *in)
{
    if ((in->opcode & 0xf8) == 0x50)
        return c->gpr[in->rm];
    if (in->opcode == 0x68 || in->opcode == 0x6a)
        return in->imm;
    return insn_rm_get(c, in, in->opsize);
}

void sys_push(struct cpu *c, const struct insn *in)
{
    bool sreg = in->map == MAP_0F || (in->map == MAP_1 && (in->opcode & 0xe7) == 0x06);
    if (sreg)
        sys_push_sreg(c, in);
    else
        push(c, in->opsize, push_value(c, in));
}

void sys_pop(struct cpu *c, const struct insn *in)
{
    bool sreg = in->map == MAP_0F || (in->map == MAP_1 && (in->opcode & 0xe7) == 0x07);
    if (sreg) {
        sys_pop_sreg(c, in);
        return;
    }
    struct stack s = stack_current(c);
    u64 old = c->gpr[RSP], value = stack_pop(&s, in->opsize);
    if (in->opcode != 0x8f) {
        stack_commit(&s);
        gpr_set(c, in->rm, in->opsize, value);
        return;
    }
    stack_commit(&s); /* an address built on RSP uses the new value */
    u64 lin = in->has_mem ? insn_offset(c, in) : 0;
    u64 new = c->gpr[RSP];
    c->gpr[RSP] = old; /* a fault in the store finds nothing done */
    if (in->has_mem)
        mem_store(c, seg_linear(c, in->seg, lin, in->opsize, true), in->opsize, value, AS_CPL);
    c->gpr[RSP] = new;
    if (!in->has_mem)
        gpr_set(c, in->rm, in->opsize, value);
}

/* --- CALL, JMP, RET; far forms are in sys_far.c --- */

static bool is_far(const struct insn *in, unsigned direct, unsigned reg)
{
    return in->opcode == direct || (in->opcode == 0xff && (in->reg & 7) == reg);
}

void sys_call(struct cpu *c, const struct insn *in)
{
    if (is_far(in, 0x9a, 3)) {
        sys_call_far(c, in);
        return;
    }
    unsigned size = near_size(in);
    u64 to = in->opcode == 0xe8 ? relative(c, in) : near_target(c, in, insn_rm_get(c, in, size));
    push(c, size, next_rip(c, in));
    set_rip(c, to);
}

void sys_jmp(struct cpu *c, const struct insn *in)
{
    if (is_far(in, 0xea, 5)) {
        sys_jmp_far(c, in);
        return;
    }
    bool indirect = in->opcode == 0xff;
    set_rip(c, indirect ? near_target(c, in, insn_rm_get(c, in, near_size(in))) : relative(c, in));
}

void sys_ret(struct cpu *c, const struct insn *in)
{
    if (in->opcode == 0xca || in->opcode == 0xcb) {
        sys_ret_far(c, in);
        return;
    }
    struct stack s = stack_current(c);
    u64 to = near_target(c, in, stack_pop(&s, near_size(in)));
    if (in->opcode == 0xc2)
        s.sp = (s.sp & ~s.mask) | ((s.sp + (in->imm & 0xffff)) & s.mask);
    stack_commit(&s);
    set_rip(c, to);
}

/* --- conditions --- */

static bool condition(u64 f, unsigned cond)
{
    bool cf = f & FL_CF, zf = f & FL_ZF, sf = f & FL_SF, of = f & FL_OF, pf = f & FL_PF, r;
    switch (cond >> 1) {
    case 0:
        r = of;
        break;
    case 1:
        r = cf;
        break;
    case 2:
        r = zf;
        break;
    case 3:
        r = cf || zf;
        break;
    case 4:
        r = sf;
        break;
    case 5:
        r = pf;
        break;
    case 6:
        r = sf != of;
        break;
    default:
        r = zf || sf != of;
        break;
    }
    return r != (cond & 1);
}

void sys_jcc(struct cpu *c, const struct insn *in)
{
    if (condition(c->rflags, in->opcode & 15))
        set_rip(c, relative(c, in));
}

void sys_loop(struct cpu *c, const struct insn *in)
{
    u64 count = gpr_get(c, RCX, in->addrsize), zf = c->rflags & FL_ZF;
    bool taken = count == 0;
    if (in->opcode != 0xe3) { /* not JCXZ */
        count = (count - 1) & size_mask(in->addrsize);
        taken = count && (in->opcode == 0xe2 || !zf == (in->opcode == 0xe0));
    }
    u64 to = taken ? relative(c, in) : 0;
    if (in->opcode != 0xe3)
        gpr_set(c, RCX, in->addrsize, count);
    if (taken)
        set_rip(c, to);
}

/* --- frames --- */

void sys_leave(struct cpu *c, const struct insn *in)
{
    struct stack s = stack_current(c);
    s.sp = c->gpr[RBP];
    u64 rbp = stack_pop(&s, in->opsize);
    stack_commit(&s);
    gpr_set(c, RBP, in->opsize, rbp);
}

void sys_enter(struct cpu *c, const struct insn *in)
{
    unsigned size = in->opsize, level = in->imm2 & 31;
    u64 bytes = in->imm & 0xffff;
    struct stack s = stack_current(c), up = s;
    stack_push(&s, size, c->gpr[RBP]);
    u64 frame = s.sp;
    up.sp = c->gpr[RBP];
    for (unsigned i = 1; i < level; i++) { /* the frame pointers of the levels around */
        up.sp = (up.sp & ~up.mask) | ((up.sp - size) & up.mask);
        stack_push(&s, size, stack_peek(&up, 0, size));
    }
    if (level)
        stack_push(&s, size, frame);
    s.sp = (s.sp & ~s.mask) | ((s.sp - bytes) & s.mask);
    /* the last byte of the frame must be writable (SDM 2A, ENTER) */
    if (s.flat)
        mem_probe(c, s.sp, 1, true, AS_CPL);
    else
        mem_probe(c, (u32)(s.ss.base + (s.sp & s.mask)), 1, true, AS_CPL);
    stack_commit(&s);
    gpr_set(c, RBP, size, frame);
}

void sys_pusha(struct cpu *c, const struct insn *in)
{
    static const u8 order[] = {RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI};
    struct stack s = stack_current(c);
    if (in->mode == 64)
        raise_exception(c, VEC_UD);
    for (unsigned i = 0; i < 8; i++)
        stack_push(&s, in->opsize, c->gpr[order[i]]);
    stack_commit(&s);
}

void sys_popa(struct cpu *c, const struct insn *in)
{
    static const u8 order[] = {RDI, RSI, RBP, RSP, RBX, RDX, RCX, RAX};
    struct stack s = stack_current(c);
    u64 value[8];
    if (in->mode == 64)
        raise_exception(c, VEC_UD);
    for (unsigned i = 0; i < 8; i++)
        value[i] = stack_pop(&s, in->opsize);
    for (unsigned i = 0; i < 8; i++)
        if (order[i] != RSP) /* skipped on the stack */
            gpr_set(c, order[i], in->opsize, value[i]);
    stack_commit(&s);
}
