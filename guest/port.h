/*
 * For the two programs of the small root file system that talk to ports: system calls and `out` without a C library,
 * so that the first user program of a guest is a few hundred bytes and starts at once.
 */
#ifndef GUEST_PORT_H
#define GUEST_PORT_H

#include <asm/unistd.h>

static inline long syscall3(long number, long a, long b, long c)
{
    long result;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c)
                     : "rcx", "r11", "memory");
    return result;
}

/* One byte to a port. Needs CAP_SYS_RAWIO; 0 or -errno. */
static inline long port_write(unsigned short port, unsigned char value)
{
    long result = syscall3(__NR_ioperm, port, 1, 1);

    if (!result)
        __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
    return result;
}

#endif
