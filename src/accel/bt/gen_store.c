/*
 * Code generation: stores that have been found to meet pages with translated code, as a compiler in the guest does or whoever
 * keeps data beside code. Such pages are read-only in gview, and a fault is dear. So the store goes through the VMM's view of
 * RAM, which is always writable, at the offset in the memfd that the page's entry stands for, if none of the 64-byte lines it
 * touches holds translated code; else the careful way.
 *
 * With several vCPUs another may translate the line while we store. So the lines are looked at again behind the store: either
 * we see that they are being translated, or the translator, which says so before it reads, reads what we stored.
 *
 * The offset is checked against the memfd's size: an entry that leads into roview gives one that is out of bounds. So does
 * every address that is not canonical. That the store stays in its page is known from the check of its entry.
 */
#include "accel/bt/gen.h"

static bool suits(const struct gen *g, const struct insn *in)
{
    const struct insn_form *f = in->form;
    unsigned size = f->mem_bytes;

    return g->plain && g->code64 && f->mem_acc == ACC_W && !f->flags_w && !f->masked && size <= 64 &&
           !(size & (size - 1)) && f->need != NEED_X87 && !gen_copy_needs_care(in);
}

/* Jumps to k if the line of the byte at [offset in `from` + last] holds code. Flags and S2 are clobbered. */
static void check_line(struct gen *g, unsigned from, s32 last, u8 **ret_jump)
{
    struct code *o = &g->o;

    lea(o, true, S2, from, REG_NONE, 1, last);
    b4(o, 0x06efc149);                          /* shr r15, 6 */
    op_gs(o, 0x03, S2, PRIV_FIELD(P_LINES));    /* add r15, gs:[] */
    b4(o, 0x003f8041);                          /* cmp byte [r15], 0 */
    *ret_jump = jcc(o, CC_NE);
}

static struct cold *cold_store(struct gen *g, enum cold_kind kind)
{
    struct cold *k = gen_cold(g, kind);

    k->insn = (u8)g->i;
    k->live = !g->flags_dead[g->i];
    return k;
}

/* The offset of the access in the memfd into S1, given its address and S2. */
static void offset_to_s1(struct gen *g, unsigned addr)
{
    lea(&g->o, true, S1, addr, S2, 1, 0);
    mov_imm(&g->o, S2, -(u64)g->bt->gview);
    lea(&g->o, true, S1, S1, S2, 1, 0);
}

static void check_before(struct gen *g, unsigned size, struct cold *careful[2])
{
    struct code *o = &g->o;

    op_gs(o, 0x3b, S1, PRIV_FIELD(P_RAM_BYTES)); /* cmp r14, gs:[] */
    careful[0]->from1 = jcc(o, CC_AE);
    check_line(g, S1, 0, &careful[0]->from2);
    if (size > 1)
        check_line(g, S1, (s32)size - 1, &careful[1]->from1);
}

static void check_behind(struct gen *g, unsigned size)
{
    struct code *o = &g->o;
    struct cold *k = cold_store(g, COLD_WROTE);

    k->size = (u8)size;
    if (k->live)
        flags_save(o, 0, PRIV_FIELD(P_RAX));
    b4(o, 0x0c8365f0), b1(o, 0x25), b4(o, (u32)PRIV_FIELD(P_WROTE)), b1(o, 0); /* lock or dword gs:[], 0: a fence */
    load_gs(o, S1, PRIV_FIELD(P_WROTE));
    check_line(g, S1, 0, &k->from1);
    if (size > 1)
        check_line(g, S1, (s32)size - 1, &k->from2);
    if (k->live)
        flags_restore(o, 0, PRIV_FIELD(P_RAX));
}

bool gen_store(struct gen *g)
{
    const struct insn *in = g->in;
    unsigned size = in->form->mem_bytes;
    struct code *o = &g->o;
    bool live = !g->flags_dead[g->i];

    if (!suits(g, in))
        return false;
    unsigned addr = gen_address(g, in, 0);
    gen_check(g, addr, size, in->form->mem_acc | (in->form->align ? ACC_ALIGN : 0));
    offset_to_s1(g, g->cold[g->ncold - 1].addr_reg);
    struct cold *careful[2] = {cold_store(g, COLD_CAREFUL), cold_store(g, COLD_CAREFUL)};
    if (live)
        flags_save(o, 0, PRIV_FIELD(P_RAX));
    check_before(g, size, careful);
    if (live)
        flags_restore(o, 0, PRIV_FIELD(P_RAX));
    if (g->bt->nvcpus > 1)
        store_gs(o, S1, PRIV_FIELD(P_WROTE));
    mov_imm(o, S2, (u64)g->bt->m->ram->base);
    copy_with_mem(g, in, S1);
    if (g->bt->nvcpus > 1)
        check_behind(g, size);
    careful[0]->resume = careful[1]->resume = o->p;
    g->s2_window = NO_WINDOW;
    return true;
}

void gen_cold_store(struct gen *g, struct cold *k)
{
    struct code *o = &g->o;

    if (!k->from1)
        return;
    patch_here(o, k->from1);
    if (k->from2)
        patch_here(o, k->from2);
    if (k->live)
        flags_restore(o, 0, PRIV_FIELD(P_RAX));
    g->i = k->insn;
    g->in = &g->insn[g->i];
    g->vpc = g->b->vpc + g->offset[g->i];
    if (k->kind == COLD_CAREFUL) {
        copy_carefully(g, g->in);
        patch(jmp(o), k->resume);
        return;
    }
    k->vpc = g->vpc + g->in->len;
    k->acc = ACC_WROTE;
    k->resume = o->p;
    gen_slow_call(g, k);
}
