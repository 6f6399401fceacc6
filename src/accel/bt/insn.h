/*
 * Decoding for the translator: bytes -> struct insn, in any of the three code sizes.
 *
 * The meaning of an opcode (operands, sizes, flags) comes from Zydis, once: the first time a form is seen, Zydis
 * decodes it and the facts are kept in a struct insn_form, found again by a key made of prefixes, opcode and ModRM
 * class. Decoding a form that is known is a prefix scan and one hash look-up. Heavy code (see cpu.h): it is called by
 * the translator and by the careful path, never directly from light helpers; helpers receive a finished struct insn.
 */
#ifndef BT_INSN_H
#define BT_INSN_H

#include "x86/cpu.h"

#define INSN_MAX 15
#define REG_NONE 0xff
#define BASE_RIP 0xfe

enum insn_map { MAP_1 = 0, MAP_0F = 1, MAP_0F38 = 2, MAP_0F3A = 3, MAP_5 = 5, MAP_6 = 6, MAP_3DNOW = 15 };
enum insn_enc { ENC_LEGACY, ENC_VEX, ENC_EVEX };

/* How the translator treats a form. */
enum insn_class {
    INSN_COPY,    /* run natively, registers renamed, the one memory operand (if any) checked */
    INSN_SPECIAL, /* form->sys is called with the insn; see sys.h */
    INSN_JMP, INSN_JCC, INSN_CALL, INSN_RET,        /* near, direct (relative) or indirect (modrm) */
    INSN_LOOP,                                      /* loop/loope/loopne/jcxz */
    INSN_PUSH, INSN_POP,                            /* of GPR, immediate or memory, 16/32/64 bits (not segments, flags) */
    INSN_LEAVE,
    INSN_LEA, INSN_NOP,                             /* nop: also prefetches, endbr, hint nops, rdpid-less hints */
    INSN_STRING,                                    /* movs stos lods cmps scas, with or without rep (ins/outs are special) */
    INSN_MOFFS,                                     /* mov al/ax/eax/rax <-> moffs */
    INSN_SYSCALL,                                   /* special, but known to leave through MSRs */
    INSN_INVALID,                                   /* raises #UD (also: not in the CPU model) */
};

enum { ACC_R = 1, ACC_W = 2, ACC_RW = 3 };

struct cpu;
struct insn;
/* A system helper; runs with all guest state in *c (light, see cpu.h). c->rip is the insn's address and is to be moved
 * past it by the caller's glue unless the helper sets c->rip_set. */
typedef void sys_fn(struct cpu *c, const struct insn *in);

/* Facts about one form of an opcode, shared by all its occurrences. Never freed. */
struct insn_form {
    u8 cls;           /* enum insn_class */
    bool has_modrm;
    u8 imm_bytes;     /* total, after disp; far pointers and ENTER included */
    u8 mem_bytes;     /* size of the memory operand, 0 when none or variable (then special) */
    u8 mem_acc;       /* ACC_R | ACC_W of the memory operand; 0 for lea, nop, prefetch, invlpg */
    u8 reg_acc;       /* ACC_ of ModRM.reg if it names a GPR, else 0 */
    u8 rm_acc;        /* ACC_ of ModRM.rm if mod == 3 and it names a GPR, else 0 */
    u8 vvvv_acc;      /* ACC_ of VEX.vvvv if it names a GPR, else 0 */
    u8 opreg_acc;     /* ACC_ of the register in the low opcode bits (push, pop, bswap, mov imm, xchg), else 0 */
    u8 reg_is_byte;   /* that GPR operand is 8 bits wide: without REX, 4..7 mean AH..BH (bit 0 reg, bit 1 rm, bit 2 opreg) */
    u16 gpr_implicit_r, gpr_implicit_w; /* bitmaps of implicit GPRs (mul, cpuid, shifts by CL, ...) */
    u16 flags_r;      /* arithmetic RFLAGS bits (FL_ARITH) that are read (or conditionally kept, as by shifts by CL) */
    u16 flags_w;      /* that are always written or left undefined: dead before this insn unless read */
    u8 cond;          /* Jcc/SETcc/CMOVcc condition 0..15 */
    bool reads_vec, writes_vec; /* touches x87/MMX/SSE/AVX state */
    u8 need;          /* enum insn_need: which unit must be enabled, else #NM/#UD */
    bool lockable;    /* LOCK prefix allowed (with a memory destination) */
    bool atomic;      /* xchg with memory: locked without a prefix */
    bool align;       /* faults (#GP) when its memory operand is misaligned (movaps, most legacy SSE, cmpxchg16b) */
    bool ends_block;  /* special that changes control flow or mode: the block ends behind it */
    bool no_64;       /* its encoding does not exist in 64-bit mode; must be re-encoded or special */
    bool flip_66;     /* 16-bit code: to mean the same in 64-bit code, it needs a 66 prefix exactly when it has none */
    /* Accesses its memory operand by elements that a mask register (EVEX.aaa) selects: what is masked out must not fault.
     * The low mask_count bits of the mask count. Memory holds mem_bytes / mask_bytes elements; bit i selects element i
     * modulo that number (a broadcast). mask_packed: what is selected lies next to each other from the start. */
    bool masked, mask_packed;
    u8 mask_count, mask_bytes;
    sys_fn *sys;      /* INSN_SPECIAL */
    u16 mnemonic;     /* ZydisMnemonic, for listings and sys helpers that serve several */
};

enum insn_need { NEED_NONE, NEED_X87, NEED_MMX, NEED_SSE, NEED_AVX, NEED_AVX512 };

/* One decoded instruction. Kept with the translated block while helpers refer to it. */
struct insn {
    const struct insn_form *form;
    u8 bytes[INSN_MAX + 1]; /* outside 64-bit mode: VEX and EVEX bits that are ignored there are neutral, 82 is 80 */
    u8 len;
    u8 enc;      /* enum insn_enc */
    u8 map, opcode;
    u8 mode;     /* code size: 16, 32 or 64 */
    u8 opsize;   /* effective operand size attribute: 2, 4, 8 (byte forms: see the opcode) */
    u8 addrsize; /* 2, 4, 8 */
    u8 seg;      /* effective segment of the memory operand (default or override): enum x86_segreg */
    bool seg_override;
    u8 rep;      /* 0, 0xf2, 0xf3; 0 where it has no meaning */
    bool lock, opsize_prefix, rex, has_modrm, has_mem;
    u8 rex_w, vex_l, vex_pp; /* W; L'L; VEX/EVEX pp (0, 1=66, 2=f3, 3=f2) */
    u8 mod, reg, rm;  /* reg and rm with the REX/VEX/EVEX extension: 0..15 (31 for EVEX vectors); without ModRM, rm is
                         the register in the low opcode bits */
    u8 vvvv;          /* 0..31, already inverted */
    u8 base, index, scale; /* of a memory operand: GPR number, REG_NONE or BASE_RIP; scale 1, 2, 4, 8 */
    bool vsib;        /* index is a vector register */
    s64 disp;         /* sign-extended; for EVEX already scaled (disp8*N) */
    u64 imm;          /* sign-extended as the instruction does; branch displacement; far pointer: offset */
    u16 imm2;         /* far pointer: selector; ENTER: level */
    u8 opcode_at, modrm_at, disp_at, imm_at, disp_len; /* offsets in bytes[] (opcode byte proper; 0 if absent) */
};

enum insn_result { INSN_OK = 0, INSN_TRUNCATED = -1 /* needs more bytes than were given */, INSN_TOO_LONG = -2 /* > 15: #GP */ };

struct cpu_model;
/* Set once before use: forms that `m` does not advertise in CPUID decode as INSN_INVALID. */
void insn_init(const struct cpu_model *m);
/* Decodes at most `avail` (<= 15) bytes for code size 16, 32 or 64. An undefined opcode is INSN_OK with class
 * INSN_INVALID. Thread-safe (the form table is filled under a lock). */
int insn_decode(const u8 *bytes, unsigned avail, unsigned mode, struct insn *ret);

#endif
