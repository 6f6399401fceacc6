/*
 * Snapshots on the disk, see snapshot.h: the lock, reading, removing. Making one is in snapshot_draft.c.
 *
 * Any process; changes under the lock. Errors name the file.
 */
#include "host/snapshot_parts.h"

#include "base/log.h"
#include "host/lock.h"
#include "host/snapshot_manifest.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

void snapshot_step(const char *step)
{
    static const struct {
        const char *variable;
        int signal;
    } tests[] = {{"TRAPEZE_DIE_AT", SIGKILL}, {"TRAPEZE_STAND_AT", SIGSTOP}};

    for (size_t i = 0; i < ARRAY_LEN(tests); i++) {
        const char *at = getenv(tests[i].variable);

        if (at && !strcmp(at, step))
            raise(tests[i].signal);
    }
}

void snapshot_fini(struct snapshot *s)
{
    for (unsigned i = 0; s->disk && i < s->ndisks; i++)
        for (unsigned k = 0; k < s->disk[i].nlayers; k++)
            free(s->disk[i].layer[k].path);
    free(s->disk);
    *s = (struct snapshot){0};
}

char *snapshot_folder(const struct host *h, const char *prefix, const char *id, const char *file)
{
    char *path = NULL;

    if (asprintf(&path, "%s/snapshots/%s%s%s%s", h->place.root, prefix, id, file ? "/" : "",
                 file ? file : "") < 0)
        return NULL;
    return path;
}

char *snapshot_path(const struct host *h, const char *id, const char *file)
{
    return snapshot_folder(h, "", id, file);
}

int snapshot_open_file(const struct host *h, const char *id, const char *file, struct err *err)
{
    auto_free char *path = snapshot_path(h, id, file);

    if (!path)
        return err_set(err, ENOMEM, "no memory");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? err_sys(err, errno, "'%s'", path) : fd;
}

int snapshot_open_working_set(const struct host *h, const char *id)
{
    auto_free char *path = snapshot_path(h, id, "working-set");

    if (!path)
        return -1;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : fd;
}

/* --- leftovers --- */

void snapshot_empty_folder(const char *path)
{
    DIR *d = opendir(path);

    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
}

void snapshot_remove_folder(const char *path)
{
    snapshot_empty_folder(path);
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
        auto_free char *path = NULL, *claim = NULL;

        if (!begins(e->d_name, SNAPSHOT_NEW) && !begins(e->d_name, SNAPSHOT_OLD))
            continue;
        if (asprintf(&path, "%s/%s", snapshots, e->d_name) < 0 ||
            asprintf(&claim, "%s/" SNAPSHOT_CLAIM, path) < 0)
            break;
        if (lock_is_held(claim))
            continue;
        snapshot_remove_folder(path);
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

void snapshots_let_go(int lock)
{
    if (lock >= 0)
        flock(lock, LOCK_UN);
}

void snapshots_unlock(int *lock)
{
    snapshots_let_go(*lock);
    if (*lock >= 0)
        close(*lock);
    *lock = -1;
}

/* --- reading --- */

int snapshot_read_manifest(int fd, const char *id, struct snapshot *ret_s, struct err *err)
{
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

int snapshot_read(const struct host *h, const char *id, struct snapshot *ret_s, struct err *err)
{
    auto_close int fd = snapshot_open_file(h, id, "manifest", err);

    return snapshot_read_manifest(fd, id, ret_s, err);
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
        auto_free char *folder = snapshot_path(h, id, NULL);

        if (folder && !access(folder, F_OK)) /* else somebody has removed it since */
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
    if (rc || (rc = snapshots_claimed(h, &list, &count, err)))
        return rc;
    for (size_t i = 0; i < count && !rc; i++)
        if (!strcmp(list[i].name, name))
            rc = err_set(err, EEXIST, "another process is making a snapshot '%s' right now", name);
    snapshots_free_list(list, count);
    return rc;
}

/* --- removing --- */

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

/* Is anybody busy with it? */
static int check_claims(const struct host *h, const struct snapshot *s, struct err *err)
{
    struct snapshot *list;
    size_t count;
    int rc = snapshots_claimed(h, &list, &count, err);

    if (rc)
        return rc;
    for (size_t i = 0; i < count && !rc; i++)
        if (!strcmp(list[i].id, s->id))
            rc = err_set(err, EBUSY, "another process is flattening it right now");
        else if (!strcmp(list[i].parent, s->id))
            rc =
                err_set(err, EBUSY,
                        "another process is making the snapshot '%s' right now, which stands on it",
                        list[i].name);
    snapshots_free_list(list, count);
    return rc;
}

int snapshot_remove(struct host *h, const struct snapshot *s, struct err *err)
{
    auto_free char *from = snapshot_folder(h, "", s->id, NULL),
                   *to = snapshot_folder(h, SNAPSHOT_OLD, s->id, NULL),
                   *folder = snapshot_folder(h, "", "", NULL);
    int rc = from && to && folder ? check_children(h, s, err) : err_set(err, ENOMEM, "no memory");

    rc = rc ? rc : check_claims(h, s, err);
    if (rc)
        return rc;
    snapshot_step("rm-begin");
    if (rename(from, to))
        return err_sys(err, errno, "'%s'", from);
    snapshot_sync_folder(folder);
    snapshot_step("rm-renamed");
    snapshot_remove_folder(to);
    snapshot_step("rm-removed");
    layers_sweep(h);
    return 0;
}
