/* 256 entry stubs of 16 bytes, the common frame (struct trap_frame), and the way into ring 3. */
#include "gdt.h"

    .text
    .balign 16
    .globl trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21
    .else
    push $0
    .endif
    push $vector
    jmp common
    .set vector, vector + 1
    .endr
    .balign 16

common:
    push %rax
    push %rbx
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %rbp
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    mov %rsp, %rbx
    and $-16, %rsp
    call trap_handler
    mov %rbx, %rsp
    test %al, %al
    jz 1f
    mov $SEL_DATA, %eax
    mov %eax, %ss
    mov %eax, %ds
    mov %eax, %es
1:  mov %al, resume(%rip) /* no register survives the pops */
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rbp
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rbx
    pop %rax
    cmpb $0, resume(%rip)
    jne 2f
    add $16, %rsp
    iretq
2:  push $2
    popf
    mov trap_resume_sp(%rip), %rsp
    jmp *trap_resume_ip(%rip)

/* user_call(fn, arg), user_call_as(fn, arg, cs, ss, flags): see payload.h. */
    .globl user_call, user_call_as
user_call:
    mov $SEL_UCODE64, %edx
    mov $SEL_UDATA, %ecx
    mov $2, %r8d
user_call_as:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    lea 1f(%rip), %rax
    mov %rax, trap_resume_ip(%rip)
    mov %rsp, trap_resume_sp(%rip)
    mov $0x8000000000, %r9
    add %r9, %rdi
    lea user_stack_top - 64(%rip), %r10
    lea user_return(%rip), %rax
    cmp $SEL_UCODE64, %edx
    jne 3f
    add %r9, %rax
3:  sub $8, %r10
    mov %rax, (%r10) /* through the supervisor's mapping: SMAP may be on */
    cmp $SEL_UCODE64, %edx
    jne 4f
    add %r9, %r10
4:
    movq $0xffff, trap(%rip) /* trap_clear() */
    push %rcx
    push %r10
    push %r8
    push %rdx
    push %rdi
    mov %rsi, %rdi
    iretq
1:  movq $0, trap_resume_ip(%rip)
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
user_return:
    int $0x80

    .bss
resume:
    .skip 1
