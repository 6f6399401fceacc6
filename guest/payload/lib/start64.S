/* From the PVH entry to payload_main() in long mode: identity map of 4 GiB (2 MiB pages, supervisor), the first GiB again
 * at USER_ALIAS for ring 3, SSE on. */
#include "gdt.h"

#define PTE_P 1
#define PTE_RW 2
#define PTE_US 4
#define PTE_PS 0x80

    .section .text.start, "ax"
    .code32
    .globl _start
_start:
    cld
    mov $stack_top, %esp
    mov $page_tables, %edi
    mov $6 * 4096 / 4, %ecx
    xor %eax, %eax
    rep stosl

    /* page_tables: PML4, PDPT, PDPT of the alias, then (4 KiB each) 4 PDs, then the alias's PD. */
    movl $pdpt + (PTE_P | PTE_RW), page_tables
    movl $alias_pdpt + (PTE_P | PTE_RW | PTE_US), page_tables + 8
    movl $alias_pd + (PTE_P | PTE_RW | PTE_US), alias_pdpt
    mov $pd + (PTE_P | PTE_RW), %eax
    xor %ecx, %ecx
1:  mov %eax, pdpt(, %ecx, 8)
    add $4096, %eax
    inc %ecx
    cmp $4, %ecx
    jb 1b
    mov $PTE_P | PTE_RW | PTE_PS, %eax
    xor %ecx, %ecx
2:  mov %eax, pd(, %ecx, 8)
    add $0x200000, %eax
    inc %ecx
    cmp $2048, %ecx
    jb 2b
    mov $PTE_P | PTE_RW | PTE_US | PTE_PS, %eax
    xor %ecx, %ecx
3:  mov %eax, alias_pd(, %ecx, 8)
    add $0x200000, %eax
    inc %ecx
    cmp $512, %ecx
    jb 3b

    mov %cr4, %eax
    or $0x620, %eax /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $page_tables, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x901, %eax /* SCE, LME, NXE */
    wrmsr
    mov %cr0, %eax
    and $~0xc, %eax /* EM, TS */
    or $0x80010022, %eax /* PG, WP, NE, MP */
    mov %eax, %cr0
    lgdt gdtr
    ljmp $SEL_CODE64, $start64

    .code64
start64:
    mov $SEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $stack_top, %rsp
    xor %ebp, %ebp
    mov $low_load, %esi
    mov $low_start, %edi
    mov $low_end, %ecx
    sub %edi, %ecx
    rep movsb
    mov %ebx, start_info(%rip) /* PVH: what the loader says */
    call trap_init
    call payload_main
    call finish

    .bss
    .globl start_info
start_info:
    .skip 4
    .balign 4096
    .globl page_tables
page_tables:
    .skip 4096
pdpt:
    .skip 4096
alias_pdpt:
    .skip 4096
pd:
    .skip 4 * 4096
alias_pd:
    .skip 4096
