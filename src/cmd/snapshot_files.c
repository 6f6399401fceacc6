/*
 * What the verbs of snapshots share about their files: opening memory chains and states, writing memory, taking away what is
 * half made. Main thread; undo() in the one that waits for signals.
 */
#include "cmd/snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#define STATE_MAX (64 * MiB)
#define ZSTD_LEVEL 1 /* memory of a machine: higher levels gain little and take long */

const char *snap_size(u64 bytes, char buf[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double number = (double)bytes;
    unsigned unit = 0;

    while (number >= 1000 && unit + 1 < ARRAY_LEN(units)) {
        number /= 1024;
        unit++;
    }
    snprintf(buf, 32, "%.3g %s", number, units[unit]);
    return buf;
}

u64 snap_disk_bytes(const struct host *h, const struct snapshot *s)
{
    auto_free char *path = snapshot_path(h, s->id, NULL);
    DIR *d = path ? opendir(path) : NULL;
    u64 bytes = 0;

    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;

        if (e->d_name[0] == '.' || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
            continue;
        if (!*s->parent || st.st_nlink == 1) /* a kernel is the parent's */
            bytes += (u64)st.st_blocks * 512;
    }
    if (d)
        closedir(d);
    return bytes;
}

static int add_link(const struct host *h, struct snapchain *c, const struct snapshot *s,
                    u64 ram_bytes, struct err *err)
{
    int memory = snapshot_open_file(h, s->id, "memory", err);
    if (memory < 0)
        return memory;
    int map = snapshot_open_file(h, s->id, "map", err);
    if (map < 0) {
        close(memory);
        return map;
    }
    return snapchain_add(c, memory, map, ram_bytes, err);
}

/* Adds all that s stands on; each must be there. */
static int add_parents(const struct host *h, struct snapchain *c, const struct snapshot *s,
                       struct err *err)
{
    char id[RECORD_ID_LEN + 1], name[RECORD_NAME_SIZE];
    int rc = 0;

    memcpy(id, s->parent, sizeof(id));
    memcpy(name, s->name, sizeof(name));
    while (*id && !rc) {
        struct snapshot p = {0};

        if ((rc = snapshot_read(h, id, &p, err)))
            return err_wrap(err, "what '%s' stands on", name);
        if ((rc = add_link(h, c, &p, s->memory_bytes, err)))
            err_wrap(err, "snapshot '%s'", p.name);
        memcpy(id, p.parent, sizeof(id));
        memcpy(name, p.name, sizeof(name));
        snapshot_fini(&p);
    }
    return rc;
}

struct snapchain *snap_open_memory(const struct host *h, const struct snapshot *s, struct err *err)
{
    struct snapchain *c = snapchain_new(s->name, err);
    int rc = c ? add_link(h, c, s, s->memory_bytes, err) : -ENOMEM;

    if (c && rc)
        err_wrap(err, "snapshot '%s'", s->name);
    rc = rc ? rc : add_parents(h, c, s, err);
    rc = rc ? rc : snapchain_ready(c, err);
    if (rc) {
        snapchain_free(c);
        return NULL;
    }
    return c;
}

static int read_whole(int fd, struct state_buf *b, struct err *err)
{
    struct stat st;

    if (fstat(fd, &st))
        return err_sys(err, errno, "state");
    if ((u64)st.st_size > STATE_MAX)
        return err_set(err, EBADMSG, "state: is too large");
    b->len = b->capacity = (size_t)st.st_size;
    b->data = malloc(MAX(b->len, (size_t)1));
    if (!b->data)
        return err_set(err, ENOMEM, "no memory");
    if (read(fd, b->data, b->len) != (ssize_t)b->len)
        return err_set(err, EIO, "state: cannot be read");
    return 0;
}

int snap_open_state(const struct host *h, const struct snapshot *s, struct state_buf *ret_buf,
                    struct vm_config *ret_config, struct vm_identity *ret_id, struct err *err)
{
    auto_close int fd = snapshot_open_file(h, s->id, "state", err);
    struct state_buf b = {0};
    struct state_source from = state_buf_source(&b);
    int rc = fd < 0 ? fd : read_whole(fd, &b, err);

    if (!rc && (rc = vm_config_load(&from, ret_config, ret_id, err)))
        err_wrap(err, "state, at offset %zu", b.at);
    if (!rc && ret_config->memory_bytes != s->memory_bytes) {
        rc = err_set(err, EBADMSG,
                     "state: is of a machine with other memory than the manifest says");
        vm_config_fini(ret_config);
    }
    if (rc) {
        state_buf_fini(&b);
        return err_wrap(err, "snapshot '%s'", s->name);
    }
    *ret_buf = b;
    return 0;
}

/* --- writing memory --- */

static int write_at(int fd, const void *buf, size_t len, u64 at)
{
    const u8 *p = buf;

    while (len) {
        ssize_t n = pwrite(fd, p, len, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENOSPC;
        p += n;
        at += (u64)n;
        len -= (size_t)n;
    }
    return 0;
}

struct writer {
    struct snapmap map;
    int memory;
    u64 at; /* compressed: end of the file */
    u8 pages[SNAPMAP_CHUNK * SNAPMAP_PAGE];
    u8 packed[ZSTD_COMPRESSBOUND(SNAPMAP_CHUNK * SNAPMAP_PAGE)];
};

/* The chunk's pages that are there into w->pages, one behind the other. Returns how many, or -errno. */
static int gather(struct snapchain *c, struct writer *w, u64 chunk)
{
    int n = 0;

    for (u64 page = chunk * SNAPMAP_CHUNK; page < (chunk + 1) * SNAPMAP_CHUNK; page++) {
        u8 *to = w->pages + (size_t)n * SNAPMAP_PAGE;

        if (!snapchain_who(c, page))
            continue;
        int rc = snapchain_page(c, page, to);
        if (rc)
            return rc;
        snapmap_set(w->map.present, page, true);
        w->map.sum[page] = snapmap_sum(to);
        n++;
    }
    return n;
}

static int write_chunk(struct writer *w, u64 chunk, unsigned count)
{
    size_t len = count * SNAPMAP_PAGE;
    int rc = 0;

    if (w->map.compressed) {
        len = ZSTD_compress(w->packed, sizeof(w->packed), w->pages, len, ZSTD_LEVEL);
        if (ZSTD_isError(len))
            return -EIO;
        w->map.chunk[chunk] = (struct snapmap_chunk){w->at, (u32)len};
        w->at += len;
        return write_at(w->memory, w->packed, len, w->at - len);
    }
    for (u64 i = 0, n = 0; i < SNAPMAP_CHUNK && !rc; i++) {
        u64 page = chunk * SNAPMAP_CHUNK + i;

        if (snapmap_has(w->map.present, page))
            rc = write_at(w->memory, w->pages + n++ * SNAPMAP_PAGE, SNAPMAP_PAGE,
                          page * SNAPMAP_PAGE);
    }
    return rc;
}

static int write_chunks(struct snapchain *c, struct writer *w, struct err *err)
{
    for (u64 chunk = 0; chunk < w->map.pages / SNAPMAP_CHUNK; chunk++) {
        int n = gather(c, w, chunk);

        if (n < 0)
            return err_sys(err, -n, "memory at offset 0x%llx%s",
                           chunk * SNAPMAP_CHUNK * SNAPMAP_PAGE,
                           n == -EBADMSG ? ": checksum is wrong, the file is damaged" : "");
        int rc = n ? write_chunk(w, chunk, (unsigned)n) : 0;
        if (rc)
            return err_sys(err, -rc, "memory cannot be written");
    }
    return 0;
}

int snap_write_memory(struct snapchain *c, u64 ram_bytes, bool compress, int dir, u64 *ret_pages,
                      struct err *err)
{
    auto_free struct writer *w = calloc(1, sizeof(*w));
    auto_close int memory = openat(dir, "memory", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    auto_close int map = openat(dir, "map", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    struct state_sink to = state_fd_sink(&map);

    if (!w)
        return err_set(err, ENOMEM, "no memory");
    if (memory < 0 || map < 0)
        return err_sys(err, errno, "memory cannot be written");
    int rc = snapmap_init(&w->map, ram_bytes, false, compress, err);
    if (rc)
        return rc;
    w->memory = memory;
    if (!compress && ftruncate(memory, (off_t)ram_bytes))
        rc = err_sys(err, errno, "memory cannot be written");
    rc = rc ? rc : write_chunks(c, w, err);
    rc = rc ? rc : snapmap_save(&w->map, &to, err);
    if (!rc)
        *ret_pages = snapmap_count(w->map.present, w->map.pages);
    snapmap_fini(&w->map);
    return rc;
}

int snap_copy_file(int from, int to, const char *file, struct err *err)
{
    if (!linkat(from, file, to, file, 0) || errno == ENOENT)
        return 0;
    auto_close int in = openat(from, file, O_RDONLY | O_CLOEXEC);
    auto_close int out = openat(to, file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    u8 buf[64 * KiB];
    ssize_t n;

    if (in < 0 || out < 0)
        return err_sys(err, errno, "%s", file);
    while ((n = read(in, buf, sizeof(buf))) > 0)
        if (write(out, buf, (size_t)n) != n)
            return err_sys(err, errno, "%s", file);
    return n < 0 ? err_sys(err, errno, "%s", file) : 0;
}

static void undo(void *opaque)
{
    const struct snap_making *m = opaque;

    snapshot_undo(m->h, m->s, m->draft);
}

int snap_making_start(struct snap_making *m, struct host *h, const struct snapshot *s,
                      const struct snapshot_draft *draft, struct err *err)
{
    *m =
        (struct snap_making){.h = h, .s = s, .draft = draft, .ending = {.undo = undo, .opaque = m}};
    return ending_start(&m->ending, err);
}

void snap_making_stop(struct snap_making *m)
{
    ending_stop(&m->ending);
}
