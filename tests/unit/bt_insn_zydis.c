/*
 * The decoder against a full Zydis decode of the same bytes: length, registers, memory operand,
 * immediates, flags, in all three code sizes, over random bytes (fixed seed) and over the code that
 * is loaded into this process. The decoder asks Zydis only once per form, with bytes it makes up:
 * this shows that nothing was left out of the key of a form.
 */
#include "unit.h"

#include <link.h>

#include "accel/bt/sys.h"
#include "zydis_decoders.h"

static void no_helper(struct cpu *c, const struct insn *in)
{
    (void)c;
    (void)in;
}

#define HELPER(x)                            \
    {                                        \
        ZYDIS_MNEMONIC_##x, no_helper, false \
    }

/* Enough helpers that special forms are compared too. */
const struct sys_entry sys_system[] = {
    HELPER(MOV),  HELPER(CALL),   HELPER(JMP),  HELPER(RET),   HELPER(SYSCALL),  HELPER(CPUID),
    HELPER(PUSH), HELPER(POP),    HELPER(IN),   HELPER(OUT),   HELPER(INT),      HELPER(IRETD),
    HELPER(LGDT), HELPER(INVLPG), HELPER(INSD), HELPER(OUTSB), {0, NULL, false},
};
const struct sys_entry sys_legacy[] = {
    HELPER(BT),    HELPER(BTS), HELPER(BTR),       HELPER(BTC),        HELPER(BOUND),
    HELPER(LES),   HELPER(LDS), HELPER(CMPXCHG8B), HELPER(CMPXCHG16B), HELPER(ENTER),
    HELPER(XLAT),  HELPER(AAM), HELPER(ARPL),      HELPER(PUSHFQ),     HELPER(FNSAVE),
    HELPER(XSAVE), HELPER(LAR), {0, NULL, false},
};
const struct sys_entry sys_vector[] = {HELPER(VPGATHERDD), HELPER(VPGATHERQQ), {0, NULL, false}};

static unsigned long compared;

static bool is_gpr(ZydisRegister r)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(r);

    return class >= ZYDIS_REGCLASS_GPR8 && class <= ZYDIS_REGCLASS_GPR64;
}

static unsigned number(ZydisRegister r)
{
    if (r == ZYDIS_REGISTER_NONE)
        return REG_NONE;
    if (r == ZYDIS_REGISTER_RIP || r == ZYDIS_REGISTER_EIP)
        return BASE_RIP;
    if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
        return r - ZYDIS_REGISTER_AH;
    if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_R15B)
        return 4 + (r - ZYDIS_REGISTER_SPL);
    return (unsigned)ZydisRegisterGetId(r);
}

static unsigned access_of(const ZydisDecodedOperand *op)
{
    unsigned acc = 0;

    if (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
        acc |= ACC_R;
    if (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
        acc |= ACC_W;
    if (op->actions & ZYDIS_OPERAND_ACTION_CONDWRITE)
        acc |= ACC_R;
    if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && is_gpr(op->reg.value) && (acc & ACC_W) &&
        ZydisRegisterGetClass(op->reg.value) <= ZYDIS_REGCLASS_GPR16)
        acc |= ACC_R;
    return acc;
}

/* The register number in field `which` (0 reg, 1 rm, 2 opcode) as an instruction without REX means
 * it. */
static unsigned plain(const struct insn *in, unsigned reg, unsigned which)
{
    bool byte = in->form->reg_is_byte >> which & 1;

    return byte && !in->rex && reg >= 4 && reg < 8 ? reg - 4 : reg;
}

static const char *compare_register(const struct insn *in, const ZydisDecodedOperand *op)
{
    const struct insn_form *f = in->form;
    unsigned n = number(op->reg.value), acc = access_of(op), ours, our_acc;

    switch ((unsigned)op->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        ours = plain(in, in->reg, 0);
        our_acc = f->reg_acc;
        break;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        ours = plain(in, in->rm, 1);
        our_acc = f->rm_acc;
        break;
    case ZYDIS_OPERAND_ENCODING_OPCODE:
        ours = plain(in, in->rm, 2);
        our_acc = f->opreg_acc;
        break;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
        ours = in->vvvv;
        our_acc = f->vvvv_acc;
        break;
    default:
        if (is_gpr(op->reg.value) && (acc & ACC_R) && !(f->gpr_implicit_r >> n & 1))
            return "implicit read";
        if (is_gpr(op->reg.value) && (acc & ACC_W) && !(f->gpr_implicit_w >> n & 1))
            return "implicit write";
        return NULL;
    }
    if (ours != n)
        return "register number";
    if (!is_gpr(op->reg.value))
        return our_acc ? "a vector register taken for a GPR" : NULL;
    return (our_acc & acc) != acc ? "register access" : NULL;
}

/* Zydis 4.0 takes R13 for a base where there is none: [disp32 + index] with REX.B and a 32-bit
 * address. */
static bool zydis_is_wrong(const struct insn *in)
{
    return in->mode == 64 && in->addrsize == 4 && in->mod == 0 && (in->rm & 7) == 4 &&
           in->base == REG_NONE;
}

static const char *compare_memory(const struct insn *in, const ZydisDecodedInstruction *zi,
                                  const ZydisDecodedOperand *op)
{
    const struct insn_form *f = in->form;

    if (op->encoding == ZYDIS_OPERAND_ENCODING_NONE)
        return NULL;
    if (!in->has_mem)
        return "no memory operand";
    if (in->disp_at != zi->raw.disp.offset || in->disp_len != zi->raw.disp.size / 8)
        return "place of the displacement";
    if (zydis_is_wrong(in))
        return NULL;
    if (in->base != number(op->mem.base) || in->index != number(op->mem.index))
        return "base or index";
    if (op->mem.index && op->mem.scale != in->scale && in->addrsize != 2)
        return "scale";
    if (f->cls != INSN_MOFFS && in->disp != op->mem.disp.value)
        return "displacement";
    if (f->cls == INSN_LEA || f->cls == INSN_NOP)
        return f->mem_acc ? "access without access" : NULL;
    if (in->seg != number(op->mem.segment))
        return "segment";
    if (zi->meta.isa_ext == ZYDIS_ISA_EXT_CLFSH || zi->meta.isa_ext == ZYDIS_ISA_EXT_CLFLUSHOPT ||
        zi->meta.isa_ext == ZYDIS_ISA_EXT_CLWB)
        return NULL; /* ours are one byte */
    if (op->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
        return NULL;
    if (f->mem_acc != access_of(op))
        return "memory access";
    return f->mem_bytes && f->mem_bytes != op->size / 8 ? "memory size" : NULL;
}

static const char *compare_rest(const struct insn *in, const ZydisDecodedInstruction *zi)
{
    const ZydisAccessedFlags *z = zi->cpu_flags;
    const struct insn_form *f = in->form;
    unsigned read = z->tested & FL_ARITH;
    unsigned written = (z->modified | z->set_0 | z->set_1 | z->undefined) & FL_ARITH;
    bool vex_test = f->mnemonic == ZYDIS_MNEMONIC_VPTEST || f->mnemonic == ZYDIS_MNEMONIC_VTESTPS ||
                    f->mnemonic == ZYDIS_MNEMONIC_VTESTPD;

    if (in->imm_at != zi->raw.imm[0].offset)
        return "place of the immediate";
    if (zi->raw.imm[0].size && in->imm != zi->raw.imm[0].value.u &&
        !(in->mode != 64 && in->enc == ENC_VEX && in->imm == (zi->raw.imm[0].value.u & 0x7f)))
        return "immediate"; /* a register number in an immediate has three bits outside 64-bit mode */
    if (zi->raw.imm[1].size && in->imm2 != zi->raw.imm[1].value.u)
        return "second immediate";
    if (f->imm_bytes != (zi->raw.imm[0].size + zi->raw.imm[1].size) / 8)
        return "immediate bytes";
    if (in->addrsize != zi->address_width / 8)
        return "address size";
    if (zi->operand_width >= 16 && in->opsize != zi->operand_width / 8)
        return "operand size";
    if (f->has_modrm != !!(zi->attributes & ZYDIS_ATTRIB_HAS_MODRM))
        return "ModRM";
    if (vex_test)
        return f->flags_w != FL_ARITH ? "flags of VPTEST" : NULL; /* Zydis has none */
    if (f->flags_w && f->flags_w != written)
        return "flags written";
    return f->flags_w && (f->flags_r & read) != read ? "flags read" : NULL;
}

static const char *compare_decoded(const struct insn *in, const ZydisDecodedInstruction *zi,
                                   const ZydisDecodedOperand *ops)
{
    const char *wrong = NULL;

    if (in->len != zi->length)
        return "length";
    if (zi->mnemonic == ZYDIS_MNEMONIC_PAUSE && in->rm == R8)
        return in->form->mnemonic != ZYDIS_MNEMONIC_XCHG ? "XCHG" : NULL; /* as processors do */
    if (in->form->mnemonic != zi->mnemonic)
        return "mnemonic";
    for (unsigned i = 0; i < zi->operand_count && !wrong; i++) {
        if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
            wrong = compare_memory(in, zi, &ops[i]);
        else if (ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER && in->form->cls != INSN_NOP)
            wrong = compare_register(in, &ops[i]);
    }
    return wrong ? wrong : compare_rest(in, zi);
}

/* Zydis knows Knights Corner's instructions, of which some have no ModRM byte where all others of their map have one. */
static bool insn_known(const ZydisDecodedInstruction *zi)
{
    return zi->meta.isa_ext < ZYDIS_ISA_EXT_KNC || zi->meta.isa_ext > ZYDIS_ISA_EXT_KNCV;
}

/* Returns how far to go on in a corpus. */
static unsigned compare(const u8 *bytes, unsigned avail, unsigned mode)
{
    ZydisDecodedInstruction zi;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    struct insn in;
    int got = insn_decode(bytes, avail, mode, &in);
    bool valid =
        ZYAN_SUCCESS(ZydisDecoderDecodeFull(&zydis_decoder[mode >> 5], bytes, avail, &zi, ops));
    const char *wrong = NULL;

    if (got != INSN_OK)
        wrong = valid && insn_known(&zi) ? "refused" : NULL;
    else if (!valid)
        wrong = in.form->cls != INSN_INVALID ? "accepted" : NULL;
    else if (in.form->cls != INSN_INVALID)
        wrong = compare_decoded(&in, &zi, ops);
    compared += got == INSN_OK && valid;
    if (wrong) {
        for (unsigned i = 0; i < avail; i++)
            print_message("%02x ", bytes[i]);
        fail_msg("%s, in %u-bit code", wrong, mode);
    }
    return got == INSN_OK && valid ? zi.length : 1;
}

static u64 seed = 0x853c49e6748fea9b;

static u64 random64(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* Random bytes with a bias to prefixes and to the maps behind 0f, c4, c5 and 62. */
static void random_bytes(u8 b[16])
{
    static const u8 prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x3e,
                                  0x26, 0x64, 0x65, 0x40, 0x48, 0x41, 0x44, 0x4f};
    u64 r[2] = {random64(), random64()};
    unsigned n = random64() % 4, at = 0;

    memcpy(b, r, 16);
    while (at < n)
        b[at++] = prefixes[random64() % ARRAY_LEN(prefixes)];
    switch (random64() % 8) {
    case 0:
        b[at] = 0x0f;
        break;
    case 1:
        b[at] = 0x0f;
        b[at + 1] = b[at + 1] & 1 ? 0x38 : 0x3a;
        break;
    case 2:
        b[at] = 0xc4;
        b[at + 1] = (u8)((b[at + 1] & 0xe0) | (1 + random64() % 3));
        break;
    case 3:
        b[at] = 0xc5;
        break;
    case 4:
        b[at] = 0x62;
        b[at + 1] = (u8)((b[at + 1] & 0xf0) | (1 + random64() % 3));
        b[at + 2] |= 4;
        break;
    default:
        break;
    }
}

static void test_random_bytes(void **state)
{
    const char *cases = getenv("TRAPEZE_INSN_CASES");
    unsigned long n = cases ? strtoul(cases, NULL, 0) : 300000;
    u8 b[16];

    zydis_setup();
    for (unsigned long i = 0; i < n; i++) {
        random_bytes(b);
        compare(b, random64() % 16 ? 15 : 1 + (unsigned)(random64() % 15), 16u << (random64() % 3));
    }
    (void)state;
}

static int compare_segments(struct dl_phdr_info *info, size_t size, void *opaque)
{
    (void)size;
    (void)opaque;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        const u8 *code = (const u8 *)(info->dlpi_addr + ph->p_vaddr);

        if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_X))
            continue;
        for (unsigned mode = 16; mode <= 64; mode *= 2)
            for (size_t at = 0; at + 15 <= MIN(ph->p_filesz, 400 * KiB);)
                at += compare(code + at, 15, mode);
    }
    return 0;
}

static void test_loaded_code(void **state)
{
    zydis_setup();
    compared = 0;
    dl_iterate_phdr(compare_segments, NULL);
    assert_true(compared > 100000);
    (void)state;
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_random_bytes),
    cmocka_unit_test(test_loaded_code),
};

UNIT_MAIN(tests)
