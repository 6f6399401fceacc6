/*
 * Files that are made under another name: see new_file.h.
 *
 * Main thread.
 */
#include "cmd/new_file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMES_MAX 100 /* parts that others left, with a process number like ours */

/* The name behind symbolic links, which stay what they are. */
static int find_path(struct new_file *t, const char *path, struct err *err)
{
    struct stat st;

    t->path = realpath(path, NULL);
    if (!t->path && errno == ENOENT && lstat(path, &st) == 0)
        return err_set(err, ENOENT, "%s: a symbolic link that leads to nothing", path);
    if (!t->path && errno != ENOENT)
        return err_sys(err, errno, "%s", path);
    if (!t->path)
        t->path = strdup(path);
    return t->path ? 0 : err_set(err, ENOMEM, "no memory");
}

/* What will be replaced must be nobody's at the moment, and its owner's to give away. */
static int lock_old(struct new_file *t, struct stat *st, struct err *err)
{
    struct block_file_options fo = BLOCK_FILE_OPTIONS;
    int rc = block_file_open(t->path, &fo, &t->old, err);

    if (rc)
        return rc;
    if (fstat(t->old->fd, st))
        return err_sys(err, errno, "%s", t->path);
    return 0;
}

static int make_part(struct new_file *t, const struct stat *old, mode_t mode, struct err *err)
{
    auto_close int fd = -1;

    for (unsigned n = 0; fd < 0 && n < NAMES_MAX; n++) {
        free(t->work);
        t->work = NULL;
        if (asprintf(&t->work, "%s.%d-%u.part", t->path, getpid(), n) < 0)
            return err_set(err, ENOMEM, "no memory");
        fd = open(t->work, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    if (fd < 0) {
        err_sys(err, errno, "%s: cannot make it%s", t->path,
                old ? " anew, beside the old one (which convert -n would write into)" : "");
        free(t->work);
        t->work = NULL;
        return -err->code;
    }
    /* Whose it was and who may read it, as far as we can say that. */
    if (old && (fchown(fd, old->st_uid, old->st_gid) || fchmod(fd, old->st_mode & 07777)) &&
        errno != EPERM)
        return err_sys(err, errno, "%s: cannot set its permissions", t->work);
    return 0;
}

static void remove_part(void *opaque)
{
    const struct new_file *t = opaque;

    unlink(t->work);
}

/* What is to happen if a signal ends us from now on. */
static int start_watch(struct new_file *t, struct err *err)
{
    if (t->in_place)
        return ending_say(&t->ending, err,
                          "trapeze disk: %s: stopped; it holds only a part now: make it anew",
                          t->path);
    t->ending = (struct ending){.undo = remove_part, .opaque = t};
    return ending_start(&t->ending, err);
}

static void let_go(struct new_file *t)
{
    block_file_close(t->old);
    free(t->path);
    free(t->work);
}

int new_file_open(struct new_file *t, const char *path, enum new_file_how how, struct err *err)
{
    struct stat st = {0};
    int rc;

    *t = (struct new_file){.in_place = how == NEW_FILE_IN_PLACE};
    if (how == NEW_FILE_PRIVATE && lstat(path, &st) == 0)
        return err_set(err, EEXIST, "'%s' is there already", path);
    rc = find_path(t, path, err);
    if (!rc && stat(t->path, &st) == 0 && S_ISBLK(st.st_mode))
        t->in_place = true;
    if (!rc && t->in_place)
        t->work = strdup(t->path);
    else if (!rc && st.st_mode)
        rc = lock_old(t, &st, err);
    if (!rc && !t->in_place)
        rc = make_part(t, t->old ? &st : NULL, how == NEW_FILE_PRIVATE ? 0600 : 0644, err);
    if (!rc && !t->work)
        rc = err_set(err, ENOMEM, "no memory");
    if (!rc)
        rc = start_watch(t, err);
    if (rc && t->work && !t->in_place)
        unlink(t->work);
    if (rc)
        let_go(t);
    return rc;
}

/* The name lasts as well. */
static int sync_folder(const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    auto_free char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    auto_close int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (!folder)
        return err_set(err, ENOMEM, "no memory");
    return fd < 0 || fsync(fd) ? err_sys(err, errno, "%s: cannot sync the folder", folder) : 0;
}

/* Where nothing was, another program may have put something meanwhile: it is not ours to replace. */
static int give_name(const struct new_file *t, struct err *err)
{
    int rc = renameat2(AT_FDCWD, t->work, AT_FDCWD, t->path, t->old ? 0 : RENAME_NOREPLACE);

    if (rc && errno == EINVAL) /* a file system that cannot do it in one step */
        rc = link(t->work, t->path) || unlink(t->work);
    if (rc && errno == EEXIST)
        return err_set(err, EEXIST, "'%s' is there already: another program made it meanwhile",
                       t->path);
    return rc ? err_sys(err, errno, "%s: cannot give it its name", t->path) : 0;
}

int new_file_close(struct new_file *t, int rc, bool sync, struct err *err)
{
    if (!t->in_place && !rc)
        rc = give_name(t, err);
    if (!t->in_place && rc) {
        unlink(t->work);
        err_wrap(err, t->old ? "%s was not made; what was there is there still" : "%s was not made",
                 t->path);
    } else if (!t->in_place && sync) {
        rc = sync_folder(t->path, err);
    }
    ending_stop(&t->ending);
    let_go(t);
    return rc;
}
