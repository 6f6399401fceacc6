/*
 * A machine from its configuration to its end: what is opened, in which order, who runs it, how it ends.
 *
 * vm_new() opens and builds everything; vm_run() locks the process in, lets the vCPUs go and runs the main loop until
 * the machine has ended. One thread per vCPU ("cpu0"...), the caller's thread runs the loop.
 */
#ifndef VM_VM_H
#define VM_VM_H

#include "vm/config.h"

struct vm;
struct vm_identity;

enum vm_end {
    VM_END_POWEROFF,   /* the guest powered off, or rebooted with no_reboot */
    VM_END_PANIC,      /* the guest said so through pvpanic */
    VM_END_TRIPLE,     /* triple fault */
    VM_END_DEBUG_EXIT, /* vm_report.code is the status that the guest chose */
    VM_END_STOPPED,    /* from outside */
    VM_END_MOVED,      /* it runs on another host */
    VM_END_FAILED,     /* the host or the accelerator; the error says why */
};

struct vm_report {
    enum vm_end end;
    int code;
    const char *accel; /* which one ran */
    char why[256];     /* and why that one */
    s64 first_user_ns; /* from vm_new() to the first byte at the debug console's port; -1: none came */
};

/* config outlives the machine. Before other threads exist. */
int vm_new(const struct vm_config *config, struct vm **ret_vm, struct err *err);
/* A machine that was built elsewhere, to take over what was saved (vm/state.h): no kernel is opened or booted, and it
 * stays paused, in vm_run() too, until vm_resume(). -ENOTSUP names what this host lacks. */
int vm_new_from(const struct vm_config *config, const struct vm_identity *id, struct vm **ret_vm,
                struct err *err);
void vm_free(struct vm *vm); /* NULL and half-built are fine */
/* Serves callers on a listening Unix socket from now on (vm/control.h); takes it over, on failure too. Before vm_run(). */
int vm_control(struct vm *vm, int listener, struct err *err);
/* fn is called once vm_run() has locked the process in and the guest is about to run. Before vm_run(). */
void vm_on_start(struct vm *vm, void (*fn)(void *opaque), void *opaque);
/* fn writes down where the guest may be, for who finds this process dead: at `place` before it is handed over to another
 * host; NULL: here, and nowhere else. When it fails the guest stays. In a thread of the migration, locked in. Before
 * vm_run(). */
void vm_on_handover(struct vm *vm,
                    int (*fn)(void *opaque, const char *place, struct err *err), void *opaque);
/* Runs it to its end; once. -errno only when it could not start or the host failed: ret_report is filled anyway. */
int vm_run(struct vm *vm, struct vm_report *ret_report, struct err *err);

/* In the main loop's thread: */
void vm_stop(struct vm *vm, enum vm_end end, int code); /* the first one counts */
void vm_reset(struct vm *vm);
int vm_pause(struct vm *vm);  /* vCPUs stand still and devices are quiet; -EALREADY */
/* -EALREADY; -EBUSY: it is (or may be) on another host. Before vm_run(): takes effect there. */
int vm_resume(struct vm *vm);
void vm_power_button(struct vm *vm);
/* The terminal's own size has changed: tells the console. */
void vm_console_resized(struct vm *vm);

#endif
