/* How string instructions step: counts, directions and where they may stop. Shared by sys_string*.c and sys_io.c. Light. */
#ifndef BT_STROP_H
#define BT_STROP_H

#include "accel/bt/seg.h"

struct strop {
    struct cpu *c;
    const struct insn *in;
    unsigned size; /* of an element */
    bool down;     /* DF */
    bool rep;
    u64 count; /* elements left */
};

static inline struct strop strop_begin(struct cpu *c, const struct insn *in, unsigned size)
{
    struct strop s;
    s.c = c;
    s.in = in;
    s.size = size;
    s.down = c->rflags & FL_DF;
    s.rep = in->rep;
    s.count = in->rep ? gpr_get(c, RCX, in->addrsize) : 1;
    return s;
}

static inline u64 strop_offset(const struct strop *s, unsigned reg)
{
    return gpr_get(s->c, reg, s->in->addrsize);
}

static inline void strop_step(const struct strop *s, unsigned reg, u64 elements)
{
    u64 bytes = elements * s->size;
    gpr_set(s->c, reg, s->in->addrsize, s->c->gpr[reg] + (s->down ? 0 - bytes : bytes));
}

/* Accounts for finished elements, after their registers have been stepped. False: the instruction ends here, for
 * good or (rip left on it) until it is resumed. */
static inline bool strop_more(struct strop *s, u64 elements)
{
    if (!s->rep)
        return false;
    s->count -= elements;
    gpr_set(s->c, RCX, s->in->addrsize, s->count);
    if (!s->count)
        return false;
    if (!s->c->events && !(s->c->rflags & FL_TF))
        return true;
    set_rip(s->c, s->c->rip);
    return false;
}

#endif
