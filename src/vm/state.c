/*
 * Saving and loading a machine.
 *
 * Order of loading: devices first, interrupt controllers before those that raise interrupts (board_add_state()), and
 * the processors last: their TSC offset decides when the local APICs' timers fire, and what a device does on loading
 * may wake a processor.
 *
 * Time. A guest sees two kinds: clocks made of its TSC (its clocksource, kvmclock), and those of devices. The TSC goes
 * on from where it was, plus the time that has passed, if asked; timers of devices go on from where they were
 * (device/pc_state.c); the RTC is an offset to the host's clock and needs nothing.
 *
 * Thread: the main one; each processor's state is read and written in its own (vm_cpus_call()).
 */
#include "vm/state.h"

#include "vm/parts.h"
#include "x86/cpu_state.h"
#include <errno.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

/* KVM's paravirtual clock: the page's flags, and "the guest was stopped", which keeps its watchdogs quiet. */
#define PVCLOCK_ENABLED 1
#define PVCLOCK_FLAGS 29
#define PVCLOCK_GUEST_STOPPED 2

static const struct field clock_fields[] = {
    STATE_SINT(struct vm_clock_state, wall_ns, 1),
    STATE_UINT(struct vm_clock_state, host_tsc, 1),
};
STATE_TABLE(vm_clock_table, struct vm_clock_state, 1, clock_fields);

static s64 wall_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static void clock_pre_save(void *opaque)
{
    struct vm *vm = opaque;

    vm->clock.wall_ns = wall_ns();
    vm->clock.host_tsc = __rdtsc();
}

static int add_cpu(struct vm *vm, unsigned index, struct err *err)
{
    struct vm_cpu *c = &vm->cpu[index];

    c->saved = (struct state_entry){.name = "cpu",
                                    .instance = index,
                                    .table = &x86_cpu_table,
                                    .object = c->state,
                                    .opaque = &vm->id.model,
                                    .check = x86_cpu_check};
    return state_set_add(&vm->states, &c->saved, err);
}

int vm_state_init(struct vm *vm, struct err *err)
{
    int rc;

    vm->clock_entry = (struct state_entry){.name = "clock",
                                           .table = &vm_clock_table,
                                           .object = &vm->clock,
                                           .opaque = vm,
                                           .pre_save = clock_pre_save};
    rc = state_set_add(&vm->states, &vm->clock_entry, err);
    for (unsigned i = 0; i < vm->ncpus && !rc; i++)
        rc = add_cpu(vm, i, err);
    rc = rc ? rc : board_add_state(vm->board, &vm->states, err);
    return rc ? rc : pci_host_register(board_pci(vm->board), &vm->states, err);
}

void vm_state_fini(struct vm *vm)
{
    vm->states = (struct state_set){0};
}

const struct vm_identity *vm_identity(const struct vm *vm)
{
    return &vm->id;
}

static void get_cpu(struct vm_cpu *c, struct err *err)
{
    /* One that was given a state and has not run yet has it still to come. */
    if (!c->load)
        c->vm->ops->vcpu_get(c->vcpu, c->state, err);
}

int vm_state_save(struct vm *vm, const struct state_sink *to, struct err *err)
{
    int rc = vm_cpus_call(vm, get_cpu, err);

    rc = rc ? rc : board_get_irqchip(vm->board, err);
    return rc ? rc : state_set_save(&vm->states, to, err);
}

static void set_cpu(struct vm_cpu *c, struct err *err)
{
    if (!c->vm->ops->vcpu_set(c->vcpu, c->state, err))
        board_set_tsc_offset(c->vm->board, c->index, c->state->tsc_offset);
    c->load = false;
}

/* Guest TSC = host TSC + offset: what it was at the save, plus what has passed since, as if this host's were 0 now. */
static void move_tscs(struct vm *vm, u64 passed_ns)
{
    u64 ticks = (u64)((unsigned __int128)passed_ns * vm->id.model.tsc_khz / 1000000);
    u64 by = vm->clock.host_tsc + ticks - __rdtsc();

    for (unsigned i = 0; i < vm->ncpus; i++)
        vm->cpu[i].state->tsc_offset = (s64)((u64)vm->cpu[i].state->tsc_offset + by);
}

void vm_state_tell_watchdogs(struct vm *vm)
{
    for (unsigned i = 0; i < vm->ncpus; i++) {
        u64 msr = vm->cpu[i].state->msr.kvm_system_time, at = (msr & ~1ull) + PVCLOCK_FLAGS;
        u8 flags;

        if (!(msr & PVCLOCK_ENABLED) || gmem_read(&vm->ram, at, &flags, 1))
            continue;
        flags |= PVCLOCK_GUEST_STOPPED;
        gmem_write(&vm->ram, at, &flags, 1);
    }
}

int vm_state_load(struct vm *vm, const struct state_source *from, enum vm_clock clock,
                  struct err *err)
{
    int rc = state_set_load(&vm->states, from, err);

    if (rc)
        return rc;
    s64 passed = wall_ns() - vm->clock.wall_ns;
    if (clock == VM_CLOCK_FROZEN || passed < 0 || vm->clock.wall_ns < 0)
        passed = 0;
    move_tscs(vm, (u64)passed);
    if (passed)
        vm_state_tell_watchdogs(vm);
    rc = vm_cpus_call(vm, set_cpu, err);
    return rc ? rc : board_set_irqchip(vm->board, err);
}

void vm_state_print(struct vm *vm, FILE *out)
{
    state_set_print(&vm->states, out);
}
