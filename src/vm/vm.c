/*
 * A machine's life cycle.
 *
 *   vm_new --> built --vm_run--> running <--> paused
 *                                   |  \--reset--> running
 *                                   \--> ended --> vm_free
 *   vm_new_from --> built, paused --vm_run--> paused, or running after vm_resume()
 *
 * Order of building: what may fail for a wrong name first, the accelerator last; freeing goes backwards.
 * Threads: all of it in the main one.
 */
#include "vm/vm.h"

#include "base/cond.h"
#include "device/virtio_console.h"
#include "vm/control.h"
#include "vm/migrate/vm.h"
#include "vm/parts.h"
#include "vm/snapshot/snapshot.h"
#include "vm/snapshot/working_set.h"
#include "vm/trace.h"
#include "vm/trim.h"
#include "vm/worker.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

s64 vm_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

/* What is restricted needs none but those of its forwarded ports. */
static bool wants_sockets(const struct vm_config *c)
{
    const struct vm_net_config *n;
    bool wants = false;

    for (unsigned i = 0; (n = vm_config_net(c, i)); i++)
        wants |= n->kind == VM_NET_USER && (!n->restricted || n->nfwds);
    return wants;
}

/* Where unpacked kernels are kept: under --root, or with the user's other caches. NULL: nowhere. */
static char *cache_dir(const struct vm_config *c)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *dir = NULL;
    int n = -1;

    if (c->root)
        n = asprintf(&dir, "%s/cache", c->root);
    else if (cache && *cache)
        n = asprintf(&dir, "%s/trapeze", cache);
    else if (home && *home)
        n = asprintf(&dir, "%s/.cache/trapeze", home);
    return n < 0 ? NULL : dir;
}

static int open_kernel(struct vm *vm, struct err *err)
{
    auto_free char *cache = cache_dir(vm->config);
    struct board_kernel kernel = {
        .kernel = vm->config->kernel,
        .initrd = vm->config->initrd,
        .cmdline = vm->config->append,
        .cache_dir = cache,
    };

    return board_open_kernel(vm->board, &kernel, err);
}

static int lock_in_helper(void *opaque, struct err *err)
{
    const struct vm *vm = opaque;

    return sandbox_enter(vm->sandbox, SANDBOX_IO, err);
}

static int start_accel(struct vm *vm, struct err *err)
{
    vm->machine = board_accel_machine(vm->board);
    vm->machine.enter_thread = lock_in_helper;
    vm->machine.enter_opaque = vm;
    int rc = vm->ops->new (&vm->machine, &vm->accel, err);
    if (!rc)
        rc = vm_cpus_new(vm, err);
    return rc;
}

static int build(struct vm *vm, struct err *err)
{
    const struct vm_config *c = vm->config;
    struct sandbox_needs needs = {.sockets = wants_sockets(c)};
    int rc = terminal_watch(&vm->terminal, err);

    if (rc)
        return rc;
    if ((rc = accel_choose(c->accel, &vm->ops, vm->report.why, sizeof(vm->report.why), err)))
        return err_wrap(err, "--accel");
    vm->report.accel = vm->ops->name;
    if (!vm->from_state && (rc = vm_identity_new(&vm->id, c, err)))
        return err_wrap(err, "--cpu");
    if ((rc = sandbox_new(&needs, &vm->sandbox, err)) || (rc = loop_new(&vm->loop, err)) ||
        (rc = vm_signals_start(vm, err)))
        return rc;
    if ((rc = gmem_init(&vm->ram, c->memory_bytes, err)))
        return err_wrap(err, "--memory");
    vm->has_ram = true;
    if ((rc = vm_build_devices(vm, err)) || (!vm->from_state && (rc = open_kernel(vm, err))))
        return rc;
    rc = start_accel(vm, err);
    if (!rc)
        rc = worker_new(vm->sandbox, vm->loop, &vm->worker, err);
    return rc ? rc : vm_state_init(vm, err);
}

static int new_machine(const struct vm_config *config, const struct vm_identity *id,
                       struct vm **ret_vm, struct err *err)
{
    struct vm *vm = calloc(1, sizeof(*vm));

    if (!vm)
        return err_set(err, ENOMEM, "machine: no memory");
    vm->config = config;
    if (id) {
        vm->id = *id;
        vm->from_state = vm->paused = true;
    }
    vm->start_ns = vm_now_ns();
    vm->terminal = TERMINAL_INIT;
    vm->signals.fd = vm->debug_fd = -1;
    atomic_init(&vm->first_user_ns, -1);
    pthread_mutex_init(&vm->lock, NULL);
    pthread_cond_init(&vm->go, NULL);
    cond_init(&vm->stopped);
    vm_signals_block();
    int rc = build(vm, err);
    if (rc) {
        vm_free(vm);
        return rc;
    }
    if (vm->paused)
        pci_host_quiesce(board_pci(vm->board));
    *ret_vm = vm;
    return 0;
}

int vm_new(const struct vm_config *config, struct vm **ret_vm, struct err *err)
{
    return new_machine(config, NULL, ret_vm, err);
}

int vm_new_from(const struct vm_config *config, const struct vm_identity *id, struct vm **ret_vm,
                struct err *err)
{
    int rc = vm_identity_fits(id, err);

    return rc ? rc : new_machine(config, id, ret_vm, err);
}

void vm_free(struct vm *vm)
{
    if (!vm)
        return;
    vm->ended = true;
    vm_snapshots_free(vm->snapshots);
    vm_cpus_end(vm);
    vm_migrate_free(vm);
    control_free(vm->control);
    vm_state_fini(vm);
    vm_free_devices(vm);
    vm_cpus_free(vm);
    working_set_free(vm->working_set);
    if (vm->accel)
        vm->ops->free(vm->accel);
    if (vm->has_ram)
        gmem_fini(&vm->ram);
    snapchain_free(vm->chain);
    if (vm->signals.fd >= 0) {
        loop_remove(vm->loop, &vm->signals);
        close(vm->signals.fd);
    }
    loop_free(vm->loop);
    sandbox_free(vm->sandbox);
    terminal_stop(&vm->terminal);
    pthread_cond_destroy(&vm->go);
    pthread_cond_destroy(&vm->stopped);
    pthread_mutex_destroy(&vm->lock);
    free(vm);
}

int vm_control(struct vm *vm, int listener, struct err *err)
{
    int rc = control_new(vm, listener, &vm->control, err);

    return rc ? rc : vm_snapshots_new(vm, &vm->snapshots, err);
}

void vm_on_start(struct vm *vm, void (*fn)(void *opaque), void *opaque)
{
    vm->started = fn;
    vm->started_opaque = opaque;
}

void vm_on_handover(struct vm *vm, int (*fn)(void *opaque, const char *place, struct err *err),
                    void *opaque)
{
    vm->handed_over = fn;
    vm->handed_over_opaque = opaque;
}

/* Kernel and tables into memory, processors to where they begin. vCPUs are parked. */
static int boot(struct vm *vm, struct err *err)
{
    struct x86_cpu *first = aligned_alloc(_Alignof(struct x86_cpu), sizeof(*first));
    int rc = first ? board_boot(vm->board, first, err) : err_set(err, ENOMEM, "boot: no memory");

    if (!rc)
        rc = vm_cpus_load(vm, first, err);
    free(first);
    return rc;
}

int vm_run(struct vm *vm, struct vm_report *ret_report, struct err *err)
{
    int rc = terminal_start(&vm->terminal, err);

    if (!rc && !vm->from_state)
        rc = boot(vm, err);
    trim_later(&vm->trim, loop_timers(vm->loop));
    if (!rc)
        rc = sandbox_enter(vm->sandbox, SANDBOX_LOOP, err);
    if (!rc) {
        vm->in_loop = true;
        if (vm->resume_due)
            pci_host_resume(board_pci(vm->board));
        if (vm->started)
            vm->started(vm->started_opaque);
        if (!vm->paused)
            vm_cpus_go(vm);
        rc = loop_run(vm->loop);
        if (rc)
            err_sys(err, -rc, "main loop");
        vm_cpus_stop(vm);
    }
    if (rc)
        vm->report.end = VM_END_FAILED;
    else if (vm->report.end == VM_END_FAILED && vm->failure.code)
        rc = err_set(err, vm->failure.code, "%s", vm->failure.msg);
    else if (vm->report.end == VM_END_FAILED && !(rc = vm_cpus_failed(vm, err)))
        rc = err_set(err, EIO, "a processor failed without a reason");
    vm->report.first_user_ns = atomic_load(&vm->first_user_ns);
    *ret_report = vm->report;
    return rc;
}

void vm_stop(struct vm *vm, enum vm_end end, int code)
{
    if (vm->ended)
        return;
    vm->ended = true;
    vm->report.end = end;
    vm->report.code = code;
    trace_vm_end((int)end, code);
    loop_stop(vm->loop);
}

void vm_reset(struct vm *vm)
{
    struct err err = ERR_INIT;

    if (vm->ended)
        return;
    if (vm->config->no_reboot) {
        vm_stop(vm, VM_END_POWEROFF, 0);
        return;
    }
    vm_cpus_stop(vm);
    board_reset(vm->board);
    vm->button_pressed = false;
    if (boot(vm, &err)) {
        vm->failure = err;
        vm_stop(vm, VM_END_FAILED, 0);
        return;
    }
    if (!vm->paused)
        vm_cpus_go(vm);
}

int vm_pause(struct vm *vm)
{
    if (vm->paused)
        return -EALREADY;
    vm_cpus_stop(vm);
    pci_host_quiesce(board_pci(vm->board));
    vm->paused = true;
    return 0;
}

void vm_go_on(struct vm *vm)
{
    vm->paused = false;
    atomic_store(&vm->stopped_disk, NULL);
    vm->resume_due = !vm->in_loop;
    if (vm->resume_due)
        return;
    pci_host_resume(board_pci(vm->board));
    vm_cpus_go(vm);
}

int vm_resume(struct vm *vm)
{
    if (!vm->paused)
        return -EALREADY;
    if (!vm_migrate_may_resume(vm))
        return -EBUSY;
    int rc = vm_migrate_retake(vm);
    if (!rc)
        vm_go_on(vm);
    return rc;
}

void vm_power_button(struct vm *vm)
{
    board_power_button(vm->board);
}

void vm_console_resized(struct vm *vm)
{
    u16 cols = 0, rows = 0;

    terminal_size(&cols, &rows);
    if (cols && rows && vm->console)
        virtio_console_resize(vm->console, cols, rows);
}
