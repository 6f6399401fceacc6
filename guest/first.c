/*
 * /init of the small root file system: the guest's first user program. It writes one byte to the port of the debug
 * console (0xe9, as other machine monitors have it), by which the host takes the time of the boot, and then becomes
 * the init script. A machine without that port ignores the write.
 */
#include "port.h"

void start(long *stack);

__attribute__((naked, used)) void _start(void);
__attribute__((naked, used)) void _start(void)
{
    __asm__("mov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start");
}

/* stack: argc, argv[], NULL, envp[], NULL as the kernel lays them out (System V ABI, x86-64, 3.4.1). */
__attribute__((used)) void start(long *stack)
{
    char **argv = (char **)(stack + 1);
    char **envp = argv + stack[0] + 1;
    static char script[] = "/etc/init";
    static const char failed[] = "first: cannot execute /etc/init\n";

    port_write(0xe9, 'U');
    argv[0] = script;
    syscall3(__NR_execve, (long)script, (long)argv, (long)envp);
    syscall3(__NR_write, 2, (long)failed, sizeof(failed) - 1);
    syscall3(__NR_exit, 1, 0, 0);
    __builtin_unreachable();
}
