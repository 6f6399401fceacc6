/* `trapeze snapshot flatten`: an incremental snapshot becomes a full one, under the same name and id. Main thread. */
#include "cmd/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { COMPRESS = SNAP_OWN };

static int fill(const struct host *h, struct snapchain *c, struct snapshot *new, int dir,
                struct err *err)
{
    auto_free char *path = snapshot_path(h, new->id, NULL);
    auto_close int from = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (from < 0)
        return err_sys(err, errno, "'%s'", new->name);
    int rc = snap_write_memory(c, new->memory_bytes, new->compressed, dir, &new->pages, err);
    rc = rc ? rc : snap_copy_file(from, dir, "state", err);
    return rc ? rc : snap_copy_file(from, dir, "kernel", err);
}

/* Drops the lock when others can do no harm any more: the claim keeps the old one, and its memory is open. */
static int flatten(struct host *h, int *lock, const struct snapshot *old, bool compress,
                   struct err *err)
{
    struct snapshot new = *old; /* its disks stay old's */
    struct snapshot_draft draft = SNAPSHOT_DRAFT_INIT;
    struct snap_making making = {0};
    struct snapchain *c = snap_open_memory(h, old, err);
    int rc = c ? snap_making_start(&making, h, &new, &draft, err) : -err->code;

    rc = rc ? rc : snapshot_begin(h, &new, &draft, err);
    snapshots_unlock(lock);
    if (rc) {
        snapchain_free(c);
        snap_making_stop(&making);
        return err_wrap(err, "'%s'", old->name);
    }
    new.parent[0] = 0;
    new.compressed = compress;
    rc = fill(h, c, &new, draft.dir, err);
    snapchain_free(c);
    rc = rc ? rc : snapshot_replace(h, old->id, &new, &draft, err);
    if (rc)
        snapshot_abort(h, &new, &draft);
    snap_making_stop(&making);
    return rc;
}

static int run(const struct sub_args *a, struct host *h, struct err *err)
{
    struct snapshot s = {0};
    int lock = -1, rc = snapshots_lock(h, &lock, err);

    rc = rc ? rc : snapshot_find(h, a->operand[0], &s, err);
    if (!rc && !*s.parent && !a->value[COMPRESS])
        rc = err_set(err, EINVAL, "'%s' is a full snapshot already", s.name);
    rc = rc ? rc : flatten(h, &lock, &s, a->value[COMPRESS], err);
    snapshots_unlock(&lock);
    snapshot_fini(&s);
    return rc;
}

static const struct args_spec options[] = {
    SNAP_OPTIONS,
    {"compress", 0, NULL, "pack its memory with zstd"},
    {NULL, 0, NULL, NULL},
};

const struct subverb snap_flatten_verb = {
    .name = "flatten",
    .usage = "[--compress] SNAPSHOT",
    .summary = "Make an incremental snapshot stand alone",
    .options = options,
    .operands_min = 1,
    .operands_max = 1,
    .run_on_host = run,
};
