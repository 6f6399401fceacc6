/*
 * One thread per vCPU.
 *
 *   start --attach--> parked <--stop, exit of vcpu_run-- running
 *                       |  \----------go---------------/
 *                       \--quit--> ended
 *
 * Invariants:
 *  1. `parked` counts the threads that will not touch the machine before vm->want changes; it only changes under the
 *     lock.
 *  2. Whoever sets want to stop or quit posts VCPU_EV_STOP afterwards. The event is sticky, so a thread that just
 *     saw `run` still leaves vcpu_run() at once.
 *  3. Guest code runs only after this thread and the main one are locked in (sandbox.h).
 *  4. A vCPU's state is read and written in its own thread only: vm_cpus_call() sends work there while it is parked.
 */
#include "base/cond.h"
#include "vm/migrate/vm.h"
#include "vm/parts.h"
#include "vm/trace.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static int start_thread(struct vm_cpu *c)
{
    char name[16];

    snprintf(name, sizeof(name), "cpu%u", c->index);
    pthread_setname_np(pthread_self(), name);
    board_enter_cpu(c->vm->board, c->index);
    int rc = c->vm->ops->vcpu_attach(c->vcpu, &c->err);
    return rc ? rc : sandbox_enter(c->vm->sandbox, SANDBOX_CPU, &c->err);
}

/* Answers vm_cpus_call(); called and left with the lock. */
static void take_call(struct vm_cpu *c)
{
    vm_cpu_fn *call = c->call;

    pthread_mutex_unlock(&c->vm->lock);
    call(c, &c->err);
    pthread_mutex_lock(&c->vm->lock);
    c->call = NULL;
    pthread_cond_broadcast(&c->vm->stopped);
}

/* While the machine is being made its threads have nothing to do; called and left with the lock. */
static void warm_up(struct vm_cpu *c)
{
    c->warm = true;
    if (!c->vm->ops->vcpu_warm)
        return;
    pthread_mutex_unlock(&c->vm->lock);
    c->vm->ops->vcpu_warm(c->vcpu);
    pthread_mutex_lock(&c->vm->lock);
}

/* Waits until it may run; false: it is to end. */
static bool park(struct vm_cpu *c)
{
    struct vm *vm = c->vm;

    pthread_mutex_lock(&vm->lock);
    vm->parked++;
    pthread_cond_broadcast(&vm->stopped);
    while (vm->want == VM_WANT_STOP) {
        if (c->call)
            take_call(c);
        else if (!c->warm)
            warm_up(c);
        else
            pthread_cond_wait(&vm->go, &vm->lock);
    }
    bool run = vm->want == VM_WANT_RUN;
    if (run)
        vm->parked--;
    pthread_mutex_unlock(&vm->lock);
    return run;
}

static bool load_state(struct vm_cpu *c)
{
    struct vm *vm = c->vm;

    if (!c->load)
        return true;
    c->load = false;
    if (vm->ops->vcpu_set(c->vcpu, c->state, &c->err))
        return false;
    board_set_tsc_offset(vm->board, c->index, c->state->tsc_offset);
    return true;
}

/* A vCPU that ended by itself must not run again before the main loop has seen why. */
static void stop_running(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    if (vm->want == VM_WANT_RUN)
        vm->want = VM_WANT_STOP;
    pthread_mutex_unlock(&vm->lock);
}

static void *run_thread(void *opaque)
{
    struct vm_cpu *c = opaque;
    struct vm *vm = c->vm;
    bool usable = start_thread(c) == 0;

    while (park(c)) {
        enum vcpu_exit exit = VCPU_FAILED;

        if (usable && load_state(c))
            exit = vm->ops->vcpu_run(c->vcpu, &c->err);
        if (exit == VCPU_STOPPED)
            continue;
        stop_running(vm);
        vm_cpu_ended(vm, exit);
    }
    return NULL;
}

static int start_cpu(struct vm *vm, unsigned index, struct err *err)
{
    struct vm_cpu *c = &vm->cpu[index];

    *c = (struct vm_cpu){.vm = vm, .index = index};
    c->state = aligned_alloc(_Alignof(struct x86_cpu), sizeof(*c->state));
    if (!c->state)
        return err_set(err, ENOMEM, "processor %u: no memory", index);
    x86_cpu_reset(c->state, index == 0);
    int rc = vm->ops->vcpu_new(vm->accel, index, &c->vcpu, err);
    if (rc)
        return err_wrap(err, "processor %u", index);
    if (!(vm->ops->caps & ACCEL_IRQCHIP))
        board_set_cpu_timers(vm->board, index, vm->ops->vcpu_timers(c->vcpu));
    return 0;
}

int vm_cpus_new(struct vm *vm, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < vm->config->cpus && !rc; i++) {
        rc = start_cpu(vm, i, err);
        vm->ncpus = i + 1;
    }
    /* All exist before the first one starts: they may send each other events. */
    for (unsigned i = 0; i < vm->ncpus && !rc; i++) {
        rc = pthread_create(&vm->cpu[i].thread, NULL, run_thread, &vm->cpu[i]);
        if (rc)
            rc = err_sys(err, rc, "processor %u: thread", i);
        else
            vm->cpu[i].started = true;
    }
    if (!rc) {
        vm_cpus_stop(vm); /* all have attached, or said why not */
        rc = vm_cpus_failed(vm, err);
    }
    return rc;
}

void vm_cpus_end(struct vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    vm->want = VM_WANT_QUIT;
    pthread_cond_broadcast(&vm->go);
    pthread_mutex_unlock(&vm->lock);
    vm_cpus_interrupt(vm);
    vm_migrate_interrupt(vm);
    for (unsigned i = 0; i < vm->ncpus; i++)
        if (vm->cpu[i].started)
            pthread_join(vm->cpu[i].thread, NULL);
}

void vm_cpus_free(struct vm *vm)
{
    for (unsigned i = 0; i < vm->ncpus; i++) {
        if (vm->cpu[i].vcpu)
            vm->ops->vcpu_free(vm->cpu[i].vcpu);
        free(vm->cpu[i].state);
    }
    vm->ncpus = 0;
}

void vm_cpus_interrupt(struct vm *vm)
{
    for (unsigned i = 0; i < vm->ncpus; i++)
        if (vm->cpu[i].vcpu)
            vm->ops->vcpu_event(vm->cpu[i].vcpu, VCPU_EV_STOP);
}

/* With the lock. A vCPU that has just begun to wait for a page from another host lets go of it, too. */
static void wait_stopped(struct vm *vm)
{
    if (!vm->migration) {
        pthread_cond_wait(&vm->stopped, &vm->lock);
        return;
    }
    pthread_mutex_unlock(&vm->lock);
    vm_migrate_interrupt(vm);
    pthread_mutex_lock(&vm->lock);
    struct timespec until = cond_after(NS_PER_S / 100);

    if (vm->parked < vm->ncpus)
        pthread_cond_timedwait(&vm->stopped, &vm->lock, &until);
}

void vm_cpus_stop(struct vm *vm)
{
    trace_vm_stop(vm->config->cpus);
    pthread_mutex_lock(&vm->lock);
    vm->want = VM_WANT_STOP;
    pthread_mutex_unlock(&vm->lock);
    vm_cpus_interrupt(vm);
    pthread_mutex_lock(&vm->lock);
    while (vm->parked < vm->ncpus)
        wait_stopped(vm);
    pthread_mutex_unlock(&vm->lock);
}

void vm_cpus_go(struct vm *vm)
{
    trace_vm_go(vm->config->cpus);
    pthread_mutex_lock(&vm->lock);
    vm->want = VM_WANT_RUN;
    pthread_cond_broadcast(&vm->go);
    pthread_mutex_unlock(&vm->lock);
}

static bool calls_pending(const struct vm *vm)
{
    for (unsigned i = 0; i < vm->ncpus; i++)
        if (vm->cpu[i].call)
            return true;
    return false;
}

int vm_cpus_call(struct vm *vm, vm_cpu_fn *fn, struct err *err)
{
    pthread_mutex_lock(&vm->lock);
    for (unsigned i = 0; i < vm->ncpus; i++)
        vm->cpu[i].call = fn;
    pthread_cond_broadcast(&vm->go);
    while (calls_pending(vm))
        pthread_cond_wait(&vm->stopped, &vm->lock);
    pthread_mutex_unlock(&vm->lock);
    return vm_cpus_failed(vm, err);
}

int vm_cpus_failed(struct vm *vm, struct err *err)
{
    for (unsigned i = 0; i < vm->ncpus; i++)
        if (vm->cpu[i].err.code)
            return err_set(err, vm->cpu[i].err.code, "processor %u: %s", i, vm->cpu[i].err.msg);
    return 0;
}

int vm_cpus_load(struct vm *vm, const struct x86_cpu *boot, struct err *err)
{
    for (unsigned i = 0; i < vm->ncpus; i++) {
        if (i == 0)
            *vm->cpu[i].state = *boot;
        else
            x86_cpu_reset(vm->cpu[i].state, false);
        vm->cpu[i].load = true;
    }
    return 0;
}
