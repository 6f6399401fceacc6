/*
 * Where a processor begins after INIT and a start-up message: in real mode at 0x8000 (vector 8). Takes it to long mode
 * on the running page tables and to ap_main(), with a stack of its own. Several may come at once.
 */
#include "gdt.h"

    .section .low, "awx", @progbits
    .balign 4096
    .globl ap_start
ap_start:
    .code16
    cli
    cld
    xor %ax, %ax
    mov %ax, %ds
    lgdtl ap_gdtr
    mov $0x620, %eax /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $page_tables, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x901, %eax /* SCE, LME, NXE */
    wrmsr
    mov %cr0, %eax
    and $~0x6000000c, %eax /* CD, NW, EM, TS */
    or $0x80010023, %eax   /* PG, WP, NE, MP, PE */
    mov %eax, %cr0
    ljmpl $SEL_CODE64, $ap_long
    .balign 4
ap_gdtr:
    .word GDT_ENTRIES * 8 - 1
    .long gdt

    .text
    .code64
ap_long:
    mov $SEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $1, %edi
    lock xadd %edi, ap_count(%rip) /* this processor's number, from 1 on */
    mov %edi, %eax
    shl $14, %eax
    lea ap_stacks(%rip), %rsp
    add %rax, %rsp
    xor %ebp, %ebp
    call ap_main
1:  hlt
    jmp 1b

    .data
    .globl ap_count
    .balign 4
ap_count:
    .long 1
    .bss
    .balign 16
ap_stacks:
    .skip 32 << 14
