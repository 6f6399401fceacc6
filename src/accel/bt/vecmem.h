/* Blocks of vector state to and from guest memory, for the sys_*.c on x87, SSE and AVX state. Light. */
#ifndef BT_VECMEM_H
#define BT_VECMEM_H

#include "accel/bt/cpu.h"

#define MXCSR_MASK 0xffffu

/* By pages through mem_span(); raise #PF, possibly with part of it written, which saving instructions may. */
void vecmem_write(struct cpu *c, u64 lin, const void *buf, unsigned len);
void vecmem_read(struct cpu *c, u64 lin, void *buf, unsigned len);

#endif
