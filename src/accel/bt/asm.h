/*
 * Writing host machine code: just the encodings the translator needs. SDM volume 2, chapter 2.
 * The buffer is the writable view of the code cache; struct code remembers where the same byte is executable.
 */
#ifndef BT_ASM_H
#define BT_ASM_H

#include "base/types.h"
#include "x86/cpu.h"

#define S1 14 /* host R14 and R15: the translator's own; the guest's are in cpu.gpr[] */
#define S2 15

struct code {
    u8 *p;      /* next byte, writable view */
    s64 to_rx;  /* what to add for the executable view */
};

static inline u8 *code_rx(const struct code *o)
{
    return o->p + o->to_rx;
}

static inline void b1(struct code *o, u8 b) { *o->p++ = b; }
static inline void b2(struct code *o, u8 a, u8 b) { b1(o, a), b1(o, b); }
static inline void b3(struct code *o, u8 a, u8 b, u8 c) { b1(o, a), b1(o, b), b1(o, c); }
static inline void b4(struct code *o, u32 v) { __builtin_memcpy(o->p, &v, 4), o->p += 4; }
static inline void b8(struct code *o, u64 v) { __builtin_memcpy(o->p, &v, 8), o->p += 8; }

static inline u8 rex(bool w, unsigned r, unsigned x, unsigned b)
{
    return 0x40 | w << 3 | (r >> 3 & 1) << 2 | (x >> 3 & 1) << 1 | (b >> 3 & 1);
}

/* ModRM for gs:[disp32] (no base: SIB with none). */
static inline void modrm_gs(struct code *o, unsigned reg, s32 disp)
{
    b2(o, (reg & 7) << 3 | 4, 0x25), b4(o, (u32)disp);
}

/* op reg, gs:[disp] with 64-bit operand */
static inline void op_gs(struct code *o, u8 opcode, unsigned reg, s32 disp)
{
    b3(o, 0x65, rex(true, reg, 0, 0), opcode), modrm_gs(o, reg, disp);
}

static inline void load_gs(struct code *o, unsigned reg, s32 disp) { op_gs(o, 0x8b, reg, disp); }
static inline void store_gs(struct code *o, unsigned reg, s32 disp) { op_gs(o, 0x89, reg, disp); }

static inline void mov_rr(struct code *o, unsigned to, unsigned from)
{
    b3(o, rex(true, from, 0, to), 0x89, 0xc0 | (from & 7) << 3 | (to & 7));
}

static inline void sub_rr(struct code *o, unsigned from, unsigned by)
{
    b3(o, rex(true, by, 0, from), 0x29, 0xc0 | (by & 7) << 3 | (from & 7));
}

static inline void mov_imm(struct code *o, unsigned reg, u64 value)
{
    if (value <= UINT32_MAX) {
        if (reg & 8)
            b1(o, 0x41);
        b1(o, 0xb8 | (reg & 7)), b4(o, value);
    } else if ((u64)(s64)(s32)value == value) {
        b3(o, rex(true, 0, 0, reg), 0xc7, 0xc0 | (reg & 7)), b4(o, value);
    } else {
        b2(o, rex(true, 0, 0, reg), 0xb8 | (reg & 7)), b8(o, value);
    }
}

/* ModRM (and SIB, disp) for [base + index * scale + disp]; REG_NONE for none. The caller has written REX. */
static inline void modrm_mem(struct code *o, unsigned reg, unsigned base, unsigned index, unsigned scale, s32 disp)
{
    u8 r = (reg & 7) << 3;
    u8 ss = scale == 8 ? 0xc0 : scale == 4 ? 0x80 : scale == 2 ? 0x40 : 0;

    if (base == 0xff) {
        b2(o, r | 4, ss | (index == 0xff ? 4 : index & 7) << 3 | 5), b4(o, (u32)disp);
        return;
    }
    bool d0 = disp == 0 && (base & 7) != 5, d8 = disp == (s8)disp;
    u8 mod = d0 ? 0 : d8 ? 0x40 : 0x80;
    if (index == 0xff && (base & 7) != 4)
        b1(o, mod | r | (base & 7));
    else
        b2(o, mod | r | 4, ss | (index == 0xff ? 4 : index & 7) << 3 | (base & 7));
    if (!d0 && d8)
        b1(o, disp);
    else if (!d0)
        b4(o, (u32)disp);
}

/* lea to, [base + index * scale + disp]; w: 64 bits, else 32 (zero-extends) */
static inline void lea(struct code *o, bool w, unsigned to, unsigned base, unsigned index, unsigned scale, s32 disp)
{
    u8 x = index == 0xff ? 0 : index, b = base == 0xff ? 0 : base;
    b2(o, rex(w, to, x, b), 0x8d);
    modrm_mem(o, to, base, index, scale, disp);
}

/* opcode reg, [base + index] with 64- (w) or 32-bit operand */
static inline void op_mem(struct code *o, bool w, u8 opcode, unsigned reg, unsigned base, unsigned index, s32 disp)
{
    b2(o, rex(w, reg, index == 0xff ? 0 : index, base), opcode);
    modrm_mem(o, reg, base, index, 1, disp);
}

/* pext to, from, gs:[mask], to S1 or S2: the page number of a linear address (BMI2, VEX.F3.0F38.W1 F5) */
static inline void pext_page(struct code *o, unsigned to, unsigned from, s32 mask_disp)
{
    b3(o, 0x65, 0xc4, 0x62); /* R inverted = 0 (reg 8 to 15), X = B = 1, map 0F38 */
    b2(o, 0x80 | (~from & 15) << 3 | 2, 0xf5); /* W=1, vvvv, L=0, pp=F3 */
    modrm_gs(o, to, mask_disp);
}

/* mov S2, gs:[S2 * 8] */
static inline void load_entry(struct code *o)
{
    b3(o, 0x65, rex(true, S2, S2, 0), 0x8b), b2(o, (S2 & 7) << 3 | 4, 0xc0 | (S2 & 7) << 3 | 5), b4(o, 0);
}

static inline void test_rr(struct code *o, unsigned r)
{
    b3(o, rex(true, r, 0, r), 0x85, 0xc0 | (r & 7) << 3 | (r & 7));
}

/* test r8, imm8 */
static inline void test_low(struct code *o, unsigned reg, u8 imm)
{
    b3(o, rex(false, 0, 0, reg), 0xf6, 0xc0 | (reg & 7)), b1(o, imm);
}

/* test r32, imm32 */
static inline void test_imm32(struct code *o, unsigned reg, u32 imm)
{
    if (reg & 8)
        b1(o, 0x41);
    b2(o, 0xf7, 0xc0 | (reg & 7)), b4(o, imm);
}

/* Jumps; return where the rel32 is, to be set with patch_here(). */
static inline u8 *jcc(struct code *o, u8 cond)
{
    b2(o, 0x0f, 0x80 | cond), b4(o, 0);
    return o->p - 4;
}

static inline u8 *jmp(struct code *o)
{
    b1(o, 0xe9), b4(o, 0);
    return o->p - 4;
}

static inline void patch(u8 *rel32, const u8 *target_rw)
{
    u32 d = (u32)(target_rw - (rel32 + 4));
    __builtin_memcpy(rel32, &d, 4);
}

static inline void patch_here(struct code *o, u8 *rel32) { patch(rel32, o->p); }

/* jmp to an executable address within 2 GiB */
static inline void jmp_rx(struct code *o, const u8 *target)
{
    b1(o, 0xe9), b4(o, (u32)(target - (code_rx(o) + 4)));
}

static inline void flags_to_ax(struct code *o)
{
    b1(o, 0x9f);                /* lahf */
    b3(o, 0x0f, 0x90, 0xc0);    /* seto al */
}

/* The arithmetic flags into AX and back. RAX is kept in the scratch register `hold`, or, where none is free (0), in
 * memory at gs:[rax_disp], which costs a round trip through the store buffer. */
static inline void flags_save(struct code *o, unsigned hold, s32 rax_disp)
{
    if (hold)
        mov_rr(o, hold, RAX);
    else
        store_gs(o, RAX, rax_disp);
    flags_to_ax(o);
}

static inline void flags_restore(struct code *o, unsigned hold, s32 rax_disp)
{
    b2(o, 0x04, 0x7f);          /* add al, 0x7f: sets OF as it was */
    b1(o, 0x9e);                /* sahf */
    if (hold)
        mov_rr(o, RAX, hold);
    else
        load_gs(o, RAX, rax_disp);
}

enum { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_GE, CC_LE, CC_G };

#endif
