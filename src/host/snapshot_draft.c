/*
 * A snapshot in the making, see snapshot.h.
 *
 *   (nothing) --begin--> .new-<id>/, claimed --commit: all synced, then rename--> <id>/
 *                                  \--abort, or its maker dies--> (nothing)
 *
 * Filling a snapshot takes seconds, and others work on this host meanwhile. So its maker holds the lock for the first and
 * the last step only, and leaves a claim in between: a manifest that names what must stay as it is (the name that is taken,
 * the parent, the disks' layers), with a lock on it that ends with its maker. A claim without that lock is a leftover.
 *
 * Any process. Errors name the file.
 */
#include "host/snapshot_parts.h"

#include "host/lock.h"
#include "host/snapshot_manifest.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* --- claims --- */

static int read_claim(const struct host *h, const char *id, struct snapshot *ret_s, struct err *err)
{
    auto_free char *path = snapshot_folder(h, SNAPSHOT_NEW, id, SNAPSHOT_CLAIM);

    if (!path)
        return err_set(err, ENOMEM, "no memory");
    if (!lock_is_held(path))
        return -ENOENT;
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? err_sys(err, errno, "'%s'", path) : snapshot_read_manifest(fd, id, ret_s, err);
}

int snapshots_claimed(const struct host *h, struct snapshot **ret_list, size_t *ret_count,
                      struct err *err)
{
    auto_free char *folder = snapshot_path(h, "", NULL);
    struct snapshot *list = NULL;
    size_t count = 0;
    int rc = folder ? 0 : err_set(err, ENOMEM, "no memory");
    DIR *d = folder ? opendir(folder) : NULL;

    for (struct dirent *e; d && !rc && (e = readdir(d));) {
        struct snapshot s = {0}, *more;

        if (strncmp(e->d_name, SNAPSHOT_NEW, strlen(SNAPSHOT_NEW)))
            continue;
        rc = read_claim(h, e->d_name + strlen(SNAPSHOT_NEW), &s, err);
        if (rc == -ENOENT)
            rc = 0;
        else if (!rc && (more = reallocarray(list, count + 1, sizeof(s)))) {
            list = more;
            list[count++] = s;
        } else if (!rc) {
            snapshot_fini(&s);
            rc = err_set(err, ENOMEM, "no memory");
        }
    }
    if (d)
        closedir(d);
    if (rc) {
        snapshots_free_list(list, count);
        return rc;
    }
    *ret_list = list;
    *ret_count = count;
    return 0;
}

static int write_manifest_to(int fd, const struct snapshot *s, struct err *err)
{
    json_t *o = manifest_write(s);
    auto_free char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;

    json_decref(o);
    if (!text)
        return err_set(err, ENOMEM, "no memory");
    size_t len = strlen(text);
    ssize_t n = write(fd, text, len);
    return n == (ssize_t)len ? 0 : err_sys(err, n < 0 ? errno : ENOSPC, "manifest");
}

/* --- begin --- */

static int new_id(char id[RECORD_ID_LEN + 1], struct err *err)
{
    u8 bytes[RECORD_ID_LEN / 2];

    if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
        return err_sys(err, errno, "random number");
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(id + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

static int make_draft(const struct host *h, struct snapshot *s, struct snapshot_draft *d,
                      struct err *err)
{
    auto_free char *path = snapshot_folder(h, SNAPSHOT_NEW, s->id, NULL),
                   *claim = snapshot_folder(h, SNAPSHOT_NEW, s->id, SNAPSHOT_CLAIM);

    if (!path || !claim)
        return err_set(err, ENOMEM, "no memory");
    if (mkdir(path, 0700))
        return errno == EEXIST ? err_set(err, EBUSY, "another process is flattening it right now")
                               : err_sys(err, errno, "'%s'", path);
    d->claim = lock_hold(claim, err);
    d->dir = d->claim < 0 ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->claim >= 0 && d->dir < 0)
        err_sys(err, errno, "'%s'", path);
    if (d->dir >= 0 && !write_manifest_to(d->claim, s, err))
        return 0;
    snapshot_remove_folder(path);
    return -err->code;
}

int snapshot_begin(const struct host *h, struct snapshot *s, struct snapshot_draft *ret_draft,
                   struct err *err)
{
    struct snapshot_draft d = SNAPSHOT_DRAFT_INIT;
    struct timespec now;
    int rc = *s->id ? 0 : new_id(s->id, err);

    clock_gettime(CLOCK_REALTIME, &now);
    if (!s->created_ns)
        s->created_ns = now.tv_sec * NS_PER_S + now.tv_nsec;
    rc = rc ? rc : make_draft(h, s, &d, err);
    if (rc) {
        snapshot_draft_close(&d);
        return rc;
    }
    *ret_draft = d;
    snapshot_step("begin");
    return 0;
}

void snapshot_draft_close(struct snapshot_draft *d)
{
    if (d->dir >= 0)
        close(d->dir);
    if (d->claim >= 0)
        close(d->claim);
    *d = SNAPSHOT_DRAFT_INIT;
}

/* --- its end --- */

static int write_manifest(const struct snapshot *s, int dir, struct err *err)
{
    auto_close int fd = openat(dir, "manifest", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    return fd < 0 ? err_sys(err, errno, "manifest") : write_manifest_to(fd, s, err);
}

static int sync_files(int dir, struct err *err)
{
    static const char *const files[] = {"memory", "map", "state", "kernel", "manifest"};

    /* All begin to be written, then each is waited for. */
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        auto_close int fd = openat(dir, files[i], O_RDONLY | O_CLOEXEC);

        if (fd >= 0)
            sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    }
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        auto_close int fd = openat(dir, files[i], O_RDONLY | O_CLOEXEC);

        if (fd < 0 && errno == ENOENT)
            continue;
        if (fd < 0 || fsync(fd))
            return err_sys(err, errno, "%s", files[i]);
    }
    return fsync(dir) ? err_sys(err, errno, "the snapshot's folder") : 0;
}

int snapshot_sync_folder(const char *path)
{
    auto_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 || fsync(fd) ? -errno : 0;
}

/* Gives it its name, with the lock held, and has the name on the disk before anybody hears of it. */
static int make_visible(const struct host *h, const struct snapshot *s, int dir, unsigned how,
                        struct err *err)
{
    auto_free char *from = snapshot_folder(h, SNAPSHOT_NEW, s->id, NULL),
                   *to = snapshot_folder(h, "", s->id, NULL),
                   *folder = snapshot_folder(h, "", "", NULL);
    int rc = from && to && folder ? 0 : err_set(err, ENOMEM, "no memory");

    if (rc)
        return rc;
    unlinkat(dir, SNAPSHOT_CLAIM, 0);
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, how))
        return err_sys(err, errno, "'%s'", to);
    snapshot_step("renamed");
    if ((rc = snapshot_sync_folder(folder))) {
        err_sys(err, -rc, "'%s'", folder);
        /* Who hears of a failure may rely on it: the name goes away again, as if it had never been. */
        renameat2(AT_FDCWD, to, AT_FDCWD, from, how);
    }
    return rc;
}

/* Removes what has the name of an unfinished one; the lock is held. */
static void remove_draft(struct host *h, const struct snapshot *s)
{
    auto_free char *path = snapshot_folder(h, SNAPSHOT_NEW, s->id, NULL);

    if (path)
        snapshot_remove_folder(path);
}

/* Everything of it is on the disk before it gets its name. */
static int finish(struct host *h, const struct snapshot *s, struct snapshot_draft *d, unsigned how,
                  struct err *err)
{
    int lock = -1, rc = write_manifest(s, d->dir, err);

    snapshot_step("written");
    rc = rc ? rc : sync_files(d->dir, err);
    snapshot_step("synced");
    rc = rc ? rc : snapshots_lock(h, &lock, err);
    rc = rc ? rc : make_visible(h, s, d->dir, how, err);
    if (lock >= 0 &&
        (rc || how == RENAME_EXCHANGE)) /* or the old one has the unfinished one's name */
        remove_draft(h, s);
    snapshots_unlock(&lock);
    if (!rc)
        snapshot_draft_close(d);
    return rc;
}

int snapshot_commit(struct host *h, const struct snapshot *s, struct snapshot_draft *d,
                    struct err *err)
{
    return finish(h, s, d, RENAME_NOREPLACE, err);
}

int snapshot_replace(struct host *h, const char *old, const struct snapshot *s,
                     struct snapshot_draft *d, struct err *err)
{
    if (strcmp(old, s->id))
        return err_set(err, EINVAL, "a snapshot keeps its id");
    return finish(h, s, d, RENAME_EXCHANGE, err);
}

/* Its maker still runs, and may put another file there at any moment; but there are not many, and into a folder that is
 * gone none can be put. */
static void remove_while_filled(const char *path)
{
    for (unsigned n = 0; n < 16; n++) {
        snapshot_empty_folder(path);
        if (!rmdir(path) || errno == ENOENT)
            return;
    }
}

void snapshot_undo(struct host *h, const struct snapshot *s, const struct snapshot_draft *d)
{
    struct stat ours, there;
    int lock = -1;

    /* The lock first: its maker has it until the claim is there. */
    if (snapshots_lock(h, &lock, NULL) || d->claim < 0)
        return; /* if anything is left, the next one that gets the lock removes it */
    auto_free char *claim = snapshot_folder(h, SNAPSHOT_NEW, s->id, SNAPSHOT_CLAIM),
                   *path = snapshot_folder(h, SNAPSHOT_NEW, s->id, NULL);
    /* It may have been committed just now, and another process be flattening the same. */
    if (!claim || !path || stat(claim, &there) || fstat(d->claim, &ours) ||
        there.st_ino != ours.st_ino)
        return;
    remove_while_filled(path);
    layers_sweep(h);
}

void snapshot_abort(struct host *h, const struct snapshot *s, struct snapshot_draft *d)
{
    int lock = -1;

    if (d->claim < 0)
        return;
    snapshots_lock(h, &lock,
                   NULL); /* without it the same is done, and a neighbour may say that it was he */
    remove_draft(h, s);
    if (lock >= 0)
        layers_sweep(h);
    snapshots_unlock(&lock);
    snapshot_draft_close(d);
}
