/*
 * The control socket's verbs of snapshots: what there is to snapshot, and begin. Main loop.
 */
#include "vm/snapshot/parts.h"

#include "vm/migrate/vm.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *describe_disk(struct block *b)
{
    json_t *layers = json_array();

    for (unsigned i = 0; i < block_layers(b); i++)
        json_array_append_new(layers, json_pack("{s:s,s:s}", "path", block_layer_path(b, i),
                                                "format", block_layer_format(b, i)));
    return json_pack("{s:I,s:b,s:o}", "size", (json_int_t)block_size(b), "readonly",
                     (int)block_readonly(b), "layers", layers);
}

#define BUSY "another snapshot of this machine is being taken"

static void refuse(struct control_call *call, int code, const char *why)
{
    struct err err = ERR_INIT;

    err_set(&err, code, "%s", why);
    control_fail(call, &err);
}

static void answer_plan(struct control_call *call)
{
    struct vm *vm = call->vm;
    json_t *disks = json_array();

    for (unsigned i = 0; i < vm->config->ndisks; i++)
        json_array_append_new(disks, describe_disk(vm->disk[i]));
    control_reply(
        call, json_pack("{s:I,s:s,s:s,s:b,s:I,s:o}", "memory", (json_int_t)vm->ram.size, "accel",
                        vm->report.accel, "base", vm->snapshots ? vm->snapshots->base : "",
                        "kernel", (int)board_has_kernel(vm->board), "switched",
                        (json_int_t)(vm->snapshots ? vm->snapshots->switched : 0), "disks", disks));
}

static void planner_gone(struct control_call *call)
{
    call->vm->snapshots->planner = NULL;
}

void snapshot_answer_planner(struct vm_snapshots *s)
{
    struct control_call *call = s->planner;

    s->planner = NULL;
    if (call) {
        call->gone = NULL;
        answer_plan(call);
    }
}

/* While one is being taken, whose caller may have died a moment ago, the disks are about to change: it waits for that. */
void control_do_snapshot_plan(struct control_call *call)
{
    struct vm_snapshots *s = call->vm->snapshots;

    if (!vm_snapshots_busy(s)) {
        answer_plan(call);
    } else if (s->planner) {
        refuse(call, EBUSY, BUSY);
    } else {
        s->planner = call;
        call->gone = planner_gone;
    }
}

static void caller_gone(struct control_call *call)
{
    struct snapshot_job *job = call->opaque;

    atomic_store(&job->cancelled, true);
}

static int read_overlay(struct snapshot_job *job, const struct vm *vm, const json_t *o,
                        struct err *err)
{
    struct snapshot_overlay *to = &job->overlay[job->noverlays];
    json_int_t disk = json_integer_value(json_object_get(o, "disk"));
    const char *path = json_string_value(json_object_get(o, "path"));

    if (job->noverlays == VM_DISKS || disk < 0 || disk >= vm->config->ndisks || !path ||
        block_readonly(vm->disk[disk]))
        return err_set(err, EINVAL, "an overlay for a disk that takes none");
    to->path = strdup(path);
    if (!to->path)
        return err_set(err, ENOMEM, "no memory");
    to->disk = (unsigned)disk;
    to->fd = control_take_fd(job->call, 3u + (job->kernel_fd >= 0) + job->noverlays);
    job->noverlays++;
    return to->fd < 0 ? err_set(err, EINVAL, "a descriptor is missing") : 0;
}

static int read_request(struct snapshot_job *job, struct vm *vm, struct err *err)
{
    const json_t *overlays = json_object_get(job->call->args, "overlays");
    bool kernel = false;
    const char *id;
    size_t i;
    json_t *o;

    if (control_text(job->call, "snapshot", NULL, &id, err) ||
        control_flag(job->call, "incremental", &job->incremental, err) ||
        control_flag(job->call, "kernel", &kernel, err))
        return -err->code;
    if (!id || !*id || strlen(id) >= sizeof(job->id))
        return err_set(err, EINVAL, "snapshot: is missing or too long");
    snprintf(job->id, sizeof(job->id), "%s", id);
    job->memory = control_take_fd(job->call, 0);
    job->map_fd = control_take_fd(job->call, 1);
    job->state_fd = control_take_fd(job->call, 2);
    if (kernel)
        job->kernel_fd = control_take_fd(job->call, 3);
    if (job->memory < 0 || job->map_fd < 0 || job->state_fd < 0 || (kernel && job->kernel_fd < 0))
        return err_set(err, EINVAL, "a descriptor is missing");
    json_array_foreach(overlays, i, o)
    {
        int rc = read_overlay(job, vm, o, err);

        if (rc)
            return rc;
    }
    return snapmap_init(&job->map, vm->ram.size, job->incremental, false, err);
}

/* Overlays were made for the disks as a plan has shown them. */
static int check_plan(const struct snapshot_job *job, const struct vm_snapshots *s, struct err *err)
{
    u64 switched;

    if (control_number(job->call, "switched", UINT32_MAX, s->switched, &switched, err))
        return -err->code;
    return switched == s->switched
               ? 0
               : err_set(err, EAGAIN, "its disks have changed since it was asked; try again");
}

static int check_possible(const struct vm *vm, const struct snapshot_job *job, struct err *err)
{
    if (vm->ended)
        return err_set(err, ESHUTDOWN, "the machine is ending");
    if (vm_migrate_stays(vm, err))
        return -EBUSY;
    if (job->incremental && !*vm->snapshots->base)
        return err_set(
            err, EINVAL,
            "there is nothing an incremental snapshot could stand on: this machine was neither "
            "restored from a snapshot nor has one been taken of it since it started");
    return 0;
}

void snapshot_job_free(struct snapshot_job *job)
{
    for (unsigned i = 0; i < job->noverlays; i++) {
        if (job->overlay[i].fd >= 0)
            close(job->overlay[i].fd);
        free(job->overlay[i].path);
    }
    snapwriter_free(job->writer);
    int fds[] = {job->memory, job->map_fd, job->state_fd, job->kernel_fd};
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    snapmap_fini(&job->map);
    state_buf_fini(&job->state);
    free(job);
}

bool vm_snapshots_busy(const struct vm_snapshots *s)
{
    return s && s->job;
}

void control_do_snapshot(struct control_call *call)
{
    struct vm_snapshots *s = call->vm->snapshots;
    struct snapshot_job *job = s && !s->job ? calloc(1, sizeof(*job)) : NULL;
    struct err err = ERR_INIT;

    if (!job) {
        refuse(call, s && s->job ? EBUSY : ENOTSUP,
               s && s->job ? BUSY : "snapshots cannot be taken of this machine");
        return;
    }
    job->call = call;
    job->memory = job->map_fd = job->state_fd = job->kernel_fd = -1;
    if (read_request(job, call->vm, &err) || check_plan(job, s, &err) ||
        check_possible(call->vm, job, &err)) {
        snapshot_job_free(job);
        control_fail(call, &err);
        return;
    }
    call->opaque = job;
    call->gone = caller_gone;
    pthread_mutex_lock(&s->lock);
    s->job = job;
    s->taken = false;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}
