/*
 * The guest that the probe runs: what a kernel needs of a processor, from real mode to ring 3, in a few dozen instructions.
 * It is copied to PROBE_BASE and entered there in real mode with all segments at 0. Before each part it writes the
 * part's number to port 0x80 (enum stage in probe.c), at the end STAGE_DONE; a wrong result writes to port 0x81.
 *
 * Page tables (the first 4 MiB, open to ring 3) and both IDTs are laid out by the host: see probe.c for the addresses.
 */
#include "probe_guest.h"

#define AT(label) (label - probe_guest + PROBE_BASE)

.macro stage number
    mov $\number, %al
    out %al, $0x80
.endm
.macro expect_equal
    je 9f
    out %al, $0x81
9:
.endm

    .section .rodata
    .balign 16
    .globl probe_guest, probe_guest_end, probe_int3_32, probe_int3_64
probe_guest:
    .code16
    stage STAGE_REAL
    mov $PROBE_STACK, %sp
    movw $AT(int_16), 0x20 * 4
    movw $0, 0x20 * 4 + 2
    xor %bx, %bx
    int $0x20
    cmp $1, %bx
    expect_equal
    mov $AT(probe_guest), %si
    mov $PROBE_SCRATCH, %di
    mov $64, %cx
    cld
    rep movsb
    cmp $PROBE_SCRATCH + 64, %di
    expect_equal
    stage STAGE_PROTECTED
    lgdtl AT(gdtr)
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $0x08, $AT(protected)
int_16:
    inc %bx
    iret

    .code32
protected:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $PROBE_STACK, %esp
    stage STAGE_INT3_32
    lidt AT(idtr_32)
    xor %ebx, %ebx
    int3
    cmp $1, %ebx
    expect_equal
    stage STAGE_LONG
    mov %cr4, %eax
    or $0x620, %eax /* PAE, OSFXSR, OSXMMEXCPT */
    mov %eax, %cr4
    mov $PROBE_PML4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x101, %eax /* LME, SCE */
    wrmsr
    mov %cr0, %eax
    or $0x80010020, %eax /* PG, WP, NE */
    mov %eax, %cr0
    ljmp $0x18, $AT(long)
probe_int3_32:
    inc %ebx
    iret

    .code64
long:
    stage STAGE_INT3_64
    lidt AT(idtr_64)
    xor %ebx, %ebx
    int3
    cmp $1, %ebx
    expect_equal
    stage STAGE_IRETQ
    mov %rsp, %rcx
    push $0x10
    push %rcx
    pushf
    push $0x18
    push $AT(after_iretq)
    iretq
after_iretq:
    stage STAGE_FXSAVE
    fninit
    fxsave PROBE_SCRATCH
    fxrstor PROBE_SCRATCH
    stage STAGE_SSE
    pxor %xmm1, %xmm1
    movaps %xmm1, PROBE_SCRATCH
    paddd PROBE_SCRATCH, %xmm1
    mov $1, %eax
    cpuid
    bt $26, %ecx
    jnc no_xsave
    stage STAGE_XSETBV
    mov %cr4, %rax
    or $0x40000, %eax /* OSXSAVE */
    mov %rax, %cr4
    xor %ecx, %ecx
    xgetbv
    or $3, %eax
    xsetbv
    stage STAGE_XSAVE
    mov $3, %eax
    xor %edx, %edx
    xsave PROBE_SCRATCH
    stage STAGE_XRSTOR
    mov $3, %eax
    xor %edx, %edx
    xrstor PROBE_SCRATCH
no_xsave:
    stage STAGE_CMPXCHG16B
    xor %eax, %eax
    mov %rax, PROBE_SCRATCH
    mov %rax, PROBE_SCRATCH + 8
    xor %edx, %edx
    mov $1, %ebx
    mov $2, %ecx
    lock cmpxchg16b PROBE_SCRATCH
    cmpq $2, PROBE_SCRATCH + 8
    expect_equal
    stage STAGE_SWAPGS
    swapgs
    mov %gs:PROBE_SCRATCH, %rax
    swapgs
    stage STAGE_INVLPG
    invlpg PROBE_SCRATCH
    mov %cr3, %rax
    mov %rax, %cr3
    stage STAGE_MMIO
    mov PROBE_MMIO, %eax
    cmp $PROBE_MMIO_VALUE, %eax
    expect_equal
    movzbl PROBE_MMIO, %eax
    mov %eax, PROBE_MMIO + 4
    stage STAGE_RING3
    mov $0xc0000081, %ecx /* STAR: SYSCALL to 0x18, SYSRET to 0x23 */
    xor %eax, %eax
    mov $0x00180018, %edx
    wrmsr
    inc %ecx /* LSTAR */
    mov $AT(from_ring3), %eax
    xor %edx, %edx
    wrmsr
    mov $AT(ring3), %ecx
    mov $2, %r11d
    sysretq
ring3:
    syscall
from_ring3:
    stage STAGE_DONE
    hlt
probe_int3_64:
    inc %ebx
    iretq

    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff /* 0x08 32-bit code */
    .quad 0x00cf93000000ffff /* 0x10 data */
    .quad 0x00af9b000000ffff /* 0x18 64-bit code */
    .quad 0x00cff3000000ffff /* 0x20 user data (and SYSCALL's stack segment) */
    .quad 0x00affb000000ffff /* 0x28 64-bit user code */
gdtr:
    .word gdtr - gdt - 1
    .long AT(gdt)
idtr_32:
    .word PROBE_IDT_BYTES - 1
    .long PROBE_IDT_32
idtr_64:
    .word PROBE_IDT_BYTES - 1
    .quad PROBE_IDT_64
probe_guest_end:
    .section .note.GNU-stack, "", @progbits
