/* Selectors of the payloads' descriptor table; also read by assembly. */
#ifndef PAYLOAD_GDT_H
#define PAYLOAD_GDT_H

#define GDT_ENTRIES 64
#ifdef __x86_64__
#define SEL_CODE 0x08
#define SEL_UCODE 0x2b
#else
#define SEL_CODE 0x40
#define SEL_UCODE 0x1b
#endif
#define SEL_CODE64 0x08
#define SEL_DATA 0x10
#define SEL_UCODE32 0x1b
#define SEL_UDATA 0x23
#define SEL_UCODE64 0x2b
#define SEL_TSS 0x30 /* two slots in long mode */
#define SEL_CODE32 0x40
#define SEL_CODE16 0x48
#define SEL_DATA16 0x50
/* The order that SYSENTER and SYSEXIT derive from one MSR. */
#define SEL_SYSENTER 0x60 /* code, data, 32-bit user code and data, 64-bit user code and data */
#define SEL_FREE 0x90     /* from here on, tests' own */

#endif
