/*
 * Translation of one block: fetch and decode up to an unconditional transfer, the end of the page or BLOCK_INSNS, find
 * out where the arithmetic flags are dead, then generate code. A conditional branch does not end a block: its taken side
 * leaves, the other goes on in line. Heavy code, cache lock held, in a vCPU's thread.
 */
#include <Zydis/Zydis.h>
#include "accel/bt/gen.h"
#include "accel/bt/sys.h"
#include "accel/trace.h"
#include "mem/lazy.h"
#include "x86/walk.h"

/* --- decoding --- */

static const u8 *page_bytes(struct gen *g, u64 gpa)
{
    return ram_byte(g->c->m->ram, gpa & ~0xfffull);
}

/* The page behind the block's own, for an instruction that straddles the two. False: #PF is set up in *c, or a page is
 * wanted. */
static bool next_page(struct gen *g, u64 lin, u64 *ret_gpa)
{
    struct cpu *c = g->c;
    struct walk_regs regs = {.cr0 = c->cr0, .cr3 = c->cr3, .cr4 = c->cr4, .efer = c->msr.efer,
                             .phys_bits = c->model->phys_bits, .ram = c->m->ram};
    struct walk_page p;
    u32 error;

    bool found = walk_page(&regs, lin, WALK_FETCH | ((c->mode & MODE_USER) ? WALK_USER : 0), &p, &error);
    if (c->vcpu->want_page)
        return false; /* a table is absent */
    if (found) {
        const struct gmem_slot *s = ram_slot(c->m->ram, p.gpa);
        *ret_gpa = p.gpa;
        return !s || lazy_need(c->m->ram, s->offset + (p.gpa - s->gpa));
    }
    c->cr2 = lin;
    c->exc_vector = VEC_PF;
    c->exc_has_error = 1;
    c->exc_error = error;
    return false;
}

/* An instruction that crosses into the next page: always a block of its own. */
static bool decode_crossing(struct gen *g, const u8 *bytes, unsigned left, unsigned size)
{
    struct block *b = g->b;
    u8 buf[INSN_MAX] = {0};
    const u8 *next;

    if (!next_page(g, (g->lin | 0xfff) + 1, &b->gpa2))
        return false;
    b->crosses = true;
    page_mark(g->bt, b->gpa2);
    page_lines(g->bt, b->gpa2, false);
    next = page_bytes(g, b->gpa2);
    for (unsigned i = 0; i < INSN_MAX; i++)
        buf[i] = i < left ? bytes[i] : next ? next[i - left] : 0xff;
    if (insn_decode(buf, INSN_MAX, size, &g->insn[0]) != INSN_OK)
        g->insn[0].form = NULL;
    g->n = 1;
    b->bytes = g->insn[0].form ? g->insn[0].len : 1;
    return true;
}

/* Block-enders that gen_inline() takes care of without leaving. */
static bool is_inline(const struct gen *g, const struct insn *in)
{
    return in->form->mnemonic == ZYDIS_MNEMONIC_SWAPGS && g->plain && g->code64 && !(g->b->mode & MODE_USER);
}

static bool is_last(const struct gen *g, const struct insn *in)
{
    switch ((enum insn_class)in->form->cls) {
    case INSN_JMP: case INSN_CALL: case INSN_RET: case INSN_LOOP: case INSN_INVALID: case INSN_SYSCALL:
        return true;
    case INSN_JCC:
        return !g->plain;
    case INSN_SPECIAL:
        return in->form->ends_block && !(is_inline(g, in));
    case INSN_COPY: case INSN_PUSH: case INSN_POP: case INSN_LEAVE: case INSN_LEA: case INSN_NOP: case INSN_STRING:
    case INSN_MOFFS:
        break;
    }
    return false;
}

static unsigned max_insns(const struct gen *g)
{
    return g->b->mode & (MODE_CAREFUL | MODE_TF | MODE_DEBUG) ? 1 : BLOCK_INSNS;
}

/* False: the first instruction cannot be fetched, the exception is set up in *c. */
static bool decode_block(struct gen *g, const u8 *page)
{
    struct block *b = g->b;
    unsigned size = g->code64 ? 64 : (b->mode & MODE_CODE_MASK) == MODE_CODE32 ? 32 : 16;
    unsigned at = b->vpc & 0xfff;
    bool after_sti = false;

    while (g->n < max_insns(g)) {
        struct insn *in = &g->insn[g->n];
        unsigned left = MIN(4096 - at, (unsigned)INSN_MAX);
        int r = left ? insn_decode(page + at, left, size, in) : INSN_TRUNCATED;

        if (r == INSN_TRUNCATED) {
            if (g->n > 0)
                break;
            return decode_crossing(g, page + at, left, size);
        }
        if (r != INSN_OK) { /* too long: #GP, raised by the function that runs it */
            if (g->n == 0)
                in->form = NULL, g->n = 1, b->bytes = 1;
            break;
        }
        g->offset[g->n] = b->bytes;
        g->careful[g->n] = careful_get(g->bt, b->gpa + b->bytes);
        b->bytes += in->len;
        at += in->len;
        g->n++;
        bool sti = in->form->mnemonic == ZYDIS_MNEMONIC_STI;
        if (after_sti || (is_last(g, in) && !sti))
            break;
        if (in->form->cls == INSN_JCC && block_find(g->bt, b->gpa + b->bytes, ANY_GPA, g->lin + b->bytes, b->mode))
            break; /* what follows is translated already */
        after_sti = sti;
    }
    return true;
}

/* --- code --- */

static bool unit_enabled(u32 mode, u8 need)
{
    switch ((enum insn_need)need) {
    case NEED_NONE: return true;
    case NEED_X87: case NEED_MMX: return !(mode & MODE_NOFPU);
    case NEED_SSE: return !(mode & (MODE_NOFPU | MODE_NOSSE));
    case NEED_AVX: return !(mode & (MODE_NOFPU | MODE_NOAVX));
    case NEED_AVX512: return !(mode & (MODE_NOFPU | MODE_NOAVX512));
    }
    return false;
}

static void gen_special_form(struct gen *g)
{
    const struct insn *in = g->in;
    bool sti = in->form->mnemonic == ZYDIS_MNEMONIC_STI && g->i + 1 < g->n;

    if (gen_inline(g))
        return;
    gen_special(g, in->form->sys, in->form->ends_block && !sti);
}

static void gen_insn(struct gen *g)
{
    const struct insn *in = g->in;

    if (!in->form) {
        gen_special(g, sys_too_long, true);
        return;
    }
    if (!unit_enabled(g->b->mode, in->form->need)) {
        gen_special(g, sys_no_unit, true);
        return;
    }
    if (gen_flow(g))
        return;
    switch ((enum insn_class)in->form->cls) {
    case INSN_COPY: gen_copy(g); break;
    case INSN_LEA: gen_lea(g); break;
    case INSN_NOP: break;
    case INSN_STRING: gen_special(g, sys_string, false); break;
    case INSN_MOFFS:
        if (g->plain && !g->careful[g->i] && g->code64 + 1u && in->seg != SEG_FS && in->seg != SEG_GS)
            gen_moffs(g);
        else
            gen_special(g, sys_moffs, false);
        break;
    case INSN_SPECIAL: case INSN_SYSCALL: gen_special_form(g); break;
    default: gen_special(g, sys_invalid, true); break;
    }
}

static void gen_body(struct gen *g)
{
    struct block *b = g->b;

    for (g->i = 0; g->i < g->n; g->i++) {
        g->in = &g->insn[g->i];
        g->vpc = b->vpc + g->offset[g->i];
        b->map[g->i] = (gen_here(g) - b->start) << 12 | g->offset[g->i];
        gen_windows(g);
        gen_insn(g);
        if ((g->b->mode & (MODE_TF | MODE_DEBUG)) && !g->ended)
            gen_special(g, sys_step, true);
    }
    if (g->ended)
        return;
    u64 next = b->vpc + b->bytes;
    if (!g->code64)
        next = (u32)next;
    g->vpc = next;
    bool sti = g->n > 1 && g->insn[g->n - 2].form->mnemonic == ZYDIS_MNEMONIC_STI;
    if (sti || (b->mode & MODE_CAREFUL)) {
        gen_code_address(g, S1, next); /* through the entry that polls and checks the mode */
        gen_dispatch(g);
    } else {
        gen_link(g, next);
    }
}

static bool is_plain(u32 mode)
{
    if (mode & (MODE_CAREFUL | MODE_ALIGN | MODE_TF | MODE_DEBUG))
        return false;
    if ((mode & MODE_CODE_MASK) == MODE_CODE64)
        return true;
    return (mode & MODE_CODE_MASK) == MODE_CODE32 && !(mode & (MODE_SEGS | MODE_STACK16 | MODE_CSBASE | MODE_REAL));
}

static struct gen *gen_begin(struct cpu *c, struct block *b)
{
    static _Thread_local struct gen gen;
    struct gen *g = &gen;

    __builtin_memset(g, 0, offsetof(struct gen, insn));
    g->n = g->i = g->ncold = 0;
    g->ended = false;
    g->c = c;
    g->bt = c->vcpu->bt;
    g->b = b;
    return g;
}

static void code_begin(struct gen *g)
{
    struct code_cache *k = g->bt->cache;

    g->o.p = k->rw + ALIGN_UP(k->used, 8);
    g->o.to_rx = k->rx - k->rw;
}

static void code_end(struct gen *g)
{
    gen_cold_code(g);
    g->bt->cache->used = (u64)(g->o.p - g->bt->cache->rw);
}

void translate_entry(struct cpu *c, struct block *b, enum entry_kind kind)
{
    struct gen *g = gen_begin(c, b);

    g->flags_dead[0] = b->flags_dead;
    code_begin(g);
    gen_entry_apart(g, kind);
    code_end(g);
}

code_ref translate_bridge(struct cpu *c, const struct link *l, struct block *to)
{
    struct gen *g = gen_begin(c, link_from(c->vcpu->bt->cache, l));

    code_begin(g);
    code_ref start = gen_here(g);
    gen_code_address(g, S1, l->target);
    jmp_rx(&g->o, code_at(g->bt->cache, to->indirect));
    code_end(g);
    return start;
}

/* A draft of a block gets its place, with room for its map. */
static struct block *block_keep(struct bt *bt, const struct block *draft)
{
    struct block *b = arena_alloc(bt, sizeof(*b) + draft->ninsns * sizeof(b->map[0]));

    *b = *draft;
    return b;
}

struct block *translate(struct cpu *c, u64 vpc, u64 gpa, enum entry_kind kind)
{
    struct bt *bt = c->vcpu->bt;
    struct block draft = {.gpa = gpa, .mode = c->mode}, *b = &draft;
    struct gen *g = gen_begin(c, b);

    cache_supply(bt);
    g->code64 = (c->mode & MODE_CODE_MASK) == MODE_CODE64;
    g->plain = is_plain(c->mode);
    g->offset[0] = 0;
    g->careful[0] = false;
    g->lin = vpc;
    b->dep_from = vpc & 0xfff;
    struct code_page *p = page_mark(bt, gpa);
    page_lines(bt, gpa, false);
    b->relative = p && g->plain && g->code64 && (c->mode & MODE_USER) && relative_address(vpc);
    b->vpc = b->relative ? relative_frame(c, p, vpc) | (vpc & 0xfff) : vpc;
    static const u8 no_memory[4096] = {[0 ... 4095] = 0xff};
    g->page = page_bytes(g, gpa);
    if (!g->page)
        g->page = no_memory;
    if (!decode_block(g, g->page)) {
        page_lines(bt, gpa, true);
        if (b->crosses)
            page_lines(bt, b->gpa2, true);
        return NULL;
    }
    b->dep_to = (u16)MIN(b->dep_from + b->bytes, 4096);
    find_dead_flags(g);
    find_windows(g);
    b->ninsns = (u8)g->n;
    b->flags_dead = g->flags_dead[0];
    b = g->b = block_keep(bt, b);
    code_begin(g);
    gen_entries(g, kind);
    g->s2_window = NO_WINDOW;
    gen_body(g);
    code_end(g);
    b->code_end = gen_here(g);
    block_add(bt, b);
    page_lines(bt, gpa, true);
    if (b->crosses)
        page_lines(bt, b->gpa2, true);
    trace_accel_bt_translate(vpc, gpa, g->n, b->bytes, b->code_end - b->start);
    c->vcpu->stat_blocks++;
    c->vcpu->stat_insns += g->n;
    return b;
}
