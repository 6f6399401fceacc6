/*
 * Signals to the process, read from a descriptor in the main loop, and keys after Ctrl-A.
 *
 * They are blocked in every thread (inherited from the main one), so only the loop sees them.
 */
#include "vm/parts.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const int handled[] = {SIGTERM, SIGINT, SIGHUP, SIGWINCH, SIGCONT};

static void handled_set(sigset_t *set)
{
    sigemptyset(set);
    for (size_t i = 0; i < ARRAY_LEN(handled); i++)
        sigaddset(set, handled[i]);
}

void vm_signals_block(void)
{
    sigset_t set;

    handled_set(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN); /* a reader that has gone is an error of write() */
    signal(SIGXFSZ, SIG_IGN); /* as is a file that has become too large */
}

static void press_button(struct vm *vm)
{
    if (vm->button_pressed) {
        vm_stop(vm, VM_END_STOPPED, 0);
        return;
    }
    vm->button_pressed = true;
    vm_power_button(vm);
}

static void signal_ready(void *opaque, u32 events)
{
    struct vm *vm = opaque;
    struct signalfd_siginfo info;

    while (read(vm->signals.fd, &info, sizeof(info)) == sizeof(info)) {
        switch (info.ssi_signo) {
        case SIGTERM:
        case SIGINT:
            press_button(vm);
            break;
        case SIGHUP:
            vm_stop(vm, VM_END_STOPPED, 0);
            break;
        case SIGWINCH:
            vm_console_resized(vm);
            break;
        case SIGCONT:
            terminal_again(&vm->terminal);
            break;
        default:
            break;
        }
    }
}

int vm_signals_start(struct vm *vm, struct err *err)
{
    sigset_t set;

    handled_set(&set);
    vm->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (vm->signals.fd < 0)
        return err_sys(err, errno, "signals");
    vm->signals.events = EPOLLIN;
    vm->signals.ready = signal_ready;
    vm->signals.opaque = vm;
    return loop_add(vm->loop, &vm->signals, err);
}

/* Main loop: a key after Ctrl-A. */
void vm_key(void *opaque, char key)
{
    struct vm *vm = opaque;

    switch (key) {
    case 'x':
        vm_stop(vm, VM_END_STOPPED, 0);
        break;
    case 'h':
        fputs(
            "\nCtrl-A X  stop the machine\nCtrl-A P  press its power button\nCtrl-A H  this help\n"
            "Ctrl-A Ctrl-A  type a Ctrl-A\n",
            stderr);
        break;
    case 'p':
        vm_power_button(vm);
        break;
    default:
        fputs("\nCtrl-A H shows the keys there are\n", stderr);
        break;
    }
}
