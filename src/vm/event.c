/*
 * What happens inside the machine and concerns it as a whole: power-off, reset, panic, a vCPU's end. Devices report
 * it in a vCPU's thread with their locks held; the main loop acts.
 */
#include "vm/parts.h"

#include "base/log.h"
#include <unistd.h>

#define EV_TRIPLE 30 /* bits of vm->events beside those of enum machine_event */
#define EV_FAILED 31

static void post(struct vm *vm, unsigned bit)
{
    atomic_fetch_or(&vm->events, 1u << bit);
    if (loop_call(vm->loop, vm_take_events, vm))
        log_error("%s: no memory to tell the main loop", vm->config->name);
}

/* Any vCPU thread. */
void vm_machine_event(void *opaque, enum machine_event event, int value)
{
    struct vm *vm = opaque;

    if (event == MACHINE_DEBUG_EXIT)
        atomic_store(&vm->exit_code, value);
    post(vm, event);
    /* The guest believes that this was its last instruction: do not let it run on for long. */
    if (event == MACHINE_POWEROFF || event == MACHINE_RESET || event == MACHINE_DEBUG_EXIT)
        vm_cpus_interrupt(vm);
}

void vm_cpu_ended(struct vm *vm, enum vcpu_exit exit)
{
    post(vm, exit == VCPU_SHUTDOWN ? EV_TRIPLE : EV_FAILED);
}

/* The order is that of importance: a failure explains the rest, and a debug exit is a wish, not an accident. */
void vm_take_events(void *opaque)
{
    struct vm *vm = opaque;
    unsigned events = atomic_exchange(&vm->events, 0);

    if (events & 1u << EV_FAILED)
        vm_stop(vm, VM_END_FAILED, 0);
    if (events & 1u << MACHINE_DEBUG_EXIT)
        vm_stop(vm, VM_END_DEBUG_EXIT, atomic_load(&vm->exit_code));
    if (events & 1u << MACHINE_PANIC)
        vm_stop(vm, VM_END_PANIC, 0);
    if (events & 1u << EV_TRIPLE)
        vm_stop(vm, VM_END_TRIPLE, 0);
    if (events & 1u << MACHINE_POWEROFF)
        vm_stop(vm, VM_END_POWEROFF, 0);
    if (events & 1u << MACHINE_RESET)
        vm_reset(vm);
}

/* Any vCPU thread. */
void vm_debug_byte(void *opaque, u8 byte)
{
    struct vm *vm = opaque;
    long long none = -1;

    if (atomic_load_explicit(&vm->first_user_ns, memory_order_relaxed) < 0)
        atomic_compare_exchange_strong(&vm->first_user_ns, &none, vm_now_ns() - vm->start_ns);
    if (vm->debug_fd >= 0 && write(vm->debug_fd, &byte, 1) != 1) {
        /* A debugging aid: a full disk loses its output, not the guest. */
    }
}
