/*
 * System and other instructions that are not copied but done in C: one function per mnemonic (or family), all light
 * (see cpu.h). Each does the whole instruction with all its checks and faults for every mode it exists in.
 * sys_lookup() is the table from ZydisMnemonic (and form) to helper that insn.c uses.
 */
#ifndef BT_SYS_H
#define BT_SYS_H

#include "accel/bt/cpu.h"

struct sys_entry {
    u16 mnemonic;    /* ZydisMnemonic */
    sys_fn *fn;
    bool ends_block; /* control flow, mode, mapping or interruptibility may change */
};

extern const struct sys_entry sys_system[];   /* sys_system table: see sys_table.c; ends with fn == NULL */
extern const struct sys_entry sys_legacy[];
extern const struct sys_entry sys_vector[];

/* For classes that the translator makes code for itself, where it cannot (modes with segments, 16-bit stacks, ...).
 * Any operand, any mode; jumps set c->rip_set. */
sys_fn sys_push, sys_pop, sys_call, sys_ret, sys_jmp, sys_jcc, sys_loop, sys_leave;
sys_fn sys_string; /* movs stos lods cmps scas; leaves rip on the insn when interrupted between chunks */

/* Delivers an interrupt or exception through the IDT (or IVT). kind: what pushes which rip and whether DPL is checked.
 * Nested faults become #DF, then shutdown: c->activity is left alone and false is returned. */
enum deliver_kind { DELIVER_FAULT, DELIVER_SOFT /* INT n */, DELIVER_SOFT_INT3 /* INT3, INTO */, DELIVER_EXTERNAL, DELIVER_NMI, DELIVER_ICEBP };
/* c->rip is the address to push in every kind (INT n and friends deliver from their helpers, past the insn). Clears
 * c->shadow. May raise*(): the run loop turns that into the next event (SDM 3A 6.15, table 6-5) with deliver_merge(). */
void deliver_event(struct cpu *c, u8 vector, bool has_error, u32 error, enum deliver_kind kind);
/* The event that results when `second` is raised while `first` is delivered: second, or #DF, or -1 for shutdown. */
int deliver_merge(int first, int second);

/* Power-on (all but the vector state), INIT, and start-up at vector (SDM 3A 8.4.4, table 10-1). */
void cpu_power_on(struct cpu *c, bool bsp);
void cpu_reset(struct cpu *c, bool bsp);
void cpu_start_at(struct cpu *c, u8 vector);

#endif
