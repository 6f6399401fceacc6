/*
 * Migrations of a machine, seen from its main loop: the control socket's verbs, their threads, and what the
 * rest of the VMM asks.
 *
 * A machine has at most one migration at a time, in or out. The worker runs its director; when that
 * returns, the loop hears of it through out_done() or in_done().
 */
#include "vm/migrate/parts.h"

#include "base/log.h"
#include "vm/migrate/doorman.h"
#include "vm/migrate/sizes.h"
#include "vm/snapshot/snapshot.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TICK_NS (NS_PER_S / 5)
#define CANCEL_NS (2 * NS_PER_S)
#define DROP_MS 1000

static const char *phase_name(const struct migrate_progress *p)
{
    static const char *const names[] = {
        [MIGRATE_CONNECT] = "connecting",     [MIGRATE_MEASURE] = "measuring",
        [MIGRATE_PRECOPY] = "copying",        [MIGRATE_HANDOVER] = "handing over",
        [MIGRATE_POSTCOPY] = "serving pages", [MIGRATE_DONE] = "done",
    };

    return names[p->phase];
}

static json_t *parts_json(const struct migrate_progress *p)
{
    return json_pack("{s:I,s:I,s:I,s:I}", "stop", (json_int_t)p->part_ns[MIGRATE_STOPPING], "send",
                     (json_int_t)p->part_ns[MIGRATE_SENDING], "load",
                     (json_int_t)p->part_ns[MIGRATE_LOADING], "start",
                     (json_int_t)p->part_ns[MIGRATE_STARTING]);
}

static json_t *progress_json(struct migrate_source *s)
{
    struct migrate_progress p;
    char token[2 * MIGRATE_TOKEN_BYTES + 1];

    migrate_source_progress(s, &p);
    for (unsigned i = 0; i < MIGRATE_TOKEN_BYTES; i++)
        snprintf(token + 2 * i, 3, "%02x", p.token[i]);
    return json_pack(
        "{s:s,s:s,s:s,s:i,s:i,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}",
        "phase", phase_name(&p), "token", token, "owner", migrate_owner_name(p.owner), "round",
        (int)p.round, "throttle", (int)p.throttle, "left_bytes",
        (json_int_t)(p.left_pages * MIGRATE_PAGE_BYTES), "left_disk_bytes",
        (json_int_t)p.left_disk_bytes, "total_bytes",
        (json_int_t)(p.total_pages * MIGRATE_PAGE_BYTES), "sent_bytes", (json_int_t)p.bytes, "rate",
        (json_int_t)p.bytes_per_s, "dirty_rate", (json_int_t)p.written_per_s, "elapsed_ns",
        (json_int_t)p.elapsed_ns, "remaining_ns", (json_int_t)p.remaining_ns, "downtime_ns",
        (json_int_t)p.downtime_ns, "pages_zero", (json_int_t)p.pages[MIGRATE_ZERO], "pages_whole",
        (json_int_t)p.pages[MIGRATE_WHOLE], "pages_delta", (json_int_t)p.pages[MIGRATE_DELTA],
        "packed_bytes", (json_int_t)p.packed_bytes, "urgent_pages", (json_int_t)p.urgent,
        "downtime_parts_ns", parts_json(&p));
}

struct vm_migration *vm_migration_get(struct vm *vm, struct err *err)
{
    if (vm->migration)
        return vm->migration;
    struct vm_migration *m = calloc(1, sizeof(*m));
    if (!m) {
        err_set(err, ENOMEM, "migration: no memory");
        return NULL;
    }
    m->vm = vm;
    pthread_mutex_init(&m->again_lock, NULL);
    m->worker = vm->worker;
    vm_migration_guest(m);
    vm->migration = m;
    return m;
}

/* --- out --- */

static void forget_source(struct vm_migration *m)
{
    timer_cancel(&m->tick);
    timer_cancel(&m->patience);
    migrate_source_free(m->source);
    m->source = NULL;
    state_buf_fini(&m->config);
}

static void tick(void *opaque)
{
    struct vm_migration *m = opaque;

    if (!m->call || !m->source)
        return;
    control_event(m->call, "progress", progress_json(m->source));
    timer_arm(&m->tick, vm_now_ns() + TICK_NS);
}

/* Main loop: the director has returned. */
static void out_done(void *opaque)
{
    struct vm_migration *m = opaque;
    struct control_call *call = m->call;
    enum migrate_owner owner = migrate_source_owner(m->source);
    json_t *summary = progress_json(m->source);

    m->call = NULL;
    timer_cancel(&m->tick);
    timer_cancel(&m->patience);
    if (owner == MIGRATE_OURS || owner == MIGRATE_GONE)
        forget_source(m);
    if (m->result) {
        control_event(call, "progress", summary);
        control_fail(call, &m->error);
    } else {
        control_reply(call, summary);
    }
    if (owner == MIGRATE_GONE)
        vm_stop(m->vm, VM_END_MOVED, 0);
}

static void out_job(void *opaque)
{
    struct vm_migration *m = opaque;

    m->error = ERR_INIT;
    /* Memory that is still in a snapshot's file is fetched first: every page is read anyway. */
    m->result = lazy_end(&m->vm->ram, &m->error);
    if (!m->result)
        m->result = migrate_source_run(m->source, &m->error);
    while (loop_call(m->vm->loop, out_done, m))
        usleep(1000); /* no memory right now; the caller waits anyway */
}

static unsigned take_fds(struct control_call *call, int *fds)
{
    unsigned n = 0;

    for (unsigned i = 0; i < call->nfds && n < MIGRATE_CONNECTIONS; i++)
        if ((fds[n] = control_take_fd(call, i)) >= 0)
            n++;
    return n;
}

static int read_token(const struct control_call *call, u8 *ret_token, struct err *err)
{
    const char *text;
    int rc = control_text(call, "token", "", &text, err);

    if (rc)
        return rc;
    for (unsigned i = 0; i < MIGRATE_TOKEN_BYTES; i++) {
        char pair[3] = {0}, *end;

        memcpy(pair, text + 2 * i, strnlen(text + 2 * i, 2));
        ret_token[i] = (u8)strtoul(pair, &end, 16);
        if (end != pair + 2)
            return err_set(err, EINVAL, "token: 32 hexadecimal digits are wanted");
    }
    return text[2 * MIGRATE_TOKEN_BYTES] ? err_set(err, EINVAL, "token: too long") : 0;
}

static int read_timeout(const struct control_call *call, enum migrate_timeout *ret, struct err *err)
{
    static const char *const names[] = {
        [MIGRATE_TIMEOUT_CANCEL] = "cancel",
        [MIGRATE_TIMEOUT_CONTINUE] = "continue",
        [MIGRATE_TIMEOUT_STOP] = "stop",
        [MIGRATE_TIMEOUT_POSTCOPY] = "postcopy",
    };
    const char *text;
    int rc = control_text(call, "on_timeout", "cancel", &text, err);

    for (unsigned i = 0; i < ARRAY_LEN(names) && !rc; i++)
        if (!strcmp(text, names[i])) {
            *ret = (enum migrate_timeout)i;
            return 0;
        }
    return rc ? rc : err_set(err, EINVAL, "on_timeout: '%s' is unknown", text);
}

static int read_pack(const struct control_call *call, enum migrate_pack *ret, struct err *err)
{
    static const char *const names[] = {
        [MIGRATE_PACK_NONE] = "none",
        [MIGRATE_PACK_ZSTD] = "zstd",
        [MIGRATE_PACK_AUTO] = "auto",
    };
    const char *text;
    int rc = control_text(call, "compress", "none", &text, err);

    for (unsigned i = 0; i < ARRAY_LEN(names) && !rc; i++)
        if (!strcmp(text, names[i])) {
            *ret = (enum migrate_pack)i;
            return 0;
        }
    return rc ? rc : err_set(err, EINVAL, "compress: '%s' is unknown", text);
}

static int read_options(const struct control_call *call, struct migrate_options *o, struct err *err)
{
    u64 downtime_us, limit_ms, throttle;
    bool disks = false;
    int rc = read_token(call, o->token, err);

    rc = rc ?: control_number(call, "max_downtime_us", 3600000000ull, 300000, &downtime_us, err);
    rc = rc ?: control_number(call, "time_limit_ms", 1ull << 40, 0, &limit_ms, err);
    rc = rc ?: control_number(call, "throttle", 99, 0, &throttle, err);
    rc = rc ?: control_number(call, "bandwidth", 1ull << 50, 0, &o->bytes_per_s, err);
    rc = rc ?: control_number(call, "cache", 1ull << 40, 0, &o->cache_bytes, err);
    rc = rc ?: read_timeout(call, &o->wish.timeout, err);
    rc = rc ?: read_pack(call, &o->pack, err);
    rc = rc ?: control_flag(call, "postcopy", &o->postcopy_first, err);
    rc = rc ?: control_flag(call, "hybrid", &o->wish.postcopy, err);
    rc = rc ?: control_flag(call, "dry", &o->dry, err);
    rc = rc ?: control_flag(call, "disks", &disks, err);
    if (rc)
        return rc;
    o->wish.downtime_ns = (s64)downtime_us * 1000;
    o->wish.limit_ns = (s64)limit_ms * 1000000;
    o->wish.throttle_percent = (unsigned)throttle;
    o->hello_flags = disks ? MIGRATE_HELLO_DISKS : 0;
    return 0;
}

/* What a machine must be for this. */
static int check_machine(struct vm_migration *m, struct err *err)
{
    int rc = vm_migrate_stays(m->vm, err);

    /* A snapshot puts overlays on disks, which our description names by then. */
    if (!rc && vm_snapshots_busy(m->vm->snapshots))
        rc = err_set(err, EBUSY, "a snapshot of the machine is being taken; wait for it");
    return rc;
}

static int save_sizes(struct vm *vm, const struct state_sink *sink, struct err *err)
{
    u64 bytes[VM_DISKS];

    for (unsigned i = 0; i < vm->config->ndisks; i++)
        bytes[i] = block_size(vm->disk[i]);
    return migrate_sizes_save(bytes, vm->config->ndisks, sink, err);
}

/* The description with the disks as they are now: snapshots put overlays on them. */
static int save_config(struct vm *vm, const struct state_sink *sink, struct err *err)
{
    struct vm_config now = *vm->config;

    for (unsigned i = 0; i < now.ndisks; i++) {
        const char *path = block_layer_path(vm->disk[i], 0);

        if (!strcmp(path, now.disk[i].path))
            continue;
        now.disk[i].path = (char *)(uintptr_t)path;
        snprintf(now.disk[i].format, sizeof(now.disk[i].format), "%s",
                 block_layer_format(vm->disk[i], 0));
        now.disk[i].trust = true; /* its name for what is below is our own */
    }
    int rc = vm_config_save(&now, &vm->id, sink, err);
    return rc ? rc : save_sizes(vm, sink, err);
}

static int new_source(struct vm_migration *m, struct control_call *call, const int *fds,
                      unsigned nfds, struct err *err)
{
    struct migrate_options o = {0};
    struct state_sink sink = state_buf_sink(&m->config);
    const char *place = "";
    int rc = check_machine(m, err);

    if (!rc)
        rc = read_options(call, &o, err);
    if (!rc)
        rc = control_text(call, "place", "", &place, err);
    if (!rc)
        snprintf(m->place, sizeof(m->place), "%s", place);
    if (!rc)
        rc = save_config(m->vm, &sink, err);
    if (rc) {
        for (unsigned i = 0; i < nfds; i++)
            close(fds[i]);
        return rc;
    }
    vm_migration_copy_disks(m, o.hello_flags & MIGRATE_HELLO_DISKS);
    o.hello_flags |= m->guest.frames ? MIGRATE_HELLO_FRAMES : 0;
    o.config = m->config.data;
    o.config_bytes = (u32)m->config.len;
    return migrate_source_new(&m->guest, &o, fds, nfds, &m->source, err);
}

/* A cancelled migration still waits for the other side, which takes nothing any more: it cannot hear that, either. */
static void cut_short(void *opaque)
{
    struct vm_migration *m = opaque;

    if (m->source)
        migrate_source_cut(m->source);
}

void control_do_migrate(struct control_call *call)
{
    struct err err = ERR_INIT;
    int fds[MIGRATE_CONNECTIONS], rc;
    unsigned nfds = take_fds(call, fds);
    struct vm_migration *m = vm_migration_get(call->vm, &err);
    bool again = false;

    rc = m ? control_flag(call, "again", &again, &err) : -err.code;
    if (!rc && m->call)
        rc = err_set(&err, EBUSY, "the machine is being migrated already");
    else if (!rc && again && !m->source)
        rc = err_set(&err, EINVAL, "there is no broken post-copy to go on with");
    if (rc)
        for (unsigned i = 0; i < nfds; i++)
            close(fds[i]);
    else if (again)
        rc = migrate_source_again(m->source, fds, nfds, &err);
    else
        rc = new_source(m, call, fds, nfds, &err);
    if (rc) {
        if (m && !m->source)
            state_buf_fini(&m->config);
        control_fail(call, &err);
        return;
    }
    m->call = call;
    timer_init(&m->tick, loop_timers(m->vm->loop), tick, m);
    timer_init(&m->patience, loop_timers(m->vm->loop), cut_short, m);
    timer_arm(&m->tick, vm_now_ns() + TICK_NS);
    worker_start(m->worker, out_job, m);
}

void control_do_migrate_cancel(struct control_call *call)
{
    struct vm_migration *m = call->vm->migration;
    struct err err = ERR_INIT;

    if (!m || !m->source)
        err_set(&err, ENOENT, "no migration is under way");
    else if (migrate_source_cancel(m->source))
        err_set(&err, EBUSY, "it is too late: the machine has been handed over");
    if (err.code) {
        control_fail(call, &err);
        return;
    }
    timer_arm(&m->patience, vm_now_ns() + CANCEL_NS);
    control_reply(call, NULL);
}

void control_do_migrate_status(struct control_call *call)
{
    struct vm_migration *m = call->vm->migration;
    const char *state = vm_migrate_state(call->vm);

    if (m && m->source)
        control_reply(call, progress_json(m->source));
    else
        control_reply(call, json_pack("{s:s}", "phase", state ? state : "none"));
}

/* Main loop. */
static void decide_done(void *opaque)
{
    struct vm_migration *m = opaque;
    enum migrate_owner owner = migrate_source_owner(m->source);
    struct control_call *call = m->call;

    m->call = NULL;
    if (m->result)
        control_fail(call, &m->error);
    else
        control_reply(call, json_pack("{s:s}", "owner", migrate_owner_name(owner)));
    if (owner == MIGRATE_OURS || owner == MIGRATE_GONE)
        forget_source(m);
    if (owner == MIGRATE_GONE)
        vm_stop(m->vm, VM_END_MOVED, 0);
}

static void decide_job(void *opaque)
{
    struct vm_migration *m = opaque;

    m->error = ERR_INIT;
    m->result = migrate_source_decide(m->source, m->decision, &m->error);
    while (loop_call(m->vm->loop, decide_done, m))
        usleep(1000);
}

/* The supervisor was asked ("never", "ran"), or a person decides ("claim", "abandon"). */
void control_do_migrate_decide(struct control_call *call)
{
    static const struct {
        const char *name;
        enum migrate_event event;
    } events[] = {
        {"never", MIGRATE_EV_NEVER},
        {"ran", MIGRATE_EV_RAN},
        {"claim", MIGRATE_EV_CLAIM},
        {"abandon", MIGRATE_EV_ABANDON},
    };
    struct vm_migration *m = call->vm->migration;
    struct err err = ERR_INIT;
    const char *text;
    int rc = control_text(call, "answer", "", &text, &err);
    size_t i = 0;

    while (i < ARRAY_LEN(events) && !rc && strcmp(events[i].name, text))
        i++;
    if (!rc && (!m || !m->source || m->call))
        rc = err_set(&err, EINVAL, "nothing is undecided about this machine");
    else if (!rc && i == ARRAY_LEN(events))
        rc = err_set(&err, EINVAL, "answer: '%s' is unknown", text);
    if (rc) {
        control_fail(call, &err);
        return;
    }
    m->call = call;
    m->decision = events[i].event;
    worker_start(m->worker, decide_job, m);
}

/* --- in --- */

/* Main loop. */
static void in_done(void *opaque)
{
    struct vm_migration *m = opaque;
    struct vm *vm = m->vm;

    if (!m->result)
        return;
    if (migrate_destination_runs(m->destination)) {
        log_warn("%s: %s; %llu pages are still to come, the guest waits for those it touches",
                 vm->config->name, m->error.msg,
                 (unsigned long long)migrate_destination_missing(m->destination));
        return;
    }
    vm->failure = m->error;
    vm_stop(vm, VM_END_FAILED, 0);
}

static void in_job(void *opaque)
{
    struct vm_migration *m = opaque;

    m->error = ERR_INIT;
    /* Without a doorman all is as well, but a broken line may be hard to mend. */
    if (!m->doorman)
        migrate_doorman_start(m, &m->doorman, NULL);
    m->result = migrate_destination_run(m->destination, &m->error);
    atomic_store(&m->receiving, false);
    while (loop_call(m->vm->loop, in_done, m))
        usleep(1000);
}

int vm_migrate_in(struct vm *vm, const int *fds, unsigned nfds, struct migrate_word *word,
                  struct err *err)
{
    struct vm_migration *m = vm_migration_get(vm, err);
    int rc = m ? 0 : -err->code;

    if (rc)
        for (unsigned i = 0; i < nfds; i++)
            close(fds[i]);
    else
        vm_migration_take_disks(m);
    if (!rc)
        rc = migrate_destination_new(&m->guest, word, fds, nfds, &m->destination, err);
    if (!rc) {
        atomic_store(&m->receiving, true);
        worker_start(m->worker, in_job, m);
    }
    return rc;
}

/* Its source has a new line, so the old one is broken, also if nothing on this side shows it. */
static int drop_old_line(struct vm_migration *m, int fd, struct err *err)
{
    struct migrate_destination *d = m->destination;

    if (atomic_load(&m->receiving) && migrate_destination_runs(d) &&
        !migrate_destination_has_line(d, fd))
        migrate_destination_cut(d);
    else if (atomic_load(&m->receiving))
        return err_set(err, EINVAL, "this machine waits for no new line");
    for (int tries = 0; atomic_load(&m->receiving); tries++) {
        if (tries == DROP_MS)
            return err_set(err, ETIMEDOUT, "the old line is still in use");
        usleep(1000);
    }
    return 0;
}

int vm_migration_again(struct vm_migration *m, const int *fds, unsigned nfds, struct err *err)
{
    int rc = 0;

    pthread_mutex_lock(&m->again_lock);
    if (!m->destination || m->source || !nfds)
        rc = err_set(err, EINVAL, "this machine waits for no new line");
    else
        rc = drop_old_line(m, fds[0], err);
    /* One that has all of its memory says so once more: the source has not heard it. */
    if (!rc)
        rc = migrate_destination_again(m->destination, fds, nfds, err);
    else
        for (unsigned i = 0; i < nfds; i++)
            close(fds[i]);
    if (!rc) {
        m->result = 0;
        atomic_store(&m->receiving, true);
        worker_start(m->worker, in_job, m);
    }
    pthread_mutex_unlock(&m->again_lock);
    return rc;
}

void control_do_migrate_again(struct control_call *call)
{
    struct err err = ERR_INIT;
    struct vm_migration *m = vm_migration_get(call->vm, &err);
    int fds[MIGRATE_CONNECTIONS];
    unsigned nfds = m ? take_fds(call, fds) : 0;

    if (!m || vm_migration_again(m, fds, nfds, &err))
        control_fail(call, &err);
    else
        control_reply(call, NULL);
}

/* --- for the rest of the VMM --- */

void vm_migrate_free(struct vm *vm)
{
    struct vm_migration *m = vm->migration;

    if (m && m->source) {
        migrate_source_cancel(m->source);
        migrate_source_cut(m->source);
    }
    if (m && m->destination)
        migrate_destination_cut(m->destination);
    if (m)
        migrate_doorman_stop(m->doorman);
    worker_free(vm->worker);
    vm->worker = NULL;
    if (!m)
        return;
    timer_cancel(&m->throttle_tick);
    vm_migration_network_fini(m);
    if (m->source)
        forget_source(m);
    dirty_stop(&vm->ram, &m->log);
    migrate_disks_stop(&m->disks);
    migrate_destination_free(m->destination);
    pthread_mutex_destroy(&m->again_lock);
    free(m);
    vm->migration = NULL;
}

void vm_migrate_interrupt(struct vm *vm)
{
    struct vm_migration *m = vm->migration;

    if (!m || !m->destination)
        return;
    migrate_destination_interrupt(m->destination);
    if (vm->ended)
        migrate_destination_abandon(m->destination);
}
