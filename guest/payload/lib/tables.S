/* The GDT, the IDT's room and the TSS, for both widths. */
#include "gdt.h"

    .data
    .balign 16
    .globl gdt
gdt:
    .quad 0
    .quad 0x00af9b000000ffff /* 0x08 code64 */
    .quad 0x00cf93000000ffff /* 0x10 data */
    .quad 0x00cffb000000ffff /* 0x18 user code32 */
    .quad 0x00cff3000000ffff /* 0x20 user data */
    .quad 0x00affb000000ffff /* 0x28 user code64 */
    .quad 0, 0               /* 0x30 TSS */
    .quad 0x00cf9b000000ffff /* 0x40 code32 */
    .quad 0x00009b000000ffff /* 0x48 code16 */
    .quad 0x000093000000ffff /* 0x50 data16 */
    .quad 0                  /* 0x58 */
#ifdef __x86_64__
    .quad 0x00af9b000000ffff /* 0x60 SYSENTER's */
#else
    .quad 0x00cf9b000000ffff
#endif
    .quad 0x00cf93000000ffff /* 0x68 */
    .quad 0x00cffb000000ffff /* 0x70 */
    .quad 0x00cff3000000ffff /* 0x78 */
    .quad 0x00affb000000ffff /* 0x80 */
    .quad 0x00cff3000000ffff /* 0x88 */
    .fill GDT_ENTRIES - 18, 8, 0
    .globl gdtr
gdtr:
    .word GDT_ENTRIES * 8 - 1
    .long gdt, 0

    .bss
    .balign 16
    .globl idt
idt:
    .skip 256 * 16
    .balign 128
    .globl tss, tss_iomap
tss:
    .skip 104
tss_iomap:
    .skip 8193
    .balign 16
    .skip 16384
    .globl stack_top
stack_top:
    .balign 4096
    .skip 16384
    .globl user_stack_top
user_stack_top:
