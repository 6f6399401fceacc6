/*
 * Instructions of older modes that the host has no encoding for in 64-bit code, or that hide an operand: decimal and ASCII
 * adjustment, SALC, BOUND, XLAT. SDM 2, those entries. Light code on the vCPU's thread.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"

static void not_in_64(struct cpu *c, const struct insn *in)
{
    if (in->mode == 64)
        raise_exception(c, VEC_UD);
}

/* SF, ZF and PF of a byte; the flags in `other` are given, OF becomes 0. */
static void set_result_flags(struct cpu *c, u8 value, u64 other)
{
    u64 f = other;
    if (!value)
        f |= FL_ZF;
    if (value & 0x80)
        f |= FL_SF;
    if (!__builtin_parity(value))
        f |= FL_PF;
    c->rflags = (c->rflags & ~FL_ARITH) | f;
}

static void adjust_decimal(struct cpu *c, bool subtract)
{
    u8 al = (u8)c->gpr[RAX], old = al;
    bool cf = c->rflags & FL_CF, af = c->rflags & FL_AF;
    u64 flags = 0;
    if ((al & 15) > 9 || af) {
        flags |= FL_AF | (cf || (subtract ? al < 6 : al > 0xf9) ? FL_CF : 0);
        al = subtract ? al - 6 : al + 6;
    }
    if (old > 0x99 || cf) {
        al = subtract ? al - 0x60 : al + 0x60;
        flags |= FL_CF;
    } else if (!subtract) {
        flags &= ~FL_CF;
    }
    gpr_set(c, RAX, 1, al);
    set_result_flags(c, al, flags);
}

static void adjust_ascii(struct cpu *c, bool subtract)
{
    u16 ax = (u16)c->gpr[RAX];
    bool adjust = (ax & 15) > 9 || (c->rflags & FL_AF);
    if (adjust)
        ax = subtract ? (u16)(ax - 0x106) : (u16)(ax + 0x106);
    ax &= 0xff0f;
    gpr_set(c, RAX, 2, ax);
    set_result_flags(c, (u8)ax, adjust ? FL_AF | FL_CF : 0);
}

/* DAA 27, DAS 2F, AAA 37, AAS 3F, AAM D4, AAD D5 */
void sys_ascii(struct cpu *c, const struct insn *in)
{
    u8 al = (u8)c->gpr[RAX], ah = (u8)(c->gpr[RAX] >> 8), base = (u8)in->imm;
    not_in_64(c, in);
    switch (in->opcode) {
    case 0x27:
        adjust_decimal(c, false);
        break;
    case 0x2f:
        adjust_decimal(c, true);
        break;
    case 0x37:
        adjust_ascii(c, false);
        break;
    case 0x3f:
        adjust_ascii(c, true);
        break;
    case 0xd4:
        if (!base)
            raise_exception(c, VEC_DE);
        gpr_set(c, RAX, 2, (u64)(al / base) << 8 | al % base);
        set_result_flags(c, al % base, 0);
        break;
    default:
        al = (u8)(al + ah * base);
        gpr_set(c, RAX, 2, al);
        set_result_flags(c, al, 0);
    }
}

void sys_salc(struct cpu *c, const struct insn *in)
{
    not_in_64(c, in);
    gpr_set(c, RAX, 1, c->rflags & FL_CF ? 0xff : 0);
}

void sys_bound(struct cpu *c, const struct insn *in)
{
    unsigned size = in->opsize, shift = 64 - size * 8;
    not_in_64(c, in);
    if (!in->has_mem)
        raise_exception(c, VEC_UD);
    u64 off = insn_offset(c, in);
    u64 lower = mem_load(c, seg_linear(c, in->seg, off, size, false), size, AS_CPL);
    u64 second = seg_linear(c, in->seg, (off + size) & size_mask(in->addrsize), size, false);
    u64 upper = mem_load(c, second, size, AS_CPL);
    s64 index = (s64)(c->gpr[in->reg] << shift);
    if (index < (s64)(lower << shift) || index > (s64)(upper << shift))
        raise_exception(c, VEC_BR);
}

void sys_xlat(struct cpu *c, const struct insn *in)
{
    u64 off = (c->gpr[RBX] + (c->gpr[RAX] & 0xff)) & size_mask(in->addrsize);
    gpr_set(c, RAX, 1, mem_load(c, seg_linear(c, in->seg, off, 1, false), 1, AS_CPL));
}
