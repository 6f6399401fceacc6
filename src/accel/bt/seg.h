/*
 * Segments, descriptors and stacks, as the system helpers share them (light, private to this folder).
 * SDM 3A, chapters 3 and 5.
 */
#ifndef BT_SEG_H
#define BT_SEG_H

#include "accel/bt/cpu.h"

#define ERR_EXT 1u /* error code: the event was not the program's own doing */
#define ERR_IDT 2u
#define SEL_RPL 3u
#define SEL_TI 4u

/* Types of system descriptors (S = 0) */
enum {
    SYS_TSS16 = 1,
    SYS_LDT = 2,
    SYS_TSS16_BUSY = 3,
    SYS_CALL16 = 4,
    SYS_TASK_GATE = 5,
    SYS_INT16 = 6,
    SYS_TRAP16 = 7,
    SYS_TSS32 = 9,
    SYS_TSS32_BUSY = 11,
    SYS_CALL32 = 12,
    SYS_INT32 = 14,
    SYS_TRAP32 = 15,
};
#define TYPE_CODE 8u
#define TYPE_CONFORMING 4u /* code */
#define TYPE_DOWN 4u       /* data: expand down */
#define TYPE_READ 2u       /* code */
#define TYPE_WRITE 2u      /* data */
#define TYPE_ACCESSED 1u

/* A descriptor as read from a table. */
struct desc {
    u64 lo, hi; /* hi: second half of a 16-byte one, else 0 */
    u64 lin;    /* where it is */
    u16 sel;
};

static inline u32 desc_attr(const struct desc *d)
{
    return (u32)(d->lo >> 40) & 0xf0ff;
}
static inline unsigned attr_type(u32 attr)
{
    return attr & SEG_ATTR_TYPE;
}
static inline unsigned attr_dpl(u32 attr)
{
    return (attr >> SEG_ATTR_DPL_SHIFT) & 3;
}
static inline bool attr_code(u32 attr)
{
    return (attr & SEG_ATTR_S) && (attr & TYPE_CODE);
}
static inline bool attr_data(u32 attr)
{
    return (attr & SEG_ATTR_S) && !(attr & TYPE_CODE);
}
static inline bool attr_conforming(u32 attr)
{
    return attr_code(attr) && (attr & TYPE_CONFORMING);
}
static inline bool attr_writable(u32 attr)
{
    return attr_data(attr) && (attr & TYPE_WRITE);
}
static inline bool sel_null(u16 sel)
{
    return !(sel & ~SEL_RPL);
}
static inline bool canonical(u64 a)
{
    return (u64)((s64)(a << 16) >> 16) == a;
}
static inline bool real_mode(const struct cpu *c)
{
    return !(c->cr0 & CR0_PE);
}
static inline bool v86_mode(const struct cpu *c)
{
    return (c->rflags & FL_VM) && (c->cr0 & CR0_PE);
}
static inline unsigned iopl(const struct cpu *c)
{
    return (c->rflags >> 12) & 3;
}
static inline u64 size_mask(unsigned size)
{
    return size >= 8 ? ~0ull : BIT(size * 8) - 1;
}

/* Moves rip and says so: the glue does not step over the instruction. */
static inline void set_rip(struct cpu *c, u64 rip)
{
    c->rip = rip;
    c->rip_set = true;
}
static inline u64 next_rip(const struct cpu *c, const struct insn *in)
{
    u64 rip = c->rip + in->len;
    return in->mode == 64          ? rip
           : in->mode == 32        ? (u32)rip
           : (c->rip & ~0xffffull) ? (u32)rip
                                   : rip & 0xffff;
}
static inline void require_cpl0(struct cpu *c)
{
    if (c->cpl)
        raise_error(c, VEC_GP, 0);
}

/* --- descriptors --- */
/* Reads the descriptor `sel` names; false when it lies outside its table (or there is no LDT). */
bool desc_read(struct cpu *c, u16 sel, struct desc *ret_d);
/* As desc_read, raising `vector` with the selector when outside. */
void desc_need(struct cpu *c, u16 sel, u8 vector, u32 ext, struct desc *ret_d);
/* The second 8 bytes, for system descriptors in long mode; raises `vector` when its type field is not 0. */
void desc_read_high(struct cpu *c, struct desc *d, u8 vector);
/* The hidden part of a segment register that this descriptor gives. */
struct x86_seg desc_seg(const struct desc *d);
void desc_set_accessed(struct cpu *c, struct desc *d);
void desc_set_type(struct cpu *c, struct desc *d, unsigned type); /* busy bit of a TSS */
/* What a null selector gives. */
struct x86_seg null_seg(u16 sel);
struct x86_seg real_seg(const struct cpu *c, unsigned reg, u16 sel); /* real and v86 mode */

/* --- segment registers --- */
/* Loads ES, SS, DS, FS or GS with all checks; CS through far transfers only. */
void seg_load(struct cpu *c, unsigned reg, u16 sel);
/* As seg_load in protected mode, with `vector` (#GP or #TS) for bad selectors. */
void seg_load_protected(struct cpu *c, unsigned reg, u16 sel, u8 vector);
/* Checks that `sel` may become SS at privilege `cpl`; raises `vector` (or #SS when not present) with `ext`. */
struct x86_seg ss_check(struct cpu *c, u16 sel, unsigned cpl, u8 vector, u32 ext);
/* Does the segment (outside 64-bit mode) cover [off, off+size)? */
bool seg_covers(const struct x86_seg *s, u64 off, u64 size);
/* After a return to an outer level: data segments the new level may not use become null. */
void seg_drop_inner(struct cpu *c);
/* Installs CS with its privilege level, and the instruction pointer; then cpu_update_mode(). */
void cs_install(struct cpu *c, const struct x86_seg *cs, u16 sel, unsigned cpl, u64 rip);
/* Raises #GP(0) unless rip lies within the code segment cs (or is canonical, in 64-bit code). */
void check_rip(struct cpu *c, const struct x86_seg *cs, u64 rip, u32 ext);

/* --- stacks: several pushes or pops that count only when all have succeeded --- */
struct stack {
    struct cpu *c;
    struct x86_seg ss;
    u64 sp, mask; /* mask: width of the stack pointer */
    bool flat;    /* 64-bit: canonical check instead of segment */
    u32 error;    /* error code of its #SS */
    enum mem_as as;
};
/* The current stack. Nothing changes until stack_commit(). */
struct stack stack_current(struct cpu *c);
/* Another one: `ss` outside 64-bit mode; `inner`: pushes are made with a new, lower CPL. */
struct stack stack_other(struct cpu *c, const struct x86_seg *ss, u64 sp, bool flat, bool inner);
void stack_push(struct stack *s, unsigned size, u64 value);
u64 stack_pop(struct stack *s, unsigned size);
u64 stack_peek(struct stack *s, unsigned offset, unsigned size); /* at sp + offset, sp unchanged */
void stack_commit(const struct stack *s); /* writes RSP by the stack's width */

/* --- task state --- */
/* The stack pointer for privilege `cpl` from the TSS: in long mode ret_sp only. Raises #TS. */
void tss_stack(struct cpu *c, unsigned cpl, u32 ext, u16 *ret_ss, u64 *ret_sp);
u64 tss_ist(struct cpu *c, unsigned ist, u32 ext);
enum task_why {
    TASK_JMP,
    TASK_CALL,
    TASK_IRET,
    TASK_GATE,      /* by an interrupt or exception */
    TASK_GATE_SOFT, /* by INT n */
};
/* Hardware task switch to the TSS `sel`; rip: where the old task goes on. Raises. */
void task_switch(struct cpu *c, u16 sel, enum task_why why, u64 rip, bool has_error, u32 error);
/* Far transfer through the task gate or TSS descriptor d. */
void task_jump(struct cpu *c, const struct desc *d, enum task_why why, u64 rip);

/* Delivery from an instruction: `rip` is pushed, c->rip stays for faults during delivery. */
void deliver_at(struct cpu *c, u8 vector, bool has_error, u32 error, unsigned kind, u64 rip);

#endif
