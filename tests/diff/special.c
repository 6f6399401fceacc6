/*
 * Instructions that the translator does in C. Those are compared whose effect is the same in any process: not what reads
 * clocks, the processor's identity, segments or descriptor tables, and not what enters the host's kernel. LDMXCSR is not
 * there because AMD's processors allow one bit more.
 */
#include <Zydis/Zydis.h>
#include <string.h>

#include "maker.h"

#define MN(x) ZYDIS_MNEMONIC_##x

/* clang-format off */
static const u16 compared[] = {
    MN(BT), MN(BTS), MN(BTR), MN(BTC), MN(CMPXCHG8B), MN(CMPXCHG16B), MN(XLAT), MN(ENTER),
    MN(FLDENV), MN(FRSTOR), MN(PUSHF), MN(PUSHFD), MN(PUSHFQ), MN(CLD), MN(STD),
    MN(VPGATHERDD), MN(VPGATHERDQ), MN(VPGATHERQD), MN(VPGATHERQQ), MN(VGATHERDPS), MN(VGATHERDPD), MN(VGATHERQPS),
    MN(VGATHERQPD), MN(VMASKMOVPS), MN(VMASKMOVPD), MN(VPMASKMOVD), MN(VPMASKMOVQ), MN(MASKMOVDQU), MN(VMASKMOVDQU),
    MN(MASKMOVQ),
    /* 32-bit only */
    MN(AAA), MN(AAS), MN(AAM), MN(AAD), MN(DAA), MN(DAS), MN(SALC), MN(BOUND), MN(PUSHA), MN(PUSHAD), MN(POPA),
    MN(POPAD), MN(INTO),
    /* privileged: they fault */
    MN(HLT), MN(CLI), MN(STI), MN(IN), MN(OUT), MN(INSB), MN(INSW), MN(INSD), MN(OUTSB), MN(OUTSW), MN(OUTSD), MN(LGDT),
    MN(LIDT), MN(LLDT), MN(LTR), MN(LMSW), MN(CLTS), MN(INVD), MN(WBINVD), MN(RDMSR), MN(WRMSR), MN(INVLPG), MN(SYSRET),
    MN(SYSEXIT), MN(CLAC), MN(STAC), MN(UD0), MN(UD1), MN(UD2), MN(SWAPGS),
};
/* clang-format on */

bool special_wanted(const struct insn *in)
{
    /* Undefined for Intel in 32-bit code, privileged for AMD. */
    if (in->mode == 32 && in->form->mnemonic == MN(SYSRET))
        return false;
    if (in->form->mnemonic == MN(MOV))
        return in->map == MAP_0F; /* control and debug registers */
    for (size_t i = 0; i < ARRAY_LEN(compared); i++)
        if (compared[i] == in->form->mnemonic)
            return true;
    return false;
}

/* Small numbers in all elements of the index register; only before any code. */
static bool prepare_gather(struct maker *m, const struct insn *in)
{
    bool words = in->form->mnemonic == MN(VPGATHERDD) || in->form->mnemonic == MN(VPGATHERDQ) ||
                 in->form->mnemonic == MN(VGATHERDPS) || in->form->mnemonic == MN(VGATHERDPD);
    u8 *low = m->c->regs.fx + 160 + 16 * (in->index & 15);
    u8 *high = m->c->regs.ymm_high[in->index & 15];

    if (m->c->len || m->in_loop)
        return false;
    for (unsigned i = 0; i < 32; i += words ? 4 : 8) {
        s64 value = (s64)random_below(&m->r, 512) - 256;

        memcpy((i < 16 ? low : high) + i % 16, &value, words ? 4 : 8);
    }
    return true;
}

static bool prepare_bound(struct maker *m, const struct insn *in)
{
    return need(m, in->reg, random_below(&m->r, 256));
}

bool special_prepare(struct maker *m, const struct insn *in)
{
    u64 inside = DIFF_DATA + DIFF_PAGE + random_below(&m->r, 512) - 256;

    if (in->vsib)
        return prepare_gather(m, in);
    switch ((unsigned)in->form->mnemonic) {
    case MN(BT):
    case MN(BTS):
    case MN(BTR):
    case MN(BTC):
        return need(m, in->reg, random_below(&m->r, 4000) - 2000ull);
    case MN(XLAT):
        return need(m, RBX, inside);
    case MN(MASKMOVDQU):
    case MN(VMASKMOVDQU):
    case MN(MASKMOVQ):
        /* Whether memory may be missing when no byte is selected differs between processors. */
        return in->addrsize > 2 && need(m, RDI, inside);
    case MN(INSB):
    case MN(INSW):
    case MN(INSD):
    case MN(OUTSB):
    case MN(OUTSW):
    case MN(OUTSD):
        /* With a count of 0, AMD's processors look at the permission, and SDM says nothing happens. */
        return need(m, RCX, 1 + random_below(&m->r, 40));
    case MN(BOUND):
        return prepare_bound(m, in);
    case MN(ENTER):
        return !m->stack_lost && !m->in_loop && need(m, RBP, DIFF_STACK + DIFF_PAGE / 2 + 512);
    case MN(PUSHF):
    case MN(PUSHFD):
    case MN(PUSHFQ):
    case MN(PUSHA):
    case MN(PUSHAD):
        return !m->stack_lost;
    case MN(POPA):
    case MN(POPAD):
        return !m->stack_lost && !m->in_loop;
    default:
        return true;
    }
}
