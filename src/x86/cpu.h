/*
 * The canonical state of one x86-64 processor: fixed widths, architectural values only. Accelerators convert to
 * it and from it; snapshots store it; nothing in here depends on who executes the guest.
 * Intel SDM volume 3A, chapter 2 (system registers), 3 (segments), 6 (interrupts).
 */
#ifndef X86_CPU_H
#define X86_CPU_H

#include "base/types.h"

enum x86_reg {
    RAX,
    RCX,
    RDX,
    RBX,
    RSP,
    RBP,
    RSI,
    RDI,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
    X86_GPRS
};
enum x86_segreg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, X86_SEGS };

/* A segment register with its hidden part. attr: bits 0-3 type, 4 S, 5-6 DPL, 7 P, 12 AVL, 13 L, 14 D/B, 15 G
 * (descriptor bits 40-55 with the limit nibble cleared); bit 16 = unusable (null), as in VMX. */
struct x86_seg {
    u64 base;
    u32 limit; /* bytes, already scaled by G */
    u32 attr;
    u16 sel;
    u16 pad[3];
};
#define SEG_ATTR_TYPE 0xfu
#define SEG_ATTR_S BIT(4)
#define SEG_ATTR_DPL_SHIFT 5
#define SEG_ATTR_P BIT(7)
#define SEG_ATTR_L BIT(13)
#define SEG_ATTR_DB BIT(14)
#define SEG_ATTR_G BIT(15)
#define SEG_ATTR_UNUSABLE BIT(16)

struct x86_dtable {
    u64 base;
    u16 limit;
    u16 pad[3];
};

/* RFLAGS */
#define FL_CF BIT(0)
#define FL_PF BIT(2)
#define FL_AF BIT(4)
#define FL_ZF BIT(6)
#define FL_SF BIT(7)
#define FL_TF BIT(8)
#define FL_IF BIT(9)
#define FL_DF BIT(10)
#define FL_OF BIT(11)
#define FL_IOPL (3ull << 12)
#define FL_NT BIT(14)
#define FL_RF BIT(16)
#define FL_VM BIT(17)
#define FL_AC BIT(18)
#define FL_VIF BIT(19)
#define FL_VIP BIT(20)
#define FL_ID BIT(21)
#define FL_ARITH (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)

/* Control registers */
#define CR0_PE BIT(0)
#define CR0_MP BIT(1)
#define CR0_EM BIT(2)
#define CR0_TS BIT(3)
#define CR0_ET BIT(4)
#define CR0_NE BIT(5)
#define CR0_WP BIT(16)
#define CR0_AM BIT(18)
#define CR0_NW BIT(29)
#define CR0_CD BIT(30)
#define CR0_PG BIT(31)
#define CR4_VME BIT(0)
#define CR4_PVI BIT(1)
#define CR4_TSD BIT(2)
#define CR4_DE BIT(3)
#define CR4_PSE BIT(4)
#define CR4_PAE BIT(5)
#define CR4_MCE BIT(6)
#define CR4_PGE BIT(7)
#define CR4_PCE BIT(8)
#define CR4_OSFXSR BIT(9)
#define CR4_OSXMMEXCPT BIT(10)
#define CR4_UMIP BIT(11)
#define CR4_FSGSBASE BIT(16)
#define CR4_PCIDE BIT(17)
#define CR4_OSXSAVE BIT(18)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)
#define EFER_SCE BIT(0)
#define EFER_LME BIT(8)
#define EFER_LMA BIT(10)
#define EFER_NXE BIT(11)

/* Exceptions */
enum x86_vector {
    VEC_DE = 0,
    VEC_DB = 1,
    VEC_NMI = 2,
    VEC_BP = 3,
    VEC_OF = 4,
    VEC_BR = 5,
    VEC_UD = 6,
    VEC_NM = 7,
    VEC_DF = 8,
    VEC_TS = 10,
    VEC_NP = 11,
    VEC_SS = 12,
    VEC_GP = 13,
    VEC_PF = 14,
    VEC_MF = 16,
    VEC_AC = 17,
    VEC_MC = 18,
    VEC_XM = 19,
};

/* What a processor that is not running instructions is doing. */
enum x86_activity { X86_RUNNING, X86_HALTED, X86_WAIT_SIPI };

#define X86_XSAVE_BYTES 2816 /* standard format, up to and including AVX-512 and PKRU */
#define X86_MTRR_FIXED 11
#define X86_MTRR_VAR 8

struct x86_msrs {
    u64 efer, star, lstar, cstar, sfmask, kernel_gs_base;
    u64 sysenter_cs, sysenter_esp, sysenter_eip;
    u64 apic_base, pat, misc_enable, tsc_aux, tsc_adjust, spec_ctrl, feature_control;
    u64 mtrr_def_type, mtrr_fixed[X86_MTRR_FIXED], mtrr_base[X86_MTRR_VAR], mtrr_mask[X86_MTRR_VAR];
    u64 mcg_status, mcg_ctl;
    u64 kvm_system_time, kvm_wall_clock, kvm_async_pf, kvm_steal_time, kvm_pv_eoi, kvm_poll_control;
};

struct x86_cpu {
    u64 gpr[X86_GPRS];
    u64 rip, rflags;
    struct x86_seg seg[X86_SEGS], ldt, tr;
    struct x86_dtable gdt, idt;
    u64 cr0, cr2, cr3, cr4, cr8, xcr0;
    u64 dr[4], dr6, dr7;
    struct x86_msrs msr;
    s64 tsc_offset; /* guest TSC = host TSC + tsc_offset */
    u32 activity;   /* enum x86_activity */
    u8 sti_shadow, mov_ss_shadow, nmi_masked, nmi_pending;
    /* An event that was being delivered when the state was taken; valid == 0: none. */
    u8 event_valid, event_vector, event_is_soft, event_has_error;
    u32 event_error;
    u32 pad;
    u8 xsave[X86_XSAVE_BYTES] __attribute__((aligned(64))); /* canonical layout: x86/xsave.h */
};

/* Power-on state, SDM 3A table 10-1. bsp: starts at the reset vector; others wait for a start-up message. */
void x86_cpu_reset(struct x86_cpu *c, bool bsp);

#endif
