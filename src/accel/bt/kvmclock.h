/*
 * The paravirtual clock of Linux's documentation (virt/kvm/x86/msr): pages in guest memory that turn a TSC value into
 * nanoseconds. Heavy code. The functions have heavy_call()'s shape: cpu is a struct cpu pointer.
 */
#ifndef BT_KVMCLOCK_H
#define BT_KVMCLOCK_H

#include "accel/bt/cpu.h"

u64 kvmclock_write_time(u64 cpu, u64 gpa, u64 unused); /* struct pvclock_vcpu_time_info */
u64 kvmclock_write_wall(u64 cpu, u64 gpa, u64 unused); /* struct pvclock_wall_clock */

#endif
