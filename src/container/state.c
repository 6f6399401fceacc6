/*
 * State records and the container lock.
 *
 * Invariants:
 * 1. The record exists before anything outside the directory does (cgroups, processes), and names it, so
 *    that `delete --force` can clean up after a runtime that was killed at any point.
 * 2. The record is only ever replaced by rename: a reader sees the old or the new one.
 * 3. The lock is flock(2) on the directory itself: it vanishes with its holder. Verbs that change a container
 *    hold it; `state`, `list`, `kill` and `ps` do not.
 */
#include "container/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "container/file.h"
#include "container/sys.h"

#define RECORD "trapeze.json"
#define LOCK_SECONDS 10

int state_check_id(const char *id, struct err *err)
{
    if (!id[0])
        return err_set(err, EINVAL, "container id cannot be empty");
    if (strlen(id) > 255 || strcmp(id, ".") == 0 || strcmp(id, "..") == 0)
        return err_set(err, EINVAL, "invalid container ID format");
    for (const char *c = id; *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.", *c))
            return err_set(err, EINVAL, "invalid container ID format");
    return 0;
}

static int make_root(const char *root)
{
    char path[4096];
    size_t len = strlen(root);

    if (mkdir(root, 0711) == 0 || errno == EEXIST)
        return 0;
    if (errno != ENOENT || len >= sizeof(path))
        return -errno;
    for (size_t i = 1; i <= len; i++) {
        if (root[i] != '/' && root[i] != '\0')
            continue;
        memcpy(path, root, i);
        path[i] = '\0';
        if (mkdir(path, 0711) < 0 && errno != EEXIST)
            return -errno;
    }
    return 0;
}

static int open_dir(struct state *s, struct err *err)
{
    auto_close int root = open(s->root, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (root < 0 && errno == ENOENT)
        return err_set(err, ENOENT, "container does not exist");
    if (root < 0)
        return err_sys(err, errno, "open %s", s->root);
    s->dirfd = openat(root, s->id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (s->dirfd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
        return err_set(err, ENOENT, "container does not exist");
    if (s->dirfd < 0)
        return err_sys(err, errno, "open %s/%s", s->root, s->id);
    return 0;
}

int state_new(struct state *s, struct pool *pool, const char *root, const char *id, struct err *err)
{
    char path[4352];
    int rc;

    *s = (struct state){.pool = pool, .root = root, .id = id, .dirfd = -1};
    if (state_check_id(id, err) < 0)
        return -err->code;
    rc = make_root(root);
    if (rc < 0)
        return err_sys(err, -rc, "make the state directory %s", root);
    snprintf(path, sizeof(path), "%s/%s", root, id);
    if (mkdir(path, 0711) < 0)
        return errno == EEXIST ? err_set(err, EEXIST, "container with given ID already exists")
                               : err_sys(err, errno, "make %s", path);
    if (open_dir(s, err) == 0) {
        if (flock(s->dirfd, LOCK_EX | LOCK_NB) == 0) {
            s->locked = true;
            return 0;
        }
        err_set(err, EBUSY, "container %s is being changed by another command", id);
    }
    rmdir(path);
    return -err->code;
}

static void on_alarm(int sig)
{
}

/* Waits for other verbs; gives up when one does not end, since a hook may hang for ever. */
static int lock_dir(struct state *s, struct err *err)
{
    struct sigaction act = {.sa_handler = on_alarm}, old;
    struct stat st;
    int rc;

    if (flock(s->dirfd, LOCK_EX | LOCK_NB) < 0) {
        sigaction(SIGALRM, &act, &old);
        alarm(LOCK_SECONDS);
        rc = flock(s->dirfd, LOCK_EX);
        alarm(0);
        sigaction(SIGALRM, &old, NULL);
        if (rc < 0)
            return err_set(err, EBUSY, "container %s is being changed by another command", s->id);
    }
    s->locked = true;
    if (fstat(s->dirfd, &st) < 0 || st.st_nlink == 0)
        return err_set(err, ENOENT, "container does not exist");
    return 0;
}

static int read_record(struct state *s, struct err *err)
{
    json_t *doc = s->doc, *cgroups = NULL;
    s64 pid = 0, creator = 0;

    if (json_str(doc, "bundle", &s->bundle, err) < 0 ||
        json_str(doc, "rootfs", &s->rootfs, err) < 0 ||
        json_str(doc, "created", &s->created, err) < 0 ||
        json_str(doc, "owner", &s->owner, err) < 0 ||
        json_s64(doc, "pid", 0, INT32_MAX, &pid, err) < 0 ||
        json_s64(doc, "creator", 0, INT32_MAX, &creator, err) < 0 ||
        json_u64(doc, "startTime", UINT64_MAX, &s->start_time, err) < 0 ||
        json_u64(doc, "creatorStart", UINT64_MAX, &s->creator_start, err) < 0 ||
        json_flag(doc, "newPidNs", &s->new_pid_ns, err) < 0 ||
        json_flag(doc, "noPivot", &s->no_pivot, err) < 0 ||
        json_u64(doc, "namespaces", UINT64_MAX, &s->ns_flags, err) < 0 ||
        json_u64(doc, "mountId", UINT64_MAX, &s->mount_id, err) < 0 ||
        json_str(doc, "systemdUnit", &s->systemd_unit, err) < 0 ||
        json_str(doc, "rdtPath", &s->rdt_path, err) < 0 ||
        json_obj(doc, "annotations", &s->annotations, err) < 0 ||
        json_arr(doc, "cgroups", &cgroups, err) < 0 ||
        cgroup_from_json(&s->cgroup, cgroups, err) < 0)
        return err_wrap(err, "state of %s", s->id);
    s->pid = (int)pid;
    s->creator = (int)creator;
    return 0;
}

int state_open(struct state *s, struct pool *pool, const char *root, const char *id, bool lock,
               struct err *err)
{
    auto_close int fd = -1;

    *s = (struct state){.pool = pool, .root = root, .id = id, .dirfd = -1};
    if (state_check_id(id, err) < 0 || open_dir(s, err) < 0)
        return -err->code;
    if (lock && lock_dir(s, err) < 0)
        return -err->code;
    fd = openat(s->dirfd, RECORD, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return err_set(err, ENOENT, "container does not exist");
    if (json_load_fd(fd, "the state record", &s->doc, err) < 0)
        return -err->code;
    return read_record(s, err);
}

static void add_str(json_t *obj, const char *key, const char *value)
{
    if (value)
        json_object_object_add(obj, key, json_object_new_string(value));
}

int state_save(const struct state *s, struct err *err)
{
    json_t *o = json_object_new_object();
    const char *text;
    int rc;

    add_str(o, "id", s->id);
    add_str(o, "bundle", s->bundle);
    add_str(o, "rootfs", s->rootfs);
    add_str(o, "created", s->created);
    add_str(o, "owner", s->owner);
    json_object_object_add(o, "pid", json_object_new_int(s->pid));
    json_object_object_add(o, "startTime", json_object_new_uint64(s->start_time));
    json_object_object_add(o, "creator", json_object_new_int(s->creator));
    json_object_object_add(o, "creatorStart", json_object_new_uint64(s->creator_start));
    json_object_object_add(o, "newPidNs", json_object_new_boolean(s->new_pid_ns));
    json_object_object_add(o, "noPivot", json_object_new_boolean(s->no_pivot));
    json_object_object_add(o, "namespaces", json_object_new_uint64(s->ns_flags));
    json_object_object_add(o, "mountId", json_object_new_uint64(s->mount_id));
    add_str(o, "systemdUnit", s->systemd_unit);
    add_str(o, "rdtPath", s->rdt_path);
    if (s->annotations)
        json_object_object_add(o, "annotations", json_object_get(s->annotations));
    json_object_object_add(o, "cgroups", cgroup_to_json(&s->cgroup));
    text =
        json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
    rc = file_replace(s->dirfd, RECORD, 0600, text, strlen(text));
    json_object_put(o);
    return rc < 0 ? err_sys(err, -rc, "write the state of %s", s->id) : 0;
}

int state_save_config(const struct state *s, json_t *doc, struct err *err)
{
    const char *text = json_object_to_json_string_ext(doc, JSON_C_TO_STRING_PLAIN |
                                                               JSON_C_TO_STRING_NOSLASHESCAPE);
    int rc = file_replace(s->dirfd, STATE_CONFIG, 0600, text, strlen(text));

    return rc < 0 ? err_sys(err, -rc, "write the configuration of %s", s->id) : 0;
}

int state_spec(const struct state *s, struct spec *ret, struct err *err)
{
    auto_close int fd = openat(s->dirfd, STATE_CONFIG, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    json_t *doc;

    if (fd < 0)
        return err_sys(err, errno, "open the saved configuration of %s", s->id);
    if (json_load_fd(fd, "the saved configuration", &doc, err) < 0)
        return -err->code;
    return spec_parse(ret, s->pool, doc, err);
}

int state_remove(struct state *s, struct err *err)
{
    auto_close int root = open(s->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int rc;

    if (root < 0)
        return err_sys(err, errno, "open %s", s->root);
    /* The record goes last: as long as it is there, a second `delete` can finish the work. */
    rc = file_remove_all_but(s->dirfd, RECORD);
    if (rc == -EXDEV || rc == -EBUSY)
        return err_set(err, -rc, "remove %s/%s: something is mounted there; unmount it first",
                       s->root, s->id);
    if (rc == 0 && ((unlinkat(s->dirfd, RECORD, 0) < 0 && errno != ENOENT) ||
                    unlinkat(root, s->id, AT_REMOVEDIR) < 0))
        rc = -errno;
    return rc < 0 ? err_sys(err, -rc, "remove %s/%s", s->root, s->id) : 0;
}

void state_remove_empty(const char *root, const char *id)
{
    auto_close int top = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = top < 0 ? -1 : openat(top, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;

    /* A `create` that is still at it has the lock. */
    if (dir && flock(fd, LOCK_EX | LOCK_NB) == 0 &&
        faccessat(fd, RECORD, F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
        while ((e = readdir(dir)))
            if (strncmp(e->d_name, "." RECORD ".", sizeof("." RECORD)) == 0)
                unlinkat(fd, e->d_name, 0);
        unlinkat(top, id, AT_REMOVEDIR);
    }
    if (dir)
        closedir(dir);
}

void state_close(struct state *s)
{
    /* Unlocked by name: a forked child may still hold the description that carries the lock. */
    if (s->locked)
        flock(s->dirfd, LOCK_UN);
    s->locked = false;
    if (s->pool && s->dirfd >= 0)
        close(s->dirfd);
    s->dirfd = -1;
    json_object_put(s->doc);
    s->doc = NULL;
}

u64 state_start_time(int pid)
{
    char path[32], buf[1024], *at;
    unsigned long long start;
    char mode;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    if (pid <= 0 || file_read_at(AT_FDCWD, path, buf, sizeof(buf)) <= 0)
        return 0;
    at = strrchr(buf, ')'); /* the command name may hold anything, a ')' too */
    if (!at ||
        sscanf(at + 1,
               " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &mode, &start) != 2)
        return 0;
    return mode == 'Z' || mode == 'X' ? 0 : start;
}

int state_pidfd(const struct state *s)
{
    int fd;

    if (s->pid <= 0)
        return -ESRCH;
    fd = sys_pidfd_open(s->pid, 0);
    if (fd < 0)
        return -ESRCH;
    if (state_start_time(s->pid) != s->start_time) {
        close(fd);
        return -ESRCH;
    }
    return fd;
}

enum status state_status(const struct state *s)
{
    struct stat st;

    if (s->pid <= 0)
        return s->creator > 0 && state_start_time(s->creator) == s->creator_start ? STATUS_CREATING
                                                                                  : STATUS_STOPPED;
    if (state_start_time(s->pid) != s->start_time)
        return STATUS_STOPPED;
    if (fstatat(s->dirfd, STATE_SOCKET, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return STATUS_CREATED;
    return cgroup_is_frozen(&s->cgroup) ? STATUS_PAUSED : STATUS_RUNNING;
}

const char *status_name(enum status st)
{
    static const char *const status_names[] = {"creating", "created", "running", "paused",
                                               "stopped"};

    return status_names[st];
}

json_t *state_to_json(const struct state *s, enum status st)
{
    json_t *o = json_object_new_object();

    add_str(o, "ociVersion", SPEC_VERSION);
    add_str(o, "id", s->id);
    json_object_object_add(o, "pid", json_object_new_int(st == STATUS_STOPPED ? 0 : s->pid));
    add_str(o, "status", status_name(st));
    add_str(o, "bundle", s->bundle);
    add_str(o, "rootfs", s->rootfs);
    add_str(o, "created", s->created);
    if (s->annotations && json_object_object_length(s->annotations))
        json_object_object_add(o, "annotations", json_object_get(s->annotations));
    add_str(o, "owner", s->owner ? s->owner : "");
    return o;
}
