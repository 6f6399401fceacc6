/* System calls from light code: no libc, no errno, no vector registers. Returns -errno like the kernel. */
#ifndef BT_RAWCALL_H
#define BT_RAWCALL_H

#include "base/types.h"

static inline s64 raw_syscall3(s64 nr, u64 a, u64 b, u64 c)
{
    s64 ret;
    __asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return ret;
}

#endif
