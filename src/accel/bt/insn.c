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

enum { P_NONE, P_SEG, P_OPSIZE, P_ADDRSIZE, P_REP, P_LOCK, P_REX };

/* clang-format off */
static const u8 prefix_kind[256] = {
    [0x26] = P_SEG, [0x2e] = P_SEG, [0x36] = P_SEG, [0x3e] = P_SEG, [0x64] = P_SEG, [0x65] = P_SEG,
    [0x66] = P_OPSIZE, [0x67] = P_ADDRSIZE, [0xf0] = P_LOCK, [0xf2] = P_REP, [0xf3] = P_REP,
    [0x40 ... 0x4f] = P_REX,
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

/* Returns the number of prefix bytes, REX included; at most INSN_MAX. */
static unsigned scan_prefixes(struct insn *in, struct ext *ext, const u8 *p)
{
    unsigned i;
    u8 rex = 0;

    for (i = 0; i < INSN_MAX; i++) {
        u8 kind = prefix_kind[p[i]];

        if (kind == P_NONE || (kind == P_REX && in->mode != 64))
            break;
        rex = kind == P_REX ? p[i] : 0; /* counts only right before the opcode */
        if (kind == P_SEG)
            segment_prefix(in, p[i]);
        else if (kind == P_OPSIZE)
            in->opsize_prefix = true;
        else if (kind == P_ADDRSIZE)
            ext->addrsize_prefix = true;
        else if (kind == P_REP)
            in->rep = p[i];
        else if (kind == P_LOCK)
            in->lock = true;
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

static union form_key make_key(const struct insn *in, const struct ext *ext, u8 attr, u8 modrm)
{
    union form_key k = {0};

    k.mode = in->mode >> 5;
    k.enc = in->enc;
    k.map = in->map;
    k.opcode = in->opcode;
    k.opsize = in->opsize_prefix;
    k.addrsize = ext->addrsize_prefix;
    k.rep = in->rep & 3;
    k.lock = in->lock;
    k.w = in->rex_w;
    if (attr & OP_MODRM) {
        k.is_reg = modrm >= 0xc0 || (attr & OP_ISREG);
        k.reg = attr & OP_REG ? modrm >> 3 & 7 : 0;
        k.rm = attr & OP_RM && k.is_reg ? modrm & 7 : 0;
    }
    k.r = attr & OP_EXT_R ? ext->r : 0;
    k.b = attr & OP_EXT_B ? ext->b : 0;
    if (in->enc == ENC_LEGACY)
        return k;
    k.pp = in->vex_pp;
    k.ll = in->vex_l;
    k.vvvv_used = in->vvvv != 0;
    if (attr & OP_K) {
        k.r = ext->r;
        k.b = k.is_reg ? ext->b : 0;
        k.vvvv_high = in->vvvv >> 3;
    }
    if (in->enc == ENC_EVEX) {
        k.r = ext->r;
        k.r2 = ext->r2;
        k.x = k.is_reg ? ext->x : 0;
        k.b = k.is_reg ? ext->b : 0;
        k.v2 = ext->v2;
        k.bcast = ext->bcast;
        k.zeroing = ext->zeroing;
        k.masked = ext->mask != 0;
    }
    return k;
}

/* 16-bit addressing, SDM 2 table 2-1. Returns the offset behind it. */
static unsigned mem16(struct insn *in, const u8 *p, unsigned at)
{
    static const u8 base[8] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
    static const u8 index[8] = {RSI, RDI, RSI, RDI, REG_NONE, REG_NONE, REG_NONE, REG_NONE};
    u16 disp16;

    in->base = base[in->rm & 7];
    in->index = index[in->rm & 7];
    in->disp_len = in->mod == 1 ? 1 : in->mod == 2 ? 2 : 0;
    if (in->mod == 0 && (in->rm & 7) == 6) {
        in->base = REG_NONE;
        in->disp_len = 2;
    }
    if (!in->seg_override)
        in->seg = in->base == RBP ? SEG_SS : SEG_DS;
    memcpy(&disp16, p + at, 2);
    in->disp_at = in->disp_len ? (u8)at : 0;
    in->disp = in->disp_len == 1 ? (s8)p[at] : in->disp_len == 2 ? (s16)disp16 : 0;
    return at + in->disp_len;
}

/* 32- and 64-bit addressing, SDM 2 tables 2-2 and 2-3. Returns the offset behind it. */
static unsigned mem32(struct insn *in, const struct ext *ext, const struct form_entry *e,
                      const u8 *p, unsigned at)
{
    u32 disp32;
    u8 low = in->rm & 7;

    in->base = (u8)(low | ext->b << 3);
    in->disp_len = in->mod == 1 ? 1 : in->mod == 2 ? 4 : 0;
    if (low == 4) {
        u8 sib = p[at++];
        u8 index = (u8)((sib >> 3 & 7) | ext->x << 3);

        low = sib & 7;
        in->base = (u8)(low | ext->b << 3);
        in->scale = (u8)(1 << (sib >> 6));
        if (e->vsib)
            in->index = (u8)((index | ext->v2 << 4) & e->vvvv_mask);
        else if (index != RSP)
            in->index = index;
        if (in->index == REG_NONE)
            in->scale = 1;
    } else if (low == 5 && in->mod == 0 && in->mode == 64) {
        in->base = REG_RIP;
    }
    if (low == 5 && in->mod == 0) {
        in->base = in->base == REG_RIP ? REG_RIP : REG_NONE;
        in->disp_len = 4;
    }
    if (!in->seg_override)
        in->seg = in->base == RSP || in->base == RBP ? SEG_SS : SEG_DS;
    memcpy(&disp32, p + at, 4);
    in->disp_at = in->disp_len ? (u8)at : 0;
    in->disp = in->disp_len == 1   ? (s64)(s8)p[at] * (1 << e->disp_shift)
               : in->disp_len == 4 ? (s32)disp32
                                   : 0;
    return at + in->disp_len;
}

static u64 read_le(const u8 *p, unsigned bytes)
{
    u64 v;

    memcpy(&v, p, 8);
    return bytes < 8 ? v & ((1ull << bytes * 8) - 1) : v;
}

static u64 sign_extend(u64 v, unsigned bytes)
{
    return (u64)((s64)(v << (64 - bytes * 8)) >> (64 - bytes * 8));
}

/* Displacement of the moffs forms, then the immediates. Returns the length of the instruction. */
static unsigned fill_immediates(struct insn *in, const struct form_entry *e, const u8 *p,
                                unsigned at)
{
    if (e->moffs) {
        in->has_mem = true;
        in->disp_len = in->addrsize;
        in->disp_at = (u8)at;
        in->disp = (s64)read_le(p + at, in->addrsize);
        at += in->addrsize;
    }
    if (!e->imm_bytes)
        return at;
    in->imm_at = (u8)at;
    in->imm = read_le(p + at, e->imm_bytes);
    if (e->imm_signed)
        in->imm = sign_extend(in->imm, e->imm_bytes);
    at += e->imm_bytes;
    if (e->imm2_bytes)
        in->imm2 = (u16)read_le(p + at, e->imm2_bytes);
    if (e->count_mask && !(in->imm & e->count_mask))
        in->form = e->form_if_zero;
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
        in->rm = (u8)(in->rm | ext->b << 3 | (in->enc == ENC_EVEX ? ext->x << 4 : 0)) & e->rm_mask;
        return at;
    }
    in->has_mem = true;
    if (in->addrsize == 2)
        return mem16(in, p, at);
    return mem32(in, ext, e, p, at);
}

/* AVX2 and AVX-512 gathers fault when their registers overlap (SDM 2, VGATHERDPS, VPGATHERDD). */
static bool gather_overlaps(const struct insn *in)
{
    if (in->enc == ENC_EVEX)
        return in->form->mem_acc == ACC_R && in->reg == in->index;
    return in->reg == in->index || in->reg == in->vvvv || in->vvvv == in->index;
}

static const struct insn_form invalid_form = {.cls = INSN_INVALID};

static unsigned decode(struct insn *in, const u8 *p)
{
    static const struct form_entry no_entry = {
        .form = &invalid_form, .reg_mask = 31, .rm_mask = 31, .vvvv_mask = 31};
    struct ext ext = {0};
    struct form_entry scratch;
    const struct form_entry *e = &no_entry;
    unsigned at = scan_prefixes(in, &ext, p);
    u8 attr;

    if (at >= INSN_MAX)
        return at + 1;
    at = scan_opcode(in, &ext, p, at);
    attr = in->map > 3 ? OP_MODRM : insn_op_attr[in->enc != ENC_LEGACY][in->map & 3][in->opcode];
    if (!ext.wrong)
        e = insn_form_lookup(make_key(in, &ext, attr, p[at]), &scratch);
    in->form = e->form;
    in->opsize = e->opsize;
    in->addrsize = e->addrsize;
    if (e->drop_rep)
        in->rep = 0;
    if (in->enc != ENC_LEGACY)
        in->vvvv = (u8)(in->vvvv | (e->vsib ? 0 : ext.v2 << 4)) & e->vvvv_mask;
    if (attr & OP_MODRM) {
        in->modrm_at = (u8)at;
        at = e == &no_entry ? at + 1 : fill_modrm(in, &ext, e, p, attr);
    } else {
        in->rm = (u8)((in->opcode & 7) | ext.b << 3);
    }
    if (e->vsib && gather_overlaps(in))
        in->form = &invalid_form;
    return fill_immediates(in, e, p, at);
}

int insn_decode(const u8 *bytes, unsigned avail, unsigned mode, struct insn *ret)
{
    u8 p[PADDED] = {0};
    unsigned len;

    if (avail >= INSN_MAX)
        memcpy(p, bytes, avail = INSN_MAX);
    else
        memcpy(p, bytes, avail);
    memset(ret, 0, sizeof(*ret));
    memcpy(ret->bytes, p, sizeof(ret->bytes));
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
