/*
 * What the translator does with a form: copy it, treat it in some special way, call a system
 * helper, or refuse it.
 *
 * Copying is by white list. Instruction sets that only compute (insn_isa.c calls them pure) are
 * copied as a whole, the old mixed sets by mnemonic from the list below. Invariant: nothing that
 * touches memory other than through ModRM or moffs, or any state other than general registers,
 * arithmetic flags and the vector and x87 registers, is INSN_COPY.
 */
#include "accel/bt/insn_class.h"
#include "accel/bt/sys.h"

#define MN(x) ZYDIS_MNEMONIC_##x

/* clang-format off */
static const u16 copied[] = {
    MN(ADD), MN(OR), MN(ADC), MN(SBB), MN(AND), MN(SUB), MN(XOR), MN(CMP), MN(TEST), MN(NOT), MN(NEG), MN(INC), MN(DEC),
    MN(MUL), MN(IMUL), MN(DIV), MN(IDIV), MN(MOV), MN(MOVSX), MN(MOVSXD), MN(MOVZX), MN(XCHG), MN(BSWAP),
    MN(CBW), MN(CWDE), MN(CDQE), MN(CWD), MN(CDQ), MN(CQO), MN(CLC), MN(STC), MN(CMC), MN(LAHF), MN(SAHF),
    MN(ROL), MN(ROR), MN(RCL), MN(RCR), MN(SHL), MN(SHR), MN(SAR), MN(SHLD), MN(SHRD),
    MN(BT), MN(BTS), MN(BTR), MN(BTC), MN(BSF), MN(BSR), MN(CMPXCHG), MN(XADD),
};
static const u16 nops[] = {
    MN(NOP), MN(ENDBR32), MN(ENDBR64), MN(CLDEMOTE), MN(PREFETCH), MN(PREFETCHW), MN(PREFETCHWT1), MN(PREFETCHNTA),
    MN(PREFETCHT0), MN(PREFETCHT1), MN(PREFETCHT2),
};
/* Copied, although some of their forms have a system helper: see structure(). */
static const u16 overloaded[] = {MN(MOV), MN(BT), MN(BTS), MN(BTR), MN(BTC)};
/* x87 instructions whose memory operand is not of one size. */
static const u16 x87_blocks[] = {MN(FNSAVE), MN(FRSTOR), MN(FLDENV), MN(FNSTENV)};
/* Legacy SSE with a 16-byte memory operand that may lie anywhere: SDM 2, table 2-18 (types 1 to 4), notes. */
static const u16 unaligned[] = {
    MN(MOVUPS), MN(MOVUPD), MN(MOVDQU), MN(LDDQU), MN(PCMPESTRI), MN(PCMPESTRM), MN(PCMPISTRI), MN(PCMPISTRM),
};
/* VEX and EVEX that must be aligned (exception types 1 and E1). */
static const u16 vex_aligned[] = {
    MN(VMOVAPS), MN(VMOVAPD), MN(VMOVDQA), MN(VMOVDQA32), MN(VMOVDQA64), MN(VMOVNTPS), MN(VMOVNTPD), MN(VMOVNTDQ),
    MN(VMOVNTDQA),
};
/* clang-format on */

static bool listed(const u16 *list, size_t n, ZydisMnemonic mnemonic)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == mnemonic)
            return true;
    return false;
}
#define LISTED(list, mnemonic) listed(list, ARRAY_LEN(list), mnemonic)

static const struct sys_entry *sys_find(ZydisMnemonic mnemonic)
{
    const struct sys_entry *tables[] = {sys_system, sys_legacy, sys_vector};

    for (size_t t = 0; t < ARRAY_LEN(tables); t++)
        for (const struct sys_entry *s = tables[t]; s->fn; s++)
            if (s->mnemonic == mnemonic)
                return s;
    return NULL;
}

static bool legacy_op(union form_key k, unsigned map, unsigned opcode, unsigned mask)
{
    return k.enc == ENC_LEGACY && k.map == map && (k.opcode & mask) == opcode;
}

void insn_fix_flags(union form_key k, ZydisMnemonic mnemonic, struct insn_form *f)
{
    bool shift_by_cl = legacy_op(k, MAP_1, 0xd2, 0xfe) || legacy_op(k, MAP_0F, 0xa5, 0xf7);
    bool string_compare = legacy_op(k, MAP_1, 0xa6, 0xfe) || legacy_op(k, MAP_1, 0xae, 0xfe);

    /* A count of 0 leaves all flags as they were. */
    if (shift_by_cl || (string_compare && k.rep))
        f->flags_r |= f->flags_w;
    /* Zydis 4.0 has no flags for the VEX forms. */
    if (mnemonic == MN(VPTEST) || mnemonic == MN(VTESTPS) || mnemonic == MN(VTESTPD))
        f->flags_w = FL_ARITH;
}

void insn_fix_operands(union form_key k, const ZydisDecodedInstruction *zi, struct form_entry *e,
                       struct insn_form *f)
{
    bool shift_by_imm = legacy_op(k, MAP_1, 0xc0, 0xfe) || legacy_op(k, MAP_0F, 0xa4, 0xf7);

    if (shift_by_imm)
        e->count_mask = e->opsize == 8 ? 0x3f : 0x1f;
    /* A source of 0 leaves the destination as it was (SDM calls it undefined; processors and
     * compilers agree). */
    if (zi->mnemonic == MN(BSF) || zi->mnemonic == MN(BSR))
        f->reg_acc |= ACC_R;
    /* Zydis gives the size of the cache line; one byte decides whether they fault, as a load. */
    if (zi->mnemonic == MN(CLFLUSH) || zi->mnemonic == MN(CLFLUSHOPT) || zi->mnemonic == MN(CLWB)) {
        f->mem_acc = ACC_R;
        f->mem_bytes = 1;
    }
}

static enum insn_class branch_class(const ZydisDecodedInstruction *zi)
{
    if (zi->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return INSN_SPECIAL;
    switch ((unsigned)zi->mnemonic) {
    case MN(JMP):
        return INSN_JMP;
    case MN(CALL):
        return INSN_CALL;
    case MN(RET):
        return INSN_RET;
    case MN(LOOP):
    case MN(LOOPE):
    case MN(LOOPNE):
    case MN(JCXZ):
    case MN(JECXZ):
    case MN(JRCXZ):
        return INSN_LOOP;
    default:
        return zi->meta.category == ZYDIS_CATEGORY_COND_BR ? INSN_JCC : INSN_COPY;
    }
}

/* Mnemonics whose encodings belong to several classes. */
static bool special_operand(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops)
{
    for (unsigned i = 0; i < zi->operand_count_visible; i++) {
        ZydisRegisterClass class;

        if (ops[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        class = ZydisRegisterGetClass(ops[i].reg.value);
        if (class >= ZYDIS_REGCLASS_SEGMENT && class != ZYDIS_REGCLASS_MASK)
            return true;
    }
    return false;
}

/* BT and family with a register as bit number reach memory outside their operand. */
static bool far_bit(union form_key k)
{
    return k.enc == ENC_LEGACY && k.map == MAP_0F && (k.opcode & 0xe7) == 0xa3 && !k.is_reg;
}

static enum insn_class structure(union form_key k, const ZydisDecodedInstruction *zi,
                                 const ZydisDecodedOperand *ops)
{
    enum insn_class branch = branch_class(zi);

    if (branch != INSN_COPY)
        return branch;
    if (zi->meta.category == ZYDIS_CATEGORY_STRINGOP && k.enc == ENC_LEGACY)
        return INSN_STRING;
    if (special_operand(zi, ops) || far_bit(k) || LISTED(x87_blocks, zi->mnemonic))
        return INSN_SPECIAL;
    if (LISTED(nops, zi->mnemonic))
        return INSN_NOP;
    switch ((unsigned)zi->mnemonic) {
    case MN(PUSH):
        return INSN_PUSH;
    case MN(POP):
        return INSN_POP;
    case MN(LEAVE):
        return INSN_LEAVE;
    case MN(LEA):
        return INSN_LEA;
    case MN(SYSCALL):
        return INSN_SYSCALL;
    case MN(MOV):
        return legacy_op(k, MAP_1, 0xa0, 0xfc) ? INSN_MOFFS : INSN_COPY;
    default:
        return INSN_COPY;
    }
}

static bool implicit_memory(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops)
{
    for (unsigned i = 0; i < zi->operand_count; i++)
        if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            ops[i].encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
            return true;
    return false;
}

static bool copyable(union form_key k, const ZydisDecodedInstruction *zi,
                     const ZydisDecodedOperand *ops, const struct insn_form *f)
{
    enum isa_answer isa = insn_isa(zi->meta.isa_set);
    ZydisInstructionCategory cat = zi->meta.category;

    if (implicit_memory(zi, ops) || (f->mem_acc && !f->mem_bytes))
        return false;
    for (unsigned i = 0; i < zi->operand_count; i++)
        if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY && ops[i].mem.type != ZYDIS_MEMOP_TYPE_MEM)
            return false;
    if (isa == ISA_PURE)
        return true;
    if (isa != ISA_SYSTEM)
        return false;
    if (zi->meta.isa_ext == ZYDIS_ISA_EXT_X87)
        return true;
    return LISTED(copied, zi->mnemonic) || cat == ZYDIS_CATEGORY_CMOV ||
           cat == ZYDIS_CATEGORY_SETCC;
}

/* Of SSE by name, but without its registers. */
static bool sse_without_state(const ZydisDecodedInstruction *zi)
{
    static const u16 list[] = {MN(MOVNTI),     MN(LFENCE),     MN(MFENCE),     MN(SFENCE),
                               MN(CRC32),      MN(POPCNT),     MN(PREFETCHT0), MN(PREFETCHT1),
                               MN(PREFETCHT2), MN(PREFETCHNTA)};

    return LISTED(list, zi->mnemonic);
}

static u8 legacy_unit(const ZydisDecodedInstruction *zi, bool mmx, bool xmm)
{
    switch ((unsigned)zi->meta.isa_ext) {
    case ZYDIS_ISA_EXT_X87:
        return NEED_X87;
    case ZYDIS_ISA_EXT_MMX:
        return NEED_MMX;
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_SSE4:
        if (sse_without_state(zi))
            return NEED_NONE;
        if (zi->meta.isa_set == ZYDIS_ISA_SET_SSE3X87)
            return NEED_X87;
        return mmx && !xmm ? NEED_MMX : NEED_SSE;
    default:
        if (zi->meta.isa_set == ZYDIS_ISA_SET_FXSAVE || zi->meta.isa_set == ZYDIS_ISA_SET_FXSAVE64)
            return NEED_X87;
        return xmm ? NEED_SSE : NEED_NONE;
    }
}

static u8 needed_unit(union form_key k, const ZydisDecodedInstruction *zi,
                      const ZydisDecodedOperand *ops)
{
    bool mmx = false, xmm = false, mask = false;

    for (unsigned i = 0; i < zi->operand_count; i++) {
        ZydisRegisterClass class = ZYDIS_REGCLASS_INVALID;

        if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
            class = ZydisRegisterGetClass(ops[i].reg.value);
        mmx |= class == ZYDIS_REGCLASS_MMX;
        xmm |= class >= ZYDIS_REGCLASS_XMM && class <= ZYDIS_REGCLASS_ZMM;
        mask |= class == ZYDIS_REGCLASS_MASK;
    }
    if (k.enc == ENC_EVEX || mask)
        return NEED_AVX512;
    if (k.enc == ENC_VEX)
        return xmm || zi->meta.isa_set == ZYDIS_ISA_SET_AVX ? NEED_AVX : NEED_NONE;
    return legacy_unit(zi, mmx, xmm);
}

/* Forms of the one-byte map that 64-bit mode does not have (or means something else by). */
static bool only_outside_64(union form_key k)
{
    static const u8 opcodes[] = {0x06, 0x07, 0x0e, 0x16, 0x17, 0x1e, 0x1f, 0x27,
                                 0x2f, 0x37, 0x3f, 0x60, 0x61, 0x62, 0x63, 0x82,
                                 0x9a, 0xc4, 0xc5, 0xce, 0xd4, 0xd5, 0xd6, 0xea};

    if (k.mode == 2 || k.enc != ENC_LEGACY || k.map != MAP_1)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(opcodes); i++)
        if (opcodes[i] == k.opcode)
            return true;
    return (k.opcode & 0xf0) == 0x40;
}

/* The SHA instructions are left to the host: SDM wants them aligned, AMD's processors do not. */
static bool must_be_aligned(union form_key k, const ZydisDecodedInstruction *zi,
                            const struct insn_form *f)
{
    if (!f->mem_acc || zi->meta.isa_set == ZYDIS_ISA_SET_SHA)
        return false;
    if (k.enc != ENC_LEGACY)
        return LISTED(vex_aligned, f->mnemonic);
    return f->mem_bytes == 16 && !LISTED(unaligned, f->mnemonic);
}

void insn_classify(union form_key k, const ZydisDecodedInstruction *zi,
                   const ZydisDecodedOperand *ops, struct insn_form *f)
{
    const struct sys_entry *sys = sys_find(zi->mnemonic);
    enum isa_answer isa = insn_isa(zi->meta.isa_set);

    f->cls = structure(k, zi, ops);
    f->need = needed_unit(k, zi, ops);
    f->reads_vec = f->writes_vec = f->reads_vec || f->need != NEED_NONE;
    f->no_64 = only_outside_64(k);
    f->align = must_be_aligned(k, zi, f);
    f->lockable = (zi->attributes & ZYDIS_ATTRIB_ACCEPTS_LOCK) && (f->mem_acc & ACC_W);
    f->atomic = zi->mnemonic == MN(XCHG) && f->mem_acc;
    if (f->cls == INSN_NOP || f->cls == INSN_LEA)
        f->mem_acc = f->mem_bytes = 0;
    if (f->cls == INSN_NOP) {
        f->reg_acc = f->rm_acc = f->opreg_acc = 0;
        f->gpr_implicit_r = f->gpr_implicit_w = 0;
        return;
    }
    if (f->cls == INSN_COPY && sys && !LISTED(overloaded, zi->mnemonic))
        f->cls = INSN_SPECIAL;
    else if (f->cls == INSN_COPY && zi->mnemonic == MN(PAUSE))
        f->cls = INSN_NOP;
    else if (f->cls == INSN_COPY && !copyable(k, zi, ops, f))
        f->cls = INSN_INVALID;
    if (isa == ISA_ABSENT || (isa == ISA_UNKNOWN && !sys))
        f->cls = INSN_INVALID;
    if ((f->cls == INSN_SPECIAL || f->cls == INSN_SYSCALL) && !sys)
        f->cls = INSN_INVALID;
    if (f->cls != INSN_SPECIAL && f->cls != INSN_SYSCALL)
        return;
    f->sys = sys->fn;
    f->ends_block = sys->ends_block;
    f->flags_r = FL_ARITH; /* a helper gets, and may push or keep, all flags */
}
