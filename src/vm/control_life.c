/*
 * Verbs of the control socket about the machine's life: what it does now, pause, resume, power button, end, and its name.
 * Main loop.
 */
#include "vm/control.h"

#include "vm/migrate/vm.h"
#include "vm/option.h"
#include "vm/parts.h"
#include "vm/snapshot/snapshot.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

const char *control_state(const struct vm *vm)
{
    const char *migration = vm_migrate_state(vm);

    if (vm->ended)
        return "ended";
    if (migration && strcmp(migration, "here")) /* it was to move, and did not */
        return migration;
    return vm->paused ? "paused" : "running";
}

void control_do_status(struct control_call *call)
{
    const struct vm *vm = call->vm;
    const char *state = control_state(vm);

    json_t *fields =
        json_pack("{s:s,s:s,s:i,s:s,s:i,s:I}", "state", state, "name", vm->config->name, "pid",
                  (int)getpid(), "accel", vm->report.accel, "cpus", (int)vm->ncpus, "memory",
                  (json_int_t)vm->config->memory_bytes);

    if (vm->paused && atomic_load(&vm->stopped_disk))
        json_object_set_new(fields, "reason",
                            json_sprintf("disk '%s': %s", block_layer_path(vm->stopped_disk, 0),
                                         strerror(atomic_load(&vm->stopped_error))));
    control_reply(call, fields);
}

/* Answers for vm_pause() and vm_resume(). */
static void finish(struct control_call *call, int rc, const char *already)
{
    struct err err = ERR_INIT;

    if (!rc) {
        control_reply(call, NULL);
        return;
    }
    if (!vm_migrate_may_resume(call->vm))
        err_set(&err, EBUSY,
                "the machine is between two hosts and goes on where it belongs; 'trapeze ps' on both "
                "says how it stands. 'trapeze migrate --again' goes on after a broken line, --claim "
                "decides about one that is undecided");
    else
        err_set(&err, -rc, "%s", rc == -EALREADY ? already : "the machine cannot do that now");
    control_fail(call, &err);
}

void control_do_pause(struct control_call *call)
{
    finish(call, vm_pause(call->vm), "the machine is paused already");
}

void control_do_resume(struct control_call *call)
{
    finish(call, vm_resume(call->vm), "the machine is running already");
}

void control_do_powerdown(struct control_call *call)
{
    vm_power_button(call->vm);
    control_reply(call, NULL);
}

/* The answer is sent before the loop ends. */
void control_do_quit(struct control_call *call)
{
    struct vm *vm = call->vm;
    struct err err = ERR_INIT;
    bool force;

    if (control_flag(call, "force", &force, &err) || (!force && vm_migrate_may_end(vm, &err))) {
        control_fail(call, &err);
        return;
    }
    control_reply(call, NULL);
    vm_stop(vm, VM_END_STOPPED, 0);
}

/* Messages, `inspect`, snapshots and migrations have the new name from now on. Both of the latter read it in threads of their
 * own, so not while there is one. */
void control_do_rename(struct control_call *call)
{
    struct vm *vm = call->vm;
    const char *name;
    struct err err = ERR_INIT;
    int rc = control_text(call, "name", NULL, &name, &err);

    if (!rc && !name)
        rc = err_set(&err, EINVAL, "name: is missing");
    if (!rc && vm_snapshots_busy(vm->snapshots))
        rc = err_set(&err, EBUSY, "a snapshot of it is being taken");
    rc = rc ? rc : vm_migrate_stays(vm, &err);
    for (const struct vm_option *o = vm_options; o->name && !rc; o++)
        if (!strcmp(o->name,
                    "name")) /* the configuration is const to keep others from changing it */
            rc = o->parse((struct vm_config *)vm->config, name, &err);
    if (rc)
        control_fail(call, &err);
    else
        control_reply(call, NULL);
}
