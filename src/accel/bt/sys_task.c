/*
 * The task-state segment: stacks for inner levels, and hardware task switches. SDM 3A, chapter 7.
 * Light code on the vCPU's thread.
 *
 * A task switch has a point of no return (SDM 3A 7.3): before it, faults belong to the old task; after it (the selectors
 * of the new task are checked) they are raised in the new one, whose registers are already loaded.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys.h"

void tss_stack(struct cpu *c, unsigned cpl, u32 ext, u16 *ret_ss, u64 *ret_sp)
{
    bool wide = long_mode(c), tss32 = attr_type(c->tr.attr) & 8;
    u32 off = wide || tss32 ? 4 + 8 * cpl : 2 + 4 * cpl;
    u32 len = wide ? 8 : tss32 ? 6 : 4;
    if (off + len - 1 > c->tr.limit)
        raise_error(c, VEC_TS, (c->tr.sel & ~SEL_RPL) | ext);
    u64 lin = c->tr.base + off;
    if (wide) {
        *ret_sp = mem_load(c, lin, 8, AS_SYSTEM);
        return;
    }
    *ret_sp = mem_load(c, (u32)lin, tss32 ? 4 : 2, AS_SYSTEM);
    *ret_ss = (u16)mem_load(c, (u32)(lin + (tss32 ? 4 : 2)), 2, AS_SYSTEM);
}

u64 tss_ist(struct cpu *c, unsigned ist, u32 ext)
{
    u32 off = 28 + 8 * ist;
    if (off + 7 > c->tr.limit)
        raise_error(c, VEC_TS, (c->tr.sel & ~SEL_RPL) | ext);
    return mem_load(c, c->tr.base + off, 8, AS_SYSTEM);
}

/* --- hardware task switches --- */

/* The registers of a task, as both formats of TSS hold them. */
struct task {
    u32 rip, rflags, gpr[8];
    u16 sel[X86_SEGS], ldt, link;
    u32 cr3;
    bool wide; /* 32-bit TSS */
};

/* Where the fields lie: SDM 3A, figures 7-2 and 7-10. */
#define LIMIT_32 0x67u
#define LIMIT_16 0x2bu
#define CR3_32 0x1c
#define RIP_32 0x20
#define RIP_16 0x0e
#define DR6_BT BIT(15)

static u64 tss_read(struct cpu *c, u64 base, u32 off, unsigned size)
{
    return mem_load(c, (u32)(base + off), size, AS_SYSTEM);
}

static void tss_write(struct cpu *c, u64 base, u32 off, unsigned size, u64 value)
{
    mem_store(c, (u32)(base + off), size, value, AS_SYSTEM);
}

static void task_load(struct cpu *c, const struct x86_seg *tss, struct task *t)
{
    unsigned size, at;
    t->wide = attr_type(tss->attr) & 8;
    size = t->wide ? 4 : 2;
    at = t->wide ? RIP_32 : RIP_16;
    t->rip = (u32)tss_read(c, tss->base, at, size);
    t->rflags = (u32)tss_read(c, tss->base, at + size, size);
    for (unsigned i = 0; i < 8; i++)
        t->gpr[i] = (u32)tss_read(c, tss->base, at + (2 + i) * size, size);
    at += 10 * size;
    for (unsigned i = 0; i < X86_SEGS;
         i++, at += size) /* ES, CS, SS, DS, FS, GS: FS and GS only in a wide one */
        t->sel[i] = t->wide || i < SEG_FS ? (u16)tss_read(c, tss->base, at, 2) : 0;
    t->ldt = (u16)tss_read(c, tss->base, t->wide ? at : at - 2 * size, 2);
    t->cr3 = t->wide ? (u32)tss_read(c, tss->base, CR3_32, 4) : 0;
}

/* Saves the current task. Its stacks, LDT and CR3 in the TSS are not touched by the processor. */
static void task_save(struct cpu *c, u64 rip, u64 rflags)
{
    bool wide = attr_type(c->tr.attr) & 8;
    unsigned size = wide ? 4 : 2, at = wide ? RIP_32 : RIP_16;
    mem_probe(c, (u32)(c->tr.base + at), (wide ? LIMIT_32 : LIMIT_16) - at, true, AS_SYSTEM);
    tss_write(c, c->tr.base, at, size, rip);
    tss_write(c, c->tr.base, at + size, size, rflags);
    for (unsigned i = 0; i < 8; i++)
        tss_write(c, c->tr.base, at + (2 + i) * size, size, c->gpr[i]);
    at += 10 * size;
    for (unsigned i = 0; i < (wide ? X86_SEGS : SEG_FS); i++, at += size)
        tss_write(c, c->tr.base, at, 2, c->seg[i].sel);
}

static void task_load_ldt(struct cpu *c, u16 sel)
{
    struct desc d;
    c->ldt = null_seg(sel);
    if (sel_null(sel))
        return;
    if ((sel & SEL_TI) || !desc_read(c, sel, &d))
        raise_error(c, VEC_TS, sel & ~SEL_RPL);
    u32 attr = desc_attr(&d);
    if ((attr & SEG_ATTR_S) || attr_type(attr) != SYS_LDT || !(attr & SEG_ATTR_P))
        raise_error(c, VEC_TS, sel & ~SEL_RPL);
    c->ldt = desc_seg(&d);
}

static void task_load_cs(struct cpu *c, u16 sel)
{
    struct desc d;
    unsigned rpl = sel & SEL_RPL;
    u32 error = sel & ~SEL_RPL;
    if (sel_null(sel))
        raise_error(c, VEC_TS, 0);
    desc_need(c, sel, VEC_TS, 0, &d);
    u32 attr = desc_attr(&d);
    bool ok = attr_conforming(attr) ? attr_dpl(attr) <= rpl : attr_dpl(attr) == rpl;
    if (!attr_code(attr) || !ok)
        raise_error(c, VEC_TS, error);
    if (!(attr & SEG_ATTR_P))
        raise_error(c, VEC_NP, error);
    desc_set_accessed(c, &d);
    c->seg[SEG_CS] = desc_seg(&d);
    c->cpl = (u8)rpl;
}

static void task_load_segments(struct cpu *c, const struct task *t)
{
    static const u8 data[] = {SEG_DS, SEG_ES, SEG_FS, SEG_GS};
    if (t->rflags & FL_VM) {
        for (unsigned i = 0; i < X86_SEGS; i++)
            c->seg[i] = real_seg(c, i, t->sel[i]);
        c->cpl = 3;
        return;
    }
    for (unsigned i = 0; i < X86_SEGS; i++) /* until each is loaded, it holds nothing */
        c->seg[i] = null_seg(t->sel[i]);
    c->cpl = t->sel[SEG_CS] & SEL_RPL;
    task_load_cs(c, t->sel[SEG_CS]);
    c->seg[SEG_SS] = ss_check(c, t->sel[SEG_SS], c->cpl, VEC_TS, 0);
    for (unsigned i = 0; i < ARRAY_LEN(data); i++)
        seg_load_protected(c, data[i], t->sel[data[i]], VEC_TS);
}

/* Checks the descriptor of the task to switch to. */
static void task_check(struct cpu *c, u16 sel, enum task_why why, struct desc *ret_d)
{
    u32 error = (sel & ~SEL_RPL) | (why == TASK_GATE ? ERR_EXT : 0);
    u8 vector = why == TASK_IRET ? VEC_TS : VEC_GP;
    unsigned busy = why == TASK_IRET ? 2 : 0;
    if (sel_null(sel) || (sel & SEL_TI) || !desc_read(c, sel, ret_d))
        raise_error(c, vector, error);
    u32 attr = desc_attr(ret_d);
    if ((attr & SEG_ATTR_S) || (attr_type(attr) & ~8u) != (SYS_TSS16 | busy))
        raise_error(c, vector, error);
    if (!(attr & SEG_ATTR_P))
        raise_error(c, VEC_NP, error);
    if (desc_seg(ret_d).limit < (attr_type(attr) & 8 ? LIMIT_32 : LIMIT_16))
        raise_error(c, VEC_TS, error);
}

/* The busy bit of the task left by JMP and IRET. */
static void task_release(struct cpu *c)
{
    struct desc old;
    if (desc_read(c, c->tr.sel, &old))
        desc_set_type(c, &old, attr_type(desc_attr(&old)) & ~2u);
}

static void task_enter(struct cpu *c, const struct task *t, const struct x86_seg *tss)
{
    c->tr = *tss;
    c->tr.attr |= 2;
    c->cr0 |= CR0_TS;
    c->dr7 &= ~0x155ull; /* local breakpoints are the old task's */
    c->rflags = (t->rflags & (FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_VM |
                              FL_AC | FL_ID)) |
                2;
    for (unsigned i = 0; i < 8; i++)
        gpr_set(c, i, t->wide ? 4 : 2, t->gpr[i]);
    set_rip(c, t->rip);
    if (t->wide && (c->cr0 & CR0_PG)) {
        mmu_set_cr3(c, t->cr3, false);
        c->cr3 = t->cr3;
    }
}

void task_switch(struct cpu *c, u16 sel, enum task_why why, u64 rip, bool has_error, u32 error)
{
    struct desc d;
    struct task t;
    bool nested = why == TASK_CALL || why == TASK_GATE || why == TASK_GATE_SOFT;
    task_check(c, sel, why, &d);
    struct x86_seg tss = desc_seg(&d);
    task_load(c, &tss, &t);
    bool trap = t.wide && (tss_read(c, tss.base, 0x64, 1) & 1);
    c->pinned = true;
    task_save(c, rip, why == TASK_IRET ? c->rflags & ~FL_NT : c->rflags);
    if (nested) {
        tss_write(c, tss.base, 0, 2, c->tr.sel);
        t.rflags |= FL_NT;
    } else {
        task_release(c);
    }
    if (why != TASK_IRET)
        desc_set_type(c, &d, attr_type(desc_attr(&d)) | 2);
    tss.attr |= 2;
    task_enter(c, &t, &tss); /* no way back from here */
    task_load_ldt(c, t.ldt);
    task_load_segments(c, &t);
    cpu_update_mode(c);
    if (has_error) {
        struct stack s = stack_current(c);
        stack_push(&s, t.wide ? 4 : 2, error);
        stack_commit(&s);
    }
    check_rip(c, &c->seg[SEG_CS], t.rip, 0);
    c->pinned = false;
    if (trap) {
        c->dr6 |= DR6_BT;
        raise_exception(c, VEC_DB);
    }
}

void task_jump(struct cpu *c, const struct desc *d, enum task_why why, u64 rip)
{
    bool gate = attr_type(desc_attr(d)) == SYS_TASK_GATE;
    task_switch(c, gate ? (u16)(d->lo >> 16) : d->sel, why, rip, false, 0);
}
