/*
 * Makes a struct insn_form: Zydis decodes bytes that stand for all instructions with a key, and
 * what it says is turned into the facts the translator works with. Where Zydis and processors
 * differ, processors win; every such place says so.
 *
 * Rules that keep the translator safe when in doubt: an operand counts as read as well as written
 * when its write is conditional or narrower than 32 bits, a flag as read when it may stay as it
 * was. Any thread, no state but the decoders.
 */
#include <Zydis/Zydis.h>
#include <string.h>

#include "accel/bt/insn_class.h"

#define CANON_BYTES 40

/* Register numbers of the bytes we make up: all different, since some instructions forbid equal
 * ones. */
enum {
    CANON_REG = 5,
    CANON_RM = 3,
    CANON_BASE = 0,
    CANON_INDEX = 1,
    CANON_VVVV = 2,
    CANON_MASK = 4
};

static unsigned put_prefixes(union form_key k, u8 *p)
{
    unsigned n = 0;

    if (k.lock)
        p[n++] = 0xf0;
    /* F3 REX.B 90 exchanges R8; Zydis takes it for PAUSE. */
    if (k.rep && !(k.map == MAP_1 && k.opcode == 0x90 && k.b))
        p[n++] = k.rep == 2 ? 0xf2 : 0xf3;
    if (k.opsize)
        p[n++] = 0x66;
    if (k.addrsize)
        p[n++] = 0x67;
    if (k.enc == ENC_LEGACY && k.mode == 2 && (k.w || k.r || k.b))
        p[n++] = (u8)(0x40 | k.w << 3 | k.r << 2 | k.b);
    return n;
}

static unsigned put_opcode(union form_key k, u8 *p)
{
    unsigned n = 0;
    u8 rxb = (u8)(!k.r << 7 | !k.x << 6 | !k.b << 5);
    u8 vvvv = (u8)((k.vvvv_used ? k.vvvv_high ? 15 - (CANON_VVVV | 8) : 15 - CANON_VVVV : 15) << 3);

    if (k.enc == ENC_VEX) {
        p[n++] = 0xc4;
        p[n++] = (u8)(rxb | k.map);
        p[n++] = (u8)(k.w << 7 | vvvv | k.ll << 2 | k.pp);
    } else if (k.enc == ENC_EVEX) {
        p[n++] = 0x62;
        p[n++] = (u8)(rxb | !k.r2 << 4 | k.map);
        p[n++] = (u8)(k.w << 7 | vvvv | 4 | k.pp);
        p[n++] = (u8)(k.zeroing << 7 | k.ll << 5 | k.bcast << 4 | !k.v2 << 3 |
                      (k.masked ? CANON_MASK : 0));
    } else if (k.map != MAP_1) {
        p[n++] = 0x0f;
        if (k.map != MAP_0F)
            p[n++] = k.map == MAP_0F38 ? 0x38 : 0x3a;
    }
    p[n++] = (u8)k.opcode;
    return n;
}

/* Bytes that have this key. An 8-bit displacement of 1 shows the factor EVEX multiplies it by. */
static void put_canonical(union form_key k, u8 attr, u8 p[CANON_BYTES])
{
    unsigned n = put_prefixes(k, p);
    u8 reg = attr & OP_REG ? (u8)k.reg : CANON_REG;
    bool addr16 = k.mode == 0 ? !k.addrsize : k.mode == 1 && k.addrsize;

    n += put_opcode(k, p + n);
    if (!(attr & OP_MODRM))
        return;
    if (k.is_reg) {
        p[n] = (u8)(0xc0 | reg << 3 | (attr & OP_RM ? k.rm : CANON_RM));
        return;
    }
    p[n++] = (u8)(0x40 | reg << 3 | 4);
    if (!addr16)
        p[n++] = CANON_INDEX << 3 | CANON_BASE;
    p[n] = 1;
}

/* What the CPU model lacks falls back to an older meaning of the same bytes (hint nops, BSF and
 * BSR). */
static bool zydis_decode(union form_key k, const u8 *p, ZydisDecodedInstruction *zi,
                         ZydisDecodedOperand *ops)
{
    static const ZydisMachineMode machine[3] = {
        ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64};
    static const ZydisStackWidth stack[3] = {ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32,
                                             ZYDIS_STACK_WIDTH_64};
    ZydisDecoder d;

    ZydisDecoderInit(&d, machine[k.mode], stack[k.mode]);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_LZCNT, insn_isa_allowed(ZYDIS_ISA_SET_LZCNT));
    ZydisDecoderEnableMode(&d, ZYDIS_DECODER_MODE_TZCNT, insn_isa_allowed(ZYDIS_ISA_SET_BMI1));
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, p, ZYDIS_MAX_INSTRUCTION_LENGTH, zi, ops));
}

static u8 access_of(const ZydisDecodedOperand *op)
{
    u8 acc = 0;

    if (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
        acc |= ACC_R;
    if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
        acc |= ACC_W;
    if (op->actions & ZYDIS_OPERAND_ACTION_CONDWRITE)
        acc |= ACC_R;
    return acc;
}

static bool is_gpr(ZydisRegisterClass c)
{
    return c >= ZYDIS_REGCLASS_GPR8 && c <= ZYDIS_REGCLASS_GPR64;
}

/* 0..15; AH..BH are the registers they are part of. */
static unsigned gpr_number(ZydisRegister r)
{
    unsigned id = (unsigned)ZydisRegisterGetId(r);

    if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
        return (unsigned)(r - ZYDIS_REGISTER_AH);
    if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_R15B)
        return 4 + (unsigned)(r - ZYDIS_REGISTER_SPL);
    return id & 15;
}

static void gpr_operand(struct insn_form *f, const ZydisDecodedOperand *op)
{
    u8 acc = access_of(op);
    u8 byte = ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_GPR8;
    u16 bit = (u16)(1u << gpr_number(op->reg.value));

    /* Narrow writes keep the rest. The class is asked, not op->size: PEXTRB writes a 32-bit
     * register and says 8. */
    if ((acc & ACC_W) && ZydisRegisterGetClass(op->reg.value) <= ZYDIS_REGCLASS_GPR16)
        acc |= ACC_R;
    if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG) {
        f->reg_acc |= acc;
        f->reg_is_byte |= byte;
    } else if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM) {
        f->rm_acc |= acc;
        f->reg_is_byte |= (u8)(byte << 1);
    } else if (op->encoding == ZYDIS_OPERAND_ENCODING_OPCODE) {
        f->opreg_acc |= acc;
        f->reg_is_byte |= (u8)(byte << 2);
    } else if (op->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD) {
        f->vvvv_acc |= acc;
    } else {
        f->gpr_implicit_r |= acc & ACC_R ? bit : 0;
        f->gpr_implicit_w |= acc & ACC_W ? bit : 0;
    }
}

static bool is_vector(ZydisRegisterClass c)
{
    return c >= ZYDIS_REGCLASS_X87 && c <= ZYDIS_REGCLASS_TMM;
}

/* The operand of ModRM, of moffs, or an implicit one (its base and index are then implicit
 * registers). */
static void mem_operand(struct insn_form *f, struct form_entry *e, const ZydisDecodedOperand *op)
{
    if (op->encoding == ZYDIS_OPERAND_ENCODING_NONE) {
        if (is_gpr(ZydisRegisterGetClass(op->mem.base)))
            f->gpr_implicit_r |= (u16)(1u << gpr_number(op->mem.base));
        if (is_gpr(ZydisRegisterGetClass(op->mem.index)))
            f->gpr_implicit_r |= (u16)(1u << gpr_number(op->mem.index));
        return;
    }
    if (op->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
        e->flags |= ENTRY_VSIB;
    if (op->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
        e->flags |= ENTRY_MOFFS;
    if (op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
        return;
    f->mem_acc = access_of(op);
    f->mem_bytes = op->size / 8 <= 64 ? (u8)(op->size / 8) : 0;
}

static void operands(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops,
                     struct form_entry *e, struct insn_form *f)
{
    for (unsigned i = 0; i < zi->operand_count; i++) {
        const ZydisDecodedOperand *op = &ops[i];
        ZydisRegisterClass class = ZYDIS_REGCLASS_INVALID;

        if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
            mem_operand(f, e, op);
        if (op->type == ZYDIS_OPERAND_TYPE_REGISTER)
            class = ZydisRegisterGetClass(op->reg.value);
        if (is_gpr(class))
            gpr_operand(f, op);
        if (is_vector(class) || class == ZYDIS_REGCLASS_MASK)
            f->reads_vec = f->writes_vec = true; /* a partial write keeps, so it reads */
    }
}

/* Which bits of the ModRM and vvvv fields number a register: mask, MMX, x87 and segment registers
 * ignore extensions. */
static u8 register_mask(const ZydisDecodedOperand *ops, unsigned n, ZydisOperandEncoding enc,
                        union form_key k)
{
    if (k.mode != 2)
        return 7;
    for (unsigned i = 0; i < n; i++) {
        ZydisRegisterClass class;

        if (ops[i].encoding != enc || ops[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        class = ZydisRegisterGetClass(ops[i].reg.value);
        if (is_gpr(class) || class == ZYDIS_REGCLASS_CONTROL || class == ZYDIS_REGCLASS_DEBUG)
            return 15;
        if (class >= ZYDIS_REGCLASS_XMM && class <= ZYDIS_REGCLASS_ZMM)
            return k.enc == ENC_EVEX ? 31 : 15;
        return 7;
    }
    return 31;
}

static void flags(const ZydisDecodedInstruction *zi, union form_key k, struct insn_form *f)
{
    const ZydisAccessedFlags *z = zi->cpu_flags;

    if (!z)
        return;
    f->flags_r = (u16)(z->tested & FL_ARITH);
    f->flags_w = (u16)((z->modified | z->set_0 | z->set_1 | z->undefined) & FL_ARITH);
    insn_fix_flags(k, zi->mnemonic, f);
}

static void immediates(const ZydisDecodedInstruction *zi, struct form_entry *e, struct insn_form *f)
{
    const struct ZydisDecodedInstructionRawImm_ *imm = zi->raw.imm;

    e->imm_bytes = imm[0].size / 8;
    if (imm[0].is_signed || imm[0].is_relative)
        e->flags |= ENTRY_SIGNED;
    e->imm2_bytes = imm[1].size / 8;
    f->imm_bytes = (u8)(e->imm_bytes + e->imm2_bytes);
}

static void sizes(const ZydisDecodedInstruction *zi, union form_key k, struct form_entry *e)
{
    static const u8 by_mode[3][2] = {{2, 4}, {4, 2}, {4, 2}};

    e->opsize = k.mode == 2 && k.w ? 8 : by_mode[k.mode][k.opsize];
    if (zi && zi->operand_width >= 16 && zi->operand_width <= 64)
        e->opsize = zi->operand_width / 8;
    e->addrsize = k.mode == 2 ? (k.addrsize ? 4 : 8) : by_mode[k.mode][k.addrsize];
}

/* A repeat prefix that Zydis found no use for, or was not shown. */
static bool rep_is_ignored(union form_key k, const ZydisDecodedInstruction *zi)
{
    for (unsigned i = 0; i < zi->raw.prefix_count; i++)
        if ((zi->raw.prefixes[i].value & 0xfe) == 0xf2)
            return zi->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_IGNORED;
    return k.rep;
}

static u8 disp_shift(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops)
{
    for (unsigned i = 0; i < zi->operand_count; i++)
        if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            ops[i].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
            return (u8)__builtin_ctzll((u64)ops[i].mem.disp.value | 1ull << 6);
    return 0;
}

static bool same_operands(const ZydisDecodedInstruction *a, const ZydisDecodedOperand *as,
                          const ZydisDecodedInstruction *b, const ZydisDecodedOperand *bs)
{
    if (a->mnemonic != b->mnemonic || a->operand_count != b->operand_count)
        return false;
    for (unsigned i = 0; i < a->operand_count; i++) {
        ZydisRegisterClass class = ZYDIS_REGCLASS_INVALID;

        if (as[i].type != bs[i].type || as[i].encoding != bs[i].encoding)
            return false;
        if (as[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
            class = ZydisRegisterGetClass(as[i].reg.value);
        if (is_gpr(class) && class != ZydisRegisterGetClass(bs[i].reg.value))
            return false;
        if (as[i].type != ZYDIS_OPERAND_TYPE_REGISTER && as[i].size != bs[i].size)
            return false;
    }
    return true;
}

/* Does the instruction with `k`, put into 64-bit code, do what it did in its own mode? */
static bool means_same(union form_key k, u8 attr, const ZydisDecodedInstruction *zi,
                       const ZydisDecodedOperand *ops)
{
    u8 bytes[CANON_BYTES] = {0};
    ZydisDecodedInstruction zi64;
    ZydisDecodedOperand ops64[ZYDIS_MAX_OPERAND_COUNT];

    k.mode = 2;
    k.addrsize = 0;
    k.r = k.x = k.b = k.r2 = k.v2 = k.vvvv_high = 0; /* as insn_decode() will make them */
    put_canonical(k, attr, bytes);
    return zydis_decode(k, bytes, &zi64, ops64) && same_operands(zi, ops, &zi64, ops64);
}

/*
 * Copies of 16- and 32-bit instructions run as 64-bit code. Operand sizes are chosen by the 66
 * prefix the other way round in 16-bit code, and the W bit that 32-bit code ignores counts there.
 * Finds out what must be changed by trying.
 */
static void adapt_to_64(union form_key k, const ZydisDecodedInstruction *zi,
                        const ZydisDecodedOperand *ops, struct form_entry *e, struct insn_form *f)
{
    u8 attr = insn_op_attr[k.enc != ENC_LEGACY][k.map & 3][k.opcode];
    union form_key other = k;

    if (k.mode == 2 || f->cls != INSN_COPY)
        return;
    if (f->no_64) { /* 40..4f; the other one, 82, has byte operands */
        f->flip_66 = k.mode == 0 && k.opcode != 0x82;
        if (k.opcode == 0x82) {
            f->no_64 = false;
            e->flags |= ENTRY_IS_80;
        }
        return;
    }
    if (means_same(k, k.map > 3 ? OP_MODRM : attr, zi, ops))
        return;
    if (k.enc == ENC_LEGACY)
        other.opsize = !k.opsize;
    else
        other.w = 0;
    if (!means_same(other, k.map > 3 ? OP_MODRM : attr, zi, ops))
        f->cls = INSN_INVALID;
    else if (k.enc == ENC_LEGACY)
        f->flip_66 = true;
    else
        e->flags |= ENTRY_DROP_W;
}

static void build_valid(union form_key k, const ZydisDecodedInstruction *zi,
                        const ZydisDecodedOperand *ops, struct form_entry *e, struct insn_form *f)
{
    unsigned n = zi->operand_count;

    f->mnemonic = (u16)zi->mnemonic;
    operands(zi, ops, e, f);
    flags(zi, k, f);
    immediates(zi, e, f);
    sizes(zi, k, e);
    if (rep_is_ignored(k, zi))
        e->flags |= ENTRY_DROP_REP;
    for (unsigned i = 0; i < n; i++)
        if (ops[i].encoding == ZYDIS_OPERAND_ENCODING_IS4 && k.mode != 2)
            e->flags |= ENTRY_IS4;
    e->disp_shift = k.enc == ENC_EVEX ? disp_shift(zi, ops) : 0;
    e->reg_mask = register_mask(ops, n, ZYDIS_OPERAND_ENCODING_MODRM_REG, k);
    e->rm_mask = register_mask(ops, n, ZYDIS_OPERAND_ENCODING_MODRM_RM, k);
    e->vvvv_mask = register_mask(ops, n, ZYDIS_OPERAND_ENCODING_NDSNDD, k);
    if ((e->flags & ENTRY_VSIB) && k.enc == ENC_VEX)
        e->vvvv_mask &= 15;
    f->cond = (u8)(k.opcode & 15);
    insn_fix_operands(k, zi, e, f);
    insn_find_mask(k, zi, ops, f);
    insn_classify(k, zi, ops, f);
    adapt_to_64(k, zi, ops, e, f);
}

void insn_form_build(union form_key k, struct form_entry *e, struct insn_form ret[2])
{
    u8 attr = k.map > 3 ? OP_MODRM : insn_op_attr[k.enc != ENC_LEGACY][k.map & 3][k.opcode];
    u8 bytes[CANON_BYTES] = {0};
    ZydisDecodedInstruction zi;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];

    memset(e, 0, sizeof(*e));
    memset(ret, 0, 2 * sizeof(*ret)); /* padding too: forms are compared as bytes */
    e->reg_mask = e->rm_mask = e->vvvv_mask = 31;
    sizes(NULL, k, e);
    put_canonical(k, attr, bytes);
    if (zydis_decode(k, bytes, &zi, ops))
        build_valid(k, &zi, ops, e, ret);
    else
        ret->cls = INSN_INVALID;
    ret->has_modrm = attr & OP_MODRM;
    memcpy(&ret[1], ret, sizeof(*ret));
    if (e->count_mask)
        ret[1].flags_r = ret[1].flags_w = 0;
}
