/*
 * Walks all prefixes, maps, opcodes and ModRM groups once and keeps one template of each form that the
 * decoder puts into one of the wanted classes.
 */
#include <stdlib.h>
#include <string.h>

#include "catalogue.h"

static unsigned put_vector_prefix(union form_key k, struct random *r, u8 *p)
{
    /* Outside 64-bit mode the first two say that this is no LES, LDS or BOUND. */
    u8 rxb = (u8)(random_next(r) & 0xe0) | (k.mode == 2 ? 0 : 0xc0);
    u8 vvvv = k.vvvv_used ? (u8)(random_next(r) & 0x78) : 0x78;

    p[1] = (u8)(rxb | k.map);
    p[2] = (u8)(k.w << 7 | vvvv | k.pp);
    if (k.enc == ENC_VEX) {
        p[0] = 0xc4;
        p[2] |= (u8)(k.ll << 2);
        return 3;
    }
    p[0] = 0x62;
    p[1] |= (u8)(!k.r2 << 4);
    p[2] |= 4;
    p[3] = (u8)(k.zeroing << 7 | k.ll << 5 | k.bcast << 4 | !k.v2 << 3);
    if (k.masked)
        p[3] |= (u8)(1 + random_below(r, 7));
    return 4;
}

static unsigned put_opcode(union form_key k, struct random *r, u8 *p)
{
    unsigned n = 0;

    if (k.rep)
        p[n++] = k.rep == 2 ? 0xf2 : 0xf3;
    if (k.opsize)
        p[n++] = 0x66;
    if (random_below(r, 16) == 0)
        p[n++] = 0x67;
    if (k.enc != ENC_LEGACY) {
        n += put_vector_prefix(k, r, p + n);
    } else {
        if (k.mode == 2 && (k.w || random_below(r, 2)))
            p[n++] = (u8)(0x40 | k.w << 3 | random_below(r, 8));
        if (k.map != MAP_1)
            p[n++] = 0x0f;
        if (k.map > MAP_0F)
            p[n++] = k.map == MAP_0F38 ? 0x38 : 0x3a;
    }
    p[n++] = (u8)k.opcode;
    return n;
}

static unsigned put_modrm(const struct template *t, struct random *r, u8 *p)
{
    u8 reg = (u8)(t->attr & OP_REG ? t->key.reg : random_below(r, 8));
    u8 mod = (u8)(t->key.is_reg ? 3 : random_below(r, 3));
    u8 rm = (u8)(t->attr & OP_RM && t->key.is_reg ? t->key.rm : random_below(r, 8));
    unsigned n = 0, disp = mod == 1 ? 1 : mod == 2 ? 4 : 0;

    p[n++] = (u8)(mod << 6 | reg << 3 | rm);
    if (mod == 3)
        return n;
    if (rm == 4)
        p[n++] = (u8)random_next(r);
    if (mod == 0 && (rm == 5 || (rm == 4 && (p[n - 1] & 7) == 5)))
        disp = 4;
    for (unsigned i = 0; i < disp; i++)
        p[n++] = (u8)random_next(r);
    return n;
}

unsigned template_emit(const struct template *t, struct random *r, struct insn *ret)
{
    u8 p[40];

    for (unsigned tries = 0; tries < 200; tries++) {
        unsigned n = put_opcode(t->key, r, p);

        if (t->attr & OP_MODRM)
            n += put_modrm(t, r, p + n);
        for (unsigned i = 0; i < 8; i++)
            p[n + i] = (u8)random_next(r);
        if (insn_decode(p, INSN_MAX, 16u << t->key.mode, ret) == INSN_OK &&
            ret->form->cls == t->form->cls && ret->form->mnemonic == t->form->mnemonic)
            return ret->len;
    }
    return 0;
}

static bool known(const struct catalogue *c, const struct template *t, size_t from)
{
    for (size_t i = from; i < c->n; i++)
        if (c->list[i].form == t->form && c->list[i].key.reg == t->key.reg &&
            c->list[i].key.rep == t->key.rep && c->list[i].key.opsize == t->key.opsize)
            return true;
    return false;
}

static void add(struct catalogue *c, union form_key k, u8 attr, unsigned classes, size_t from)
{
    struct template t = {.key = k, .attr = attr};
    struct form_entry scratch;
    const struct form_entry *e = insn_form_lookup(k, &scratch);

    t.form = e->form;
    if (!(classes >> t.form->cls & 1) || known(c, &t, from))
        return;
    if ((c->n & (c->n - 1)) == 0) {
        c->list = realloc(c->list, (c->n ? c->n * 2 : 1) * sizeof(*c->list));
        if (!c->list)
            abort();
    }
    c->list[c->n++] = t;
}

/* All operand kinds of one opcode. */
static void add_operands(struct catalogue *c, union form_key k, unsigned classes)
{
    u8 attr = insn_op_attr[k.enc != ENC_LEGACY][k.map][k.opcode];
    size_t from = c->n;

    for (unsigned prefixes = 0; prefixes < 48; prefixes++) {
        if (k.enc == ENC_LEGACY) {
            static const u8 rep[3] = {0, 2, 3};

            k.w = prefixes & 1;
            k.opsize = prefixes >> 1 & 1;
            k.addrsize = prefixes >> 2 & 1;
            k.rep = rep[prefixes / 16];
            if (k.addrsize || prefixes & 8)
                continue;
        } else {
            k.w = prefixes & 1;
            k.pp = prefixes >> 1 & 3;
            k.vvvv_used = prefixes >> 3 & 1;
            k.ll = prefixes >> 4;
        }
        for (unsigned is_reg = 0; is_reg < (attr & OP_MODRM ? 2 : 1); is_reg++) {
            k.is_reg = is_reg;
            for (unsigned reg = 0; reg < (attr & OP_REG ? 8 : 1); reg++) {
                k.reg = reg;
                for (unsigned rm = 0; rm < (attr & OP_RM && is_reg ? 8 : 1); rm++) {
                    k.rm = rm;
                    add(c, k, attr, classes, from);
                }
            }
        }
    }
}

/* Bytes that are prefixes or lead to another map. */
static bool is_opcode(unsigned mode, unsigned map, unsigned byte)
{
    static const u8 others[] = {0x0f, 0x26, 0x2e, 0x36, 0x3e, 0x62, 0x64, 0x65,
                                0x66, 0x67, 0xc4, 0xc5, 0xf0, 0xf2, 0xf3};

    if (map == MAP_0F)
        return byte != 0x38 && byte != 0x3a;
    if (map != MAP_1)
        return true;
    if (mode == 64 && (byte & 0xf0) == 0x40)
        return false;
    return !memchr(others, (int)byte, sizeof(others));
}

static void add_evex(struct catalogue *c, union form_key k, unsigned classes)
{
    for (unsigned bits = 0; bits < 8; bits++) {
        k.bcast = bits & 1;
        k.masked = bits >> 1 & 1;
        k.zeroing = bits >> 2;
        if (k.zeroing && !k.masked)
            continue;
        add_operands(c, k, classes);
    }
}

void catalogue_init(struct catalogue *c, unsigned mode, unsigned classes, bool with_evex)
{
    const union form_key none = {.mode = mode >> 5};
    union form_key k = none;

    memset(c, 0, sizeof(*c));
    for (unsigned map = 0; map < 4; map++)
        for (unsigned opcode = 0; opcode < 256; opcode++) {
            k.map = map;
            k.opcode = opcode;
            k.enc = ENC_LEGACY;
            if (is_opcode(mode, map, opcode))
                add_operands(c, k, classes);
            if (map == MAP_1)
                continue;
            k.enc = ENC_VEX;
            add_operands(c, k, classes);
            k.enc = ENC_EVEX;
            if (with_evex)
                add_evex(c, k, classes);
            k = none;
        }
}

void catalogue_fini(struct catalogue *c)
{
    free(c->list);
    memset(c, 0, sizeof(*c));
}
