/* See xsave.h. SDM 1, 13.4 (format), 13.6 (initial states). No state; any thread. */
#include "x86/xsave.h"

#include <cpuid.h>
#include <string.h>

#define X87 BIT(0)
#define SSE BIT(1)
#define X87_REGS 32 /* ST0-ST7 */
#define XMM_REGS 160
#define XMM_END 416
#define INITIAL_FCW 0x37f

/* TABLE */
const struct xsave_part xsave_parts[XSAVE_PARTS] = {
    {2, 576, 256}, {5, 1088, 64}, {6, 1152, 512}, {7, 1664, 1024}, {9, 2688, 8},
};

static u64 load64(const u8 *p)
{
    u64 v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static void copy_x87(u8 *to, const u8 *from, bool initial)
{
    u16 fcw = INITIAL_FCW;

    if (initial) {
        memcpy(to, &fcw, sizeof(fcw));
        return;
    }
    memcpy(to, from, XSAVE_MXCSR);
    for (unsigned i = X87_REGS; i < XMM_REGS; i += 16) /* 10 bytes each */
        memcpy(to + i, from + i, 10);
}

void xsave_convert(u8 *to, const struct xsave_part *to_parts, const u8 *from,
                   const struct xsave_part *from_parts)
{
    u64 bv = load64(from + XSAVE_BV), kept = bv & (X87 | SSE);

    memset(to, 0, XSAVE_HEADER_END);
    copy_x87(to, from, !(bv & X87));
    memcpy(to + XSAVE_MXCSR, from + XSAVE_MXCSR,
           sizeof(u32)); /* never in an initial state: SDM 1, 13.7 */
    if (bv & SSE)
        memcpy(to + XMM_REGS, from + XMM_REGS, XMM_END - XMM_REGS);
    for (unsigned i = 0; i < XSAVE_PARTS; i++) {
        const struct xsave_part *t = &to_parts[i], *f = &from_parts[i];

        if (!t->size)
            continue;
        memset(to + t->offset, 0, t->size);
        if (!(bv & BIT(f->bit)) || !f->size)
            continue;
        memcpy(to + t->offset, from + f->offset, MIN(t->size, f->size));
        kept |= BIT(t->bit);
    }
    memcpy(to + XSAVE_BV, &kept, sizeof(kept));
}

/* Where this host has the components; size 0: it lacks one, or it does not lie within len. */
static void host_parts(struct xsave_part *ret_parts, size_t len)
{
    for (unsigned i = 0; i < XSAVE_PARTS; i++) {
        u32 size, offset, c, d;

        ret_parts[i] = (struct xsave_part){.bit = xsave_parts[i].bit};
        if (!__get_cpuid_count(0xd, xsave_parts[i].bit, &size, &offset, &c, &d))
            continue;
        if (size == xsave_parts[i].size && range_fits(offset, size, len)) {
            ret_parts[i].offset = (u16)offset;
            ret_parts[i].size = (u16)size;
        }
    }
}

void xsave_from_host(u8 *ret_canonical, const u8 *host, size_t len)
{
    struct xsave_part parts[XSAVE_PARTS];

    host_parts(parts, len);
    memset(ret_canonical, 0, X86_XSAVE_BYTES);
    xsave_convert(ret_canonical, xsave_parts, host, parts);
}

void xsave_to_host(const u8 *canonical, u8 *ret_host, size_t len)
{
    struct xsave_part parts[XSAVE_PARTS];

    host_parts(parts, len);
    memset(ret_host, 0, len);
    xsave_convert(ret_host, parts, canonical, xsave_parts);
}
