/* 32- and 16-bit code for the payload `compat`, below 4 GiB as all of it is. Each piece ends in int $0x80 or a far return. */
#include "gdt.h"

    .text
    .code32
    .globl compat_regs, compat_wrap, compat_syscall, compat_sysenter, compat_fault, compat_kernel, compat_string
compat_regs:
    mov %cs, %eax
    .byte 0x40 /* inc %eax here, a prefix in 64-bit code */
    mov $0x12345678, %ebx
    push %ebx
    mov %esp, %ecx
    pop %edx
    pusha
    popa
    lea -1(, %eax), %esi
    aaa
    int $0x80

/* Addresses wrap at 4 GiB: 0xfffffff0 + 0x10 + (a word of ours). */
compat_wrap:
    mov $SEL_UDATA, %eax /* iret to ring 3 has emptied them: they were ring 0's */
    mov %eax, %ds
    mov $0xfffffff0, %eax
    mov compat_word + 0x10(%eax), %ebx
    int $0x80
    .globl compat_word
    .data
    .balign 4
compat_word:
    .long 0xfeedface
compat_buffer:
    .fill 16, 1, 0
    .text

compat_syscall:
    mov $77, %eax
    syscall
    mov %cs, %ebx
    int $0x80

compat_sysenter:
    mov $32, %eax
    mov $1f, %edx
    mov %esp, %ecx
    sysenter
1:  mov %cs, %ebx
    int $0x80

compat_fault:
    mov $0x10, %ebx
    hlt

compat_string:
    mov $SEL_UDATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov $compat_word, %esi
    mov $compat_buffer, %edi
    mov $4, %ecx
    rep movsb
    mov compat_buffer, %ebx
    xor %eax, %eax
    int $0x80

/* Ring 0, reached by a far call from 64-bit code; back by a far return. */
compat_kernel:
    mov %cs, %eax
    mov %esp, %edx
    lret

    .code16
    .globl compat_16
compat_16:
    mov $0x1234, %ax
    push %ax
    pop %bx
    movl $0x55667788, %ecx
    int $0x80

/* Entry points of the kernel's side. */
    .code64
    .globl cstar_entry, sysenter32_entry
cstar_entry:
    movq $77, entry_seen(%rip)
    mov %rcx, entry_seen + 8(%rip)
    sysretl
sysenter32_entry:
    movq $32, entry_seen(%rip)
    mov %rsp, entry_seen + 8(%rip)
    sysexitl
