/*
 * Taking a snapshot while the guest runs.
 *
 *   idle --verb--> rounds --little is left--> stop --> files --> idle
 *                    |                          |
 *                    \--- fails, caller gone ---/---------------> idle
 *
 * rounds (snapshot thread): all pages go to the memory file (writer.c), then copies of those written meanwhile, until what
 *   is left takes a millisecond or two;
 * stop (main loop): processors stand, devices are quiet; the last pages, all state, the disks' overlays. What the snapshot
 *   holds is this moment;
 * files (snapshot thread): the last copies, state and map are written while the guest runs on. Syncing is the caller's.
 *
 * Invariants: 1. until the disks are switched, which is the stop's last step, a snapshot that fails leaves no trace in the
 * machine; 2. `since` and the log together hold every page written since `base`: what a failed snapshot has collected is
 * in `since`; 3. when the machine goes on after the stop, the writer has nothing that lies in guest memory; 4. the threads
 * belong to the machine's sandbox like a disk engine's.
 */
#include "vm/snapshot/parts.h"

#include "base/log.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STOP_BUDGET_NS 1500000 /* of copying with the guest stopped */
#define STOP_SLACK_PAGES 256   /* may be written before it stands */
#define ROUNDS_MAX 16
#define PAGE_NS_FIRST 2000 /* until measured */

/* --- the thread --- */

/* Adds what was written since the last time to `since`; leaves it in s->bits, too. */
static int collect(struct vm_snapshots *s, u64 *ret_count, struct err *err)
{
    u64 words = dirty_words(&s->vm->ram);
    int rc = dirty_collect(&s->vm->ram, &s->log, s->bits, ret_count, err);

    for (u64 i = 0; i < words && !rc; i++)
        s->since[i] |= s->bits[i];
    return rc;
}

int snapshot_log_from(struct vm_snapshots *s, const char *id, struct err *err)
{
    u64 words = dirty_words(&s->vm->ram);

    if (!s->since)
        s->since = calloc(words, sizeof(u64));
    if (!s->bits)
        s->bits = calloc(words, sizeof(u64));
    if (!s->since || !s->bits)
        return err_set(err, ENOMEM, "no memory for lists of pages");
    int rc = s->logging ? 0 : dirty_start(&s->vm->ram, &s->log, err);
    if (rc)
        return rc;
    s->logging = true;
    if (id) {
        memset(s->since, 0, words * sizeof(u64));
        snprintf(s->base, sizeof(s->base), "%s", id);
    }
    return 0;
}

/* What can be done while the writer is busy with the first round. */
static int prepare(struct vm_snapshots *s, struct snapshot_job *job, struct err *err)
{
    struct state_sink to_kernel = state_fd_sink(&job->kernel_fd);
    int rc = job->kernel_fd >= 0 ? board_save_kernel(s->vm->board, &to_kernel, err) : 0;

    if (!rc && (rc = snapwriter_make_room(job->writer)))
        err_sys(err, -rc, "no memory for copies of pages");
    return rc;
}

static int write_failed(int rc, struct err *err)
{
    return rc ? err_sys(err, -rc, "memory cannot be written") : 0;
}

/* Everything at first, or what was written since the parent. */
static int first_round(struct vm_snapshots *s, struct snapshot_job *job, struct err *err)
{
    u64 words = dirty_words(&s->vm->ram), count;
    auto_free u64 *bits = malloc(words * sizeof(u64));
    int rc = bits ? snapshot_log_from(s, NULL, err) : err_set(err, ENOMEM, "no memory");

    if (!rc && !job->incremental)
        rc = lazy_end(&s->vm->ram, err);
    rc = rc ? rc : collect(s, &count, err);
    if (rc)
        return rc;
    if (job->incremental)
        memcpy(bits, s->since, words * sizeof(u64));
    else
        rc = snapshot_find_pages(&s->vm->ram, bits);
    rc = rc ? rc : snapshot_copy(s, job, bits);
    if (rc)
        return write_failed(rc, err);
    rc = prepare(s, job, err);
    return rc ? rc : write_failed(snapwriter_drain(job->writer), err);
}

static void tell_progress(void *opaque)
{
    struct vm_snapshots *s = opaque;

    if (s->job && !atomic_load(&s->job->cancelled))
        control_event(s->job->call, "progress",
                      json_pack("{s:I,s:i}", "pages", (json_int_t)s->job->copied, "round",
                                (int)s->job->round));
}

/* Can the stop copy what is left, and quickly? */
static bool is_little(struct snapshot_job *job, u64 count)
{
    if (count * job->page_ns > STOP_BUDGET_NS)
        return false;
    if (snapwriter_room(job->writer) >= count + STOP_SLACK_PAGES)
        return true;
    snapwriter_drain(job->writer); /* what went wrong will be heard at the end */
    return false;
}

static int rounds(struct vm_snapshots *s, struct snapshot_job *job, struct err *err)
{
    u64 count = 0;
    int rc;

    for (rc = first_round(s, job, err); !rc; rc = snapshot_copy(s, job, s->bits)) {
        job->round++;
        loop_call(s->vm->loop, tell_progress, s);
        if (collect(s, &count, err))
            return -err->code;
        if (job->round == ROUNDS_MAX || is_little(job, count))
            break;
    }
    if (rc && !err->code)
        write_failed(rc, err);
    return rc; /* what the last collect() found is still in s->bits: the stop copies it */
}

/* Has the main loop stop the machine and take the rest, and waits until it has. */
static void stop_machine(struct vm_snapshots *s, struct snapshot_job *job)
{
    if (loop_call(s->vm->loop, snapshot_stop, s)) {
        err_set(&job->err, ENOMEM, "no memory to tell the main loop");
        return;
    }
    pthread_mutex_lock(&s->lock);
    while (!job->stopped && !s->quit)
        pthread_cond_wait(&s->changed, &s->lock);
    if (!job->stopped)
        err_set(&job->err, ECANCELED, "the machine has ended");
    pthread_mutex_unlock(&s->lock);
}

/* What lies below the overlays is on the medium then, and may be used by others. */
static int sync_disks(struct vm_snapshots *s, struct snapshot_job *job, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < job->noverlays && !rc; i++)
        rc = block_sync(s->vm->disk[job->overlay[i].disk], err);
    return rc;
}

static int write_files(struct vm_snapshots *s, struct snapshot_job *job, struct err *err)
{
    struct state_sink to_map = state_fd_sink(&job->map_fd),
                      to_state = state_fd_sink(&job->state_fd);
    int rc = vm_config_save(s->vm->config, &s->vm->id, &to_state, err);

    if (!rc && (rc = to_state.write(to_state.opaque, job->state.data, job->state.len)))
        err_sys(err, -rc, "state cannot be written");
    rc = rc ? rc : snapmap_save(&job->map, &to_map, err);
    rc = rc ? rc : write_failed(snapwriter_drain(job->writer), err);
    return rc ? rc : sync_disks(s, job, err);
}

static void answer(void *opaque)
{
    struct vm_snapshots *s = opaque;
    struct snapshot_job *job = s->job;

    if (job->err.code)
        control_fail(job->call, &job->err);
    else
        control_reply(job->call,
                      json_pack("{s:I,s:I,s:i,s:I}", "pause_ns", (json_int_t)job->pause_ns, "pages",
                                (json_int_t)snapmap_count(job->map.present, job->map.pages),
                                "rounds", (int)job->round, "copied", (json_int_t)job->copied));
    s->job = NULL;
    snapshot_job_free(job);
    snapshot_answer_planner(s);
}

static void work(struct vm_snapshots *s, struct snapshot_job *job)
{
    int rc = snapwriter_new(job->memory, &job->cancelled, &job->writer, &job->err);

    job->page_ns = PAGE_NS_FIRST;
    if (!rc && !rounds(s, job, &job->err))
        stop_machine(s, job);
    if (!job->err.code && write_files(s, job, &job->err))
        s->base[0] = 0; /* nobody can stand on what is not there */
    if (loop_call(s->vm->loop, answer, s))
        log_error("%s: no memory to tell the main loop", s->vm->config->name);
}

static void *snapshot_thread(void *opaque)
{
    struct vm_snapshots *s = opaque;

    pthread_setname_np(pthread_self(), "snapshot");
    pthread_mutex_lock(&s->lock);
    while (!s->quit) {
        if (!s->job || s->taken) {
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        struct snapshot_job *job = s->job;
        s->taken = true;
        pthread_mutex_unlock(&s->lock);
        work(s, job);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* --- life --- */

static int start_thread(void *opaque, struct err *err)
{
    struct vm_snapshots *s = opaque;
    int rc = pthread_create(&s->thread, NULL, snapshot_thread, s);

    s->started = !rc;
    return rc ? err_sys(err, rc, "snapshots: thread") : 0;
}

int vm_snapshots_new(struct vm *vm, struct vm_snapshots **ret_s, struct err *err)
{
    struct vm_snapshots *s = calloc(1, sizeof(*s));

    if (!s)
        return err_set(err, ENOMEM, "snapshots: no memory");
    s->vm = vm;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    int rc = *vm->restored_from ? snapshot_log_from(s, vm->restored_from, err) : 0;
    rc = rc ? rc : sandbox_run(vm->sandbox, SANDBOX_IO, start_thread, s, err);
    if (rc) {
        vm_snapshots_free(s);
        return rc;
    }
    *ret_s = s;
    return 0;
}

void vm_snapshots_free(struct vm_snapshots *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->quit = true;
    if (s->job)
        atomic_store(&s->job->cancelled, true);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (s->started)
        pthread_join(s->thread, NULL);
    if (s->job) {
        if (!s->job->err.code)
            err_set(&s->job->err, ECANCELED, "the machine has ended");
        answer(s);
    }
    if (s->logging)
        dirty_stop(&s->vm->ram, &s->log);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s->since);
    free(s->bits);
    free(s);
}
