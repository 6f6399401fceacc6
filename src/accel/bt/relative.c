/*
 * Relative blocks: code of programs and libraries that the guest's kernel places at random addresses. Such a block runs
 * wherever its page is mapped, so a library is translated once and not again for each process. Light.
 *
 * A page with relative blocks has an address in a *frame*, below 2 GiB, and its blocks know all their addresses in that
 * frame: their own, branch targets, those of operands relative to RIP. The guest's is the frame's + P_SLIDE. What enters
 * a block by the jump table compares R14 - P_SLIDE with the block's vpc, and slides anew if it is another.
 *
 * Frames may overlap, and nothing depends on what a page's is: that the page is the right one is known from the exec
 * table. But as long as code stays among pages with one slide, it need not change; so a page that gets its frame takes
 * the slide of its neighbours in this address space, as far as those are remembered.
 *
 * Invariant: when a block is entered, P_SLIDE is below 2^47 and P_EXEC_SLID is EXEC_TABLE + P_SLIDE / 1024; with a
 * frame's page at most 2^31 the look-up never leaves the exec table.
 */
#include "accel/bt/cache.h"

#define CHUNK_SHIFT 21
#define FRAME_MAX 0x70000000u
#define FRAME_MASK 0x0ffff000u

static bool slide_near(const struct cpu *c, u64 chunk, u64 *ret_slide)
{
    const struct vcpu *v = c->vcpu;
    unsigned i = chunk % RELATIVE_CHUNKS;

    if (v->near[i].chunk != chunk || v->near[i].cr3 != c->cr3)
        return false;
    *ret_slide = v->near[i].slide;
    return true;
}

static bool fits(u64 page, u64 slide)
{
    return page - slide > 0 && page - slide < FRAME_MAX;
}

void relative_reset(struct cpu *c)
{
    c->priv[P_SLIDE] = 0;
    c->priv[P_EXEC_SLID] = EXEC_TABLE;
}

u32 relative_frame(struct cpu *c, struct code_page *p, u64 vpc)
{
    u64 page = vpc & ~0xfffull, chunk = vpc >> CHUNK_SHIFT, slide;

    if (p->frame)
        return p->frame;
    if ((slide_near(c, chunk, &slide) && fits(page, slide)) || (slide_near(c, chunk - 1, &slide) && fits(page, slide)) ||
        (slide_near(c, chunk + 1, &slide) && fits(page, slide)))
        p->frame = (u32)(page - slide);
    else
        p->frame = MAX((u32)page & FRAME_MASK, 0x1000u);
    return p->frame;
}

void relative_enter(struct cpu *c, const struct block *b, u64 vpc)
{
    u64 slide = vpc - b->vpc, chunk = vpc >> CHUNK_SHIFT;
    unsigned i = chunk % RELATIVE_CHUNKS;

    if (!b->relative)
        return;
    c->priv[P_SLIDE] = slide;
    c->priv[P_EXEC_SLID] = EXEC_TABLE + slide / 1024;
    c->vcpu->near[i].cr3 = c->cr3;
    c->vcpu->near[i].chunk = chunk;
    c->vcpu->near[i].slide = slide;
}
