/* Where the probe's guest has what, and its stages in order; also read by assembly. */
#ifndef ACCEL_KVM_PROBE_GUEST_H
#define ACCEL_KVM_PROBE_GUEST_H

#define PROBE_RAM_BYTES 0x10000
#define PROBE_PML4 0x1000
#define PROBE_PDPT 0x2000
#define PROBE_PD 0x3000
#define PROBE_IDT_32 0x4000
#define PROBE_IDT_64 0x4800
#define PROBE_IDT_BYTES 0x400
#define PROBE_STACK 0x6000
#define PROBE_SCRATCH 0x7000
#define PROBE_BASE 0x8000
#define PROBE_MMIO 0x200000
#define PROBE_MMIO_VALUE 0x12345678

#define STAGE_START 0
#define STAGE_REAL 1
#define STAGE_PROTECTED 2
#define STAGE_INT3_32 3
#define STAGE_LONG 4
#define STAGE_INT3_64 5
#define STAGE_IRETQ 6
#define STAGE_FXSAVE 7
#define STAGE_SSE 8
#define STAGE_XSETBV 9
#define STAGE_XSAVE 10
#define STAGE_XRSTOR 11
#define STAGE_CMPXCHG16B 12
#define STAGE_SWAPGS 13
#define STAGE_INVLPG 14
#define STAGE_MMIO 15
#define STAGE_RING3 16
#define STAGE_DONE 17

#endif
