/*
 * The moment that a snapshot holds: the machine stands, the last pages are copied, the state is taken, the disks get their
 * overlays. Main loop; everything slow was done before or comes after. Nothing is written to a file here: pages and state go
 * to memory. (Only a guest that changes more than the writer's buffer holds in each of sixteen rounds waits for the disk.)
 */
#include "vm/snapshot/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The last pages: those the last round left over, and those written until the processors stood. */
static int copy_rest(struct vm_snapshots *s, struct snapshot_job *job)
{
    u64 words = dirty_words(&s->vm->ram), count;
    auto_free u64 *left = malloc(words * sizeof(u64));
    int rc;

    if (!left)
        return err_set(&job->err, ENOMEM, "no memory");
    memcpy(left, s->bits, words * sizeof(u64));
    rc = dirty_collect(&s->vm->ram, &s->log, s->bits, &count, &job->err);
    for (u64 i = 0; i < words && !rc; i++) {
        s->since[i] |= s->bits[i];
        left[i] |= s->bits[i];
    }
    if (rc)
        return rc;
    rc = snapshot_copy(s, job, left);
    return rc ? err_set(&job->err, -rc, "the caller has gone") : 0;
}

static int switch_disks(struct vm_snapshots *s, struct snapshot_job *job)
{
    struct vm *vm = s->vm;
    int rc = 0;

    for (unsigned i = 0; i < job->noverlays && !rc; i++) {
        struct snapshot_overlay *o = &job->overlay[i];
        int fd = o->fd;

        o->fd = -1;
        rc = block_push(vm->disk[o->disk], fd, o->path, &job->err);
        job->switched |= !rc;
    }
    s->switched += job->switched;
    return rc;
}

static void take(struct vm_snapshots *s, struct snapshot_job *job)
{
    struct state_sink to = state_buf_sink(&job->state);

    if (atomic_load(&job->cancelled)) {
        err_set(&job->err, ECANCELED, "the caller has gone");
        return;
    }
    if (copy_rest(s, job) || vm_state_save(s->vm, &to, &job->err) || switch_disks(s, job))
        return;
    /* What is written from now on belongs to the next one. */
    memset(s->since, 0, dirty_words(&s->vm->ram) * sizeof(u64));
    memcpy(s->base, job->id, sizeof(s->base));
}

void snapshot_stop(void *snapshots)
{
    struct vm_snapshots *s = snapshots;
    struct snapshot_job *job = s->job;
    struct vm *vm = s->vm;
    s64 begin = vm_now_ns();
    bool runs = !vm->paused;

    if (runs) {
        vm_cpus_stop(vm);
        pci_host_quiesce(board_pci(vm->board));
    }
    take(s, job);
    if (runs) {
        pci_host_resume(board_pci(vm->board));
        if (!vm->ended)
            vm_cpus_go(vm);
    }
    job->pause_ns = runs ? vm_now_ns() - begin : 0;
    pthread_mutex_lock(&s->lock);
    job->stopped = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}
