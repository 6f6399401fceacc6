/*
 * The 16-bit half of the payload `real`: real_call() takes the processor to real mode, runs a function there and comes
 * back; the functions are small, their results are words in real_result, which the 32-bit half checks.
 *
 * This section is linked and run at 0x8000, with all segments at 0.
 */
#include "gdt.h"

    .section .low, "awx", @progbits
    .balign 16
    .globl real_result, real_vector, real_ip, real_cs, real_flags, real_count, real_unreal
real_result:
    .fill 16, 4, 0
real_vector:
    .word 0
real_ip:
    .word 0
real_cs:
    .word 0
real_flags:
    .word 0
real_count:
    .word 0
real_unreal: /* not 0: leave DS with the limit of protected mode */
    .word 0
saved_esp:
    .long 0
function:
    .long 0
ivt_idtr:
    .word 0x3ff
    .long 0
saved_idtr:
    .fill 6, 1, 0

/* void real_call(void (*fn)(void)): 32-bit, cdecl. */
    .code32
    .globl real_call
real_call:
    mov 4(%esp), %eax
    pusha
    mov %eax, function
    mov %esp, saved_esp
    sidt saved_idtr
    ljmp $SEL_CODE16, $to_real
    .code16
to_real:
    mov $SEL_DATA16, %ax
    mov %ax, %es
    mov %ax, %ss
    mov %ax, %fs
    mov %ax, %gs
    cmpw $0, real_unreal
    jne 1f
    mov %ax, %ds
1:  mov %cr0, %eax
    and $~1, %eax
    mov %eax, %cr0
    ljmp $0, $in_real
in_real:
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov %ax, %fs
    mov %ax, %gs
    mov $0x7ff0, %sp
    lidtl ivt_idtr
    call *function
    cli
    cld
    xor %ax, %ax
    mov %ax, %ds
    lgdtl %cs:gdtr_low
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $SEL_CODE32, $to_protected
    .code32
to_protected:
    mov $SEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov saved_esp, %esp
    lidt saved_idtr
    popa
    ret
gdtr_low:
    .word GDT_ENTRIES * 8 - 1
    .long gdt

/* Vector handlers: note the frame; real_return_to, if set, is where to go on. */
    .code16
    .globl real_handlers
    .balign 8
real_handlers: /* 32 stubs of 8 bytes */
    .set vector, 0
    .rept 32
    .balign 8
    pushw $vector
    jmp note
    .set vector, vector + 1
    .endr
note:
    push %bp
    mov %sp, %bp
    push %ax
    mov 2(%bp), %ax
    mov %ax, %cs:real_vector
    mov 4(%bp), %ax
    mov %ax, %cs:real_ip
    mov 6(%bp), %ax
    mov %ax, %cs:real_cs
    mov 8(%bp), %ax
    mov %ax, %cs:real_flags
    incw %cs:real_count
    mov %cs:return_to, %ax
    test %ax, %ax
    jz 1f
    mov %ax, 4(%bp)
    movw $0, %cs:return_to
1:  pop %ax
    pop %bp
    add $2, %sp
    iret
return_to:
    .word 0

.macro result number, value
    mov \value, real_result + 4 * \number
.endm

    .globl real_segments
real_segments:
    mov $0x1234, %ax
    mov %ax, %es
    movl $0xcafe, %es:0x10
    mov $0x1235, %ax
    mov %ax, %es
    mov %es:0, %eax
    result 0, %eax
    mov $0xffff, %ax
    mov %ax, %es
    mov %es:0x10, %eax /* 1 MiB: the first bytes of the payload */
    result 1, %eax
    mov $0x12350, %ebx
    xor %ax, %ax
    mov %ax, %es
    mov $0x2000, %bx
    mov $0x1000, %si
    movw $0x77, 0x3008
    mov 8(%bx, %si), %ax /* 16-bit addressing with two registers */
    movzwl %ax, %eax
    result 2, %eax
    mov $0x10003008, %ebx
    sub $0x10000000, %ebx
    mov (%ebx), %ax /* 32-bit addressing within 64 KiB */
    movzwl %ax, %eax
    result 3, %eax
    ret

    .globl real_interrupts
real_interrupts:
    sti
    stc
    int $0x10
int_behind:
    pushf
    pop %ax
    movzwl %ax, %eax
    result 0, %eax
    mov $int_behind, %ax
    movzwl %ax, %eax
    result 1, %eax
    cli
    ret

    .globl real_divide
real_divide:
    movw $2f, return_to
    mov $1f, %ax
    movzwl %ax, %eax
    result 1, %eax
    xor %bx, %bx
    mov $1, %ax
    xor %dx, %dx
1:  div %bx
2:  ret

    .globl real_limit
real_limit:
    movw $2f, return_to
    mov $1f, %ax
    movzwl %ax, %eax
    result 1, %eax
    mov $0xffff, %bx
1:  mov (%bx), %ax
2:  ret

    .globl real_limit32
real_limit32:
    movw $2f, return_to
    mov $0x10000, %ebx
    mov (%ebx), %al
2:  ret

/* With DS left large: 32-bit offsets reach everything. */
    .globl real_big
real_big:
    mov $0x100000, %ebx
    mov (%ebx), %eax
    result 0, %eax
    ret

    .globl real_stack
real_stack:
    mov %sp, %cx
    mov $2, %sp
    push $0x1111
    push $0x2222 /* to 0xfffe */
    mov %sp, %ax
    mov %cx, %sp
    movzwl %ax, %eax
    result 0, %eax
    mov 0xfffe, %ax
    movzwl %ax, %eax
    result 1, %eax
    mov $0x1234, %ax
    mov $0x5678, %bx
    pusha
    popa
    movzwl %bx, %ebx
    result 2, %ebx
    pushl $0x11223344
    popl %eax
    result 3, %eax
    enter $8, $0
    mov %bp, %ax
    sub %sp, %ax
    leave
    movzwl %ax, %eax
    result 4, %eax
    ret

    .globl real_strings
real_strings:
    mov $0xfffe, %di
    mov $4, %cx
    mov $0x5a, %al
    mov $0x3000, %dx
    mov %dx, %es
    cld
    rep stosb /* di wraps to 2 */
    movzwl %di, %eax
    result 0, %eax
    mov %es:0xffff, %al
    mov %es:0, %ah
    movzwl %ax, %eax
    result 1, %eax
    mov $3, %cx
    xor %ax, %ax
1:  inc %ax
    loop 1b
    movzwl %ax, %eax
    result 2, %eax
    xor %ax, %ax
    mov %ax, %es
    ret

    .globl real_far
real_far:
    lcall $0x10, $(far_target - 0x100)
    movzwl %ax, %eax
    result 0, %eax
    pushf
    push %cs
    push $1f
    iret
1:  movl $1, real_result + 4
    mov $0x20, %ax
    smsw %ax
    and $1, %ax
    movzwl %ax, %eax
    result 2, %eax
    ret
far_target:
    mov %cs, %ax
    lret

    .globl real_undefined
real_undefined:
    movw $2f, return_to
    mov $1f, %ax
    movzwl %ax, %eax
    result 1, %eax
1:  lldt %ax /* no such thing in real mode */
2:  ret

/* --- virtual-8086 mode: entered by iret with VM from ring 0 --- */
    .globl v86_io, v86_cli, v86_segments, v86_int
v86_segments:
    mov $0x1235, %ax
    mov %ax, %es
    mov %es:0, %ebx
    hlt
v86_cli:
    cli
    hlt
v86_int:
    int $0x21
    hlt
v86_io:
    out %al, $0x80
    hlt
