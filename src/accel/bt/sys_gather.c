/*
 * Gathers and scatters (AVX2 and AVX-512). SDM 2C, VPGATHERDD and family, VPSCATTERDD and family. Light code on the vCPU's
 * thread.
 *
 * Element by element through mem_load() and mem_store(). A fault leaves registers and mask as they were: the processor may
 * have done any part of the elements then, so none is as good, and the instruction starts over.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"
#include "accel/bt/vecreg.h"

#define ZMM 64

struct vsib {
    unsigned vl;         /* bytes of the vector */
    unsigned size, step; /* bytes of an element, of an index */
    unsigned n;          /* elements */
    unsigned data_bytes; /* of the data register that count */
    u64 mask;            /* bit per element */
    u8 index[ZMM], data[ZMM];
};

static u64 load_bytes(const u8 *p, unsigned size)
{
    return size == 8 ? *(const u64 *)p : *(const u32 *)p;
}

static void store_bytes(u8 *p, unsigned size, u64 value)
{
    if (size == 8)
        *(u64 *)p = value;
    else
        *(u32 *)p = (u32)value;
}

static unsigned opmask(const struct insn *in)
{
    return in->bytes[in->opcode_at - 1] & 7; /* EVEX.aaa, in the byte before the opcode */
}

static void vsib_open(struct cpu *c, const struct insn *in, struct vsib *v)
{
    v->vl = 16u << (in->vex_l & 3);
    v->size = in->rex_w ? 8 : 4;
    v->step = in->opcode & 1 ? 8 : 4;
    v->n = v->vl / MAX(v->size, v->step);
    v->data_bytes = MAX(v->n * v->size, 16u);
    vecreg_read(in->index, v->vl, v->index);
    vecreg_read(in->reg, v->vl, v->data);
    v->mask = 0;
    if (in->enc == ENC_EVEX) {
        if (!opmask(in))
            raise_exception(c, VEC_UD);
        v->mask = vecreg_read_k(opmask(in));
        return;
    }
    u8 mask[ZMM];
    vecreg_read(in->vvvv, v->vl, mask);
    for (unsigned i = 0; i < v->n; i++)
        v->mask |= (u64)(mask[(i + 1) * v->size - 1] >> 7) << i;
}

static u64 element_address(struct cpu *c, const struct insn *in, const struct vsib *v, unsigned i,
                           bool write)
{
    u64 index = load_bytes(v->index + i * v->step, v->step);
    if (v->step == 4)
        index = (u64)(s64)(s32)index;
    u64 off = (insn_offset(c, in) + index * in->scale) & size_mask(in->addrsize);
    return seg_linear(c, in->seg, off, v->size, write);
}

void sys_gather(struct cpu *c, const struct insn *in)
{
    struct vsib v;
    vsib_open(c, in, &v);
    for (unsigned i = 0; i < v.n; i++)
        if (v.mask & BIT(i))
            store_bytes(v.data + i * v.size, v.size,
                        mem_load(c, element_address(c, in, &v, i, false), v.size, AS_CPL));
    for (unsigned i = v.n * v.size; i < v.data_bytes; i++)
        v.data[i] = 0;
    vecreg_write(in->reg, v.data_bytes, v.data);
    if (in->enc == ENC_EVEX) {
        vecreg_clear_k(opmask(in));
        return;
    }
    for (unsigned i = 0; i < 16; i++)
        v.index[i] = 0;
    vecreg_write(in->vvvv, 16, v.index);
}

void sys_scatter(struct cpu *c, const struct insn *in)
{
    struct vsib v;
    vsib_open(c, in, &v);
    for (unsigned i = 0; i < v.n; i++)
        if (v.mask & BIT(i))
            mem_store(c, element_address(c, in, &v, i, true), v.size,
                      load_bytes(v.data + i * v.size, v.size), AS_CPL);
    vecreg_clear_k(opmask(in));
}
