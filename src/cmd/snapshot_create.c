/*
 * `trapeze snapshot create`: opens the files that the machine's process is to fill, and keeps what it made.
 *
 * Order, so that being killed between any two steps harms nothing: overlays are made; the guest's record names them (empty
 * ones read as what is below, so starting the guest again is right whether it has switched or not); the machine copies and
 * switches; everything is synced; the folder gets its name. A snapshot that failed after the switch leaves the guest on
 * overlays, which costs nothing but their files. A signal that ends us takes the unfinished folder away; the machine hears
 * that its caller has gone.
 *
 * The lock on snapshots is held until the machine is asked, and again for giving the name. In between a claim keeps what is
 * needed (host/snapshot.h), and a lock of the guest's own keeps a second snapshot of it away: overlays of both would stand
 * on the same image.
 */
#include "cmd/snapshot.h"

#include "block/file.h"
#include "cmd/guests.h"
#include "host/lock.h"
#include "vm/option.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { COMPRESS = SNAP_OWN, PARENT };

struct create {
    struct host *h;
    struct record record;
    struct client client;
    struct snapshot s;
    json_t *plan;
    bool compress, incremental, kernel;
    struct snapshot_draft draft;
    int lock, guest_lock; /* on snapshots; on this guest's */
    int fd[4 + VM_DISKS];
    unsigned nfds;
    char *overlay[VM_DISKS]; /* by disk, NULL: none */
};

/* --- what is there --- */

/* A path as the machine's process knows it: relative ones are seen from its folder. */
static char *absolute(const struct create *c, const char *path)
{
    char link[64], folder[4096], *whole = NULL;

    if (*path == '/')
        return strdup(path);
    snprintf(link, sizeof(link), "/proc/%d/cwd", c->record.pid);
    ssize_t n = readlink(link, folder, sizeof(folder) - 1);
    if (n < 0)
        return NULL;
    folder[n] = 0;
    return asprintf(&whole, "%s/%s", folder, path) < 0 ? NULL : whole;
}

static int note_disk(struct create *c, const json_t *o, struct err *err)
{
    struct snapshot_disk *d = &c->s.disk[c->s.ndisks++];
    const json_t *layers = json_object_get(o, "layers");

    d->size = (u64)json_integer_value(json_object_get(o, "size"));
    d->readonly = json_is_true(json_object_get(o, "readonly"));
    if (json_array_size(layers) > SNAPSHOT_LAYERS)
        return err_set(
            err, E2BIG,
            "disk %u is a chain of more than %d images; 'trapeze disk commit' or convert "
            "shortens it",
            c->s.ndisks - 1, SNAPSHOT_LAYERS);
    for (size_t i = 0; i < json_array_size(layers); i++) {
        const json_t *l = json_array_get(layers, i);
        struct snapshot_layer *to = &d->layer[i];
        const char *path = json_string_value(json_object_get(l, "path"));
        const char *format = json_string_value(json_object_get(l, "format"));

        to->path = path && format ? absolute(c, path) : NULL;
        if (!to->path)
            return err_set(err, ENOENT, "disk %u: its image '%s' cannot be found", c->s.ndisks - 1,
                           path ? path : "?");
        snprintf(to->format, sizeof(to->format), "%s", format);
        d->nlayers++;
    }
    return 0;
}

static int note_disks(struct create *c, struct err *err)
{
    const json_t *disks = json_object_get(c->plan, "disks");
    int rc = 0;

    c->s.disk = calloc(VM_DISKS, sizeof(*c->s.disk));
    if (!c->s.disk)
        return err_set(err, ENOMEM, "no memory");
    for (size_t i = 0; i < MIN(json_array_size(disks), (size_t)VM_DISKS) && !rc; i++) {
        rc = note_disk(c, json_array_get(disks, i), err);
        if (!rc && c->record.transient && !c->s.disk[i].readonly)
            rc = err_set(
                err, ENOTSUP,
                "it runs in a foreground and leaves no record, so nothing would remember that its "
                "disk has a new overlay; run it in the background (-d) to take snapshots of it");
    }
    return rc;
}

static int check_parent(struct create *c, const char *parent, struct err *err)
{
    const char *base = json_string_value(json_object_get(c->plan, "base"));
    struct snapshot p = {0}, b = {0};
    int rc = snapshot_find(c->h, parent, &p, err);

    if (rc)
        return err_wrap(err, "--parent");
    memcpy(c->s.parent, p.id, sizeof(c->s.parent));
    if (!base || strcmp(base, p.id)) {
        bool known = base && *base && !snapshot_read(c->h, base, &b, NULL);

        rc = err_set(err, EINVAL, "--parent: what '%s' has changed since '%s' is not known; %s%s%s",
                     c->record.name, p.name,
                     known ? "it can stand on '" : "take a full snapshot first",
                     known ? b.name : "", known ? "'" : "");
    }
    snapshot_fini(&p);
    snapshot_fini(&b);
    return rc;
}

/* Until the end, or our death, no other process takes one of this guest. */
static int lock_guest(struct create *c, struct err *err)
{
    auto_free char *path = place_guest(&c->h->place, c->record.id, "snapshot.lock");

    if (!path)
        return err_set(err, ENOMEM, "no memory");
    c->guest_lock = lock_hold(path, err);
    if (c->guest_lock == -EBUSY)
        return err_set(err, EBUSY, "%s: another process is taking a snapshot of it right now",
                       c->record.name);
    return MIN(c->guest_lock, 0);
}

static int ask_plan(struct create *c, const char *guest, const char *name, const char *parent,
                    struct err *err)
{
    int rc = snapshot_check_name(c->h, name, err);

    rc = rc ? rc : host_find(c->h, guest, &c->record, err);
    rc = rc ? rc : guest_connect(c->h, &c->record, &c->client, err);
    if (rc == -ESRCH)
        return err_wrap(err, "%s", c->record.name);
    rc = rc ? rc : lock_guest(c, err);
    rc = rc ? rc : client_call(&c->client, "snapshot-plan", NULL, &c->plan, err);
    if (rc)
        return rc;
    snprintf(c->s.name, sizeof(c->s.name), "%s", name);
    snprintf(c->s.guest, sizeof(c->s.guest), "%s", c->record.name);
    snprintf(c->s.accel, sizeof(c->s.accel), "%s",
             json_string_value(json_object_get(c->plan, "accel")) ?: "");
    c->s.memory_bytes = (u64)json_integer_value(json_object_get(c->plan, "memory"));
    c->kernel = json_is_true(json_object_get(c->plan, "kernel"));
    rc = note_disks(c, err);
    return rc || !parent ? rc : check_parent(c, parent, err);
}

/* --- files --- */

static int new_file(struct create *c, const char *name, struct err *err)
{
    int fd = openat(c->draft.dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_sys(err, errno, "%s", name);
    c->fd[c->nfds++] = fd;
    return 0;
}

/* A kernel never changes: an incremental snapshot shares its parent's file. */
static int share_kernel(struct create *c, struct err *err)
{
    auto_free char *path = snapshot_path(c->h, c->s.parent, NULL);
    auto_close int parent = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    c->kernel = false;
    return parent < 0 ? err_sys(err, errno, "the parent's folder")
                      : snap_copy_file(parent, c->draft.dir, "kernel", err);
}

static int make_files(struct create *c, struct err *err)
{
    int rc = snapshot_begin(c->h, &c->s, &c->draft, err);

    rc = rc ? rc : new_file(c, "memory", err);
    if (!rc && ftruncate(c->fd[0], (off_t)c->s.memory_bytes))
        rc = err_sys(err, errno, "memory");
    rc = rc ? rc : new_file(c, "map", err);
    rc = rc ? rc : new_file(c, "state", err);
    if (!rc && c->kernel && *c->s.parent)
        return share_kernel(c, err);
    return rc || !c->kernel ? rc : new_file(c, "kernel", err);
}

static int make_overlays(struct create *c, json_t *list, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < c->s.ndisks && !rc; i++) {
        const struct snapshot_disk *d = &c->s.disk[i];
        int fd = -1;

        if (d->readonly)
            continue;
        rc = layer_new(c->h, &d->layer[0], d->size, &c->overlay[i], err);
        rc = rc ? rc : layer_open(c->overlay[i], &fd, err);
        if (rc)
            return err_wrap(err, "overlay of disk %u", i);
        c->fd[c->nfds++] = fd;
        json_array_append_new(list, json_pack("{s:i,s:s}", "disk", (int)i, "path", c->overlay[i]));
    }
    return rc;
}

/* The options of a guest with its disks' new tops; *ret_text stays NULL when there are none. */
static int name_overlays(struct create *c, const char *options, char **ret_text, struct err *err)
{
    struct vm_config config;
    size_t size = 0;
    bool any = false;

    vm_config_init(&config);
    int rc = vm_options_read(&config, options, err);
    for (unsigned i = 0; i < config.ndisks && !rc; i++) {
        if (!c->overlay[i])
            continue;
        any = true;
        free(config.disk[i].path);
        config.disk[i].path = strdup(c->overlay[i]);
        snprintf(config.disk[i].format, sizeof(config.disk[i].format), "qcow2");
        config.disk[i].trust = true;
        rc = config.disk[i].path ? 0 : err_set(err, ENOMEM, "no memory");
    }
    FILE *out = rc || !any ? NULL : open_memstream(ret_text, &size);
    if (out) {
        vm_options_print(&config, out);
        if (fclose(out))
            rc = err_set(err, ENOMEM, "no memory");
    } else if (!rc && any) {
        rc = err_set(err, ENOMEM, "no memory");
    }
    vm_config_fini(&config);
    return rc;
}

/* The guest's record names them; what else has changed in it since we looked stays. */
static int write_record(struct create *c, struct err *err)
{
    struct record now = {0};
    char *text = NULL;
    int rc = records_begin(c->h->records, err);

    if (rc)
        return rc;
    rc = records_get(c->h->records, c->record.id, &now, err);
    rc = rc ? rc : name_overlays(c, now.config, &text, err);
    if (!rc && text) {
        free(now.config);
        now.config = text;
        rc = records_update(c->h->records, &now, err);
    } else {
        free(text);
    }
    rc = rc ? rc : records_commit(c->h->records, err);
    if (rc)
        records_rollback(c->h->records);
    record_fini(&now);
    return rc;
}

/* --- the machine's part --- */

static int have_it_taken(struct create *c, json_t *overlays, json_t **ret_answer, struct err *err)
{
    json_t *args = json_pack("{s:s,s:b,s:b,s:O,s:O*}", "snapshot", c->s.id, "incremental",
                             (int)c->incremental, "kernel", (int)c->kernel, "overlays", overlays,
                             "switched", json_object_get(c->plan, "switched"));
    int rc = client_send(&c->client, "snapshot", args, c->fd, c->nfds, err);

    c->client.timeout_ms = CLIENT_WAIT_FOREVER;
    snapshot_step("asked");
    rc = rc ? rc : client_wait(&c->client, NULL, ret_answer, err);
    snapshot_step("taken");
    return rc;
}

/* Packs the memory of what was just taken; the machine runs on meanwhile. */
static int compress(struct create *c, struct err *err)
{
    struct snapchain *chain = snapchain_new(c->s.name, err);
    int memory = openat(c->draft.dir, "memory", O_RDONLY | O_CLOEXEC);
    int map = openat(c->draft.dir, "map", O_RDONLY | O_CLOEXEC);
    int rc = chain ? snapchain_add(chain, memory, map, c->s.memory_bytes, err) : -ENOMEM;

    if (rc || (rc = snapchain_ready(chain, err))) {
        snapchain_free(chain);
        return rc;
    }
    unlinkat(c->draft.dir, "memory", 0);
    unlinkat(c->draft.dir, "map", 0);
    rc = snap_write_memory(chain, c->s.memory_bytes, true, c->draft.dir, &c->s.pages, err);
    snapchain_free(chain);
    return rc;
}

/* What the snapshot stands on from now on, a guest must not be given to write to. An image that is not ours to change (or
 * no file) is the user's care. */
static void protect_disks(const struct create *c)
{
    for (unsigned i = 0; i < c->s.ndisks; i++) {
        const struct snapshot_disk *d = &c->s.disk[i];
        struct err why = ERR_INIT;

        if (!d->readonly && block_file_protect(d->layer[0].path, true, &why))
            fprintf(stderr,
                    "trapeze snapshot create: warning: %s; nothing may write to it any more\n",
                    why.msg);
    }
}

static int take(struct create *c, struct err *err)
{
    json_t *overlays = json_array(), *answer = NULL;
    char size[32];
    int rc = make_files(c, err);

    c->incremental = *c->s.parent;
    rc = rc ? rc : make_overlays(c, overlays, err);
    snapshot_step("overlays");
    rc = rc ? rc : write_record(c, err);
    snapshot_step("record");
    snapshots_unlock(&c->lock);
    rc = rc ? rc : have_it_taken(c, overlays, &answer, err);
    json_decref(overlays);
    if (!rc) {
        protect_disks(c);
        c->s.pages = (u64)json_integer_value(json_object_get(answer, "pages"));
        c->s.compressed = c->compress;
        if (c->compress)
            rc = compress(c, err);
    }
    rc = rc ? rc : snapshot_commit(c->h, &c->s, &c->draft, err);
    if (!rc)
        fprintf(stderr, "snapshot '%s': %s of memory, %s; the guest stood for %.1f ms\n", c->s.name,
                snap_size(c->s.pages * SNAPMAP_PAGE, size), *c->s.parent ? "incremental" : "full",
                (double)json_integer_value(json_object_get(answer, "pause_ns")) / 1e6);
    json_decref(answer);
    return rc;
}

static void finish(struct create *c)
{
    for (unsigned i = 0; i < c->nfds; i++)
        close(c->fd[i]);
    for (unsigned i = 0; i < VM_DISKS; i++)
        free(c->overlay[i]);
    snapshot_draft_close(&c->draft);
    snapshots_unlock(&c->lock);
    if (c->guest_lock >= 0)
        close(c->guest_lock);
    json_decref(c->plan);
    client_close(&c->client);
    record_fini(&c->record);
    snapshot_fini(&c->s);
}

static int run(const struct sub_args *a, struct host *h, struct err *err)
{
    struct create c = {.h = h,
                       .draft = SNAPSHOT_DRAFT_INIT,
                       .lock = -1,
                       .guest_lock = -1,
                       .client = {.wire.fd = -1}};
    struct snap_making making = {0};

    c.compress = a->value[COMPRESS];
    if (c.compress && a->value[PARENT])
        return sub_usage(err, "--compress: only full snapshots are compressed; 'trapeze snapshot "
                              "flatten --compress' does it later");
    int rc = snapshots_lock(h, &c.lock, err);
    rc = rc ? rc : ask_plan(&c, a->operand[0], a->operand[1], a->value[PARENT], err);
    rc = rc ? rc : snap_making_start(&making, h, &c.s, &c.draft, err);
    if (!rc) {
        rc = take(&c, err);
        if (rc)
            snapshot_abort(h, &c.s, &c.draft);
        else
            printf("%s\n", c.s.id);
    }
    snap_making_stop(&making);
    finish(&c);
    return rc;
}

static const struct args_spec options[] = {
    SNAP_OPTIONS,
    {"compress", 0, NULL, "pack its memory with zstd"},
    {"parent", 0, "SNAPSHOT", "hold only what has changed since that one was taken"},
    {NULL, 0, NULL, NULL},
};

const struct subverb snap_create_verb = {
    .name = "create",
    .usage = "[--compress | --parent SNAPSHOT] GUEST NAME",
    .summary = "Take a snapshot of a guest that runs, and let it run on",
    .options = options,
    .operands_min = 2,
    .operands_max = 2,
    .run_on_host = run,
};
