/*
 * Exit statuses of the program. Even ones are ours; odd ones come from the guest through
 * --debug-exit, which can only make odd numbers. docs/man/trapeze.1 lists them.
 */
#ifndef CMD_STATUS_H
#define CMD_STATUS_H

enum status {
    STATUS_OK = 0,       /* done; the guest powered off, or rebooted under --no-reboot */
    STATUS_USAGE = 2,    /* the command line is wrong; nothing was started */
    STATUS_HOST = 4,     /* the host failed us, or something needed is not there */
    STATUS_PANIC = 6,    /* the guest reported a panic (pvpanic) */
    STATUS_TRIPLE = 8,   /* a processor of the guest shut down: triple fault */
    STATUS_STOPPED = 10, /* stopped from outside: Ctrl-A X, a second SIGTERM, SIGHUP */
};

#endif
