/*
 * Read-modify-write instructions whose operand the translator cannot hand to the host as it stands: CMPXCHG8B and 16B, and
 * BT, BTS, BTR, BTC with a register as bit number, which reaches beyond the operand. SDM 2, those entries.
 * Light code on the vCPU's thread.
 *
 * On plain RAM within a page they are done by the host's locked instruction on the same memory, so they are atomic
 * towards other processors; elsewhere (device memory, translated code) by a load and a store.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"

static void set_zf(struct cpu *c, bool zf)
{
    c->rflags = (c->rflags & ~FL_ZF) | (zf ? FL_ZF : 0);
}

static void *locked_span(struct cpu *c, u64 lin, unsigned size)
{
    unsigned len = 0;
    if (c->mode & MODE_CAREFUL)
        return NULL;
    void *p = mem_span(c, lin, true, &len, AS_CPL);
    return p && len >= size ? p : NULL;
}

void sys_cmpxchg8b(struct cpu *c, const struct insn *in)
{
    if (!in->has_mem)
        raise_exception(c, VEC_UD);
    u64 lin = insn_linear(c, in, 8, true);
    u64 expected = (u32)c->gpr[RAX] | c->gpr[RDX] << 32,
        value = (u32)c->gpr[RBX] | c->gpr[RCX] << 32;
    u64 seen = expected;
    u64 *p = locked_span(c, lin, 8);
    if (p) {
        __asm__ volatile("lock cmpxchgq %2, %1"
                         : "+a"(seen), "+m"(*p)
                         : "r"(value)
                         : "cc", "memory");
    } else {
        mem_probe(c, lin, 8, true, AS_CPL);
        seen = mem_load(c, lin, 8, AS_CPL);
        mem_store(c, lin, 8, seen == expected ? value : seen, AS_CPL); /* always written */
    }
    set_zf(c, seen == expected);
    if (seen != expected) {
        c->gpr[RAX] = (u32)seen;
        c->gpr[RDX] = seen >> 32;
    }
}

void sys_cmpxchg16b(struct cpu *c, const struct insn *in)
{
    if (!in->has_mem)
        raise_exception(c, VEC_UD);
    u64 lin = insn_linear(c, in, 16, true);
    if (lin & 15)
        raise_error(c, VEC_GP, 0);
    u64 lo = c->gpr[RAX], hi = c->gpr[RDX];
    bool equal;
    u8 *p = locked_span(c, lin, 16);
    if (p) {
        __asm__ volatile("lock cmpxchg16b (%3)"
                         : "=@ccz"(equal), "+a"(lo), "+d"(hi)
                         : "r"(p), "b"(c->gpr[RBX]), "c"(c->gpr[RCX])
                         : "memory");
    } else {
        mem_probe(c, lin, 16, true, AS_CPL);
        u64 seen_lo = mem_load(c, lin, 8, AS_CPL), seen_hi = mem_load(c, lin + 8, 8, AS_CPL);
        equal = seen_lo == lo && seen_hi == hi;
        mem_store(c, lin, 8, equal ? c->gpr[RBX] : seen_lo, AS_CPL);
        mem_store(c, lin + 8, 8, equal ? c->gpr[RCX] : seen_hi, AS_CPL);
        lo = seen_lo;
        hi = seen_hi;
    }
    set_zf(c, equal);
    if (!equal) {
        c->gpr[RAX] = lo;
        c->gpr[RDX] = hi;
    }
}

/* --- bits --- */

enum bit_op { BIT_TEST, BIT_SET, BIT_RESET, BIT_COMPLEMENT };

/* On one byte: the bit lies in it whatever the operand size, and a byte never crosses a page. */
static bool locked_bit(u8 *p, u8 mask, enum bit_op op)
{
    u8 old;
    if (op == BIT_SET)
        old = __atomic_fetch_or(p, mask, __ATOMIC_SEQ_CST);
    else if (op == BIT_RESET)
        old = __atomic_fetch_and(p, (u8)~mask, __ATOMIC_SEQ_CST);
    else
        old = __atomic_fetch_xor(p, mask, __ATOMIC_SEQ_CST);
    return old & mask;
}

static bool slow_bit(struct cpu *c, u64 lin, unsigned size, unsigned bit, enum bit_op op)
{
    if (op != BIT_TEST)
        mem_probe(c, lin, size, true, AS_CPL);
    u64 value = mem_load(c, lin, size, AS_CPL), mask = BIT(bit);
    u64 new = op == BIT_SET ? value | mask : op == BIT_RESET ? value & ~mask : value ^ mask;
    if (op != BIT_TEST)
        mem_store(c, lin, size, new, AS_CPL);
    return value & mask;
}

void sys_bit(struct cpu *c, const struct insn *in)
{
    unsigned size = in->opsize, bits = size * 8;
    enum bit_op op = (in->opcode >> 3) & 3; /* A3, AB, B3, BB */
    s64 number = (s64)(c->gpr[in->reg] << (64 - bits)) >> (64 - bits);
    unsigned bit = (unsigned)number & (bits - 1);
    u64 off = insn_offset(c, in) + (u64)((number - bit) / (s64)bits) * size;
    u64 lin = seg_linear(c, in->seg, off & size_mask(in->addrsize), size, op != BIT_TEST);
    u8 *p = op == BIT_TEST ? NULL : locked_span(c, lin, size);
    bool old =
        p ? locked_bit(p + bit / 8, (u8)(1u << (bit & 7)), op) : slow_bit(c, lin, size, bit, op);
    c->rflags = (c->rflags & ~FL_CF) | (old ? FL_CF : 0);
}
