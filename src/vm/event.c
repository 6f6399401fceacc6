/*
 * What happens inside the machine and concerns it as a whole: power-off, reset, panic, a vCPU's end. Devices report
 * it in a vCPU's thread with their locks held; the main loop acts.
 */
#include "vm/parts.h"

#include "base/log.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

#define EV_DISK 29
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

/* Any thread. Several may fail at once; one message is enough. */
bool vm_disk_stopped(void *opaque, struct block *disk, int error)
{
    struct vm *vm = opaque;
    struct block *none = NULL;

    if (!vm->control) /* nobody could resume it */
        return false;
    atomic_store(&vm->stopped_error, error);
    atomic_compare_exchange_strong(&vm->stopped_disk, &none, disk);
    post(vm, EV_DISK);
    return true;
}

/* What could not be done is kept, and done again by vm_resume(). */
static void pause_for_disk(struct vm *vm)
{
    struct block *disk = atomic_load(&vm->stopped_disk);
    int error = atomic_load(&vm->stopped_error);

    if (!disk || vm->ended || vm_pause(vm))
        return;
    log_warn("%s: disk '%s': %s: the machine is paused and nothing is lost; %s, then resume it "
             "(trapeze resume)",
             vm->config->name, block_layer_path(disk, 0), strerror(error),
             error == ENOSPC || error == EDQUOT ? "make room on the host" : "mend that");
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
    if (events & 1u << EV_DISK)
        pause_for_disk(vm);
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
