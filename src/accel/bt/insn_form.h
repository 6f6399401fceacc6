/*
 * Inside the decoder: the key under which a form is found, the facts that only the decoder needs,
 * and what opcodes look like before any form is known.
 */
#ifndef BT_INSN_FORM_H
#define BT_INSN_FORM_H

#include "accel/bt/insn.h"

/*
 * Everything that can change a form. Register numbers are left out where they only name operands. A
 * form is computed from its key alone (insn_form_build() makes bytes from it), so what is missing
 * here cannot leak into a form.
 */
union form_key {
    struct {
        u64 mode : 2; /* code size: 0, 1, 2 for 16, 32, 64 */
        u64 enc : 2;  /* enum insn_enc */
        u64 map : 5;  /* as encoded; enum insn_map where that has a name */
        u64 opcode : 8;
        u64 reg : 3;      /* ModRM.reg if it selects the operation, else 0 */
        u64 is_reg : 1;   /* ModRM.mod == 3 */
        u64 rm : 3;       /* ModRM.rm if mod == 3 and it selects the operation, else 0 */
        u64 opsize : 1;   /* 66 */
        u64 addrsize : 1; /* 67 */
        u64 rep : 2;      /* 0, 2, 3: none, f2, f3 */
        u64 lock : 1;
        u64 rex : 1; /* before VEX and EVEX only, where it is an error */
        u64 w : 1;
        u64 r : 1, x : 1,
            b : 1; /* extension bits, not inverted, where they can make an encoding invalid */
        u64 pp : 2, ll : 2;
        u64 vvvv_used : 1; /* vvvv is not 1111 */
        u64 vvvv_high : 1; /* its top bit, where it would have to name a mask register */
        u64 r2 : 1, v2 : 1, bcast : 1, zeroing : 1, masked : 1; /* EVEX */
        u64 pad : 19;
    };
    u64 bits;
};
_Static_assert(sizeof(union form_key) == 8, "one word");

/* What insn_decode() needs of a form besides struct insn_form. Half a cache line. */
struct form_entry {
    u64 key;
    const struct insn_form *form; /* form[1] is for (imm & count_mask) == 0 */
    u8 count_mask;                /* of shifts by a constant, else 0 */
    u8 imm_bytes, imm2_bytes;     /* the first immediate; the second: selector, level */
    u8 flags;                     /* ENTRY_* */
    u8 disp_shift;                /* EVEX: log2 of the factor of an 8-bit displacement */
    u8 opsize, addrsize;
    u8 reg_mask, rm_mask, vvvv_mask; /* bits of the register numbers that count */
} __attribute__((aligned(32)));
_Static_assert(sizeof(struct form_entry) == 32, "two to a cache line");

enum {
    ENTRY_SIGNED = 1,   /* the first immediate is sign-extended */
    ENTRY_VSIB = 2,     /* index is a vector register */
    ENTRY_MOFFS = 4,    /* a displacement of the address size follows the opcode */
    ENTRY_DROP_REP = 8, /* the repeat prefix has no meaning here */
    ENTRY_DROP_W = 16,  /* the W bit has none, but would have in 64-bit code */
    ENTRY_IS_80 = 32,   /* opcode 82, which 64-bit code writes 80 */
    ENTRY_IS4 =
        64, /* outside 64-bit mode: the top bit of the immediate is ignored (a register number) */
};

/* What must be known of an opcode to make its key. */
enum {
    OP_MODRM = 1,
    OP_REG = 2,    /* ModRM.reg selects the operation */
    OP_RM = 4,     /* and, with mod == 3, ModRM.rm too */
    OP_ISREG = 8,  /* ModRM.mod is ignored and taken for 3 */
    OP_EXT_R = 16, /* REX.R selects (control registers) */
    OP_EXT_B = 32, /* REX.B selects (90) */
    OP_K = 64,     /* VEX: works on mask registers */
};
/* [0]: legacy, [1]: VEX and EVEX; then map 0..3. */
extern const u8 insn_op_attr[2][4][256];

/* The entry of `key`. If it cannot be kept (table full), *scratch is filled and returned.
 * Thread-safe. */
const struct form_entry *insn_form_lookup(union form_key key, struct form_entry *scratch);
/* Forgets every entry (the forms stay). Nobody may be decoding. */
void insn_form_reset(void);

/* Makes a pair of forms (see form_entry.form) and the entry, whose pointer is left NULL, from a
 * key. */
void insn_form_build(union form_key key, struct form_entry *entry, struct insn_form ret[2]);

#endif
