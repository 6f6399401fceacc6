/*
 * Which bytes of its memory operand an AVX-512 instruction with a mask register touches. Those that are masked out may lie
 * on pages that are not there (SDM 2, 2.8: fault suppression). tests/diff/probe asks processors whether this is so.
 */
#include "accel/bt/insn_class.h"

#define MN(x) ZYDIS_MNEMONIC_##x

/* Elements of the result of an embedded or built-in broadcast. */
static unsigned broadcast_count(ZydisBroadcastMode mode)
{
    switch (mode) {
    case ZYDIS_BROADCAST_MODE_1_TO_2:
        return 2;
    case ZYDIS_BROADCAST_MODE_1_TO_4:
    case ZYDIS_BROADCAST_MODE_2_TO_4:
        return 4;
    case ZYDIS_BROADCAST_MODE_1_TO_8:
    case ZYDIS_BROADCAST_MODE_2_TO_8:
    case ZYDIS_BROADCAST_MODE_4_TO_8:
        return 8;
    case ZYDIS_BROADCAST_MODE_1_TO_16:
    case ZYDIS_BROADCAST_MODE_2_TO_16:
    case ZYDIS_BROADCAST_MODE_4_TO_16:
    case ZYDIS_BROADCAST_MODE_8_TO_16:
        return 16;
    case ZYDIS_BROADCAST_MODE_1_TO_32:
        return 32;
    case ZYDIS_BROADCAST_MODE_1_TO_64:
        return 64;
    default:
        return 0;
    }
}

/* Elements that are in memory. */
static unsigned broadcast_source(ZydisBroadcastMode mode)
{
    switch (mode) {
    case ZYDIS_BROADCAST_MODE_2_TO_4:
    case ZYDIS_BROADCAST_MODE_2_TO_8:
    case ZYDIS_BROADCAST_MODE_2_TO_16:
        return 2;
    case ZYDIS_BROADCAST_MODE_4_TO_8:
    case ZYDIS_BROADCAST_MODE_4_TO_16:
        return 4;
    case ZYDIS_BROADCAST_MODE_8_TO_16:
        return 8;
    default:
        return 1;
    }
}

static bool packs(ZydisMnemonic m)
{
    switch ((unsigned)m) {
    case MN(VCOMPRESSPS):
    case MN(VCOMPRESSPD):
    case MN(VPCOMPRESSB):
    case MN(VPCOMPRESSW):
    case MN(VPCOMPRESSD):
    case MN(VPCOMPRESSQ):
    case MN(VEXPANDPS):
    case MN(VEXPANDPD):
    case MN(VPEXPANDB):
    case MN(VPEXPANDW):
    case MN(VPEXPANDD):
    case MN(VPEXPANDQ):
        return true;
    default:
        return false;
    }
}

/* Types E..NF load all of their operand, whatever the mask. */
static bool suppresses_faults(const ZydisDecodedInstruction *zi)
{
    switch ((unsigned)zi->mnemonic) {
    case MN(VCVTNE2PS2BF16): /* of these types too, but not for Zydis */
    case MN(VDBPSADBW):
    case MN(VGF2P8AFFINEQB):
    case MN(VGF2P8AFFINEINVQB):
        return false;
    default:
        break;
    }
    switch (zi->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_E1NF:
    case ZYDIS_EXCEPTION_CLASS_E2NF:
    case ZYDIS_EXCEPTION_CLASS_E3NF:
    case ZYDIS_EXCEPTION_CLASS_E4NF:
    case ZYDIS_EXCEPTION_CLASS_E5NF:
    case ZYDIS_EXCEPTION_CLASS_E6NF:
    case ZYDIS_EXCEPTION_CLASS_E9NF:
    case ZYDIS_EXCEPTION_CLASS_E10NF:
        return false;
    default:
        return true;
    }
}

static bool is_vector(const ZydisDecodedOperand *op)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(op->reg.value);

    return class >= ZYDIS_REGCLASS_XMM && class <= ZYDIS_REGCLASS_ZMM;
}

void insn_find_mask(union form_key k, const ZydisDecodedInstruction *zi,
                    const ZydisDecodedOperand *ops, struct insn_form *f)
{
    unsigned count = broadcast_count(zi->avx.broadcast.mode), of_mem = 0;

    if (k.enc != ENC_EVEX || !k.masked || !f->mem_acc || !f->mem_bytes || !suppresses_faults(zi))
        return;
    for (unsigned i = 0; i < zi->operand_count; i++)
        if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            of_mem = ops[i].element_count;
    f->masked = true;
    f->mask_packed = packs(zi->mnemonic);
    if (count) {
        f->mask_count = (u8)count;
        f->mask_bytes = (u8)(f->mem_bytes / broadcast_source(zi->avx.broadcast.mode));
        return;
    }
    /* Instructions that combine neighbours have a mask bit per element of the result, those that widen or narrow as many
     * elements here as there. */
    count = of_mem;
    if (ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER && ops[0].element_count && is_vector(&ops[0]))
        count = MIN(count, ops[0].element_count);
    count = MAX(count, 1u);
    f->mask_count = (u8)count;
    f->mask_bytes = (u8)(f->mem_bytes / count);
}
