/* `trapeze snapshot flatten`: an incremental snapshot becomes a full one, under the same name and id. Main thread. */
#include "cmd/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { COMPRESS = SNAP_OWN };

static int fill(const struct host *h, const struct snapshot *old, struct snapshot *new, int dir,
                struct err *err)
{
    auto_free char *path = snapshot_path(h, old->id, NULL);
    auto_close int from = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    struct snapchain *c = snap_open_memory(h, old, err);

    if (!c || from < 0) {
        snapchain_free(c);
        return c ? err_sys(err, errno, "'%s'", old->name) : -err->code;
    }
    int rc = snap_write_memory(c, old->memory_bytes, new->compressed, dir, &new->pages, err);
    snapchain_free(c);
    rc = rc ? rc : snap_copy_file(from, dir, "state", err);
    return rc ? rc : snap_copy_file(from, dir, "kernel", err);
}

static int flatten(struct host *h, const struct snapshot *old, bool compress, struct err *err)
{
    struct snapshot new = *old; /* its disks stay old's */
    int dir = -1, rc = snapshot_begin(h, &new, &dir, err);

    if (rc)
        return rc;
    new.created_ns = old->created_ns;
    new.parent[0] = 0;
    new.compressed = compress;
    rc = fill(h, old, &new, dir, err);
    rc = rc ? rc : snapshot_replace(h, old->id, &new, dir, err);
    if (rc)
        snapshot_abort(h, &new);
    close(dir);
    return rc;
}

static int run(const struct sub_args *a, struct host *h, struct err *err)
{
    auto_close int lock = -1;
    struct snapshot s = {0};
    int rc = snapshots_lock(h, &lock, err);

    rc = rc ? rc : snapshot_find(h, a->operand[0], &s, err);
    if (!rc && !*s.parent && !a->value[COMPRESS])
        rc = err_set(err, EINVAL, "'%s' is a full snapshot already", s.name);
    rc = rc ? rc : flatten(h, &s, a->value[COMPRESS], err);
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
