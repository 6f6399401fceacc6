/*
 * Code generation: guest instructions that run as they are, with their memory operand moved to where the guest's page is
 * on the host, and with guest R14 and R15 (which live in struct cpu) taken through the scratch registers.
 */
#include "accel/bt/gen.h"

/* How the rewritten instruction names its operands. */
struct names {
    u8 reg, vvvv;     /* register numbers for ModRM.reg and VEX.vvvv */
    u8 base, index;   /* of the memory operand */
    s32 disp;
};

static bool is_high_byte(const struct insn *in, unsigned which, unsigned reg)
{
    return (in->form->reg_is_byte & which) && !in->rex && in->enc == ENC_LEGACY && reg >= 4 && reg < 8;
}

bool gen_copy_needs_care(const struct insn *in)
{
    return in->has_mem && is_high_byte(in, 1, in->reg);
}

/* With one processor LOCK is left out: nobody else does read-modify-write on guest memory. But the idiom `lock add $0, (stack)`
 * is there to order a store before a load, towards devices that share rings with their driver. */
static bool is_barrier(const struct insn *in)
{
    return in->has_mem && in->base == RSP;
}

static bool wants_66(const struct insn *in)
{
    return in->opsize_prefix != in->form->flip_66;
}

static void put_imm(struct gen *g, const struct insn *in)
{
    for (unsigned i = 0; i < in->form->imm_bytes; i++)
        b1(&g->o, in->bytes[in->imm_at + i]);
}

static void put_legacy(struct gen *g, const struct insn *in, const struct names *n)
{
    struct code *o = &g->o;
    u8 r = rex(in->rex_w, n->reg, n->index == REG_NONE ? 0 : n->index, n->base);

    if (in->lock && (g->bt->nvcpus > 1 || is_barrier(in)))
        b1(o, 0xf0);
    if (wants_66(in))
        b1(o, 0x66);
    if (in->rep)
        b1(o, in->rep);
    if (r != 0x40 || in->rex)
        b1(o, r);
    if (in->map != MAP_1)
        b1(o, 0x0f);
    if (in->map == MAP_0F38)
        b1(o, 0x38);
    if (in->map == MAP_0F3A)
        b1(o, 0x3a);
    b1(o, in->opcode);
}

static void put_vex(struct gen *g, const struct insn *in, const struct names *n)
{
    struct code *o = &g->o;
    u8 r = rex(false, n->reg, n->index == REG_NONE ? 0 : n->index, n->base);

    b1(o, 0xc4);
    b1(o, (u8)(~r & 7) << 5 | in->map);
    b1(o, in->rex_w << 7 | (~n->vvvv & 15) << 3 | (in->vex_l & 1) << 2 | in->vex_pp);
    b1(o, in->opcode);
}

static void put_evex(struct gen *g, const struct insn *in, const struct names *n)
{
    struct code *o = &g->o;
    const u8 *p = in->bytes + in->opcode_at - 3; /* P0, P1, P2 */
    u8 x = n->index == REG_NONE ? 0 : n->index >> 3 & 1, b = n->base >> 3 & 1;
    u8 p0 = (p[0] & ~0x60) | (x ? 0 : 0x40) | (b ? 0 : 0x20);

    if (n->reg != in->reg) /* a GPR, renamed: both extension bits */
        p0 = (p0 & ~0x90) | (n->reg & 8 ? 0 : 0x80) | 0x10;
    b2(o, 0x62, p0);
    b3(o, p[1], p[2], in->opcode);
}

/* The instruction with its memory operand at [base + index]. */
static void put_mem_form(struct gen *g, const struct insn *in, const struct names *n)
{
    if (in->enc == ENC_VEX)
        put_vex(g, in, n);
    else if (in->enc == ENC_EVEX)
        put_evex(g, in, n);
    else
        put_legacy(g, in, n);
    modrm_mem(&g->o, n->reg, n->base, n->index, 1, n->disp);
    put_imm(g, in);
}

struct hidden {
    u8 reg;  /* S1 or S2: the guest register */
    u8 acc;
    u8 host; /* where it is while the instruction runs */
};

static unsigned note_hidden(struct hidden *h, unsigned n, unsigned reg, unsigned acc)
{
    if (!acc || !reg_hidden(reg))
        return n;
    for (unsigned i = 0; i < n; i++)
        if (h[i].reg == reg) {
            h[i].acc |= acc;
            return n;
        }
    h[n] = (struct hidden){.reg = reg, .acc = acc, .host = reg};
    return n + 1;
}

static unsigned host_of(const struct hidden *h, unsigned n, unsigned reg, unsigned acc)
{
    for (unsigned i = 0; acc && i < n; i++)
        if (h[i].reg == reg)
            return h[i].host;
    return reg;
}

static void load_hidden(struct gen *g, const struct hidden *h, unsigned n)
{
    if (n)
        g->s2_window = NO_WINDOW;
    for (unsigned i = 0; i < n; i++)
        if (h[i].acc & ACC_R)
            load_gs(&g->o, h[i].host, GPR_FIELD(h[i].reg));
}

static void store_hidden(struct gen *g, const struct hidden *h, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (h[i].acc & ACC_W)
            store_gs(&g->o, h[i].host, GPR_FIELD(h[i].reg));
}

/* The instruction with its memory at [addr + S2 + disp], or at [addr] when delta is false. */
static void put_with_mem(struct gen *g, const struct insn *in, unsigned addr, bool delta, s32 disp)
{
    struct hidden h[2];
    unsigned n = note_hidden(h, 0, in->reg, in->form->reg_acc);

    n = note_hidden(h, n, in->vvvv, in->form->vvvv_acc);
    if (delta && (n || (disp && in->enc == ENC_EVEX))) {
        lea(&g->o, true, S1, addr, S2, 1, disp);
        addr = S1;
        delta = false;
        disp = 0;
    }
    if (n)
        h[0].host = S2;
    if (n == 2) {
        /* At most one of two is read beside memory; the other may take the address register as its result. */
        unsigned w = h[0].acc == ACC_W ? 0 : 1;
        h[w].host = S1;
        h[!w].host = S2;
    }
    struct names names = {
        .reg = host_of(h, n, in->reg, in->form->reg_acc),
        .vvvv = host_of(h, n, in->vvvv, in->form->vvvv_acc),
        .base = addr,
        .index = delta ? S2 : REG_NONE,
        .disp = disp,
    };
    if (n)
        g->s2_window = NO_WINDOW;
    load_hidden(g, h, n);
    put_mem_form(g, in, &names);
    store_hidden(g, h, n);
}

void copy_with_mem(struct gen *g, const struct insn *in, unsigned addr)
{
    put_with_mem(g, in, addr, true, 0);
}

static void put_reg_form(struct gen *g, const struct insn *in)
{
    struct code *o = &g->o;

    if (in->mode == 64) {
        for (unsigned i = 0; i < in->len; i++)
            b1(o, in->bytes[i]);
        return;
    }
    if (in->form->no_64 && in->opcode >= 0x40 && in->opcode <= 0x4f) { /* inc, dec r */
        if (wants_66(in))
            b1(o, 0x66);
        b2(o, 0xff, 0xc0 | (in->opcode & 15));
        return;
    }
    if (in->enc != ENC_LEGACY) {
        for (unsigned i = 0; i < in->len; i++)
            b1(o, in->bytes[i]);
        return;
    }
    struct names n = {.reg = in->has_modrm ? in->reg : 0, .base = in->has_modrm ? in->rm : 0, .index = REG_NONE};
    put_legacy(g, in, &n);
    if (in->form->no_64 && in->opcode == 0x82)
        o->p[-1] = 0x80;
    if (in->has_modrm)
        b1(o, 0xc0 | (in->reg & 7) << 3 | (in->rm & 7));
    put_imm(g, in);
}

static void copy_registers(struct gen *g, const struct insn *in)
{
    struct hidden h[4];
    unsigned n = 0;

    if (g->code64) {
        n = note_hidden(h, n, in->reg, in->form->reg_acc);
        n = note_hidden(h, n, in->rm, in->form->rm_acc);
        n = note_hidden(h, n, in->vvvv, in->form->vvvv_acc);
        n = note_hidden(h, n, in->rm, in->form->opreg_acc);
    }
    load_hidden(g, h, n);
    put_reg_form(g, in);
    store_hidden(g, h, n);
}

/* Through the slow path, in line: light_begin() puts the address of the bytes in S1, light_end() writes them back. */
void copy_carefully(struct gen *g, const struct insn *in)
{
    struct code *o = &g->o;
    struct site *s = gen_site(g, NULL);

    gen_stub_call(g, STUB_BEGIN, s);
    s->next = code_rx(o);
    if (gen_copy_needs_care(in)) {
        /* AH..BH cannot be named beside R14: lend the address RSI; nothing can fault here. */
        struct names n = {.reg = in->reg, .base = RSI, .index = REG_NONE};
        mov_rr(o, S2, RSI);
        mov_rr(o, RSI, S1);
        put_mem_form(g, in, &n);
        mov_rr(o, RSI, S2);
    } else {
        put_with_mem(g, in, S1, false, 0);
    }
    if (in->form->mem_acc & ACC_W) {
        s = gen_site(g, NULL);
        gen_stub_call(g, STUB_END, s);
        s->next = code_rx(o);
    }
}

void gen_copy(struct gen *g)
{
    const struct insn *in = g->in;

    if (!in->has_mem) {
        copy_registers(g, in);
        return;
    }
    /* Segments that the mode does not promise to be flat, and code segments, which are never writable. */
    bool far_seg = !g->code64 && (in->seg == SEG_FS || in->seg == SEG_GS ||
                                  (in->seg == SEG_CS && (in->form->mem_acc & ACC_W)));
    if (g->careful[g->i] && gen_store(g))
        return;
    if (!g->plain || g->careful[g->i] || far_seg || gen_copy_needs_care(in)) {
        copy_carefully(g, in);
        return;
    }
    if (g->window_mem[g->i] != NO_WINDOW) {
        window_to_s2(g, g->window_mem[g->i]);
        put_with_mem(g, in, in->base, true, (s32)in->disp);
        return;
    }
    unsigned addr = gen_address(g, in, 0);
    gen_check(g, addr, in->form->mem_bytes,
              in->form->mem_acc | (in->form->align ? ACC_ALIGN : 0) | (in->form->masked ? ACC_MASKED : 0));
    struct cold *k = &g->cold[g->ncold - 1];
    put_with_mem(g, in, k->addr_reg, true, 0);
}

void gen_moffs(struct gen *g)
{
    const struct insn *in = g->in;
    bool store = in->opcode & 2, byte = !(in->opcode & 1);
    struct insn as = *in;
    struct insn_form form = *in->form;

    /* The same access in its ModRM form: mov AL/eAX, [moffs] or back. */
    form.imm_bytes = 0;
    form.mem_acc = store ? ACC_W : ACC_R;
    form.mem_bytes = byte ? 1 : in->opsize;
    form.reg_acc = store ? ACC_R : byte || in->opsize == 2 ? ACC_RW : ACC_W;
    form.need = NEED_NONE;
    as.form = &form;
    as.opcode = (store ? 0x88 : 0x8a) | !byte;
    as.reg = RAX;
    as.has_mem = true;
    as.base = as.index = REG_NONE;
    unsigned addr = gen_address(g, &as, 0);
    gen_check(g, addr, form.mem_bytes, form.mem_acc);
    put_with_mem(g, &as, g->cold[g->ncold - 1].addr_reg, true, 0);
}

void gen_lea(struct gen *g)
{
    const struct insn *in = g->in;
    struct code *o = &g->o;

    if (in->mode == 64 && in->base != BASE_RIP && !reg_hidden(in->base) && !reg_hidden(in->index) && !reg_hidden(in->reg)) {
        for (unsigned i = 0; i < in->len; i++)
            b1(o, in->bytes[i]);
        return;
    }
    if (in->base == BASE_RIP && in->addrsize == 8 && in->opsize == 8 && !reg_hidden(in->reg) && g->b->relative) {
        gen_relative(g, in->reg, g->vpc + in->len + (u64)(s64)in->disp);
        return;
    }
    g->s2_window = NO_WINDOW;
    unsigned addr = gen_address(g, in, 0), to = in->reg;
    if (in->opsize == 2) {
        if (reg_hidden(to))
            load_gs(o, S2, GPR_FIELD(to));
        unsigned host = reg_hidden(to) ? S2 : to;
        b2(o, 0x66, rex(false, addr, 0, host)), b2(o, 0x89, 0xc0 | (addr & 7) << 3 | (host & 7));
        if (reg_hidden(to))
            store_gs(o, S2, GPR_FIELD(to));
        return;
    }
    unsigned host = reg_hidden(to) ? S2 : to;
    lea(o, in->opsize == 8, host, addr, REG_NONE, 1, 0);
    if (reg_hidden(to))
        store_gs(o, S2, GPR_FIELD(to));
}
