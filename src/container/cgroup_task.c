/*
 * The processes of a control group: listing, killing, freezing, and removing the group once they are gone.
 * What must wait for the kernel polls with growing pauses up to a limit; v1 has no event for these.
 */
#include "container/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "container/file.h"

/* Sleeps 50 us, 100 us, ... 12.8 ms; false once about two seconds have passed. */
static bool pause_next(unsigned *step)
{
    struct timespec ts = {0, 50000l << MIN(*step, 8u)};

    if (++*step > 160)
        return false;
    nanosleep(&ts, NULL);
    return true;
}

/* The hierarchy whose list of processes is used: v2 if any, else the one that cannot be left behind. */
static const struct cgroup_dir *main_dir(const struct cgroup *cg)
{
    static const char *const order[] = {"freezer", "devices", "pids", "memory"};

    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        const struct cgroup_dir *d = cgroup_find(cg, order[i]);

        if (d)
            return d;
    }
    return cg->n ? &cg->dirs[0] : NULL;
}

struct pid_list {
    int *v;
    size_t n, size;
};

static int add_pids(struct pid_list *list, const char *text)
{
    char *end;

    for (long pid = strtol(text, &end, 10); end != text; text = end, pid = strtol(text, &end, 10)) {
        if (list->n == list->size) {
            size_t size = list->size ? 2 * list->size : 64;
            int *grown = realloc(list->v, size * sizeof(int));

            if (!grown)
                return -ENOMEM;
            list->v = grown;
            list->size = size;
        }
        list->v[list->n++] = (int)pid;
    }
    return 0;
}

static int collect(struct pid_list *list, const char *path, int depth)
{
    char sub[4096];
    auto_free char *text = NULL;
    auto_close int fd = -1;
    size_t len;
    struct dirent *e;
    DIR *dir;
    int rc;

    if ((size_t)snprintf(sub, sizeof(sub), "%s/cgroup.procs", path) >= sizeof(sub))
        return -ENAMETOOLONG;
    fd = open(sub, O_RDONLY | O_CLOEXEC);
    rc = fd < 0 ? -errno : file_read_all(fd, JSON_MAX_BYTES, &text, &len);
    /* A threaded v2 group cannot be listed this way; its root, above, lists its processes. */
    if (rc == -EOPNOTSUPP || rc == -ENODEV)
        rc = 0;
    if (rc == 0 && text)
        rc = add_pids(list, text);
    dir = rc == 0 && depth < 32 ? opendir(path) : NULL;
    while (dir && rc == 0 && (e = readdir(dir))) {
        if (e->d_type != DT_DIR || e->d_name[0] == '.')
            continue;
        if ((size_t)snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name) < sizeof(sub))
            rc = collect(list, sub, depth + 1);
        else
            rc = -ENAMETOOLONG;
        if (rc == -ENOENT) /* removed meanwhile */
            rc = 0;
    }
    if (dir)
        closedir(dir);
    return rc;
}

int cgroup_pids(const struct cgroup *cg, int **ret, size_t *ret_n, struct err *err)
{
    const struct cgroup_dir *d = main_dir(cg);
    struct pid_list list = {0};
    int rc = d ? collect(&list, d->path, 0) : -ENOENT;

    if (rc < 0 && rc != -ENOENT) {
        free(list.v);
        return err_sys(err, -rc, "list the processes of %s", d->path);
    }
    *ret = list.v;
    *ret_n = list.n;
    return 0;
}

static int kill_once(const struct cgroup *cg, int sig, size_t *ret_n, struct err *err)
{
    auto_free int *pids = NULL;

    *ret_n = 0;
    if (cgroup_pids(cg, &pids, ret_n, err) < 0)
        return -err->code;
    for (size_t i = 0; i < *ret_n; i++)
        if (pids[i] > 1 && kill(pids[i], sig) < 0 && errno != ESRCH)
            return err_sys(err, errno, "kill %d", pids[i]);
    return 0;
}

int cgroup_kill(const struct cgroup *cg, int sig, struct err *err)
{
    unsigned step = 0;
    size_t n = 0;

    if (sig == SIGKILL && cg->pure_v2 && cgroup_write(&cg->dirs[0], "cgroup.kill", "1", err) == 0)
        return 0;
    do {
        if (kill_once(cg, sig, &n, err) < 0)
            return -err->code;
    } while (sig == SIGKILL && n && pause_next(&step));
    return 0;
}

static int remove_dir(const char *path, int depth)
{
    char sub[4096];
    struct dirent *e;
    DIR *dir;

    if (rmdir(path) == 0 || errno == ENOENT)
        return 0;
    if (errno != EBUSY || depth > 32)
        return -errno;
    dir = opendir(path);
    while (dir && (e = readdir(dir))) {
        if (e->d_type != DT_DIR || e->d_name[0] == '.')
            continue;
        snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name);
        remove_dir(sub, depth + 1);
    }
    if (dir)
        closedir(dir);
    return rmdir(path) == 0 || errno == ENOENT ? 0 : -errno;
}

/*
 * Directories that we made on the way, a pod's in a hierarchy that the engine does not know, say: as far as they
 * are empty. One that holds another container stays, and goes with nobody.
 */
static void remove_above(const struct cgroup_dir *d)
{
    char path[4096];
    char *slash;

    snprintf(path, sizeof(path), "%s", d->path);
    while (d->top && (slash = strrchr(path, '/')) && slash > path) {
        *slash = '\0';
        if (strlen(path) < strlen(d->top) || strncmp(path, d->top, strlen(d->top)) != 0 ||
            rmdir(path) < 0)
            break;
    }
}

int cgroup_remove(const struct cgroup *cg, struct err *err)
{
    unsigned step = 0;

    for (size_t i = 0; i < cg->n; i++) {
        int rc;

        if (!cg->dirs[i].made || !cg->dirs[i].path)
            continue;
        while ((rc = remove_dir(cg->dirs[i].path, 0)) == -EBUSY && pause_next(&step))
            ;
        if (rc < 0 && !(cg->rootless && (rc == -EACCES || rc == -EPERM)))
            return err_sys(err, -rc, "remove the cgroup %s", cg->dirs[i].path);
        remove_above(&cg->dirs[i]);
    }
    return 0;
}

static bool state_is(const struct cgroup_dir *d, const char *file, const char *wanted)
{
    char text[256];

    return cgroup_read(d, file, text, sizeof(text)) > 0 && strstr(text, wanted);
}

static int freeze_v1(const struct cgroup_dir *d, bool frozen, struct err *err)
{
    const char *wanted = frozen ? "FROZEN" : "THAWED";
    unsigned step = 0;

    do {
        /* Written again in each round: a process forked meanwhile may have slipped by (v1 freezer). */
        if (cgroup_write(d, "freezer.state", wanted, err) < 0)
            return -err->code;
        if (state_is(d, "freezer.state", wanted))
            return 0;
    } while (pause_next(&step));
    if (frozen)
        cgroup_write(d, "freezer.state", "THAWED", NULL);
    return err_set(err, ETIMEDOUT, "unable to freeze %s", d->path);
}

static int freeze_v2(const struct cgroup_dir *d, bool frozen, struct err *err)
{
    unsigned step = 0;

    if (cgroup_write(d, "cgroup.freeze", frozen ? "1" : "0", err) < 0)
        return -err->code;
    while (!state_is(d, "cgroup.events", frozen ? "frozen 1" : "frozen 0"))
        if (!pause_next(&step))
            return err_set(err, ETIMEDOUT, "unable to freeze %s", d->path);
    return 0;
}

int cgroup_freeze(const struct cgroup *cg, bool frozen, struct err *err)
{
    const struct cgroup_dir *d = cgroup_find(cg, "freezer");

    if (d && !d->v2)
        return freeze_v1(d, frozen, err);
    d = cgroup_v2(cg);
    if (!d)
        return err_set(err, ENOTSUP, "no freezer cgroup: the container cannot be paused");
    return freeze_v2(d, frozen, err);
}

bool cgroup_is_frozen(const struct cgroup *cg)
{
    const struct cgroup_dir *d = cgroup_find(cg, "freezer");

    if (d && !d->v2)
        return !state_is(d, "freezer.state", "THAWED") && state_is(d, "freezer.state", "FR");
    d = cgroup_v2(cg);
    return d && state_is(d, "cgroup.freeze", "1");
}
