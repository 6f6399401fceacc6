/*
 * What the C sides of the stubs share. Light, vCPU thread. A function that returns a struct stub_ret says where the
 * guest goes on; struct cpu is ready for it.
 */
#ifndef BT_LIGHT_H
#define BT_LIGHT_H

#include "accel/bt/cache.h"
#include "accel/bt/gen.h"
#include "accel/bt/sys.h"

/* light.c: goes on at c->rip; with the single instruction there, done carefully (see MODE_CAREFUL). */
struct stub_ret resume(struct cpu *c);
struct stub_ret run_careful(struct cpu *c);
/* The block at linear address vpc for the current mode, with the entry that is asked for, translated if need be. Raises
 * what the fetch raises. */
struct block *block_at(struct cpu *c, u64 vpc, enum entry_kind kind);

/* light_event.c */
/* An event that is taken but cannot be delivered yet, for want of a page, is held until then. */
void deliver(struct cpu *c, u8 vector, bool has_error, u32 error, enum deliver_kind kind);
void take_interrupt(struct cpu *c);
void take_nmi(struct cpu *c);
void look_for_interrupts(struct cpu *c); /* asks for those that had to wait, if they may be taken now */
/* Traps that follow an instruction: single step, and accesses that a breakpoint watches. */
void trap_after(struct cpu *c, bool stepped);

static inline u64 lin_of(const struct cpu *c, u64 rip)
{
    return code64(c) ? rip : (u32)(rip + c->seg[SEG_CS].base);
}

static inline u64 rip_of(const struct cpu *c, u64 lin)
{
    if (code64(c))
        return lin;
    u32 rip = (u32)(lin - c->seg[SEG_CS].base);
    return (c->mode & MODE_REAL) ? rip & 0xffff : rip;
}

static inline struct stub_ret go_to(const struct cpu *c, code_ref host)
{
    return (struct stub_ret){.host = (u64)code_at(c->vcpu->bt->cache, host)};
}

/* What a stub was told about: a site or link. */
static inline void *record_at(const struct cpu *c, u64 rec)
{
    return arena_at(c->vcpu->bt->cache, rec);
}

/* To the run loop. */
static inline struct stub_ret exit_with(struct cpu *c, enum cpu_exit why)
{
    c->vcpu->exit = why;
    return (struct stub_ret){.host = 0};
}

#endif
