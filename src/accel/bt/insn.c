/*
 * insn_decode(): from bytes to struct insn.
 *
 * Prefixes, opcode, ModRM, SIB, displacement and immediates are taken apart here; what the opcode
 * means comes from insn_form_lookup(). All reads are from a private copy that is padded with zeros,
 * so there are no bounds checks on the way: an instruction that ran into the padding is longer than
 * what was given, which is found out at the end. Intel SDM volume 2, chapter 2 (formats; 2.3
 * VEX, 2.7 EVEX). Any thread.
 */
#include <string.h>

#include "accel/bt/insn_form.h"

/* Longest of everything, counted from a last prefix at offset 14: EVEX 4, opcode, ModRM, SIB, disp
 * 4, imm 8 + slack. */
#define PADDED 48

/* What the prefixes said beyond struct insn. Extension bits are not inverted. */
struct ext {
    u8 r, x, b, r2, v2;
    u8 bcast, zeroing, mask;
    bool addrsize_prefix;
    bool wrong; /* undefined whatever the opcode */
};

enum { P_NONE, P_SEG, P_OPSIZE, P_ADDRSIZE, P_REP, P_LOCK };

/* clang-format off */
static const u8 prefix_kind[256] = {
    [0x26] = P_SEG, [0x2e] = P_SEG, [0x36] = P_SEG, [0x3e] = P_SEG, [0x64] = P_SEG, [0x65] = P_SEG,
    [0x66] = P_OPSIZE, [0x67] = P_ADDRSIZE, [0xf0] = P_LOCK, [0xf2] = P_REP, [0xf3] = P_REP,
};
/* clang-format on */

static void segment_prefix(struct insn *in, u8 byte)
{
    u8 seg = byte == 0x64 ? SEG_FS : byte == 0x65 ? SEG_GS : (byte >> 3) & 3;

    if (in->mode == 64 && seg < SEG_FS)
        return; /* ignored, an earlier FS or GS stays */
    in->seg = seg;
    in->seg_override = true;
}

static void legacy_prefix(struct insn *in, struct ext *ext, u8 byte)
{
    u8 kind = prefix_kind[byte];

    if (kind == P_SEG)
        segment_prefix(in, byte);
    else if (kind == P_OPSIZE)
        in->opsize_prefix = true;
    else if (kind == P_ADDRSIZE)
        ext->addrsize_prefix = true;
    else if (kind == P_REP)
        in->rep = byte;
    else if (kind == P_LOCK)
        in->lock = true;
}

/* Returns the number of prefix bytes, REX included; at most INSN_MAX. */
static unsigned scan_prefixes(struct insn *in, struct ext *ext, const u8 *p)
{
    unsigned i = 0;
    u8 rex;

    for (;;) {
        while (i < INSN_MAX && prefix_kind[p[i]])
            legacy_prefix(in, ext, p[i++]);
        rex = in->mode == 64 && (p[i] & 0xf0) == 0x40 ? p[i] : 0;
        i += rex != 0;
        /* It counts only right before the opcode. */
        if (i >= INSN_MAX || !rex || !(prefix_kind[p[i]] || (p[i] & 0xf0) == 0x40))
            break;
    }
    in->rex = rex != 0;
    in->rex_w = rex >> 3 & 1;
    ext->r = rex >> 2 & 1;
    ext->x = rex >> 1 & 1;
    ext->b = rex & 1;
    return i;
}

/* The fields that two- and three-byte VEX and EVEX share. */
static void vex_tail(struct insn *in, u8 byte)
{
    in->vvvv = ~byte >> 3 & 15;
    in->vex_pp = byte & 3;
}

/* VEX at p; returns its length. SDM 2, 2.3.5. */
static unsigned scan_vex(struct insn *in, struct ext *ext, const u8 *p)
{
    in->enc = ENC_VEX;
    ext->r = !(p[1] & 0x80);
    vex_tail(in, p[0] == 0xc5 ? p[1] : p[2]);
    if (p[0] == 0xc5) {
        in->map = MAP_0F;
        in->vex_l = p[1] >> 2 & 1;
        return 2;
    }
    ext->x = !(p[1] & 0x40);
    ext->b = !(p[1] & 0x20);
    in->map = p[1] & 31;
    in->rex_w = p[2] >> 7;
    in->vex_l = p[2] >> 2 & 1;
    return 3;
}

/* EVEX at p. SDM 2, 2.7.1. */
static unsigned scan_evex(struct insn *in, struct ext *ext, const u8 *p)
{
    in->enc = ENC_EVEX;
    ext->r = !(p[1] & 0x80);
    ext->x = !(p[1] & 0x40);
    ext->b = !(p[1] & 0x20);
    ext->r2 = !(p[1] & 0x10);
    in->map = p[1] & 15;
    in->rex_w = p[2] >> 7;
    vex_tail(in, p[2]);
    ext->zeroing = p[3] >> 7;
    in->vex_l = p[3] >> 5 & 3;
    ext->bcast = p[3] >> 4 & 1;
    ext->v2 = !(p[3] & 8);
    ext->mask = p[3] & 7;
    if (!(p[2] & 4))
        ext->wrong = true;
    return 4;
}

/* Outside 64-bit mode C4, C5 and 62 are LES, LDS and BOUND, which have no register form: that is
 * VEX and EVEX. */
static bool vector_prefix(const struct insn *in, const u8 *p)
{
    return (p[0] == 0xc4 || p[0] == 0xc5 || p[0] == 0x62) && (in->mode == 64 || p[1] >= 0xc0);
}

/* Map and opcode at offset `at`; returns the offset behind the opcode. */
static unsigned scan_opcode(struct insn *in, struct ext *ext, const u8 *p, unsigned at)
{
    const u8 *o = p + at;

    if (vector_prefix(in, o)) {
        if (in->rex || in->rep || in->lock || in->opsize_prefix)
            ext->wrong = true;
        in->rex_w = ext->r = ext->x = ext->b = 0;
        at += o[0] == 0x62 ? scan_evex(in, ext, o) : scan_vex(in, ext, o);
        if (in->map < MAP_0F || (in->map > MAP_0F3A && (in->enc == ENC_VEX || in->map > 6)))
            ext->wrong = true;
    } else if (o[0] == 0x0f) {
        in->map = o[1] == 0x38 ? MAP_0F38 : o[1] == 0x3a ? MAP_0F3A : MAP_0F;
        at += in->map == MAP_0F ? 1 : 2;
    }
    in->opcode_at = (u8)at;
    in->opcode = p[at];
    return at + 1;
}

/* `value` in the place of `field`. Sums of these keep the key in a register, as stores to
 * bit-fields do not. */
#define KEY(field, value) ((u64)(value) << __builtin_ctzll((union form_key){.field = 1}.bits))

/* The parts of the key that only VEX and EVEX have. */
static u64 vector_key(const struct insn *in, const struct ext *ext, u8 attr, bool is_reg)
{
    u64 key = KEY(pp, in->vex_pp) | KEY(ll, in->vex_l) | KEY(vvvv_used, in->vvvv != 0);

    if (attr & OP_K)
        key |= KEY(r, ext->r) | KEY(b, is_reg & ext->b) | KEY(vvvv_high, in->vvvv >> 3);
    if (in->enc != ENC_EVEX)
        return key;
    return key | KEY(r, ext->r) | KEY(r2, ext->r2) | KEY(x, is_reg & ext->x) |
           KEY(b, is_reg & ext->b) | KEY(v2, ext->v2) | KEY(bcast, ext->bcast) |
           KEY(zeroing, ext->zeroing) | KEY(masked, ext->mask != 0);
}

/* Without branches on the operands: those are not predictable. */
static union form_key make_key(const struct insn *in, const struct ext *ext, u8 attr, u8 modrm)
{
    bool is_reg = (modrm >= 0xc0 && attr & OP_MODRM) || attr & OP_ISREG;
    u64 key = KEY(mode, in->mode >> 5) | KEY(enc, in->enc) | KEY(map, in->map) |
              KEY(opcode, in->opcode) | KEY(is_reg, is_reg);

    key |= KEY(opsize, in->opsize_prefix) | KEY(addrsize, ext->addrsize_prefix) |
           KEY(rep, in->rep & 3) | KEY(lock, in->lock) | KEY(w, in->rex_w);
    if (attr & (OP_REG | OP_RM))
        key |= KEY(reg, modrm >> 3 & 7) | KEY(rm, attr & OP_RM && is_reg ? modrm & 7 : 0);
    if (attr & (OP_EXT_R | OP_EXT_B))
        key |= KEY(r, attr & OP_EXT_R ? ext->r : 0) | KEY(b, attr & OP_EXT_B ? ext->b : 0);
    if (in->enc != ENC_LEGACY)
        key |= vector_key(in, ext, attr, is_reg);
    return (union form_key){.bits = key};
}

static u64 load64(const u8 *p)
{
    u64 v;

    memcpy(&v, p, 8);
    return v;
}

/* The low `bytes` (0 to 8) of v, sign- or zero-extended. */
static s64 sign_extend(u64 v, unsigned bytes)
{
    unsigned unused = (64 - bytes * 8) & 63;

    return bytes ? (s64)(v << unused) >> unused : 0;
}

static u64 zero_extend(u64 v, unsigned bytes)
{
    unsigned unused = (64 - bytes * 8) & 63;

    return bytes ? v << unused >> unused : 0;
}

static unsigned fill_disp(struct insn *in, const struct form_entry *e, const u8 *p, unsigned at,
                          unsigned len)
{
    in->disp_len = (u8)len;
    in->disp_at = len ? (u8)at : 0;
    in->disp = sign_extend(load64(p + at), len);
    if (e->disp_shift && len == 1)
        in->disp *= 1 << e->disp_shift;
    return at + len;
}

/* 16-bit addressing, SDM 2 table 2-1. Returns the offset behind it. */
static unsigned mem16(struct insn *in, const struct form_entry *e, const u8 *p, unsigned at)
{
    static const u8 base[8] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
    static const u8 index[8] = {RSI, RDI, RSI, RDI, REG_NONE, REG_NONE, REG_NONE, REG_NONE};
    unsigned len = in->mod;

    in->base = base[in->rm & 7];
    in->index = index[in->rm & 7];
    if (in->mod == 0 && (in->rm & 7) == 6) {
        in->base = REG_NONE;
        len = 2;
    }
    if (!in->seg_override)
        in->seg = in->base == RBP ? SEG_SS : SEG_DS;
    return fill_disp(in, e, p, at, len);
}

/* 32- and 64-bit addressing, SDM 2 tables 2-2 and 2-3. Returns the offset behind it. */
static unsigned mem32(struct insn *in, const struct ext *ext, const struct form_entry *e,
                      const u8 *p, unsigned at)
{
    static const u8 disp_len[4] = {0, 1, 4, 0};
    bool has_sib = (in->rm & 7) == 4;
    u8 sib = p[at];
    u8 low = (has_sib ? sib : in->rm) & 7;
    u8 index = (u8)((sib >> 3 & 7) | ext->x << 3);
    bool no_base = low == 5 && in->mod == 0;

    at += has_sib;
    in->base = (u8)(low | ext->b << 3);
    if (no_base)
        in->base = in->mode == 64 && !has_sib ? BASE_RIP : REG_NONE;
    if (e->flags & ENTRY_VSIB) {
        in->index = (u8)((index | ext->v2 << 4) & e->vvvv_mask);
        in->vsib = true;
    } else {
        in->index = has_sib && index != RSP ? index : REG_NONE;
    }
    in->scale = in->index == REG_NONE ? 1 : (u8)(1 << (sib >> 6));
    if (!in->seg_override)
        in->seg = in->base == RSP || in->base == RBP ? SEG_SS : SEG_DS;
    return fill_disp(in, e, p, at, no_base ? 4 : disp_len[in->mod]);
}

/* What only few instructions have behind ModRM. Returns the offset behind it. */
static unsigned fill_moffs(struct insn *in, const u8 *p, unsigned at)
{
    in->has_mem = true;
    in->disp_len = in->addrsize;
    in->disp_at = (u8)at;
    in->disp = (s64)zero_extend(load64(p + at), in->addrsize);
    return at + in->addrsize;
}

/* Displacement of the moffs forms, then the immediates. Returns the length of the instruction. */
static unsigned fill_immediates(struct insn *in, const struct form_entry *e, const u8 *p,
                                unsigned at)
{
    u64 v;

    if (e->flags & ENTRY_MOFFS)
        at = fill_moffs(in, p, at);
    v = load64(p + at);
    in->imm_at = e->imm_bytes ? (u8)at : 0;
    in->imm =
        e->flags & ENTRY_SIGNED ? (u64)sign_extend(v, e->imm_bytes) : zero_extend(v, e->imm_bytes);
    if (e->flags & ENTRY_IS4) {
        in->imm &= 0x7f;
        in->bytes[at] = (u8)in->imm;
    }
    at += e->imm_bytes;
    if (e->imm2_bytes)
        in->imm2 = (u16)zero_extend(load64(p + at), e->imm2_bytes);
    if (e->count_mask && !(in->imm & e->count_mask))
        in->form = &e->form[1];
    return at + e->imm2_bytes;
}

/* The registers and the memory operand of the ModRM byte. Returns the offset behind it all. */
static unsigned fill_modrm(struct insn *in, const struct ext *ext, const struct form_entry *e,
                           const u8 *p, u8 attr)
{
    unsigned at = in->modrm_at;
    u8 modrm = p[at++];

    in->has_modrm = true;
    in->mod = attr & OP_ISREG ? 3 : modrm >> 6;
    in->reg = (u8)((modrm >> 3 & 7) | ext->r << 3 | ext->r2 << 4) & e->reg_mask;
    in->rm = modrm & 7;
    if (in->mod == 3) {
        u8 x = in->enc == ENC_EVEX ? ext->x : 0;

        in->rm = (u8)(in->rm | ext->b << 3 | x << 4) & e->rm_mask;
        return at;
    }
    in->has_mem = true;
    if (in->addrsize == 2)
        return mem16(in, e, p, at);
    return mem32(in, ext, e, p, at);
}

static const struct insn_form invalid_form = {.cls = INSN_INVALID};

/* Vector indices need a SIB byte, and gathers different registers (SDM 2, VGATHERDPS, VPGATHERDD).
 */
static bool vsib_wrong(const struct insn *in)
{
    if ((in->rm & 7) != 4)
        return true;
    if (in->enc == ENC_EVEX)
        return in->form->mem_acc == ACC_R && in->reg == in->index;
    return in->reg == in->index || in->reg == in->vvvv || in->vvvv == in->index;
}

/*
 * VEX and EVEX bits that processors ignore outside 64-bit mode, where there are eight registers:
 * they are made neutral, so that the same bytes mean the same in 64-bit code. SDM 2, 2.3.5
 * and 2.7.1.
 */
static void neutral_bits(struct insn *in, struct ext *ext, const struct form_entry *e)
{
    u8 *op = in->bytes + in->opcode_at;

    ext->r = ext->x = ext->b = ext->r2 = ext->v2 = 0;
    if (in->enc == ENC_EVEX) {
        op[-3] |= 0xf0;
        op[-2] |= 0x40;
        op[-1] |= 0x08;
    } else if (in->opcode_at >= 3 && op[-3] == 0xc4) {
        op[-2] |= 0xe0;
        op[-1] |= 0x40;
    }
    if (e->flags & ENTRY_DROP_W) {
        in->rex_w = 0;
        op[in->enc == ENC_EVEX ? -2 : -1] &= 0x7f;
    }
}

/* What entries rarely ask for. */
static void fill_vector(struct insn *in, struct ext *ext, const struct form_entry *e)
{
    if (in->mode != 64)
        neutral_bits(in, ext, e);
    in->vvvv = (u8)(in->vvvv | (e->flags & ENTRY_VSIB ? 0 : ext->v2 << 4)) & e->vvvv_mask;
}

static unsigned decode(struct insn *in, const u8 *p)
{
    struct ext ext = {0};
    struct form_entry scratch;
    const struct form_entry *e;
    unsigned at = scan_prefixes(in, &ext, p);
    u8 attr;

    if (at >= INSN_MAX)
        return at + 1;
    at = scan_opcode(in, &ext, p, at);
    in->form = &invalid_form;
    if (ext.wrong)
        return at + 1; /* with the ModRM byte */
    attr = insn_op_attr[in->enc != ENC_LEGACY][in->map & 3][in->opcode];
    if (in->map > MAP_0F3A)
        attr = OP_MODRM;
    e = insn_form_lookup(make_key(in, &ext, attr, p[at]), &scratch);
    in->form = e->form;
    in->opsize = e->opsize;
    in->addrsize = e->addrsize;
    if (e->flags & ENTRY_DROP_REP)
        in->rep = 0;
    if (e->flags & ENTRY_IS_80)
        in->opcode = in->bytes[in->opcode_at] = 0x80;
    if (in->enc != ENC_LEGACY)
        fill_vector(in, &ext, e);
    in->rm = (u8)((in->opcode & 7) | ext.b << 3);
    if (attr & OP_MODRM) {
        in->modrm_at = (u8)at;
        at = fill_modrm(in, &ext, e, p, attr);
    }
    at = fill_immediates(in, e, p, at);
    if (e->flags & ENTRY_VSIB && vsib_wrong(in))
        in->form = &invalid_form;
    return at;
}

/* 16 bytes that are stored at once, because parts of them are loaded again right away. */
typedef u64 chunk __attribute__((vector_size(16)));

static chunk load_chunk(const u8 *bytes, unsigned avail)
{
    u8 copy[INSN_MAX] = {0};

    if (avail < INSN_MAX)
        bytes = memcpy(copy, bytes, avail);
    return (chunk){load64(bytes), load64(bytes + 7) >> 8};
}

int insn_decode(const u8 *bytes, unsigned avail, unsigned mode, struct insn *ret)
{
    chunk first = load_chunk(bytes, avail = MIN(avail, INSN_MAX));
    u8 p[PADDED] __attribute__((aligned(16))) = {0};
    unsigned len;

    memset(ret, 0, sizeof(*ret));
    memcpy(p, &first, sizeof(first));
    memcpy(ret->bytes, &first, sizeof(first));
    ret->mode = (u8)mode;
    ret->seg = SEG_DS;
    ret->base = ret->index = REG_NONE;
    ret->scale = 1;
    len = decode(ret, p);
    if (len <= avail) {
        ret->len = (u8)len;
        return INSN_OK;
    }
    return avail == INSN_MAX ? INSN_TOO_LONG : INSN_TRUNCATED;
}
