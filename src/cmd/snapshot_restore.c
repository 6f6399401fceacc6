/*
 * `trapeze snapshot restore` and `clone`: new guests from a snapshot.
 *
 * Each gets overlays on the snapshot's disks and a new VM generation id; clones a new uuid as well. Its process opens the
 * snapshot's files before it locks itself in and keeps them open: the snapshot may be removed while it runs.
 *
 * The lock on snapshots is held until the guest's record names its overlays, so nobody takes them for leftovers, and until
 * the snapshot's own files are open. Each clone takes it anew.
 */
#include "cmd/snapshot.h"

#include "cmd/launch.h"
#include "vm/option.h"
#include "vm/value.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME = SNAP_OWN, ACCEL, CLOCK, DETACH, DEBUG_FILE, REPORT };
enum { COUNT = SNAP_OWN, CLONE_ACCEL, CLONE_CLOCK, PREFIX, NEW_MAC };

#define CLONES_MAX 10000

struct restore {
    const char *verb;      /* for messages */
    const char *name_from; /* see launch.h */
    struct host *h;
    const struct snapshot *s;
    struct state_buf state;
    size_t state_at; /* where the machine's state begins */
    struct vm_config config;
    struct vm_identity id, fork; /* as saved; of the guest that is made */
    enum vm_clock clock;
    bool background;
    bool fork_uuid, new_mac;
    const char *root;
    int lock;
};

/* --- in the new guest's process --- */

/* In the background it may be started again, with what the snapshot boots, when that has long been removed. */
static int keep_kernel(const struct host *h, const struct restore *r, const char *id,
                       struct err *err)
{
    auto_free char *snapshot = snapshot_path(h, r->s->id, NULL);
    auto_free char *guest = place_guest(&h->place, id, NULL);
    auto_close int from = snapshot ? open(snapshot, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    auto_close int to = guest ? open(guest, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (from < 0 || to < 0)
        return err_sys(err, errno, "cannot open the folders of the guest and its snapshot");
    return snap_copy_file(from, to, "kernel", err);
}

/* The snapshot's files, which are opened beside the building of the machine: the map of a large one takes milliseconds. */
struct opening {
    struct restore *r;
    const char *id; /* the new guest's */
    struct vm_restore from;
    struct err err;
    int rc;
};

static int open_files(struct opening *o)
{
    struct restore *r = o->r;
    struct host h = {.place = r->h->place};

    if (r->background && keep_kernel(&h, r, o->id, &o->err))
        return -o->err.code;
    o->from.memory = snap_open_memory(&h, r->s, &o->err);
    if (!o->from.memory)
        return -o->err.code;
    o->from.kernel = snapshot_open_file(&h, r->s->id, "kernel", NULL);
    o->from.working_set = snapshot_open_working_set(&h, r->s->id);
    if (r->background)
        snapshots_let_go(r->lock); /* for the parent, too; launch() closes what we inherited */
    else
        snapshots_unlock(&r->lock);
    return 0;
}

static void *opening_thread(void *opaque)
{
    struct opening *o = opaque;

    o->rc = open_files(o);
    return NULL;
}

static void close_files(const struct vm_restore *from)
{
    snapchain_free(from->memory);
    if (from->kernel >= 0)
        close(from->kernel);
    if (from->working_set >= 0)
        close(from->working_set);
}

/* Of what is wrong with both, the snapshot's is said. */
static int open_and_make(struct opening *o, const struct vm_config *config, struct vm **ret_vm,
                         struct err *err)
{
    pthread_t thread;
    bool beside = !pthread_create(&thread, NULL, opening_thread, o);

    if (!beside)
        opening_thread(o);
    int rc = !beside && o->rc ? o->rc : vm_new_from(config, &o->r->fork, ret_vm, err);
    if (beside)
        pthread_join(thread, NULL);
    if (o->rc) {
        if (!rc)
            vm_free(*ret_vm);
        *err = o->err;
        return o->rc;
    }
    if (rc)
        close_files(&o->from);
    return rc;
}

/* The build hook: the record is there, files are opened now. */
static int build(void *opaque, const struct vm_config *config, const char *id, struct vm **ret_vm,
                 struct err *err)
{
    struct restore *r = opaque;
    struct state_source state = state_buf_source(&r->state);
    struct opening o = {.r = r,
                        .id = id,
                        .from = {.state = &state,
                                 .kernel = -1,
                                 .working_set = -1,
                                 .id = r->s->id,
                                 .clock = r->clock},
                        .err = ERR_INIT};
    struct vm *vm = NULL;
    int rc = open_and_make(&o, config, &vm, err);

    if (rc)
        return rc;
    r->state.at = r->state_at;
    if ((rc = vm_restore(vm, &o.from, err)))
        err_wrap(err, "snapshot '%s'", r->s->name);
    rc = rc ? rc : vm_resume(vm);
    if (o.from.kernel >= 0)
        close(o.from.kernel);
    if (rc) {
        vm_free(vm);
        return rc;
    }
    *ret_vm = vm;
    return 0;
}

/* --- before --- */

static int give_disk(struct restore *r, unsigned i, struct err *err)
{
    const struct snapshot_disk *d = &r->s->disk[i];
    struct vm_disk_config *to = &r->config.disk[i];
    char *path = NULL;
    int rc = 0;

    if (d->readonly)
        path = strdup(d->layer[0].path);
    else
        rc = layer_new(r->h, &d->layer[0], d->size, &path, err);
    if (rc || !path)
        return rc ? err_wrap(err, "disk %u", i) : err_set(err, ENOMEM, "no memory");
    for (unsigned k = 0; k < d->nlayers; k++)
        if (access(d->layer[k].path, R_OK)) {
            rc = err_sys(err, errno, "disk %u: '%s', which the snapshot stands on", i,
                         d->layer[k].path);
            if (!d->readonly)
                unlink(path);
            free(path);
            return rc;
        }
    free(to->path);
    to->path = path;
    to->trust = !d->readonly || d->nlayers > 1;
    snprintf(to->format, sizeof(to->format), "%s", d->readonly ? d->layer[0].format : "qcow2");
    return 0;
}

static void drop_disks(struct restore *r, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (!r->s->disk[i].readonly)
            unlink(r->config.disk[i].path);
}

/* Everything of the description that belongs to the host it was saved on. */
static int adapt(struct restore *r, const char *accel, const char *debug_file, struct err *err)
{
    struct vm_config *c = &r->config;

    free(c->serial.path);
    c->serial = (struct vm_serial_config){.kind = r->background ? VM_SERIAL_LOG : VM_SERIAL_STDIO};
    free(c->debug_console_path);
    c->debug_console_path = debug_file ? strdup(debug_file) : NULL;
    snprintf(c->accel, sizeof(c->accel), "%s", accel ? accel : "auto");
    free(c->root);
    c->root = r->root ? strdup(r->root) : NULL;
    if (c->ndisks != r->s->ndisks)
        return err_set(err, EBADMSG, "snapshot '%s': its manifest has %u disks, its state %u",
                       r->s->name, r->s->ndisks, c->ndisks);
    return 0;
}

static int set_name(struct vm_config *c, const char *name, struct err *err)
{
    for (const struct vm_option *o = vm_options; o->name; o++)
        if (!strcmp(o->name, "name"))
            return o->parse(c, name, err);
    return 0;
}

/* For all clones but the first: the snapshot may have gone since. */
static int lock_again(struct restore *r, struct err *err)
{
    struct snapshot now = {0};
    int rc = snapshots_lock(r->h, &r->lock, err);

    if (!rc && (rc = snapshot_read(r->h, r->s->id, &now, err)))
        err_wrap(err, "'%s' was there a moment ago", r->s->name);
    snapshot_fini(&now);
    return rc;
}

/* One new guest. Returns an exit status, or -errno. */
static int start_one(struct restore *r, const char *name, bool report, struct err *err)
{
    struct launch l = {.verb = r->verb,
                       .config = &r->config,
                       .named = true,
                       .name_from = r->name_from,
                       .background = r->background,
                       .report = report,
                       .host = r->background ? NULL : r->h,
                       .build = build,
                       .opaque = r};
    unsigned disks = 0;
    int rc = 0;

    if ((rc = set_name(&r->config, name, err)))
        return err_wrap(err, "name");
    if (r->lock < 0 && (rc = lock_again(r, err)))
        return rc;
    r->fork = r->id;
    vm_identity_fork(&r->fork, r->new_mac);
    if (!r->fork_uuid)
        memcpy(r->fork.uuid, r->id.uuid, sizeof(r->id.uuid));
    while (disks < r->s->ndisks && !(rc = give_disk(r, disks, err)))
        disks++;
    if (rc) {
        drop_disks(r, disks);
        return rc;
    }
    snapshot_step("restore-disks");
    if (r->background) { /* the process that is forked opens them anew */
        records_close(r->h->records);
        r->h->records = NULL;
    }
    int status = launch(&l);
    if (status != STATUS_OK && r->background)
        drop_disks(r, disks); /* it does not run */
    snapshots_unlock(&r->lock);
    snapshot_step("restored");
    return status;
}

static int open_restore(struct restore *r, const char *what, struct snapshot *s, struct err *err)
{
    int rc = snapshots_lock(r->h, &r->lock, err);

    rc = rc ? rc : snapshot_find(r->h, what, s, err);
    if (rc)
        return rc;
    r->s = s;
    rc = snap_open_state(r->h, s, &r->state, &r->config, &r->id, err);
    r->state_at = r->state.at;
    return rc;
}

static void close_restore(struct restore *r, struct snapshot *s)
{
    snapshots_unlock(&r->lock);
    if (r->s)
        vm_config_fini(&r->config);
    state_buf_fini(&r->state);
    snapshot_fini(s);
}

static int read_clock(const char *text, enum vm_clock *ret_clock, struct err *err)
{
    if (text && strcmp(text, "real") && strcmp(text, "frozen"))
        return sub_usage(err, "--clock '%s' is not known; there are real and frozen", text);
    *ret_clock = text && !strcmp(text, "frozen") ? VM_CLOCK_FROZEN : VM_CLOCK_REAL;
    return 0;
}

static int run_restore(const struct sub_args *a, struct host *h, struct err *err)
{
    struct restore r = {
        .verb = "snapshot restore", .h = h, .lock = -1, .root = a->value[SNAP_ROOT]};
    struct snapshot s = {0};
    int rc = read_clock(a->value[CLOCK], &r.clock, err);

    r.background = a->value[DETACH];
    rc = rc ? rc : open_restore(&r, a->operand[0], &s, err);
    rc = rc ? rc : adapt(&r, a->value[ACCEL], a->value[DEBUG_FILE], err);
    if (!rc)
        rc = start_one(&r, a->value[NAME] ? a->value[NAME] : s.guest, a->value[REPORT], err);
    close_restore(&r, &s);
    return rc;
}

/* Ports of the host can be forwarded to one guest only. */
static void drop_forwards(struct vm_config *c)
{
    for (unsigned i = 0; i < c->nnets; i++)
        c->net[i].nfwds = 0;
}

static int run_clone(const struct sub_args *a, struct host *h, struct err *err)
{
    struct restore r = {.verb = "snapshot clone",
                        .name_from = "--name-prefix",
                        .h = h,
                        .lock = -1,
                        .root = a->value[SNAP_ROOT]};
    const char *prefix = a->value[PREFIX];
    struct snapshot s = {0};
    u64 count = 1;
    int rc = read_clock(a->value[CLONE_CLOCK], &r.clock, err);

    if (!rc && a->value[COUNT] && value_number(a->value[COUNT], 1, CLONES_MAX, &count, err))
        return sub_usage(err, "--count: %s", ((struct err) * err).msg);
    r.background = r.fork_uuid = true;
    r.new_mac = a->value[NEW_MAC];
    rc = rc ? rc : open_restore(&r, a->operand[0], &s, err);
    rc = rc ? rc : adapt(&r, a->value[CLONE_ACCEL], NULL, err);
    if (!rc)
        drop_forwards(&r.config);
    for (u64 i = 1; i <= count && !rc; i++) {
        char name[RECORD_NAME_SIZE + 24];

        snprintf(name, sizeof(name), "%s-%llu", prefix ? prefix : s.name, (unsigned long long)i);
        rc = start_one(&r, name, false, err);
    }
    close_restore(&r, &s);
    return rc;
}

static const struct args_spec restore_options[] = {
    SNAP_OPTIONS,
    {"name", 'n', "NAME", "what the guest is called (as when the snapshot was taken)"},
    {"accel", 0, "NAME", "what executes the guest: auto, bt or kvm (auto)"},
    {"clock", 0, "WHICH",
     "real: the time since has passed; frozen: it has not, and the guest's clock is late (real)"},
    {"detach", 'd', NULL, "run in the background: print the guest's id when it runs"},
    {"debug-console-file", 0, "FILE",
     "where the debug console of the machine writes, if it has one"},
    {"report", 0, NULL, "at the end, say which accelerator ran and why"},
    {NULL, 0, NULL, NULL},
};
static const struct args_spec clone_options[] = {
    SNAP_OPTIONS,
    {"count", 'c', "N", "how many (1)"},
    {"accel", 0, "NAME", "what executes the guests: auto, bt or kvm (auto)"},
    {"clock", 0, "WHICH", "real or frozen, see restore (real)"},
    {"name-prefix", 'n', "TEXT", "names are TEXT-1, TEXT-2, ... (the snapshot's name)"},
    {"new-mac", 0, NULL, "give every clone other MAC addresses, as soon as its driver looks again"},
    {NULL, 0, NULL, NULL},
};

const struct subverb snap_restore_verb = {
    .name = "restore",
    .usage = "[-d] [--name NAME] SNAPSHOT",
    .summary = "Run a guest from a snapshot: it goes on where it was",
    .options = restore_options,
    .operands_min = 1,
    .operands_max = 1,
    .run_on_host = run_restore,
};

const struct subverb snap_clone_verb = {
    .name = "clone",
    .usage = "[--count N] [--name-prefix TEXT] [--new-mac] SNAPSHOT",
    .summary = "Run several new guests from a snapshot, in the background",
    .options = clone_options,
    .operands_min = 1,
    .operands_max = 1,
    .run_on_host = run_clone,
};
