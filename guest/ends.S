/*
 * A guest for tests of the machine around it: a Multiboot 1 kernel (Multiboot 0.6.96, 3.1 to 3.3) that writes 'I' to
 * the debug console at port 0xe9 and then does what the last character of its command line says:
 *
 *   i  halts for good, deaf to the power button      e  returns every byte of the first serial port
 *   p  powers off (ACPI S5)                          r  resets the machine (i8042)
 *   c  reports a panic (pvpanic)                     t  triple-faults
 *   d  writes 21 to the debug-exit port 0xf4         b  busy for good
 */
#define MAGIC 0x1badb002
#define FLAGS 0
#define HAS_CMDLINE 4        /* bit 2 of the information's flags */
#define INFO_CMDLINE 16      /* its offset */

        .section .multiboot, "a"
        .align 4
        .long MAGIC, FLAGS, -(MAGIC + FLAGS)

        .text
        .globl _start
_start: movb    $'I', %al
        outb    %al, $0xe9
        movb    $'i', %al
        testl   $HAS_CMDLINE, (%ebx)
        jz      choose
        movl    INFO_CMDLINE(%ebx), %esi
scan:   cmpb    $0, (%esi)
        je      choose
        movb    (%esi), %al
        incl    %esi
        jmp     scan

choose: cmpb    $'p', %al
        je      poweroff
        cmpb    $'c', %al
        je      panic
        cmpb    $'d', %al
        je      exit
        cmpb    $'e', %al
        je      echo
        cmpb    $'r', %al
        je      reset
        cmpb    $'t', %al
        je      triple
        cmpb    $'b', %al
        je      busy

halt:   cli
1:      hlt
        jmp     1b

busy:   jmp     busy

poweroff:
        movw    $0x604, %dx             /* PM1a control: SLP_TYP 5, SLP_EN (ACPI 6.4, 4.8.3.2.1) */
        movw    $(5 << 10 | 1 << 13), %ax
        outw    %ax, %dx
        jmp     halt

panic:  movw    $0x505, %dx
        movb    $1, %al
        outb    %al, %dx
        jmp     halt

exit:   movb    $21, %al
        outb    %al, $0xf4
        jmp     halt

reset:  movb    $0xfe, %al
        outb    %al, $0x64
        jmp     halt

triple: lidt    empty
        int3

/* 16550: line status at 0x3fd, bit 0 data ready; data at 0x3f8. */
echo:   movw    $0x3fd, %dx
1:      inb     %dx, %al
        testb   $1, %al
        jz      1b
        movw    $0x3f8, %dx
        inb     %dx, %al
        outb    %al, %dx
        jmp     echo

        .section .rodata
empty:  .word   0
        .long   0

        .section .note.GNU-stack, "", @progbits
