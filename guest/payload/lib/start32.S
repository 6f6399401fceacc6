/* From the PVH entry to payload_main() in 32-bit protected mode, paging off, flat segments, SSE on. */
#include "gdt.h"

    .section .text.start, "ax"
    .code32
    .globl _start
_start:
    cld
    mov $stack_top, %esp
    lgdt gdtr
    ljmp $SEL_CODE32, $1f
1:  mov $SEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov %cr0, %eax
    and $~0xc, %eax /* EM, TS */
    or $0x10022, %eax /* WP, NE, MP */
    mov %eax, %cr0
    mov %cr4, %eax
    or $0x600, %eax /* OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $low_load, %esi
    mov $low_start, %edi
    mov $low_end, %ecx
    sub %edi, %ecx
    rep movsb
    xor %ebp, %ebp
    call trap_init
    call payload_main
    call finish
