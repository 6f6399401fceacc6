/*
 * XSAVE, XSAVEOPT, XSAVEC and XRSTOR. SDM 1, chapter 13. Light code on the vCPU's thread; the guest's registers are live
 * in the host's.
 *
 * Through a buffer of ours, for the reasons in sys_fpu.c. XSAVEOPT runs as XSAVE: its "modified" optimization remembers
 * an address, and all areas share our buffer's. What of the buffer goes to the guest is decided here, per component, so
 * components that are not saved leave the guest's bytes alone. XRSTOR's header is checked before the host sees it.
 */
#include "accel/bt/seg.h"
#include "accel/bt/sys_fns.h"
#include "accel/bt/vecmem.h"

#define X87 1ull
#define SSE 2ull
#define AVX 4ull
#define COMPACT BIT(63)
#define LEGACY 512
#define HEADER 64
#define EXTENDED (LEGACY + HEADER)
#define AREA 2816
#define XMM_8 \
    288 /* of the legacy area: outside 64-bit mode XMM8-15 and the upper halves of YMM8-15 are not moved */
#define LAST_COMPONENT 7

struct area {
    struct cpu *c;
    u64 lin;
    u64 rfbm; /* components asked for */
    u8 *buf;
    bool is64;
};

/* Where a component lies: size and offset in the standard format, from the model. */
struct place {
    u32 size, offset;
    bool align; /* in the compacted format to 64 bytes */
};

static struct place component(const struct area *a, unsigned i)
{
    struct place p;
    u32 r[4];
    cpu_model_cpuid(a->c->model, a->c->index, 0xd, i, a->c->cr4, a->c->xcr0, r);
    p.size = r[0];
    p.offset = r[1];
    p.align = r[2] & 2;
    return p;
}

/* Calls fn for each extended component of `which`, with its offset in the standard or the compacted format. */
static void each_extended(const struct area *a, u64 which, u64 compact,
                          void (*fn)(const struct area *a, u32 offset, u32 size))
{
    u32 packed = EXTENDED;
    for (unsigned i = 2; i <= LAST_COMPONENT; i++) {
        if (!((which | compact) & BIT(i)))
            continue;
        struct place p = component(a, i);
        u32 offset = p.offset;
        if (compact) {
            if (p.align)
                packed = ALIGN_UP(packed, 64u);
            offset = packed;
            if (compact & BIT(i))
                packed += p.size;
        }
        if (i == 2 && !a->is64)
            p.size /= 2;
        if ((which & BIT(i)) && range_fits(offset, p.size, AREA))
            fn(a, offset, p.size);
    }
}

static void save_part(const struct area *a, u32 offset, u32 size)
{
    vecmem_write(a->c, a->lin + offset, a->buf + offset, size);
}

static void load_part(const struct area *a, u32 offset, u32 size)
{
    vecmem_read(a->c, a->lin + offset, a->buf + offset, size);
}

static void open_area(struct cpu *c, const struct insn *in, struct area *a, u8 *buf, bool write)
{
    if (!(c->cr4 & CR4_OSXSAVE) || !in->has_mem)
        raise_exception(c, VEC_UD);
    if (c->cr0 & CR0_TS)
        raise_exception(c, VEC_NM);
    a->c = c;
    a->buf = buf;
    a->is64 = in->mode == 64;
    a->rfbm = ((u32)c->gpr[RAX] | c->gpr[RDX] << 32) & c->xcr0;
    a->lin = insn_linear(c, in, EXTENDED, write);
    if (a->lin & 63)
        raise_error(c, VEC_GP, 0);
}

/* The legacy region: x87 (with its pointers cleared), MXCSR, XMM. */
static void save_legacy(const struct area *a, u64 written, bool mxcsr)
{
    if (written & X87) {
        u64 *pointers = (u64 *)(a->buf + 8);
        pointers[0] = pointers[1] = 0;
        save_part(a, 0, 24);
        save_part(a, 32, 128);
    }
    if (mxcsr)
        save_part(a, 24, 8);
    if (written & SSE)
        save_part(a, 160, a->is64 ? 256 : XMM_8 - 160);
}

static void clear_header(u8 *buf)
{
    for (unsigned i = 0; i < HEADER; i += 8)
        *(u64 *)(buf + LEGACY + i) = 0;
}

static void save_standard(struct area *a)
{
    u32 lo = (u32)a->rfbm, hi = (u32)(a->rfbm >> 32);
    u64 *bv = (u64 *)(a->buf + LEGACY);
    __asm__ volatile("xsave64 (%2)" : : "a"(lo), "d"(hi), "r"(a->buf) : "memory");
    u64 in_use = *bv & a->rfbm;
    load_part(a, LEGACY, 8);
    *bv = (*bv & ~a->rfbm) | in_use;
    save_legacy(a, a->rfbm, a->rfbm & (SSE | AVX));
    each_extended(a, a->rfbm, 0, save_part);
    save_part(a, LEGACY, 8);
}

static void save_compact(struct area *a)
{
    u32 lo = (u32)a->rfbm, hi = (u32)(a->rfbm >> 32);
    u64 *header = (u64 *)(a->buf + LEGACY);
    __asm__ volatile("xsavec64 (%2)" : : "a"(lo), "d"(hi), "r"(a->buf) : "memory");
    header[0] &= a->rfbm;
    header[1] = a->rfbm | COMPACT;
    save_legacy(a, header[0], header[0] & SSE);
    each_extended(a, header[0], header[1] & ~COMPACT, save_part);
    save_part(a, LEGACY, 16);
}

/* XSAVE and XSAVEOPT are 0F AE, XSAVEC is 0F C7. */
void sys_xsave(struct cpu *c, const struct insn *in)
{
    u8 buf[AREA] __attribute__((aligned(64)));
    struct area a;
    open_area(c, in, &a, buf, true);
    clear_header(buf);
    if (in->opcode == 0xc7)
        save_compact(&a);
    else
        save_standard(&a);
}

static bool has_xsavec(const struct area *a)
{
    u32 r[4];
    cpu_model_cpuid(a->c->model, a->c->index, 0xd, 1, a->c->cr4, a->c->xcr0, r);
    return r[0] & 2;
}

static void check_header(const struct area *a)
{
    const u64 *header = (const u64 *)(a->buf + LEGACY);
    u64 bv = header[0], comp = header[1], reserved = 0;
    for (unsigned i = 2; i < HEADER / 8; i++)
        reserved |= header[i];
    if (comp & COMPACT) {
        bool bad = ((comp & ~COMPACT) & ~a->c->xcr0) || (bv & ~comp) || !has_xsavec(a);
        if (bad)
            raise_error(a->c, VEC_GP, 0);
    } else if (comp || (bv & ~a->c->xcr0)) {
        raise_error(a->c, VEC_GP, 0);
    }
    if (reserved)
        raise_error(a->c, VEC_GP, 0);
}

/* Outside 64-bit mode XRSTOR leaves the upper eight registers alone: put their live values into the area. */
static __attribute__((noinline)) void keep_upper(const struct area *a, u64 compact)
{
    u8 live[AREA] __attribute__((aligned(64)));
    u64 *header = (u64 *)(a->buf + LEGACY);
    u64 move = a->rfbm & (SSE | AVX);
    u32 lo = (u32)move, ymm = EXTENDED + 128;
    clear_header(live);
    __asm__ volatile("xsave64 (%2)" : : "a"(lo), "d"(0), "r"(live) : "memory");
    u64 in_use = *(u64 *)(live + LEGACY);
    if (compact && (~compact & move & (SSE | AVX)))
        return; /* a format without room for them: the guest loses registers only 64-bit code can see */
    for (unsigned i = 160; i < XMM_8; i++)
        if ((move & SSE) && !(header[0] & SSE))
            a->buf[i] = 0;
    for (unsigned i = EXTENDED; i < ymm; i++)
        if ((move & AVX) && !(header[0] & AVX))
            a->buf[i] = 0;
    for (unsigned i = XMM_8; i < XMM_8 + 128 && (move & SSE); i++)
        a->buf[i] = in_use & SSE ? live[i] : 0;
    for (unsigned i = ymm; i < ymm + 128 && (move & AVX); i++)
        a->buf[i] = in_use & AVX ? live[i] : 0;
    header[0] |= in_use & move;
}

void sys_xrstor(struct cpu *c, const struct insn *in)
{
    u8 buf[AREA] __attribute__((aligned(64)));
    struct area a;
    open_area(c, in, &a, buf, false);
    load_part(&a, 0, EXTENDED);
    check_header(&a);
    const u64 *header = (const u64 *)(buf + LEGACY);
    u64 compact = header[1] & ~COMPACT, load = a.rfbm & header[0];
    bool mxcsr = header[1] & COMPACT ? load & SSE : a.rfbm & (SSE | AVX);
    if (mxcsr && (*(u32 *)(buf + 24) & ~MXCSR_MASK))
        raise_error(c, VEC_GP, 0);
    each_extended(&a, load, compact, load_part);
    if (!a.is64)
        keep_upper(&a, compact);
    u32 lo = (u32)a.rfbm, hi = (u32)(a.rfbm >> 32);
    __asm__ volatile("xrstor64 (%2)" : : "a"(lo), "d"(hi), "r"(buf) : "memory");
}
