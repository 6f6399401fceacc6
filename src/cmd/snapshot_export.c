/*
 * `trapeze snapshot export`. Main thread. The file appears under its name when all of it is on the medium (cmd/new_file.h).
 *
 * All that is read is opened with the lock on snapshots held, and copied without it: whoever removes the snapshot meanwhile
 * takes the names away, not what we have open.
 */
#include "block/image.h"
#include "cmd/new_file.h"
#include "cmd/snapshot_file.h"
#include "host/snapshot_manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

enum { COMPRESS = SNAP_OWN };

struct export
{
    struct host *h;
    const struct snapshot *s;
    struct snapchain *memory;
    struct block_image *image[VM_DISKS];
    int state, kernel; /* -1: it has none */
    struct state_sink to;
    bool compress;
    u32 sections;
    u8 raw[SNAPFILE_PIECE], out[SNAPFILE_HEAD + ZSTD_COMPRESSBOUND(SNAPFILE_PIECE)];
};

static int put(struct export *x, const char *name, u32 instance, u32 version, const void *bytes,
               u64 len, struct err *err)
{
    x->sections++;
    return state_write_section(&x->to, name, instance, version, bytes, len, err);
}

/* x->raw with its head. */
static int put_raw(struct export *x, const char *name, u32 instance, u64 where, u32 what,
                   size_t len, struct err *err)
{
    u64 at = htole64(where);
    u32 bits = htole32(what);
    size_t packed = 0;

    memset(x->out, 0, SNAPFILE_HEAD);
    memcpy(x->out, &at, 8);
    memcpy(x->out + 8, &bits, 4);
    if (x->compress) {
        packed =
            ZSTD_compress(x->out + SNAPFILE_HEAD, sizeof(x->out) - SNAPFILE_HEAD, x->raw, len, 1);
        if (ZSTD_isError(packed))
            return err_set(err, EIO, "%s: cannot be packed", name);
    } else {
        memcpy(x->out + SNAPFILE_HEAD, x->raw, len);
        packed = len;
    }
    return put(x, name, instance, x->compress ? SNAPFILE_PACKED : SNAPFILE_PLAIN, x->out,
               SNAPFILE_HEAD + packed, err);
}

static int put_manifest(struct export *x, u64 pages, struct err *err)
{
    struct snapshot s = *x->s;

    s.parent[0] = 0;
    s.compressed = false;
    s.pages = pages;
    json_t *o = manifest_write(&s);
    auto_free char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

    json_decref(o);
    return text ? put(x, "snapshot", 0, 1, text, strlen(text), err)
                : err_set(err, ENOMEM, "no memory");
}

static int put_file(struct export *x, const char *file, int fd, struct err *err)
{
    struct stat st;

    if (fd < 0)
        return 0;
    if (fstat(fd, &st))
        return err_sys(err, errno, "%s", file);
    auto_free u8 *bytes = malloc(MAX((size_t)st.st_size, (size_t)1));
    if (!bytes)
        return err_set(err, ENOMEM, "no memory");
    if (read(fd, bytes, (size_t)st.st_size) != st.st_size)
        return err_set(err, EIO, "%s: cannot be read", file);
    return put(x, file, 0, 1, bytes, (u64)st.st_size, err);
}

static int put_chunk(struct export *x, struct snapchain *c, u64 chunk, struct err *err)
{
    u32 bits = 0;
    size_t len = 0;

    for (u64 i = 0; i < SNAPMAP_CHUNK; i++) {
        u64 page = chunk * SNAPMAP_CHUNK + i;

        if (!snapchain_who(c, page))
            continue;
        int rc = snapchain_page(c, page, x->raw + len);
        if (rc)
            return err_sys(err, -rc, "memory at offset 0x%llx%s", page * SNAPMAP_PAGE,
                           rc == -EBADMSG ? ": checksum is wrong, the file is damaged" : "");
        bits |= (u32)BIT(i);
        len += SNAPMAP_PAGE;
    }
    return bits ? put_raw(x, "pages", 0, chunk, bits, len, err) : 0;
}

static int put_memory(struct export *x, struct snapchain *c, struct err *err)
{
    int rc = 0;

    for (u64 chunk = 0; chunk < c->layer[0].map.pages / SNAPMAP_CHUNK && !rc; chunk++)
        rc = put_chunk(x, c, chunk, err);
    return rc;
}

static bool all_zero(const u8 *p, size_t len)
{
    return !*p && !memcmp(p, p + 1, len - 1);
}

static int put_image(struct export *x, u32 instance, struct block_image *image, struct err *err)
{
    u64 size = block_image_size(image);
    int rc = 0;

    for (u64 at = 0; at < size && !rc;) {
        struct block_image *owner;
        struct block_extent e;

        rc = block_image_map(image, at, MIN(size - at, SNAPFILE_PIECE), &e, &owner, err);
        if (rc)
            break;
        u64 len = MIN(e.len, SNAPFILE_PIECE);
        if (e.kind != BLOCK_KIND_ZERO && e.kind != BLOCK_KIND_ABSENT) {
            rc = block_image_read(image, x->raw, len, at, err);
            if (!rc && !all_zero(x->raw, len))
                rc = put_raw(x, "disk", instance, at, (u32)len, len, err);
        }
        at += len;
    }
    return rc;
}

static int write_all(struct export *x, struct err *err)
{
    const struct snapchain *c = x->memory;
    u64 pages = 0;

    for (u64 i = 0; i < c->layer[0].map.pages; i++)
        pages += snapchain_who(c, i) != 0;
    int rc = state_write_head(&x->to, err);
    rc = rc ? rc : put_manifest(x, pages, err);
    rc = rc ? rc : put_file(x, "state", x->state, err);
    rc = rc ? rc : put_file(x, "kernel", x->kernel, err);
    rc = rc ? rc : put_memory(x, x->memory, err);
    for (unsigned i = 0; i < x->s->ndisks && !rc; i++)
        rc = put_image(x, i, x->image[i], err);
    return rc ? rc : state_write_end(&x->to, x->sections, err);
}

static int open_disk(struct export *x, unsigned i, struct err *err)
{
    const struct snapshot_layer *top = &x->s->disk[i].layer[0];
    struct block_image_options o = {
        .format = top->format, .readonly = true, .shared = true, .trust = true};
    int rc = block_image_open(top->path, &o, &x->image[i], err);

    return rc ? err_wrap(err, "disk %u", i) : 0;
}

static int open_all(struct export *x, struct err *err)
{
    int rc = 0;

    x->kernel = snapshot_open_file(x->h, x->s->id, "kernel", NULL);
    x->state = snapshot_open_file(x->h, x->s->id, "state", err);
    x->memory = x->state < 0 ? NULL : snap_open_memory(x->h, x->s, err);
    if (!x->memory)
        return -err->code;
    for (unsigned i = 0; i < x->s->ndisks && !rc; i++)
        rc = open_disk(x, i, err);
    return rc;
}

static void close_all(struct export *x)
{
    int fds[] = {x->state, x->kernel};

    for (unsigned i = 0; i < VM_DISKS; i++)
        block_image_close(x->image[i]);
    snapchain_free(x->memory);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static int export_to(struct export *x, const char *path, struct err *err)
{
    struct new_file target;
    int fd, rc = new_file_open(&target, path, NEW_FILE_PRIVATE, err);

    if (rc)
        return rc;
    fd = open(target.work, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        rc = err_sys(err, errno, "'%s'", target.work);
    x->to = state_fd_sink(&fd);
    rc = rc ? rc : write_all(x, err);
    snapshot_step("export-written");
    if (!rc && fsync(fd))
        rc = err_sys(err, errno, "'%s'", target.work);
    if (fd >= 0)
        close(fd);
    return new_file_close(&target, rc, true, err);
}

static int run(const struct sub_args *a, struct host *h, struct err *err)
{
    auto_free struct export *x = calloc(1, sizeof(*x));
    struct snapshot s = {0};
    int lock = -1, rc = 0;

    if (!x)
        return err_set(err, ENOMEM, "no memory");
    *x =
        (struct export){.h = h, .s = &s, .state = -1, .kernel = -1, .compress = a->value[COMPRESS]};
    rc = snapshots_lock(h, &lock, err);
    rc = rc ? rc : snapshot_find(h, a->operand[0], &s, err);
    rc = rc ? rc : open_all(x, err);
    snapshots_unlock(&lock);
    rc = rc ? rc : export_to(x, a->operand[1], err);
    close_all(x);
    snapshot_fini(&s);
    return rc;
}

static const struct args_spec options[] = {
    SNAP_OPTIONS,
    {"compress", 0, NULL, "pack it with zstd"},
    {NULL, 0, NULL, NULL},
};

const struct subverb snap_export_verb = {
    .name = "export",
    .usage = "[--compress] SNAPSHOT FILE",
    .summary = "Write a snapshot with all it stands on into one file",
    .options = options,
    .operands_min = 2,
    .operands_max = 2,
    .run_on_host = run,
};
