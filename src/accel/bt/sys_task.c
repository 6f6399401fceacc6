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

void task_switch(struct cpu *c, u16 sel, enum task_why why, u64 rip, bool has_error, u32 error)
{
    raise_error(c, VEC_TS, sel & ~SEL_RPL);
}

void task_jump(struct cpu *c, const struct desc *d, enum task_why why, u64 rip)
{
    raise_error(c, VEC_TS, d->sel & ~SEL_RPL);
}
