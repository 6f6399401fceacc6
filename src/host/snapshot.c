/*
 * Snapshots on the disk, see snapshot.h.
 *
 *   (nothing) --begin--> .new-<id>/ --commit: all synced, then rename--> <id>/ --remove: rename--> .old-<id>/ --> (nothing)
 *
 * Any process; changes under the lock. Errors name the file.
 */
#include "host/snapshot.h"

#include "base/log.h"
#include "host/snapshot_manifest.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NEW ".new-"
#define OLD ".old-"

void snapshot_step(const char *step)
{
    const char *at = getenv("TRAPEZE_DIE_AT");

    if (at && !strcmp(at, step))
        raise(SIGKILL);
}

void snapshot_fini(struct snapshot *s)
{
    for (unsigned i = 0; s->disk && i < s->ndisks; i++)
        for (unsigned k = 0; k < s->disk[i].nlayers; k++)
            free(s->disk[i].layer[k].path);
    free(s->disk);
    *s = (struct snapshot){0};
}

/* <root>/snapshots/<prefix><id>[/<file>] */
static char *path_of(const struct host *h, const char *prefix, const char *id, const char *file)
{
    char *path = NULL;

    if (asprintf(&path, "%s/snapshots/%s%s%s%s", h->place.root, prefix, id, file ? "/" : "",
                 file ? file : "") < 0)
        return NULL;
    return path;
}

char *snapshot_path(const struct host *h, const char *id, const char *file)
{
    return path_of(h, "", id, file);
}

int snapshot_open_file(const struct host *h, const char *id, const char *file, struct err *err)
{
    auto_free char *path = snapshot_path(h, id, file);

    if (!path)
        return err_set(err, ENOMEM, "no memory");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? err_sys(err, errno, "'%s'", path) : fd;
}

/* --- leftovers --- */

static void remove_folder(const char *path)
{
    DIR *d = opendir(path);

    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    if (rmdir(path) && errno != ENOENT)
        log_warn("'%s' cannot be removed: %s", path, strerror(errno));
}

static bool begins(const char *text, const char *with)
{
    return !strncmp(text, with, strlen(with));
}

static unsigned sweep_folders(const char *snapshots)
{
    DIR *d = opendir(snapshots);
    unsigned n = 0;

    for (struct dirent *e; d && (e = readdir(d));) {
        auto_free char *path = NULL;

        if (!begins(e->d_name, NEW) && !begins(e->d_name, OLD))
            continue;
        if (asprintf(&path, "%s/%s", snapshots, e->d_name) < 0)
            break;
        remove_folder(path);
        n++;
    }
    if (d)
        closedir(d);
    return n;
}

static int make_folder(const struct host *h, const char *name, char **ret_path, struct err *err)
{
    char *path;

    if (asprintf(&path, "%s/%s", h->place.root, name) < 0)
        return err_set(err, ENOMEM, "no memory");
    *ret_path = path;
    return place_make(path, err);
}

int snapshots_lock(struct host *h, int *ret_lock, struct err *err)
{
    auto_free char *snapshots = NULL, *layers = NULL, *file = NULL;
    int rc = make_folder(h, "snapshots", &snapshots, err);

    rc = rc ? rc : make_folder(h, "layers", &layers, err);
    if (rc)
        return rc;
    if (asprintf(&file, "%s/lock", snapshots) < 0)
        return err_set(err, ENOMEM, "no memory");
    int fd = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(err, errno, "'%s'", file);
    while (flock(fd, LOCK_EX))
        if (errno != EINTR) {
            rc = err_sys(err, errno, "'%s'", file);
            close(fd);
            return rc;
        }
    unsigned n = sweep_folders(snapshots);
    if (n)
        log_warn("%u unfinished snapshot%s of a process that was killed %s removed", n,
                 n == 1 ? "" : "s", n == 1 ? "was" : "were");
    *ret_lock = fd;
    return 0;
}

/* --- reading --- */

int snapshot_read(const struct host *h, const char *id, struct snapshot *ret_s, struct err *err)
{
    auto_close int fd = snapshot_open_file(h, id, "manifest", err);
    auto_free char *text = malloc(MANIFEST_MAX);
    size_t len = 0;

    if (fd < 0)
        return fd;
    if (!text)
        return err_set(err, ENOMEM, "no memory");
    for (ssize_t n = 1; n > 0 && len < MANIFEST_MAX; len += (size_t)MAX(n, 0))
        n = read(fd, text + len, MANIFEST_MAX - len);
    int rc = manifest_read(text, len, ret_s, err);
    if (rc)
        return err_wrap(err, "snapshot %s", id);
    if (strcmp(ret_s->id, id)) {
        snapshot_fini(ret_s);
        return err_set(err, EBADMSG, "snapshot %s: manifest: is of another snapshot", id);
    }
    return 0;
}

static int by_age(const void *a, const void *b)
{
    const struct snapshot *x = a, *y = b;

    return x->created_ns != y->created_ns
               ? (x->created_ns > y->created_ns) - (x->created_ns < y->created_ns)
               : strcmp(x->name, y->name);
}

static int add_to_list(const struct host *h, const char *id, struct snapshot **list, size_t *count,
                       struct err *err)
{
    struct snapshot s = {0};
    struct err why = ERR_INIT;

    if (snapshot_read(h, id, &s, &why)) {
        log_warn("%s", why.msg);
        return 0;
    }
    struct snapshot *more = reallocarray(*list, *count + 1, sizeof(s));
    if (!more) {
        snapshot_fini(&s);
        return err_set(err, ENOMEM, "no memory");
    }
    *list = more;
    more[(*count)++] = s;
    return 0;
}

int snapshots_list(const struct host *h, struct snapshot **ret_list, size_t *ret_count,
                   size_t *ret_damaged, struct err *err)
{
    auto_free char *folder = snapshot_path(h, "", NULL);
    struct snapshot *list = NULL;
    size_t count = 0, there = 0;
    int rc = folder ? 0 : err_set(err, ENOMEM, "no memory");
    DIR *d = folder ? opendir(folder) : NULL;

    for (struct dirent *e; d && !rc && (e = readdir(d));)
        if (strlen(e->d_name) == RECORD_ID_LEN && e->d_name[0] != '.') {
            there++;
            rc = add_to_list(h, e->d_name, &list, &count, err);
        }
    if (d)
        closedir(d);
    if (rc) {
        snapshots_free_list(list, count);
        return rc;
    }
    if (count)
        qsort(list, count, sizeof(*list), by_age);
    *ret_list = list;
    *ret_count = count;
    if (ret_damaged)
        *ret_damaged = there - count;
    return 0;
}

void snapshots_free_list(struct snapshot *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        snapshot_fini(&list[i]);
    free(list);
}

/* Index of the one that is meant, or -1 - how many could be. */
static ssize_t pick(const struct snapshot *list, size_t count, const char *text)
{
    ssize_t found = -1;
    int several = 0;

    for (size_t i = 0; i < count; i++)
        if (!strcmp(list[i].name, text) || !strcmp(list[i].id, text))
            return (ssize_t)i;
    for (size_t i = 0; i < count && *text; i++)
        if (begins(list[i].name, text) || begins(list[i].id, text)) {
            found = (ssize_t)i;
            several++;
        }
    return several == 1 ? found : -1 - several;
}

int snapshot_find(const struct host *h, const char *text, struct snapshot *ret_s, struct err *err)
{
    struct snapshot *list;
    size_t count;
    int rc = snapshots_list(h, &list, &count, NULL, err);

    if (rc)
        return rc;
    ssize_t i = pick(list, count, text);
    if (i >= 0) {
        *ret_s = list[i];
        list[i] = (struct snapshot){0};
    } else if (i == -1) {
        rc = err_set(err, ENOENT, "there is no snapshot '%s'; 'trapeze snapshot ls' lists them",
                     text);
    } else {
        rc = err_set(err, ENOENT, "%zd snapshots begin with '%s'; type more of the name", -1 - i,
                     text);
    }
    snapshots_free_list(list, count);
    return rc;
}

int snapshot_check_name(const struct host *h, const char *name, struct err *err)
{
    struct snapshot *list = NULL;
    size_t count = 0;
    size_t len = strlen(name);

    if (!len || len >= RECORD_NAME_SIZE || *name == '.' || *name == '-' ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != len)
        return err_set(
            err, EINVAL,
            "'%s' cannot be a snapshot's name; allowed are 1 to %d letters, digits and, past "
            "the first, any of -_.",
            name, RECORD_NAME_SIZE - 1);
    int rc = snapshots_list(h, &list, &count, NULL, err);
    for (size_t i = 0; i < count && !rc; i++)
        if (!strcmp(list[i].name, name))
            rc = err_set(err, EEXIST, "there is a snapshot '%s' already (%s)", name, list[i].id);
    snapshots_free_list(list, count);
    return rc;
}

/* --- making and removing --- */

static int new_id(char id[RECORD_ID_LEN + 1], struct err *err)
{
    u8 bytes[RECORD_ID_LEN / 2];

    if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
        return err_sys(err, errno, "random number");
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(id + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

int snapshot_begin(const struct host *h, struct snapshot *s, int *ret_dir, struct err *err)
{
    int rc = *s->id ? 0 : new_id(s->id, err);
    auto_free char *path = path_of(h, NEW, s->id, NULL);
    struct timespec now;

    if (rc || !path)
        return rc ? rc : err_set(err, ENOMEM, "no memory");
    if (mkdir(path, 0700))
        return err_sys(err, errno, "'%s'", path);
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return err_sys(err, errno, "'%s'", path);
    clock_gettime(CLOCK_REALTIME, &now);
    s->created_ns = now.tv_sec * NS_PER_S + now.tv_nsec;
    *ret_dir = dir;
    snapshot_step("begin");
    return 0;
}

static int write_manifest(const struct snapshot *s, int dir, struct err *err)
{
    json_t *o = manifest_write(s);
    auto_free char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
    auto_close int fd = openat(dir, "manifest", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    json_decref(o);
    if (!text)
        return err_set(err, ENOMEM, "no memory");
    size_t len = strlen(text);
    if (fd < 0 || write(fd, text, len) != (ssize_t)len)
        return err_sys(err, fd < 0 ? errno : ENOSPC, "manifest");
    return 0;
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

static int sync_folder(const char *path)
{
    auto_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 || fsync(fd) ? -errno : 0;
}

/* Everything of it is on the disk before it gets its name, and the name before anybody hears of it. */
static int make_visible(const struct host *h, const struct snapshot *s, int dir, unsigned how,
                        struct err *err)
{
    auto_free char *from = path_of(h, NEW, s->id, NULL), *to = path_of(h, "", s->id, NULL),
                   *folder = path_of(h, "", "", NULL);
    int rc = from && to && folder ? write_manifest(s, dir, err) : err_set(err, ENOMEM, "no memory");

    snapshot_step("written");
    rc = rc ? rc : sync_files(dir, err);
    snapshot_step("synced");
    if (!rc && renameat2(AT_FDCWD, from, AT_FDCWD, to, how))
        rc = err_sys(err, errno, "'%s'", to);
    snapshot_step("renamed");
    if (!rc && (rc = sync_folder(folder))) {
        err_sys(err, -rc, "'%s'", folder);
        /* Who hears of a failure may rely on it: the name goes away again, as if it had never been. */
        renameat2(AT_FDCWD, to, AT_FDCWD, from, how);
    }
    return rc;
}

int snapshot_commit(const struct host *h, const struct snapshot *s, int dir, struct err *err)
{
    return make_visible(h, s, dir, RENAME_NOREPLACE, err);
}

int snapshot_replace(const struct host *h, const char *old, struct snapshot *s, int dir,
                     struct err *err)
{
    if (strcmp(old, s->id))
        return err_set(err, EINVAL, "a snapshot keeps its id");
    int rc = make_visible(h, s, dir, RENAME_EXCHANGE, err);
    if (!rc)
        snapshot_abort(h, s); /* the old one has the unfinished one's name now */
    return rc;
}

void snapshot_abort(const struct host *h, const struct snapshot *s)
{
    auto_free char *path = path_of(h, NEW, s->id, NULL);

    if (path && *s->id)
        remove_folder(path);
}

static int check_children(const struct host *h, const struct snapshot *s, struct err *err)
{
    struct snapshot *list;
    size_t count;
    int rc = snapshots_list(h, &list, &count, NULL, err);

    if (rc)
        return rc;
    for (size_t i = 0; i < count && !rc; i++)
        if (!strcmp(list[i].parent, s->id))
            rc = err_set(
                err, EBUSY,
                "snapshot '%s' stands on it; 'trapeze snapshot flatten %s' makes it stand alone",
                list[i].name, list[i].name);
    snapshots_free_list(list, count);
    return rc;
}

int snapshot_remove(struct host *h, const struct snapshot *s, struct err *err)
{
    auto_free char *from = path_of(h, "", s->id, NULL), *to = path_of(h, OLD, s->id, NULL),
                   *folder = path_of(h, "", "", NULL);
    int rc = from && to && folder ? check_children(h, s, err) : err_set(err, ENOMEM, "no memory");

    if (rc)
        return rc;
    snapshot_step("rm-begin");
    if (rename(from, to))
        return err_sys(err, errno, "'%s'", from);
    sync_folder(folder);
    snapshot_step("rm-renamed");
    remove_folder(to);
    snapshot_step("rm-removed");
    layers_sweep(h);
    return 0;
}
