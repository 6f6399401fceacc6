/*
 * MOVS, STOS, LODS, CMPS, SCAS with and without REP, in all sizes, address sizes and directions. SDM 2, REP and those
 * entries. Light code on the vCPU's thread; a hot path.
 *
 * A page at a time: the part of the string that lies in one page of plain RAM on either side is done by the host's own
 * string instruction (native_string.h); anything else (device memory, translated code, elements across a page end) goes
 * one element at a time through mem_load() and mem_store().
 *
 * Invariants:
 * 1. Registers are stepped after each chunk, so a fault finds them as if the elements before had been done one by one.
 * 2. Between chunks c->events is polled; rip then stays on the instruction, which resumes where it was.
 */
#include "accel/bt/native_string.h"
#include "accel/bt/strop.h"
#include "accel/bt/sys_fns.h"

#define PAGE_MASK 0xfffull

/* One side of a string: memory at seg:reg. */
struct side {
    u64 lin;  /* of the first element */
    u8 *host; /* of the first element, NULL: element by element */
    u64 n;    /* elements that host serves */
};

/* Elements from `off` on that stay in the page of lin, do not wrap the offset, and lie in the segment. */
static u64 reachable(const struct strop *s, unsigned seg, u64 off, u64 lin)
{
    unsigned shift = (unsigned)__builtin_ctz(s->size);
    u64 in_page = s->down ? (lin & PAGE_MASK) + s->size : PAGE_MASK + 1 - (lin & PAGE_MASK);
    u64 n = in_page >> shift;
    if (s->down && (lin & PAGE_MASK) + s->size > PAGE_MASK + 1)
        return 0;
    n = MIN(n, s->count);
    if (code64(s->c) && s->in->addrsize == 8)
        return n;
    u64 mask = size_mask(s->in->addrsize);
    u64 until_wrap = s->down ? (off >> shift) + 1 : (mask - off + 1) >> shift;
    n = MIN(n, until_wrap);
    if (n && !code64(s->c) &&
        !seg_covers(&s->c->seg[seg], s->down ? off - (n - 1) * s->size : off, n * s->size))
        return 0;
    return n;
}

static struct side side_open(struct strop *s, unsigned seg, unsigned reg, bool write)
{
    struct side d;
    struct cpu *c = s->c;
    u64 off = strop_offset(s, reg);
    unsigned len = 0;
    d.lin = seg_linear(c, seg, off, s->size, write);
    d.host = NULL;
    bool one = (c->mode & (MODE_CAREFUL | MODE_ALIGN)) || (c->rflags & FL_TF);
    d.n = one ? 0 : reachable(s, seg, off, d.lin);
    if (!d.n)
        return d;
    u8 *p = mem_span(c, d.lin, write, &len,
                     AS_CPL); /* also faults at the right address when going down */
    if (p && s->down && d.n > 1) {
        u64 below = (d.n - 1) * s->size;
        p = mem_span(c, d.lin - below, write, &len, AS_CPL);
        if (p && len >= below + s->size)
            d.host = p + below;
        return d;
    }
    d.n = MIN(d.n, len / s->size);
    if (p && d.n)
        d.host = p;
    return d;
}

/* --- MOVS, STOS, LODS --- */

static void string_movs(struct strop *s)
{
    u64 n;
    do {
        struct side src = side_open(s, s->in->seg, RSI, false),
                    dst = side_open(s, SEG_ES, RDI, true);
        if (src.host && dst.host) {
            n = MIN(src.n, dst.n);
            native_movs(dst.host, src.host, n, s->size, s->down);
        } else {
            n = 1;
            mem_store(s->c, dst.lin, s->size, mem_load(s->c, src.lin, s->size, AS_CPL), AS_CPL);
        }
        strop_step(s, RSI, n);
        strop_step(s, RDI, n);
    } while (strop_more(s, n));
}

static void string_stos(struct strop *s)
{
    u64 n;
    do {
        struct side dst = side_open(s, SEG_ES, RDI, true);
        n = dst.host ? dst.n : 1;
        if (dst.host)
            native_stos(dst.host, s->c->gpr[RAX], n, s->size, s->down);
        else
            mem_store(s->c, dst.lin, s->size, s->c->gpr[RAX] & size_mask(s->size), AS_CPL);
        strop_step(s, RDI, n);
    } while (strop_more(s, n));
}

static void string_lods(struct strop *s)
{
    u64 n = 1;
    do {
        u64 lin = seg_linear(s->c, s->in->seg, strop_offset(s, RSI), s->size, false);
        gpr_set(s->c, RAX, s->size, mem_load(s->c, lin, s->size, AS_CPL));
        strop_step(s, RSI, n);
    } while (strop_more(s, n));
}

/* --- CMPS, SCAS --- */

/* Takes over the flags; true when REPE or REPNE goes on. */
static bool compared(struct strop *s, u64 flags)
{
    s->c->rflags = (s->c->rflags & ~FL_ARITH) | (flags & FL_ARITH);
    return !(flags & FL_ZF) == (s->in->rep == 0xf2);
}

static void string_cmps(struct strop *s)
{
    u64 n, flags, a, b;
    bool go_on, more, repe = s->in->rep != 0xf2;
    do {
        struct side src = side_open(s, s->in->seg, RSI, false),
                    dst = side_open(s, SEG_ES, RDI, false);
        if (src.host && dst.host) {
            n = native_cmps(src.host, dst.host, MIN(src.n, dst.n), s->size, s->down, repe, &flags);
        } else {
            a = mem_load(s->c, src.lin, s->size, AS_CPL);
            b = mem_load(s->c, dst.lin, s->size, AS_CPL);
            n = native_cmps(&a, &b, 1, s->size, false, repe, &flags);
        }
        go_on = compared(s, flags);
        strop_step(s, RSI, n);
        strop_step(s, RDI, n);
        more = strop_more(s, n);
    } while (more && go_on);
    if (!go_on)
        s->c->rip_set = false; /* it is over, even if strop_more() meant to resume it */
}

static void string_scas(struct strop *s)
{
    u64 n, flags, a;
    bool go_on, more, repe = s->in->rep != 0xf2;
    do {
        struct side dst = side_open(s, SEG_ES, RDI, false);
        if (dst.host) {
            n = native_scas(dst.host, s->c->gpr[RAX], dst.n, s->size, s->down, repe, &flags);
        } else {
            a = mem_load(s->c, dst.lin, s->size, AS_CPL);
            n = native_scas(&a, s->c->gpr[RAX], 1, s->size, false, repe, &flags);
        }
        go_on = compared(s, flags);
        strop_step(s, RDI, n);
        more = strop_more(s, n);
    } while (more && go_on);
    if (!go_on)
        s->c->rip_set = false;
}

void sys_string(struct cpu *c, const struct insn *in)
{
    struct strop s = strop_begin(c, in, in->opcode & 1 ? in->opsize : 1);
    if (s.rep && !s.count)
        return;
    switch (in->opcode & 0xfe) {
    case 0xa4:
        string_movs(&s);
        break;
    case 0xa6:
        string_cmps(&s);
        break;
    case 0xaa:
        string_stos(&s);
        break;
    case 0xac:
        string_lods(&s);
        break;
    case 0xae:
        string_scas(&s);
        break;
    default:
        raise_exception(c, VEC_UD);
    }
}
