/*
 * Where generated code finds things. gs holds the base of the current data table; everything else is at a constant
 * distance from it.
 *
 *   gs - AREA_BYTES            jump table: 64 Ki host addresses, indexed by the low 16 bits of the guest's rip
 *   gs - CPU_DISTANCE          struct cpu
 *   gs + 0                     data table: u64 per guest page (2^36), what to add to a linear address to get the
 *                              host's; 0 = not known, ask slow_access
 *   gs + EXEC_TABLE            exec table: u32 per guest page, EXEC_VALID | guest-physical page number; 0 = not known
 *
 * The area below gs is one memfd per vCPU, mapped below every table, so it is the same memory whichever table is
 * current. Tables are sparse (MAP_NORESERVE); a page of one covers 2 MiB (data) or 4 MiB (exec) of guest addresses.
 */
#ifndef BT_LAYOUT_H
#define BT_LAYOUT_H

#include "accel/bt/cpu.h"

#define JT_ENTRIES 65536
#define AREA_BYTES (1ull << 20)
#define CPU_DISTANCE 0x10000
#define DATA_TABLE_BYTES (1ull << 39)
#define EXEC_TABLE (1ull << 39)
#define EXEC_TABLE_BYTES (1ull << 38)
#define TABLE_BYTES (AREA_BYTES + DATA_TABLE_BYTES + EXEC_TABLE_BYTES)
#define PAGE_INDEX_MASK 0x0000fffffffff000ull /* for pext: bits 12..47 of a linear address */
#define EXEC_VALID 0x80000000u
#define NO_LEAF (~0ull)

/* Bits of cpu.events beside enum vcpu_event. */
enum { BT_EV_TIMER = 0x100, BT_EV_SYNC = 0x200 };

/* cpu.priv[]: used by generated code and its glue. */
enum priv_field {
    P_S1,        /* host R14 while a stub runs; what it holds again afterwards */
    P_TARGET,    /* where the stub goes */
    P_HOST_RSP,  /* the C stack to run on */
    P_PEXT_MASK, /* PAGE_INDEX_MASK */
    P_RAX,       /* guest RAX while flags are kept in AX */
    P_TMP,       /* value between the two accesses of push/pop/call with a memory operand */
    P_STUB0,     /* enum stub: addresses of the stubs, P_STUB0 + n */
    P_STUB_LAST = P_STUB0 + 15,
    P_XSAVE_MASK,
    P_WINDOW0,   /* deltas of a block's windows, see window.c */
    P_WINDOW_LAST = P_WINDOW0 + 7,
    P_SLIDE,     /* what a relative block adds to its frame's addresses, see block.vpc; a number of pages */
    P_EXEC_SLID, /* EXEC_TABLE + P_SLIDE / 1024: the entry of a page of the frame is at + page * 4 */
    P_EXEC_TABLE,
    P_RAM_BYTES, /* of the memfd */
    P_LINES,     /* code_cache.lines */
    P_WROTE,     /* where in the memfd a store beside code went */
    P_CPUID_LEAF, P_CPUID_SUBLEAF, /* what CPUID was asked last, NO_LEAF: nothing that still holds */
    P_CPUID_AB, P_CPUID_CD,        /* the answer: EAX and EBX, ECX and EDX */
};

enum stub { STUB_SLOW, STUB_LINK, STUB_JT_MISS, STUB_SPECIAL, STUB_POLL, STUB_BEGIN, STUB_END, STUB_FAULT, STUB_WINDOW, STUBS };

#define CPU_FIELD(f) ((s32)offsetof(struct cpu, f) - CPU_DISTANCE)
#define PRIV_FIELD(p) ((s32)(offsetof(struct cpu, priv) + 8 * (p)) - CPU_DISTANCE)
#define GPR_FIELD(r) ((s32)(offsetof(struct cpu, gpr) + 8 * (r)) - CPU_DISTANCE)

#endif
