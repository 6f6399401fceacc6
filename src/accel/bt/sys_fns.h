/* Prototypes of all system helpers, for sys_table.c and the tests. What each does stands in its sys_*.c. */
#ifndef BT_SYS_FNS_H
#define BT_SYS_FNS_H

#include "accel/bt/sys.h"

/* sys_seg.c */
sys_fn sys_mov, /* of sreg, CR, DR */
    sys_mov_sreg, sys_push_sreg, sys_pop_sreg, sys_load_far_pointer;
sys_fn sys_lar, sys_lsl, sys_verr, sys_verw, sys_arpl;
/* sys_dtable.c */
sys_fn sys_lgdt, sys_lidt, sys_sgdt, sys_sidt, sys_lldt, sys_ltr, sys_sldt, sys_str, sys_smsw,
    sys_lmsw;
/* sys_far.c, sys_iret.c */
sys_fn sys_jmp_far, sys_call_far, sys_ret_far, sys_iret;
/* sys_syscall.c */
sys_fn sys_syscall, sys_sysret, sys_sysenter, sys_sysexit, sys_swapgs, sys_fsgsbase;
/* sys_flags.c */
sys_fn sys_int, sys_int3, sys_into, sys_icebp, sys_hlt, sys_cli, sys_sti, sys_clac, sys_stac,
    sys_popf, sys_pushf, sys_cld, sys_std;
sys_fn sys_ud;
/* sys_control.c, sys_tlb.c, sys_query.c */
sys_fn sys_mov_cr, sys_mov_dr, sys_clts, sys_xgetbv, sys_xsetbv;
sys_fn sys_invlpg, sys_invpcid, sys_cache, sys_rdtsc, sys_rdtscp, sys_rdpmc, sys_rdpid, sys_cpuid,
    sys_hypercall;
void control_write_cr0(struct cpu *c, u64 value);
/* sys_msr.c */
sys_fn sys_rdmsr, sys_wrmsr;
/* sys_io.c */
sys_fn sys_in, sys_out, sys_ins, sys_outs;
/* sys_legacy.c, sys_stack.c, sys_atomic.c */
sys_fn sys_ascii, sys_salc, sys_bound, sys_xlat;
sys_fn sys_pusha, sys_popa, sys_enter;
sys_fn sys_cmpxchg8b, sys_cmpxchg16b, sys_bit;
/* sys_fpu.c, sys_xsave.c, sys_gather.c, sys_maskmov.c */
sys_fn sys_fxsave, sys_fxrstor, sys_fnstenv, sys_fnsave, sys_fldenv, sys_frstor, sys_ldmxcsr;
sys_fn sys_xsave, sys_xrstor;
sys_fn sys_gather, sys_scatter, sys_maskmov, sys_maskmov_store;

/* For helpers that execute an x87 or MMX instruction on the guest's state: those wait, that is, raise an exception that is
 * pending (SDM 1, 8.7). It would hit the host's instruction, where nobody expects it. */
void fpu_raise_pending(struct cpu *c);

#endif
