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
    pusha
    mov %ds, %esi /* tests may change them: the handler must see flat segments */
    mov %es, %edi
    mov $SEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %esi, old_ds
    mov %edi, old_es
    cld
    mov %esp, %ebx
    push %ebx
    call trap_handler
    mov %ebx, %esp
    test %al, %al
    jnz 2f
    mov old_ds, %esi
    mov old_es, %es
    mov %esi, %ds
    popa
    add $8, %esp
    iret
2:  popa
    mov trap_resume_sp, %esp
    push %eax
    mov $SEL_DATA, %eax
    mov %eax, %ss
    pop %eax
    push $2
    popf
    jmp *trap_resume_ip

/* user_call(fn, arg), user_call_as(fn, arg, cs, ss, flags): see payload.h. */
    .globl user_call, user_call_as
user_call:
    mov 8(%esp), %edx
    mov 4(%esp), %eax
    push $2
    push $SEL_UDATA
    push $SEL_UCODE32
    push %edx
    push %eax
    call user_call_as
    add $20, %esp
    ret
user_call_as:
    push %ebp
    mov %esp, %ebp
    push %ebx
    push %esi
    push %edi
    movl $1f, trap_resume_ip
    mov %esp, trap_resume_sp
    mov 12(%ebp), %eax
    mov %eax, user_stack_top - 64 + 4
    movl $user_return, user_stack_top - 64
    movl $0xffff, trap /* trap_clear() */
    pushl 20(%ebp)
    push $user_stack_top - 64
    pushl 24(%ebp)
    pushl 16(%ebp)
    pushl 8(%ebp)
    mov $SEL_UDATA, %eax
    mov %eax, %ds
    mov %eax, %es
    iret
1:  mov $SEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    movl $0, trap_resume_ip
    pop %edi
    pop %esi
    pop %ebx
    pop %ebp
    ret
user_return:
    int $0x80

    .bss
    .balign 4
old_ds:
    .skip 4
old_es:
    .skip 4
