/*
 * `trapeze snapshot import`: hostile input. Every section is held against its checksum before it is believed, sizes are
 * bounded by what the manifest and the section's kind allow, and nothing is visible before all was right. Main thread.
 */
#include "block/image.h"
#include "block/qcow2.h"
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

#define FILE_MAX (1 * GiB) /* of a section that is a file: kernel and RAM disk */
#define PAGES_BYTES (SNAPMAP_CHUNK * SNAPMAP_PAGE)

struct import {
    struct host *h;
    struct snapshot s;
    struct snapmap map;
    struct block_image *image[VM_DISKS];
    int in, memory, lock;
    struct snapshot_draft draft;
    u64 at; /* in the file */
    bool has_state;
    u64 pages;
    struct state_section section;
    u8 *bytes; /* of the section */
    u8 raw[SNAPFILE_PIECE];
};

static int read_on(void *opaque, void *buf, size_t len)
{
    struct import *x = opaque;
    u8 *p = buf;

    while (len) {
        ssize_t n = pread(x->in, p, len, (off_t)x->at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENODATA;
        p += n;
        x->at += (u64)n;
        len -= (size_t)n;
    }
    return 0;
}

static int wrong(struct import *x, struct err *err, const char *what)
{
    return err_set(err, EBADMSG, "section '%s': %s", x->section.name, what);
}

/* What fails is not the file that is read: err_sys() about a file of the snapshot that is being made. */
static int not_made(const struct import *x, struct err *err, const char *file)
{
    return err_sys(err, errno ? errno : ENOSPC, "cannot write %s/snapshots/.../%s",
                   x->h->place.root, file);
}

/* The next section into x->section and x->bytes. */
static int next(struct import *x, struct err *err)
{
    struct state_source from = {read_on, x};
    struct stat st;
    int rc = state_read_section(&from, &x->section, err);

    if (rc)
        return rc;
    /* No more than the file has: a number in it allocates nothing that it does not hold. */
    if (fstat(x->in, &st) || x->section.len > FILE_MAX ||
        !range_fits(x->at, x->section.len, (u64)st.st_size))
        return wrong(x, err, "is longer than the file");
    free(x->bytes);
    x->bytes = malloc(x->section.len + 1);
    if (!x->bytes)
        return err_set(err, ENOMEM, "no memory");
    return state_read_bytes(&from, &x->section, x->bytes, err);
}

/* --- the manifest --- */

static int make_disk(struct import *x, unsigned i, struct err *err)
{
    struct snapshot_disk *d = &x->s.disk[i];
    struct snapshot_layer none = {.path = NULL};
    struct block_image_options o = {.format = "qcow2", .unsafe = true};
    char *path;
    int rc = layer_new(x->h, &none, d->size, &path, err);

    if (rc)
        return rc;
    /* What it stood on elsewhere is in the file; here it is one layer. */
    for (unsigned k = 0; k < d->nlayers; k++)
        free(d->layer[k].path);
    d->nlayers = 1;
    d->layer[0].path = path;
    snprintf(d->layer[0].format, sizeof(d->layer[0].format), "qcow2");
    return block_image_open(path, &o, &x->image[i], err);
}

static int begin(struct import *x, const char *name, struct err *err)
{
    int rc = next(x, err);

    if (!rc && strcmp(x->section.name, "snapshot"))
        rc = wrong(x, err, "stands where 'snapshot' belongs");
    rc = rc ? rc : manifest_read((char *)x->bytes, x->section.len, &x->s, err);
    if (rc)
        return rc;
    if (name)
        snprintf(x->s.name, sizeof(x->s.name), "%s", name);
    x->s.id[0] = x->s.parent[0] = 0;
    x->s.compressed = false;
    x->s.created_ns = 0;
    /* Its layers are made before the claim that names them, so both while others are kept away. */
    rc = snapshots_lock(x->h, &x->lock, err);
    rc = rc ? rc : snapshot_check_name(x->h, name ? name : x->s.name, err);
    for (unsigned i = 0; i < x->s.ndisks && !rc; i++)
        rc = make_disk(x, i, err);
    rc = rc ? rc : snapshot_begin(x->h, &x->s, &x->draft, err);
    if (rc)
        layers_sweep(x->h);
    snapshots_unlock(&x->lock);
    rc = rc ? rc : snapmap_init(&x->map, x->s.memory_bytes, false, false, err);
    if (rc)
        return rc;
    x->memory = openat(x->draft.dir, "memory", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (x->memory < 0 || ftruncate(x->memory, (off_t)x->s.memory_bytes))
        return not_made(x, err, "memory");
    return 0;
}

/* --- its parts --- */

static int put_file(struct import *x, struct err *err)
{
    auto_close int fd =
        openat(x->draft.dir, x->section.name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        return errno == EEXIST ? wrong(x, err, "is there twice")
                               : not_made(x, err, x->section.name);
    if (write(fd, x->bytes, x->section.len) != (ssize_t)x->section.len)
        return not_made(x, err, x->section.name);
    x->has_state |= !strcmp(x->section.name, "state");
    return 0;
}

/* What is behind the head, `want` bytes of it, into x->raw. */
static int unpack(struct import *x, u64 *ret_where, u32 *ret_what, struct err *err)
{
    if (x->section.len <= SNAPFILE_HEAD ||
        (x->section.version != SNAPFILE_PLAIN && x->section.version != SNAPFILE_PACKED))
        return wrong(x, err, "cannot be so");
    memcpy(ret_where, x->bytes, 8);
    memcpy(ret_what, x->bytes + 8, 4);
    *ret_where = le64toh(*ret_where);
    *ret_what = le32toh(*ret_what);
    return 0;
}

static int unpack_bytes(struct import *x, size_t want, struct err *err)
{
    const u8 *from = x->bytes + SNAPFILE_HEAD;
    size_t len = x->section.len - SNAPFILE_HEAD;

    if (want > sizeof(x->raw) || (x->section.version == SNAPFILE_PLAIN && len != want))
        return wrong(x, err, "has another length than it says");
    if (x->section.version == SNAPFILE_PLAIN)
        memcpy(x->raw, from, len);
    else if (ZSTD_decompress(x->raw, want, from, len) != want)
        return wrong(x, err, "cannot be unpacked");
    return 0;
}

static int put_pages(struct import *x, struct err *err)
{
    u64 chunk = 0, n = 0;
    u32 bits = 0;
    int rc = unpack(x, &chunk, &bits, err);

    if (!rc && (chunk >= x->map.pages / SNAPMAP_CHUNK || bits >> SNAPMAP_CHUNK))
        rc = wrong(x, err, "lies outside of memory");
    rc = rc ? rc : unpack_bytes(x, (size_t)__builtin_popcount(bits) * SNAPMAP_PAGE, err);
    for (u64 i = 0; i < SNAPMAP_CHUNK && !rc; i++) {
        u64 page = chunk * SNAPMAP_CHUNK + i;
        const u8 *bytes = x->raw + n * SNAPMAP_PAGE;

        if (!(bits >> i & 1))
            continue;
        if (snapmap_has(x->map.present, page))
            return wrong(x, err, "has a page that was there before");
        n++;
        snapmap_set(x->map.present, page, true);
        x->map.sum[page] = snapmap_sum(bytes);
        if (pwrite(x->memory, bytes, SNAPMAP_PAGE, (off_t)(page * SNAPMAP_PAGE)) !=
            (ssize_t)SNAPMAP_PAGE)
            return not_made(x, err, "memory");
    }
    x->pages += n;
    return rc;
}

static int put_piece(struct import *x, struct err *err)
{
    u64 at = 0;
    u32 len = 0;
    int rc = unpack(x, &at, &len, err);

    if (!rc && (x->section.instance >= x->s.ndisks || !len ||
                !range_fits(at, len, x->s.disk[x->section.instance].size)))
        rc = wrong(x, err, "lies outside of the disk");
    rc = rc ? rc : unpack_bytes(x, len, err);
    return rc ? rc : block_image_write(x->image[x->section.instance], x->raw, len, at, err);
}

static int take_section(struct import *x, struct err *err)
{
    static const struct {
        const char *name;
        int (*take)(struct import *x, struct err *err);
    } kinds[] = {
        {"state", put_file}, {"kernel", put_file}, {"pages", put_pages}, {"disk", put_piece}};

    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (!strcmp(x->section.name, kinds[i].name))
            return kinds[i].take(x, err);
    return err_set(err, ENOTSUP, "has a section '%s', which this release does not know",
                   x->section.name);
}

/* A short file and one that begins otherwise have never been ours. */
static int read_head(struct import *x, struct err *err)
{
    struct state_source from = {read_on, x};
    int rc = state_read_head(&from, err);

    return rc == -EINVAL || rc == -ENODATA
               ? err_set(err, EINVAL,
                         "this is no snapshot: it does not begin as a file that 'trapeze snapshot "
                         "export' has written")
               : rc;
}

static int read_all(struct import *x, const char *name, struct err *err)
{
    u32 sections = 1;
    int rc = read_head(x, err);

    rc = rc ? rc : begin(x, name, err);
    while (!rc && !(rc = next(x, err)) && !state_is_end(&x->section)) {
        sections++;
        rc = take_section(x, err);
    }
    if (!rc && x->section.instance != sections)
        rc = wrong(x, err, "there are other sections than it counts");
    if (!rc && (x->pages != x->s.pages || !x->has_state))
        rc =
            err_set(err, EBADMSG, "lacks %s", x->has_state ? "pages of memory" : "section 'state'");
    return rc;
}

/* --- the end --- */

static int write_map(struct import *x, struct err *err)
{
    auto_close int fd = openat(x->draft.dir, "map", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    struct state_sink to = state_fd_sink(&fd);

    return fd < 0 ? not_made(x, err, "map") : snapmap_save(&x->map, &to, err);
}

/* The state must be one of this machine before it is called a snapshot. */
static int check_state(struct import *x, struct err *err)
{
    auto_close int fd = openat(x->draft.dir, "state", O_RDONLY | O_CLOEXEC);
    struct state_source from = state_fd_source(&fd);
    struct vm_identity *id = calloc(1, sizeof(*id));
    struct vm_config c;
    int rc = fd < 0 ? err_sys(err, errno, "state") : 0;

    if (!id)
        rc = err_set(err, ENOMEM, "no memory");
    if (!rc && !(rc = vm_config_load(&from, &c, id, err))) {
        if (c.memory_bytes != x->s.memory_bytes || c.ndisks != x->s.ndisks)
            rc = err_set(err, EBADMSG, "state: is of another machine than the manifest says");
        vm_config_fini(&c);
    }
    free(id);
    return rc;
}

static int flush_disks(struct import *x, struct err *err)
{
    int rc = 0;

    for (unsigned i = 0; i < x->s.ndisks && !rc; i++) {
        x->image[i]->file->unsafe = false;
        rc = block_image_flush(x->image[i], err);
        int fd = open(x->s.disk[i].layer[0].path, O_RDONLY | O_CLOEXEC);
        if (!rc && (fd < 0 || fsync(fd)))
            rc = err_sys(err, errno, "disk %u", i);
        if (fd >= 0)
            close(fd);
        if (!rc)
            rc = block_file_protect(x->s.disk[i].layer[0].path, true, err);
    }
    return rc;
}

static void finish(struct import *x, bool failed)
{
    for (unsigned i = 0; i < VM_DISKS; i++)
        block_image_close(x->image[i]);
    if (failed)
        snapshot_abort(x->h, &x->s, &x->draft);
    snapshots_unlock(&x->lock);
    if (x->memory >= 0)
        close(x->memory);
    if (x->in >= 0)
        close(x->in);
    snapmap_fini(&x->map);
    snapshot_fini(&x->s);
    free(x->bytes);
    free(x);
}

/* A pipe cannot say how long it is, which bounds what we believe of it. */
static int open_in(struct import *x, const char *path, struct err *err)
{
    struct stat st;

    x->in = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (x->in < 0 || fstat(x->in, &st))
        return err_sys(err, errno, "'%s'", path);
    return S_ISREG(st.st_mode)
               ? 0
               : err_set(err, EINVAL, "'%s' is %s: save the snapshot in a regular file first", path,
                         S_ISDIR(st.st_mode) ? "a folder" : "no regular file");
}

static int read_file(struct import *x, const char *path, const char *name, struct err *err)
{
    int rc = open_in(x, path, err);

    if (rc)
        return rc;
    rc = read_all(x, name, err);
    if (rc == -EEXIST)
        return err_wrap(err, "'%s': give it a name of its own behind the file", path);
    if (rc == -EBADMSG || rc == -ENODATA || rc == -ENOTSUP)
        return err_wrap(err, "'%s', before offset %llu", path, (unsigned long long)x->at);
    return rc ? err_wrap(err, "'%s'", path) : 0;
}

static int run(const struct sub_args *a, struct host *h, struct err *err)
{
    struct import *x = calloc(1, sizeof(*x));
    struct snap_making making;
    int rc;

    if (!x)
        return err_set(err, ENOMEM, "no memory");
    x->h = h;
    x->memory = x->lock = -1;
    x->draft = SNAPSHOT_DRAFT_INIT;
    rc = snap_making_start(&making, h, &x->s, &x->draft, err);
    rc = rc ? rc : read_file(x, a->operand[0], a->operands > 1 ? a->operand[1] : NULL, err);
    rc = rc ? rc : write_map(x, err);
    rc = rc ? rc : check_state(x, err);
    rc = rc ? rc : flush_disks(x, err);
    rc = rc ? rc : snapshot_commit(h, &x->s, &x->draft, err);
    if (!rc)
        printf("%s\n", x->s.id);
    snap_making_stop(&making);
    finish(x, rc);
    return rc;
}

static const struct args_spec options[] = {SNAP_OPTIONS, {NULL, 0, NULL, NULL}};

const struct subverb snap_import_verb = {
    .name = "import",
    .usage = "FILE [NAME]",
    .summary = "Make a snapshot of a file that export has written",
    .options = options,
    .operands_min = 1,
    .operands_max = 2,
    .run_on_host = run,
};
