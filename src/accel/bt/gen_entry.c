/*
 * Code generation: what is checked where a block is entered.
 *
 *   indirect: R14 is the guest's address. It must be the block's (jump tables know just 16 bits of it), and the mode
 *             that of the block; then as far.
 *   far:      the page is still mapped where the block's bytes are; then as poll.
 *   poll:     somebody may want the vCPU's attention.
 *
 * A block that turns out to be the wrong one leads to another, whose first instruction may want the flags: they are kept
 * until the right one is found, even where the block itself does not need them. An entry for jumps from afar is made
 * when the first such jump is, and falls through to the block if that is when the block is made: a jump less on the way
 * of returns and indirect jumps, and for most blocks no entry but the last.
 */
#include "accel/bt/gen.h"

/* cmp dword gs:[disp], imm32 */
static void cmp_gs(struct gen *g, s32 disp, u32 imm)
{
    b3(&g->o, 0x65, 0x81, 0x3c), b1(&g->o, 0x25), b4(&g->o, (u32)disp), b4(&g->o, imm);
}

/* kept: the flags are in AX, and RAX in S2. */
static struct cold *entry_cold(struct gen *g, enum cold_kind kind, bool kept)
{
    struct cold *k = gen_cold(g, kind);

    k->live = kept;
    k->hold = S2;
    return k;
}

/* Is R14 this block's address, and the mode its mode? */
static void check_identity(struct gen *g, u8 *literal)
{
    struct code *o = &g->o;
    struct cold *k = entry_cold(g, COLD_MISS, true);

    cmp_gs(g, CPU_FIELD(mode), g->b->mode & ~(u32)MODE_NOWINDOW);
    k->from1 = jcc(o, CC_NE);
    if (g->b->relative)
        return;
    if (literal) {
        b3(o, 0x4c, 0x3b, 0x35), b4(o, (u32)(literal - (o->p + 4))); /* cmp r14, [rip + literal] */
    } else {
        b3(o, 0x49, 0x81, 0xfe), b4(o, (u32)g->b->vpc);              /* cmp r14, imm32 */
    }
    k->from2 = jcc(o, CC_NE);
}

/* Is R14 the block's address? If not with the slide of the code that comes here, then with the one that makes it so: the
 * low 12 bits are the block's (see jt), the rest must be an address of the lower half. */
static void enter_frame(struct gen *g)
{
    struct code *o = &g->o;
    struct cold *k = entry_cold(g, COLD_SLIDE, true);

    op_gs(o, 0x2b, S1, PRIV_FIELD(P_SLIDE));                 /* sub */
    b3(o, 0x49, 0x81, 0xfe), b4(o, (u32)g->b->vpc);          /* cmp r14, imm32 */
    k->from1 = jcc(o, CC_NE);
    load_gs(o, S1, PRIV_FIELD(P_EXEC_SLID));
    k->resume = o->p;
}

void gen_cold_slide(struct gen *g, struct cold *k)
{
    struct code *o = &g->o;

    patch_here(o, k->from1);
    op_gs(o, 0x03, S1, PRIV_FIELD(P_SLIDE));                 /* add */
    b3(o, 0x49, 0x81, 0xee), b4(o, (u32)g->b->vpc);          /* sub r14, imm32 */
    store_gs(o, S1, PRIV_FIELD(P_SLIDE));
    cmp_gs(g, PRIV_FIELD(P_SLIDE) + 4, 0x8000);
    u8 *outside = jcc(o, CC_AE);
    b4(o, 0x0aeec149);                                       /* shr r14, 10 */
    op_gs(o, 0x03, S1, PRIV_FIELD(P_EXEC_TABLE));
    store_gs(o, S1, PRIV_FIELD(P_EXEC_SLID));
    patch(jmp(o), k->resume);
    patch_here(o, outside); /* the look-up makes P_SLIDE good again */
    flags_restore(o, S2, 0);
    gen_relative(g, S1, g->b->vpc);
    jmp_rx(o, g->bt->cache->tramp[STUB_JT_MISS]);
}

/* Is the frame's page, by the table whose slid address is in R14, the one that the block's bytes were taken from? */
static void check_frame(struct gen *g)
{
    struct code *o = &g->o;
    struct cold *k = entry_cold(g, COLD_REMAP, true);

    for (unsigned i = 0; i <= g->b->crosses; i++) {
        u64 gpa = i ? g->b->gpa2 : g->b->gpa;
        b4(o, 0xbe814165), b4(o, (u32)((g->b->vpc >> 12) + i) * 4); /* cmp dword gs:[r14 + disp32], imm32 */
        b4(o, EXEC_VALID | (u32)(gpa >> 12));
        u8 *j = jcc(o, CC_NE);
        if (i == 0)
            k->from1 = j;
        else
            k->from2 = j;
    }
}

/* Is the block's page still where its bytes were taken from? */
static void check_mapping(struct gen *g)
{
    struct code *o = &g->o;
    struct cold *k = entry_cold(g, COLD_REMAP, true);
    u64 lin = g->b->vpc, gpa = g->b->gpa;

    for (unsigned i = 0; i <= g->b->crosses; i++) {
        mov_imm(o, S1, EXEC_TABLE + ((lin & PAGE_INDEX_MASK) >> 12) * 4);
        b4(o, 0x3e814165), b4(o, EXEC_VALID | (u32)(gpa >> 12)); /* cmp dword gs:[r14], imm32 */
        u8 *j = jcc(o, CC_NE);
        if (i == 0)
            k->from1 = j;
        else
            k->from2 = j;
        lin = (lin | 0xfff) + 1, gpa = g->b->gpa2;
    }
}

static void check_events(struct gen *g)
{
    struct code *o = &g->o;
    struct cold *k = entry_cold(g, COLD_POLL, !g->flags_dead[0]);

    b3(o, 0x65, 0x83, 0x3c), b1(o, 0x25), b4(o, (u32)CPU_FIELD(events)), b1(o, 0); /* cmp dword gs:[events], 0 */
    k->from1 = jcc(o, CC_NE);
}

static void align(struct code *o, unsigned to)
{
    while ((uintptr_t)o->p & (to - 1))
        b1(o, 0xcc);
}

/* The checks of an entry from afar. Leaves the flags in AX and RAX in S2. */
static void gen_checks(struct gen *g, enum entry_kind kind)
{
    struct block *b = g->b;
    struct code *o = &g->o;
    u8 *literal = NULL;

    if (kind == ENTRY_INDIRECT && !b->relative && (u64)(s64)(s32)b->vpc != b->vpc) {
        align(o, 8);
        literal = o->p;
        b8(o, b->vpc);
    }
    if (kind == ENTRY_INDIRECT) {
        align(o, 16); /* lead_to_miss() needs 8; jumps to other places are predicted badly by some processors */
        b->indirect = gen_here(g);
        b3(o, 0x4c, 0x8d, 0xb8), b4(o, 0); /* lea r15, [rax + 0]: 7 bytes, see lead_to_miss() */
        flags_to_ax(o);
        check_identity(g, literal);
        if (b->relative)
            enter_frame(g);
    } else {
        b->far = gen_here(g);
        flags_save(o, S2, 0);
        if (b->relative)
            load_gs(o, S1, PRIV_FIELD(P_EXEC_SLID));
    }
    if (b->relative)
        check_frame(g);
    else
        check_mapping(g);
}

void gen_entries(struct gen *g, enum entry_kind kind)
{
    struct block *b = g->b;
    struct code *o = &g->o;
    bool live = !g->flags_dead[0];
    u8 *out = NULL;

    g->vpc = b->vpc;
    b->start = gen_here(g);
    if (kind != ENTRY_NEAR) {
        gen_checks(g, kind);
        if (live) {
            check_events(g);
            flags_restore(o, S2, 0);
            b2(o, 0xeb, 0); /* jmp to entry */
            out = o->p;
        } else {
            mov_rr(o, RAX, S2);
        }
    }
    b->poll = gen_here(g);
    if (live)
        flags_save(o, S2, 0);
    check_events(g);
    if (live)
        flags_restore(o, S2, 0);
    b->entry = gen_here(g);
    if (out)
        out[-1] = (u8)(o->p - out);
}

void gen_entry_apart(struct gen *g, enum entry_kind kind)
{
    g->vpc = g->b->vpc;
    gen_checks(g, kind);
    if (g->flags_dead[0])
        mov_rr(&g->o, RAX, S2);
    else
        flags_restore(&g->o, S2, 0);
    jmp_rx(&g->o, code_at(g->bt->cache, g->b->poll));
}
