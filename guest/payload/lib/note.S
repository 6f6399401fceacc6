/* The PVH note: where to enter, in 32-bit protected mode without paging (Xen's x86/HVM direct boot ABI). */
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .long _start, 0
