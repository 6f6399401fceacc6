/*
 * Port input and output: IN, OUT, INS, OUTS. SDM 1, chapter 19 (IOPL, the permission bitmap). Light code on the vCPU's
 * thread. INS checks that its destination is writable before the port is read: reading has effects that cannot be undone.
 */
#include "accel/bt/strop.h"
#include "accel/bt/sys_fns.h"

#define TSS_BITMAP_OFFSET 102

/* The bitmap in a 32- or 64-bit TSS; two bytes are always read, so the one behind the last must exist. */
static bool bitmap_allows(struct cpu *c, u16 port, unsigned size)
{
    if (!(attr_type(c->tr.attr) & 8) || c->tr.limit < TSS_BITMAP_OFFSET + 1)
        return false;
    u32 off = (u32)mem_load(c, c->tr.base + TSS_BITMAP_OFFSET, 2, AS_SYSTEM) + port / 8u;
    if (off + 1 > c->tr.limit)
        return false;
    u64 bits = mem_load(c, c->tr.base + off, 2, AS_SYSTEM) >> (port & 7);
    return !(bits & (BIT(size) - 1));
}

static void check_port(struct cpu *c, u16 port, unsigned size)
{
    if (real_mode(c) || (!v86_mode(c) && c->cpl <= iopl(c)))
        return;
    if (!bitmap_allows(c, port, size))
        raise_error(c, VEC_GP, 0);
}

static unsigned io_size(const struct insn *in)
{
    return !(in->opcode & 1) ? 1 : in->opsize == 2 ? 2 : 4;
}

static u16 io_port(struct cpu *c, const struct insn *in)
{
    return in->opcode & 8 ? (u16)c->gpr[RDX] : (u8)in->imm; /* E4-E7: immediate, EC-EF: DX */
}

void sys_in(struct cpu *c, const struct insn *in)
{
    unsigned size = io_size(in);
    u16 port = io_port(c, in);
    check_port(c, port, size);
    gpr_set(c, RAX, size, io_read(c, port, size));
}

void sys_out(struct cpu *c, const struct insn *in)
{
    unsigned size = io_size(in);
    u16 port = io_port(c, in);
    check_port(c, port, size);
    io_write(c, port, size, gpr_get(c, RAX, size));
}

void sys_ins(struct cpu *c, const struct insn *in)
{
    struct strop s = strop_begin(c, in, io_size(in));
    u16 port = (u16)c->gpr[RDX];
    if (s.rep && !s.count)
        return;
    check_port(c, port, s.size);
    do {
        u64 lin = seg_linear(c, SEG_ES, strop_offset(&s, RDI), s.size, true);
        mem_probe(c, lin, s.size, true, AS_CPL);
        mem_store(c, lin, s.size, io_read(c, port, s.size), AS_CPL);
        strop_step(&s, RDI, 1);
    } while (strop_more(&s, 1));
}

void sys_outs(struct cpu *c, const struct insn *in)
{
    struct strop s = strop_begin(c, in, io_size(in));
    u16 port = (u16)c->gpr[RDX];
    if (s.rep && !s.count)
        return;
    check_port(c, port, s.size);
    do {
        u64 lin = seg_linear(c, in->seg, strop_offset(&s, RSI), s.size, false);
        io_write(c, port, s.size, mem_load(c, lin, s.size, AS_CPL));
        strop_step(&s, RSI, 1);
    } while (strop_more(&s, 1));
}
