/*
 * Hostile code of three kinds: bytes as they come; bytes in the shape of instructions, most of them with a memory operand;
 * and accesses through registers that are moved about between them by constants and by halves.
 */
#include "code.h"

#include <string.h>

#include "guard.h"

struct out {
    struct random *r;
    unsigned bits, len;
    u8 *code;
};

static void put(struct out *o, u64 value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes && o->len < CODE_BYTES; i++)
        o->code[o->len++] = (u8)(value >> (8 * i));
}

static bool one_in(struct out *o, unsigned n)
{
    return random_below(o->r, n) == 0;
}

static u32 displacement(struct out *o)
{
    static const u32 ends[] = {0,          8,          0xff8,      0xfff,     0x1000,
                               0x7fffffff, 0x80000000, 0xffffffff, 0xfffff000};

    return one_in(o, 3) ? (u32)random_next(o->r) : ends[random_below(o->r, ARRAY_LEN(ends))];
}

static void modrm(struct out *o)
{
    u8 byte = (u8)random_next(o->r);

    if (byte >= 0xc0 && one_in(o, 2))
        byte &= 0x7f;
    put(o, byte, 1);
    if (byte < 0xc0 && (byte & 7) == 4)
        put(o, random_next(o->r), 1);
    if (byte >> 6 == 1)
        put(o, displacement(o), 1);
    else if (byte >> 6 == 2 || (byte & 0xc7) == 5)
        put(o, displacement(o), 4);
}

static void prefixes(struct out *o)
{
    static const u8 list[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x64, 0x65, 0x2e, 0x36};

    while (one_in(o, 3))
        put(o, list[random_below(o->r, sizeof(list))], 1);
    if (o->bits == 64 && one_in(o, 2))
        put(o, 0x40 | (random_next(o->r) & 15), 1);
}

static void vex(struct out *o)
{
    u64 bits = random_next(o->r);

    put(o, 0xc4, 1);
    put(o, (bits & 0xe0) | (1 + random_below(o->r, 3)) | (o->bits == 64 ? 0 : 0xc0), 1);
    put(o, bits >> 8, 1);
}

static void evex(struct out *o)
{
    u64 bits = random_next(o->r);

    put(o, 0x62, 1);
    put(o, (bits & 0xf0) | (1 + random_below(o->r, 3)) | (o->bits == 64 ? 0 : 0xc0), 1);
    put(o, (bits >> 8 & 0xfb) | 4, 1);
    put(o, bits >> 16, 1);
}

static void shaped(struct out *o)
{
    static const u16 escapes[] = {0, 0x0f, 0x0f, 0x380f, 0x3a0f};
    u16 escape = escapes[random_below(o->r, ARRAY_LEN(escapes))];
    unsigned kind = random_below(o->r, 8);

    if (kind == 0) {
        vex(o);
    } else if (kind == 1) {
        evex(o);
    } else {
        prefixes(o);
        put(o, escape, escape > 0xff ? 2 : escape ? 1 : 0);
    }
    put(o, random_next(o->r), 1);
    modrm(o);
    if (one_in(o, 2))
        put(o, displacement(o), one_in(o, 2) ? 1 : 4);
}

/* One step with a register in the role of a base: access it, move it, change a part of it. */
static void step(struct out *o, unsigned reg, unsigned other)
{
    u8 rex = 0x48 | (reg >> 3) | (other >> 3) << 2, low = reg & 7, field = (other & 7) << 3;
    unsigned kind = random_below(o->r, 8);

    if (o->bits == 64 && kind != 6)
        put(o, rex, 1);
    if (kind < 3) { /* mov other, [reg + disp8] and back */
        put(o, kind ? 0x8b : 0x89, 1), put(o, 0x40 | field | low, 1);
        if (low == 4)
            put(o, 0x24, 1);
        put(o, displacement(o), 1);
    } else if (kind == 3) { /* add or sub reg, imm32 */
        put(o, 0x81, 1), put(o, (one_in(o, 2) ? 0xc0 : 0xe8) | low, 1), put(o, displacement(o), 4);
    } else if (kind == 4) { /* sub reg, -2^31, twice: 4 GiB away */
        put(o, 0x80000000e881 | low << 8, 6), put(o, rex, o->bits == 64),
            put(o, 0x80000000e881 | low << 8, 6);
    } else if (kind == 5) { /* lea reg, [reg + disp32] */
        put(o, 0x8d, 1), put(o, 0x80 | low << 3 | low, 1);
        if (low == 4)
            put(o, 0x24, 1);
        put(o, displacement(o), 4);
    } else if (kind == 6) { /* mov AL..BH, imm8 */
        put(o, 0xb0 | random_below(o->r, 8), 1), put(o, random_next(o->r), 1);
    } else { /* push and pop */
        put(o, (one_in(o, 2) ? 0x50 : 0x58) | low, 1);
    }
}

static void bases(struct out *o)
{
    unsigned reg = one_in(o, 2) ? RBX : random_below(o->r, o->bits == 64 ? 16 : 8);

    for (unsigned n = 2 + random_below(o->r, 12); n; n--)
        step(o, reg, random_below(o->r, o->bits == 64 ? 16 : 8));
}

void code_make(struct random *r, unsigned bits, u8 *code)
{
    struct out o = {.r = r, .bits = bits, .code = code};
    unsigned kind = random_below(r, 4);

    while (o.len < CODE_BYTES)
        if (kind == 0)
            put(&o, random_next(r), 8);
        else if (kind == 1)
            bases(&o);
        else
            shaped(&o);
}

u64 code_register(struct random *r, u64 data)
{
    switch (random_below(r, 6)) {
    case 0:
        return data + random_below(r, 4096);
    case 1:
        return data + 4096 - random_below(r, 70);
    case 2:
        return data + 8192 - random_below(r, 70);
    case 3:
        return guard_host_address(random_next(r));
    case 4:
        return 0x7fffffffff80 + random_below(r, 256);
    default:
        return random_next(r) >> random_below(r, 64);
    }
}
