/*
 * Where memory operands lie. Registers of an address get their first contents so that it comes out right, which is why an
 * instruction cannot be used when its address depends on a register that has been written, or is needed for another
 * address already; except for the pointers, which are there to be used often.
 */
#include <string.h>

#include "maker.h"

static u64 mask_of(unsigned bytes)
{
    return bytes == 8 ? ~0ull : (1ull << bytes * 8) - 1;
}

static void set_low(u64 *reg, u64 value, unsigned addrsize)
{
    u64 m = mask_of(addrsize);

    *reg = (*reg & ~m) | (value & m);
}

bool diff_aim(const struct insn *in, u8 *code, u64 code_addr, u64 target, struct diff_regs *regs,
              unsigned *fixed)
{
    u64 *base = in->base < X86_GPRS ? &regs->gpr[in->base] : NULL;
    u64 *index = in->index < X86_GPRS && !in->vsib ? &regs->gpr[in->index] : NULL;
    u64 rest = target - (u64)in->disp;

    if (in->disp_len >= 2 && (in->base == BASE_RIP || (!base && !index))) {
        u64 disp = in->base == BASE_RIP ? target - (code_addr + in->len) : target;

        memcpy(code + in->disp_at, &disp, in->disp_len);
        return in->disp_len == 8 || in->mode == 32 || (u64)(s64)(s32)disp == disp;
    }
    if ((base && *fixed >> in->base & 1) || (index && *fixed >> in->index & 1))
        return false;
    if (base && index && base != index)
        set_low(base, rest - *index * in->scale, in->addrsize);
    else if (base && index)
        set_low(base, (rest & mask_of(in->addrsize)) / (1u + in->scale), in->addrsize);
    else if (base)
        set_low(base, rest, in->addrsize);
    else
        set_low(index, (rest & mask_of(in->addrsize)) / in->scale, in->addrsize);
    *fixed |= (base ? 1u << in->base : 0) | (index ? 1u << in->index : 0);
    return true;
}

/* Mostly inside the data, sometimes across or onto its edges. */
static u64 choose_target(struct maker *m, const struct insn_form *f)
{
    unsigned bytes = f->mem_bytes ? f->mem_bytes : 8;
    u64 any = random_below(&m->r, DIFF_RW_PAGES * DIFF_PAGE - bytes);
    unsigned faults = m->in_loop || m->plan->max_insns > 8 ? 4 : 1; /* rarer in long cases */

    switch (random_below(&m->r, 32 * faults)) {
    case 0:
        return DIFF_RO_ADDR - random_below(&m->r, bytes + 1);
    case 1:
        return DIFF_RO_ADDR + random_below(&m->r, DIFF_PAGE - bytes) / bytes * bytes;
    case 2:
        return DIFF_DATA + DIFF_DATA_BYTES - random_below(&m->r, bytes + 1);
    case 3:
        return DIFF_DATA - random_below(&m->r, bytes + 1);
    case 4:
        return (m->plan->mode == 64 ? 1ull << 47 : 0x40000000) + 1 * MiB +
               any; /* not canonical; not there */
    case 5:
    case 6:
    case 7:
        return DIFF_DATA + DIFF_PAGE - random_below(&m->r, bytes + 1);
    case 8:
    case 9:
    case 10:
        return DIFF_DATA + any;
    default:
        return DIFF_DATA + any / bytes * bytes;
    }
}

bool need(struct maker *m, unsigned reg, u64 value)
{
    if ((m->written | m->fixed) >> reg & 1)
        return false;
    m->c->regs.gpr[reg] = value;
    m->fixed |= 1u << reg;
    return true;
}

void make_pointers(struct maker *m)
{
    for (unsigned i = 0; i < 3; i++) {
        unsigned reg = random_below(&m->r, m->plan->mode == 64 ? 16 : 8);
        u64 at = random_below(&m->r, 3) ? DIFF_DATA + DIFF_PAGE / 2 : DIFF_DATA + DIFF_PAGE - 64;

        if (need(m, reg, at + random_below(&m->r, 16) * (random_below(&m->r, 4) ? 64 : 5)))
            m->pointers |= 1u << reg;
    }
}

/* [pointer + disp] and [rsp + disp] may stay where they are. RSP has its own page. */
static bool is_near(struct maker *m, const struct insn *in, u8 *code)
{
    u32 disp = random_below(&m->r, 1024) - 512;

    if (in->base >= X86_GPRS || in->index != REG_NONE || m->written >> in->base & 1 ||
        !((m->pointers | 1u << RSP) >> in->base & 1))
        return false;
    if (random_below(&m->r, 4))
        disp &= ~15u;
    if (in->disp_len >= 2)
        memcpy(code + in->disp_at, &disp, in->disp_len);
    return in->base != RSP || in->addrsize > 2;
}

bool aim_operand(struct maker *m, const struct insn *in, u8 *code, u64 addr)
{
    unsigned blocked = m->fixed | m->written;

    if (is_near(m, in, code))
        return true;
    if (m->pointers && random_below(&m->r, 2))
        return false; /* rather another one that uses a pointer */
    if (!diff_aim(in, code, addr, choose_target(m, in->form), &m->c->regs, &blocked))
        return false;
    m->fixed |= blocked & ~m->written;
    return true;
}
