/*
 * What a migration needs of a machine, by the machine. Called in the migration's threads; whatever is about
 * the machine's life is done in the main loop (worker_in_loop()).
 */
#include "vm/migrate/parts.h"

#include "vm/state.h"
#include <errno.h>
#include <string.h>
#include <unistd.h>

struct work {
    struct vm_migration *m;
    const struct state_sink *to;
    const struct state_source *from;
    struct err *err;
    int rc;
    unsigned percent;
};

/* Disks on storage that both hosts see: one of them has them, or for a moment nobody. */
static int lock_disks(struct vm *vm, enum block_lock lock, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < vm->config->ndisks && !rc; i++)
        if (vm->disk[i] && (rc = block_set_lock(vm->disk[i], lock, err)))
            err_wrap(err, "disk %u", i);
    return rc;
}

/* --- source --- */

static int log_start(void *opaque, struct err *err)
{
    struct vm_migration *m = opaque;

    return dirty_start(&m->vm->ram, &m->log, err);
}

static int log_collect(void *opaque, u64 *ret_bits, u64 *ret_count, struct err *err)
{
    struct vm_migration *m = opaque;

    return dirty_collect(&m->vm->ram, &m->log, ret_bits, ret_count, err);
}

static int send_disks(void *opaque, struct migrate_line *line, u64 budget, u64 *ret_sent,
                      u64 *ret_left, struct err *err)
{
    struct vm_migration *m = opaque;
    struct vm *vm = m->vm;
    int rc =
        m->disks.started ? 0 : migrate_disks_start(&m->disks, vm->disk, vm->config->ndisks, err);

    return rc ? rc : migrate_disks_send(&m->disks, line, budget, ret_sent, ret_left, err);
}

void vm_migration_copy_disks(struct vm_migration *m, bool on)
{
    m->with_disks = on;
    m->guest.disks = on && m->vm->config->ndisks ? send_disks : NULL;
}

static void log_stop(void *opaque)
{
    struct vm_migration *m = opaque;

    migrate_disks_stop(&m->disks);
    dirty_stop(&m->vm->ram, &m->log);
}

static void stop_work(void *opaque)
{
    struct work *w = opaque;
    struct vm *vm = w->m->vm;

    w->m->was_paused = vm->paused;
    w->m->saved = false;
    if (!vm->paused)
        vm_pause(vm);
    /* A reset or power-off that the guest asked for just before belongs to the state that goes over. */
    vm_take_events(vm);
    if (vm->ended)
        w->rc = err_set(w->err, ECANCELED, "the machine has ended meanwhile");
    if (!w->rc && !w->m->with_disks)
        w->rc = lock_disks(vm, BLOCK_UNLOCKED, w->err);
}

static int stop_guest(void *opaque, struct err *err)
{
    struct vm_migration *m = opaque;
    struct work w = {.m = m, .err = err};

    worker_in_loop(m->worker, stop_work, &w);
    return w.rc;
}

static void resume_work(void *opaque)
{
    struct work *w = opaque;

    if (w->m->vm->ended)
        return;
    w->rc = lock_disks(w->m->vm, BLOCK_EXCLUSIVE, w->err);
    if (!w->rc && !w->m->was_paused && w->m->vm->paused) {
        vm_migration_announce(w->m); /* the other host may have done so */
        if (w->m->saved)
            vm_state_tell_watchdogs(w->m->vm);
        w->m->saved = false;
        vm_go_on(w->m->vm);
    }
}

/* The other host may need a moment to see that it does not get the machine, and to let go of its disks. */
static int resume_guest(void *opaque, struct err *err)
{
    struct vm_migration *m = opaque;
    struct work w = {.m = m};

    for (int tries = 0; tries < 100; tries++) {
        struct err fresh = ERR_INIT;

        w.err = &fresh;
        w.rc = 0;
        worker_in_loop(m->worker, resume_work, &w);
        if (!w.rc)
            return 0;
        err_set(err, fresh.code, "%s; the guest stands still: 'trapeze resume' tries again",
                fresh.msg);
        usleep(50000);
    }
    return w.rc;
}

static void save_work(void *opaque)
{
    struct work *w = opaque;

    u8 paused = w->m->was_paused;

    /* A machine that its user had paused is paused over there, too. */
    w->rc = w->to->write(w->to->opaque, &paused, 1);
    if (!w->rc)
        w->rc = vm_state_save(w->m->vm, w->to, w->err);
    w->m->saved = !w->rc;
}

static int save(void *opaque, const struct state_sink *to, struct err *err)
{
    struct vm_migration *m = opaque;
    struct work w = {.m = m, .to = to, .err = err};

    worker_in_loop(m->worker, save_work, &w);
    return w.rc;
}

/* The vCPUs stand still for a part of each period: simple, and it slows every guest, whatever it does. */
#define THROTTLE_PERIOD_NS 40000000

static void throttle_fire(void *opaque)
{
    struct vm_migration *m = opaque;
    s64 stop_ns = THROTTLE_PERIOD_NS / 100 * m->throttle;

    if (!m->throttle || m->vm->paused) {
        if (m->throttled && !m->vm->paused)
            vm_cpus_go(m->vm);
        m->throttled = false;
        return;
    }
    m->throttled = !m->throttled;
    if (m->throttled)
        vm_cpus_stop(m->vm);
    else
        vm_cpus_go(m->vm);
    timer_arm(&m->throttle_tick,
              vm_now_ns() + (m->throttled ? stop_ns : THROTTLE_PERIOD_NS - stop_ns));
}

static void throttle_work(void *opaque)
{
    struct work *w = opaque;

    w->m->throttle = w->percent;
    timer_arm(&w->m->throttle_tick, vm_now_ns());
}

static void throttle(void *opaque, unsigned percent)
{
    struct vm_migration *m = opaque;
    struct work w = {.m = m, .percent = percent};

    worker_in_loop(m->worker, throttle_work, &w);
}

static int note(void *opaque, bool away, struct err *err)
{
    struct vm_migration *m = opaque;
    struct vm *vm = m->vm;

    return vm->handed_over ? vm->handed_over(vm->handed_over_opaque, away ? m->place : NULL, err)
                           : 0;
}

/* --- destination --- */

static void load_work(void *opaque)
{
    struct work *w = opaque;

    u8 paused = 0;

    w->rc = w->from->read(w->from->opaque, &paused, 1);
    if (w->rc || paused > 1)
        w->rc = err_set(w->err, EPROTO, "the machine's state begins with rubbish");
    w->m->was_paused = paused;
    /* Before the hand-over: a host that cannot keep them must not get the machine. */
    if (!w->rc && w->m->disks.n)
        w->rc = migrate_disks_finish(&w->m->disks, w->err);
    if (!w->rc)
        w->rc = vm_state_load(w->m->vm, w->from, VM_CLOCK_REAL, w->err);
}

static int load(void *opaque, const struct state_source *from, struct err *err)
{
    struct vm_migration *m = opaque;
    struct work w = {.m = m, .from = from, .err = err};

    worker_in_loop(m->worker, load_work, &w);
    return w.rc;
}

static int write_blocks(void *opaque, u32 disk, u64 offset, u64 len, const u8 *bytes,
                        struct err *err)
{
    struct vm_migration *m = opaque;

    return migrate_disks_write(&m->disks, disk, offset, len, bytes, err);
}

static int sync_blocks(void *opaque, struct err *err)
{
    struct vm_migration *m = opaque;

    return migrate_disks_finish(&m->disks, err);
}

void vm_migration_take_disks(struct vm_migration *m)
{
    if (m->vm->config->disks_given_up)
        return;
    migrate_disks_take(&m->disks, m->vm->disk, m->vm->config->ndisks);
    m->guest.write_blocks = write_blocks;
    m->guest.sync_blocks = sync_blocks;
}

static int absent(void *opaque, const struct lazy_source *source, const u64 *bits, struct err *err)
{
    struct vm_migration *m = opaque;

    return lazy_begin(&m->vm->ram, source, bits, err);
}

static u64 supply(void *opaque, u64 page, u64 count, const u8 *bytes)
{
    struct vm_migration *m = opaque;

    return lazy_supply_run(&m->vm->ram, page, count, bytes);
}

static bool is_absent(void *opaque, u64 page)
{
    struct vm_migration *m = opaque;

    return lazy_absent(&m->vm->ram, page << 12);
}

static void all_there(void *opaque)
{
    struct vm_migration *m = opaque;

    lazy_end(&m->vm->ram, NULL);
}

static void claim_work(void *opaque)
{
    struct work *w = opaque;

    w->rc = lock_disks(w->m->vm, BLOCK_EXCLUSIVE, w->err);
}

static int claim(void *opaque, struct err *err)
{
    struct vm_migration *m = opaque;
    struct work w = {.m = m, .err = err};

    worker_in_loop(m->worker, claim_work, &w);
    return w.rc;
}

static void release_work(void *opaque)
{
    struct work *w = opaque;

    lock_disks(w->m->vm, BLOCK_UNLOCKED, NULL);
}

static void release(void *opaque)
{
    struct vm_migration *m = opaque;
    struct work w = {.m = m};

    worker_in_loop(m->worker, release_work, &w);
}

static void run_work(void *opaque)
{
    struct work *w = opaque;

    vm_migration_announce(w->m);
    if (!w->m->was_paused && !w->m->vm->ended)
        vm_go_on(w->m->vm);
}

static int run_guest(void *opaque, struct err *err)
{
    struct vm_migration *m = opaque;
    struct work w = {.m = m, .err = err};

    worker_in_loop(m->worker, run_work, &w);
    return 0;
}

int vm_migrate_retake(struct vm *vm)
{
    return vm->migration ? lock_disks(vm, BLOCK_EXCLUSIVE, NULL) : 0;
}

void vm_migration_guest(struct vm_migration *m)
{
    struct gmem *ram = &m->vm->ram;

    m->guest = (struct migrate_guest){
        .ram = ram->base,
        .pages = dirty_pages(ram),
        .memfd = ram->memfd,
        .log_start = log_start,
        .log_collect = log_collect,
        .log_stop = log_stop,
        .stop = stop_guest,
        .resume = resume_guest,
        .throttle = throttle,
        .save = save,
        .note = note,
        .load = load,
        .absent = absent,
        .supply = supply,
        .is_absent = is_absent,
        .all_there = all_there,
        .claim = claim,
        .release = release,
        .run = run_guest,
        .opaque = m,
    };
    timer_init(&m->throttle_tick, loop_timers(m->vm->loop), throttle_fire, m);
    vm_migration_network_init(m);
}
