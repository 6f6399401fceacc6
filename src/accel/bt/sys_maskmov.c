/*
 * Masked moves that may touch only part of their memory operand: VMASKMOVPS/PD, VPMASKMOVD/Q, MASKMOVDQU, MASKMOVQ.
 * SDM 2, those entries. Light code on the vCPU's thread. Elements whose mask bit is clear are neither accessed nor fault.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"
#include "accel/bt/vecreg.h"

#define YMM 32

static bool selected(const u8 *mask, unsigned i, unsigned size)
{
    return mask[(i + 1) * size - 1] & 0x80;
}

static u64 element(const u8 *p, unsigned size)
{
    return size == 8 ? *(const u64 *)p : size == 4 ? *(const u32 *)p : *p;
}

static void store_selected(struct cpu *c, const struct insn *in, u64 off, const u8 *data,
                           const u8 *mask, unsigned bytes, unsigned size)
{
    for (unsigned pass = 0; pass < 2; pass++) /* first see that none of the stores will fault */
        for (unsigned i = 0; i < bytes / size; i++) {
            if (!selected(mask, i, size))
                continue;
            u64 at = (off + i * size) & size_mask(in->addrsize),
                lin = seg_linear(c, in->seg, at, size, true);
            if (pass)
                mem_store(c, lin, size, element(data + i * size, size), AS_CPL);
            else
                mem_probe(c, lin, size, true, AS_CPL);
        }
}

/* Element size: PD and Q forms have 8 bytes. */
static unsigned element_size(const struct insn *in)
{
    bool wide = in->opcode >= 0x8c ? in->rex_w : in->opcode & 1;
    return wide ? 8 : 4;
}

static void load_selected(struct cpu *c, const struct insn *in, const u8 *mask, unsigned bytes)
{
    u8 data[YMM];
    unsigned size = element_size(in);
    u64 off = insn_offset(c, in);
    for (unsigned i = 0; i < bytes / size; i++) {
        u64 value = 0, at = (off + i * size) & size_mask(in->addrsize);
        if (selected(mask, i, size))
            value = mem_load(c, seg_linear(c, in->seg, at, size, false), size, AS_CPL);
        if (size == 8)
            *(u64 *)(data + i * 8) = value;
        else
            *(u32 *)(data + i * 4) = (u32)value;
    }
    vecreg_write(in->reg, bytes, data);
}

/* 2C 2D 8C load, 2E 2F 8E store; the mask is in vvvv. */
void sys_maskmov(struct cpu *c, const struct insn *in)
{
    u8 mask[YMM], data[YMM];
    unsigned bytes = in->vex_l ? 32 : 16;
    vecreg_read(in->vvvv, bytes, mask);
    if (!(in->opcode & 2)) {
        load_selected(c, in, mask, bytes);
        return;
    }
    vecreg_read(in->reg, bytes, data);
    store_selected(c, in, insn_offset(c, in), data, mask, bytes, element_size(in));
}

/* MASKMOVDQU, VMASKMOVDQU, MASKMOVQ: bytes to DS:rDI, mask in the second register. */
void sys_maskmov_store(struct cpu *c, const struct insn *in)
{
    u8 data[16], mask[16];
    bool mmx = in->enc == ENC_LEGACY && !in->opsize_prefix;
    if (mmx) {
        fpu_raise_pending(c);
        vecreg_read_mmx(in->reg & 7, data);
        vecreg_read_mmx(in->rm & 7, mask);
    } else {
        vecreg_read_sse(in->reg, data);
        vecreg_read_sse(in->rm, mask);
    }
    store_selected(c, in, gpr_get(c, RDI, in->addrsize), data, mask, mmx ? 8 : 16, 1);
}
