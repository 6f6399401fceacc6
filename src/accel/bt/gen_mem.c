/*
 * Code generation: addresses of memory operands and the check in front of every access.
 *
 * The check is  pext S2, addr, mask; mov S2, gs:[S2*8]; test S2, S2; jz miss; test addr, size-1; jnz misaligned
 * and the access then uses [addr + S2]. Where the arithmetic flags are live they are kept in AX around the tests.
 * A linear address that is not canonical finds the entry of the canonical one with the same low 48 bits, and the sum
 * is then not canonical either: the host faults, and the careful path finds out what to tell the guest.
 */
#include "accel/bt/gen.h"

struct cold *gen_cold(struct gen *g, enum cold_kind kind)
{
    struct cold *k = &g->cold[g->ncold++];

    *k = (struct cold){.kind = kind, .vpc = g->vpc};
    return k;
}

void gen_relative(struct gen *g, unsigned to, u64 address)
{
    s64 left = (s64)address;

    load_gs(&g->o, to, PRIV_FIELD(P_SLIDE));
    for (s32 part; left; left -= part) { /* frame + displacement can be more than 31 bits */
        part = (s32)(left > INT32_MAX ? INT32_MAX : left < INT32_MIN ? INT32_MIN : left);
        lea(&g->o, true, to, to, REG_NONE, 1, part);
    }
}

void gen_code_address(struct gen *g, unsigned to, u64 address)
{
    if (g->b->relative)
        gen_relative(g, to, address);
    else
        mov_imm(&g->o, to, address);
}

static void add_segment_base(struct gen *g, unsigned seg)
{
    load_gs(&g->o, S2, CPU_FIELD(seg) + (s32)(seg * sizeof(struct x86_seg)));
    lea(&g->o, true, S1, S1, S2, 1, 0);
}

static unsigned gen_visible(struct gen *g, unsigned reg, unsigned scratch)
{
    if (reg == REG_NONE || !reg_hidden(reg))
        return reg;
    load_gs(&g->o, scratch, GPR_FIELD(reg));
    return scratch;
}

static bool has_based_segment(const struct gen *g, const struct insn *in)
{
    return g->code64 && (in->seg == SEG_FS || in->seg == SEG_GS);
}

unsigned gen_address(struct gen *g, const struct insn *in, s32 extra_disp)
{
    s64 disp = in->disp + extra_disp;
    bool based = has_based_segment(g, in) && in->form->cls != INSN_LEA;

    g->s2_window = NO_WINDOW;
    if (in->base == BASE_RIP || (in->base == REG_NONE && in->index == REG_NONE)) {
        u64 at = in->base == BASE_RIP ? g->vpc + in->len + disp : (u64)disp;
        if (in->addrsize == 4)
            at = (u32)at;
        if (in->addrsize == 2)
            at = (u16)at;
        if (in->base == BASE_RIP && g->b->relative) {
            gen_relative(g, S1, g->vpc + in->len + (u64)disp);
            if (in->addrsize == 4)
                lea(&g->o, false, S1, S1, REG_NONE, 1, 0);
        } else {
            mov_imm(&g->o, S1, at);
        }
    } else {
        if (in->addrsize == 8 && in->index == REG_NONE && disp == 0 && !based && !reg_hidden(in->base))
            return in->base;
        unsigned base = gen_visible(g, in->base, S1), index = gen_visible(g, in->index, S2);
        lea(&g->o, in->addrsize == 8, S1, base, index, in->scale, (s32)disp);
        if (in->addrsize == 2)
            b2(&g->o, 0x45, 0x0f), b2(&g->o, 0xb7, 0xf6); /* movzx r14d, r14w */
    }
    if (based)
        add_segment_base(g, in->seg);
    return S1;
}

void gen_check(struct gen *g, unsigned addr_reg, unsigned size, unsigned acc)
{
    struct code *o = &g->o;
    bool live = !g->flags_dead[g->i];
    bool power_of_two = (size & (size - 1)) == 0;

    g->s2_window = NO_WINDOW;
    if (live) {
        if (addr_reg == RAX) {
            mov_rr(o, S1, RAX);
            addr_reg = S1;
        }
    }
    unsigned hold = addr_reg == S1 ? 0 : S1;
    if (live)
        flags_save(o, hold, PRIV_FIELD(P_RAX));
    struct cold *k = gen_cold(g, COLD_SLOW);
    k->live = live;
    k->hold = hold;
    k->addr_reg = addr_reg;
    k->size = size;
    k->acc = acc;
    if (!power_of_two) {
        /* mov r15d, addr; and r15d, 0xfff; cmp r15d, 4096 - size; ja */
        b3(o, rex(false, addr_reg, 0, S2), 0x89, 0xc0 | (addr_reg & 7) << 3 | (S2 & 7));
        b3(o, 0x41, 0x81, 0xe7), b4(o, 0xfff);
        b3(o, 0x41, 0x81, 0xff), b4(o, 4096 - size);
        k->from2 = jcc(o, CC_A);
    }
    pext_page(o, S2, addr_reg, PRIV_FIELD(P_PEXT_MASK));
    load_entry(o);
    test_rr(o, S2);
    k->from1 = jcc(o, CC_E);
    if (power_of_two && size > 1) {
        test_low(o, addr_reg, size - 1);
        k->from2 = jcc(o, CC_NE);
    }
    k->restore = o->p;
    if (live)
        flags_restore(o, hold, PRIV_FIELD(P_RAX));
    k->resume = o->p;
}

/* light_slow() reads what it must know behind the jump to it; not aligned. */
void gen_slow_call(struct gen *g, const struct cold *k)
{
    struct code *o = &g->o;

    b3(o, 0x4c, 0x8d, 0x3d), b4(o, 5); /* lea r15, [rip + 5]: the record behind the jump */
    jmp_rx(o, g->bt->cache->tramp[STUB_SLOW]);
    b8(o, k->vpc);
    b4(o, (u32)(k->resume - o->p));
    b3(o, k->size, k->acc, g->b->relative);
}

static void cold_slow(struct gen *g, const struct cold *k)
{
    struct code *o = &g->o;
    bool power_of_two = (k->size & (k->size - 1)) == 0;

    if (k->from2)
        patch_here(o, k->from2);
    if (k->from2 && power_of_two && k->live) {
        /* The same, but S1 may hold RAX. The entry in S2 is a multiple of 4096, so it may be in the sum. */
        lea(o, true, S2, k->addr_reg, S2, 1, k->size - 1);
        test_imm32(o, S2, 0x1000 - k->size);
        u8 *crosses = jcc(o, CC_E);
        lea(o, true, S2, S2, REG_NONE, 1, -(s32)(k->size - 1));
        sub_rr(o, S2, k->addr_reg);
        patch(jmp(o), k->restore);
        patch_here(o, crosses);
    } else if (k->from2 && power_of_two) {
        /* Misaligned, and rarely across the end of the page: is (addr + size - 1) % 4096 < size - 1? */
        lea(o, true, S1, k->addr_reg, REG_NONE, 1, k->size - 1);
        test_imm32(o, S1, 0x1000 - k->size);
        if (k->addr_reg == S1)
            lea(o, true, S1, S1, REG_NONE, 1, -(s32)(k->size - 1));
        patch(jcc(o, CC_NE), k->resume);
    }
    patch_here(o, k->from1);
    if (k->live)
        flags_restore(o, k->hold, PRIV_FIELD(P_RAX));
    if (k->addr_reg != S1)
        mov_rr(o, S1, k->addr_reg);
    gen_slow_call(g, k);
}

/* What lies in two pages jumps to the block's twin once that is known, see light_window(). */
static void cold_window(struct gen *g, const struct cold *k)
{
    const struct code_cache *cache = g->bt->cache;
    struct code *o = &g->o;

    patch_here(o, k->from2);
    if (k->live)
        flags_restore(o, 0, PRIV_FIELD(P_RAX));
    align_rel32(g, 1);
    u8 *to_twin = jmp(o);
    patch_here(o, k->from1);
    if (k->live)
        flags_restore(o, 0, PRIV_FIELD(P_RAX));
    patch_here(o, to_twin);
    code_ref stub = gen_here(g);
    b3(o, 0x4c, 0x8d, 0x3d), b4(o, 5); /* lea r15, [rip + 5] */
    jmp_rx(o, cache->tramp[STUB_WINDOW]);
    b8(o, k->vpc);
    b4(o, (u32)(k->resume - o->p));
    b4(o, k->window.span | (u32)k->window.write << 16 | (u32)g->b->relative << 24);
    b4(o, code_ref_of(cache, to_twin + o->to_rx));
    b4(o, stub);
}

void gen_cold_code(struct gen *g)
{
    struct code *o = &g->o;

    for (unsigned i = 0; i < g->ncold; i++) {
        struct cold *k = &g->cold[i];
        if (k->kind == COLD_SLOW) {
            cold_slow(g, k);
            continue;
        }
        if (k->kind == COLD_WINDOW) {
            cold_window(g, k);
            continue;
        }
        if (k->kind == COLD_CAREFUL || k->kind == COLD_WROTE) {
            gen_cold_store(g, k);
            continue;
        }
        if (k->kind == COLD_SLIDE) {
            gen_cold_slide(g, k);
            continue;
        }
        if (k->kind == COLD_LINK) {
            k->link->stub = gen_here(g);
            patch_here(o, k->from1);
            mov_imm(o, S2, arena_ref_of(g->bt->cache, k->link));
            jmp_rx(o, g->bt->cache->tramp[STUB_LINK]);
            continue;
        }
        patch_here(o, k->from1);
        if (k->from2)
            patch_here(o, k->from2);
        if (k->live)
            flags_restore(o, k->hold, PRIV_FIELD(P_RAX));
        if (k->kind == COLD_REMAP)
            gen_code_address(g, S1, g->b->vpc);
        if (k->kind == COLD_POLL)
            gen_code_address(g, S2, g->b->vpc);
        jmp_rx(o, g->bt->cache->tramp[k->kind == COLD_POLL ? STUB_POLL : STUB_JT_MISS]);
    }
}
