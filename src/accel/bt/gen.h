/*
 * Code generation for one block. Heavy code, with the cache's lock held.
 *
 * Hot code is written first; what is rarely run (misses, unlinked jumps) is noted in cold[] and written behind it.
 * Between two guest instructions the host's state is the guest's (see cpu.h) with S1 and S2 free.
 */
#ifndef BT_GEN_H
#define BT_GEN_H

#include "accel/bt/asm.h"
#include "accel/bt/cache.h"

#define ACC_ALIGN 4 /* beside ACC_R, ACC_W: misaligned is #GP */
#define ACC_MASKED 8 /* a missing page may not matter */
#define ACC_WROTE 16 /* a store that is done turns out to have been to code */
#define BLOCK_INSNS 48
#define MAX_COLD 320

enum cold_kind { COLD_SLOW, COLD_LINK, COLD_MISS, COLD_REMAP, COLD_POLL, COLD_WINDOW, COLD_SLIDE, COLD_CAREFUL, COLD_WROTE };

#define WINDOWS 8
#define NO_WINDOW 0xff

struct window {
    u8 base;           /* register */
    u8 at;             /* insn before which it is checked */
    s32 lo;            /* first byte, relative to the register there */
    u16 span;          /* bytes */
    bool write;
};

struct cold {
    u8 kind;
    bool live;         /* flags are in AX and must be restored */
    u8 hold;           /* then: where RAX is, see flags_save() */
    u8 addr_reg;       /* SLOW: register that holds the linear address */
    u8 size, acc;
    u8 insn;           /* CAREFUL: which */
    u8 *from1, *from2; /* rel32 of the jumps here: missing entry, misaligned */
    u8 *resume;        /* SLOW: writable address of the access */
    u8 *restore;       /* SLOW, live: of the flags_restore in front of it */
    u64 vpc;
    struct link *link;
    struct window window;
};

struct gen {
    struct cpu *c;
    struct bt *bt;
    struct block *b;
    struct code o;
    struct insn insn[BLOCK_INSNS];
    u16 offset[BLOCK_INSNS]; /* from b->vpc */
    u8 flags_dead[BLOCK_INSNS]; /* arithmetic flags need not survive the checks of this insn */
    bool careful[BLOCK_INSNS];
    unsigned n, i;
    const struct insn *in;   /* insn[i] */
    u64 vpc;                 /* its linear address, or in the frame */
    u64 lin;                 /* the block's linear address, even if it is relative */
    bool plain;              /* 64-bit, or 32-bit with flat segments: addresses and branches in line */
    bool code64;
    const u8 *page;          /* the bytes of the block's page */
    bool ended;              /* control has left: nothing falls out of the block's end */
    struct window window[WINDOWS];
    unsigned nwindows;
    u8 window_mem[BLOCK_INSNS], window_stack[BLOCK_INSNS]; /* of the memory operand, of the stack access, or NO_WINDOW */
    u8 s2_window;            /* whose delta S2 holds, or NO_WINDOW */
    struct cold cold[MAX_COLD];
    unsigned ncold;
};

/* flags.c: fills flags_dead[] */
void find_dead_flags(struct gen *g);

/* window.c */
void find_windows(struct gen *g);
void gen_windows(struct gen *g);                /* the checks due before the current insn */
void window_to_s2(struct gen *g, unsigned id);  /* its delta into S2 */

/* gen_entry.c */
void gen_entries(struct gen *g, enum entry_kind kind);     /* the block's ways in, with the one that is wanted now */
void gen_entry_apart(struct gen *g, enum entry_kind kind); /* one more for a block that is there */
void gen_cold_slide(struct gen *g, struct cold *k);

/* gen_mem.c */
/* Code of a relative block that puts an address of its frame, at most 2^33, into a register as the guest's. */
void gen_relative(struct gen *g, unsigned to, u64 address);
/* The same in any block. */
void gen_code_address(struct gen *g, unsigned to, u64 address);
/* Code for the linear address of the memory operand (plus extra_disp); returns the register it is in. */
unsigned gen_address(struct gen *g, const struct insn *in, s32 extra_disp);
/* Code that leaves in S2 what to add to addr_reg for an access of size bytes. */
void gen_check(struct gen *g, unsigned addr_reg, unsigned size, unsigned acc);
struct cold *gen_cold(struct gen *g, enum cold_kind kind);
void gen_slow_call(struct gen *g, const struct cold *k); /* of light_slow() */
void gen_cold_code(struct gen *g);

/* gen_store.c */
bool gen_store(struct gen *g);       /* one that often meets pages with code; false: not for this insn */
void gen_cold_store(struct gen *g, struct cold *k);

/* gen_copy.c */
void copy_with_mem(struct gen *g, const struct insn *in, unsigned addr); /* the insn with its memory at [addr + S2] */
void copy_carefully(struct gen *g, const struct insn *in);
void gen_copy(struct gen *g);         /* INSN_COPY */
void gen_lea(struct gen *g);
void gen_moffs(struct gen *g);
bool gen_copy_needs_care(const struct insn *in); /* cannot be done by gen_copy with the fast path */

/* gen_inline.c */
bool gen_inline(struct gen *g); /* a special instruction in line; false: call its function */

/* gen_flow.c */
void align_rel32(struct gen *g, unsigned opcode_bytes); /* so that the rel32 behind them can be patched atomically */
void gen_link(struct gen *g, u64 target);           /* jump to a guest address */
void gen_dispatch(struct gen *g);                   /* jump to the guest address in S1 */
void gen_special(struct gen *g, sys_fn *fn, bool ends); /* call of a C function for this insn */
bool gen_flow(struct gen *g);                       /* jumps, calls, stack; false: not its class */
struct site *gen_site(struct gen *g, sys_fn *fn);
void gen_stub_call(struct gen *g, enum stub stub, void *record);

/* sys_site.c: functions for sites that are no instruction's own (light) */
sys_fn sys_invalid, sys_too_long, sys_no_unit, sys_step, sys_moffs;

static inline code_ref gen_here(const struct gen *g)
{
    return code_ref_of(g->bt->cache, code_rx(&g->o));
}

static inline bool reg_hidden(unsigned r) { return r == S1 || r == S2; }

#endif
