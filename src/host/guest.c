/*
 * One guest's life in the records and on the disk.
 *
 * Invariants, which hold when any process is killed between any two lines:
 *  1. A folder guests/<id> exists only with its lock file inside: it is made under another name (.new-<id>) and renamed
 *     when its lock is held.
 *  2. A record says "running" only if its lock was held when that was written. So: running, and the lock is free: it has
 *     ended since, and the lock file says how, or it was killed.
 *  3. A folder whose removal has begun is called .rm-<id>; nobody takes it for a guest's any more.
 *  4. A folder without a record holds nothing but files of ours if no guest ever ran; only those are removed unasked.
 */
#include "host/guest.h"

#include "base/log.h"
#include "host/client.h"
#include "host/lock.h"
#include "host/snapshot.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NEW ".new-"
#define REMOVED ".rm-"
#define YOUNG_S 60
#define KILL_MS 10000

/* What is in the folder of a guest that never had snapshots. */
static const char *const own_files[] = {"console.log", "messages.log", "debug.log",
                                        "kernel",      "lock",         "snapshot.lock"};

static int no_memory(struct err *err)
{
    return err_set(err, ENOMEM, "guest: no memory");
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

/* Removes a folder; `all`: with whatever is in it, else only when nothing but our own files is. 0 or -errno. */
static int remove_folder(const char *path, bool all)
{
    if (all)
        return nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS) ? -errno : 0;
    auto_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int others = 0;
    DIR *d = fd < 0 ? NULL : fdopendir(dup(fd));
    for (struct dirent *e; d && (e = readdir(d));) {
        bool ours = e->d_name[0] == '.' && (!e->d_name[1] || !strcmp(e->d_name, ".."));

        for (size_t i = 0; i < ARRAY_LEN(own_files); i++)
            ours |= !strcmp(e->d_name, own_files[i]);
        others += !ours;
    }
    if (d)
        closedir(d);
    if (others)
        return -ENOTEMPTY;
    for (size_t i = 0; i < ARRAY_LEN(own_files) && fd >= 0; i++)
        unlinkat(fd, own_files[i], 0);
    return rmdir(path) && errno != ENOENT ? -errno : 0;
}

static void make_id(char id[RECORD_ID_LEN + 1])
{
    u8 bytes[RECORD_ID_LEN / 2] = {0};

    if (getrandom(bytes, sizeof(bytes), 0) < 0)
        log_warn("no random numbers for an id");
    for (unsigned i = 0; i < sizeof(bytes); i++)
        snprintf(id + 2 * i, 3, "%02x", bytes[i]);
}

/* The folder with its lock held by us; see invariant 1. */
static int make_folder(struct host *h, struct guest *g, struct err *err)
{
    char fresh_id[sizeof(NEW) + RECORD_ID_LEN];

    make_id(g->id);
    snprintf(fresh_id, sizeof(fresh_id), NEW "%s", g->id);
    auto_free char *fresh = place_guest(&h->place, fresh_id, NULL);
    auto_free char *lock = place_guest(&h->place, fresh_id, "lock");
    auto_free char *folder = place_guest(&h->place, g->id, NULL);
    if (!fresh || !lock || !folder)
        return no_memory(err);
    if (mkdir(fresh, 0700))
        return err_sys(err, errno, "cannot make the folder '%s'", fresh);
    g->lock = lock_take(lock, err);
    if (g->lock < 0)
        return g->lock;
    if (rename(fresh, folder)) {
        int code = errno;

        remove_folder(fresh, false);
        return err_sys(err, code, "cannot make the folder '%s'", folder);
    }
    return 0;
}

bool guest_moved_away(const struct record *record)
{
    const char *reason = record->state == RECORD_ENDED && record->reason ? record->reason : "";

    return !strcmp(reason, GUEST_MOVED) || !strncmp(reason, GUEST_HANDED, strlen(GUEST_HANDED));
}

static int listen_at(struct host *h, struct guest *g, struct err *err)
{
    auto_free char *path = place_socket(&h->place, g->id);

    if (!path)
        return no_memory(err);
    int fd = client_listen(path);
    if (fd < 0)
        return err_sys(err, -fd, "control socket '%s'", path);
    g->listener = fd;
    return 0;
}

/* The first of vm1, vm2, ... that nobody has; within a transaction. */
static int free_name(struct host *h, char name[RECORD_NAME_SIZE], struct err *err)
{
    struct record *list = NULL;
    size_t count = 0, n = 0;
    int rc = records_list(h->records, &list, &count, err);
    bool taken = !rc;

    while (taken) {
        snprintf(name, RECORD_NAME_SIZE, "vm%zu", ++n);
        taken = false;
        for (size_t i = 0; i < count; i++)
            taken |= !strcmp(list[i].name, name);
    }
    records_free_list(list, count);
    return rc;
}

/* Who has the name; the error of guest_create(). -EAGAIN: nobody any more. */
static int name_taken(struct host *h, const char *name, struct err *err)
{
    struct record *list = NULL;
    size_t count = 0;
    int rc = host_settle(h, err);

    if (!rc)
        rc = records_list(h->records, &list, &count, err);
    if (!rc)
        rc = -EAGAIN;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(list[i].name, name))
            continue;
        if (list[i].state == RECORD_RUNNING)
            rc = err_set(
                err, EEXIST,
                "'%s' is the name of a running guest (%s): stop that one, or take another name",
                name, list[i].id);
        else
            rc = err_set(err, EEXIST,
                         "'%s' is the name of a guest that has ended (%s): 'trapeze start %s' "
                         "starts it again, 'trapeze rm "
                         "%s' removes it",
                         name, list[i].id, name, name);
    }
    records_free_list(list, count);
    return rc;
}

static int add_record(struct host *h, struct guest *g, const char *name,
                      const struct record *record, struct err *err)
{
    struct record x = *record;
    int rc = records_begin(h->records, err);

    if (rc)
        return rc;
    snprintf(x.id, sizeof(x.id), "%s", g->id);
    if (name)
        snprintf(x.name, sizeof(x.name), "%s", name);
    else
        rc = free_name(h, x.name, err);
    if (!rc)
        rc = records_add(h->records, &x, err);
    if (!rc)
        rc = records_commit(h->records, err);
    else
        records_rollback(h->records);
    if (!rc)
        snprintf(g->name, sizeof(g->name), "%s", x.name);
    return rc;
}

int guest_create(struct host *h, const char *name, const char *config, bool transient,
                 struct guest *ret_guest, struct err *err)
{
    struct guest g = GUEST_INIT;
    struct record x = {.config = (char *)config,
                       .transient = transient,
                       .state = RECORD_RUNNING,
                       .pid = (int)getpid(),
                       .status = RECORD_NO_STATUS,
                       .created_s = time(NULL),
                       .started_s = time(NULL)};
    int rc = make_folder(h, &g, err);

    if (!rc)
        rc = listen_at(h, &g, err);
    for (int i = 0; i < 3 && !rc; i++) {
        rc = add_record(h, &g, name, &x, err);
        if (rc != -EEXIST || !name)
            break;
        if ((rc = name_taken(h, name, err)) == -EAGAIN)
            rc = 0; /* it was stale: once more */
    }
    if (rc) {
        auto_free char *folder = g.lock >= 0 ? place_guest(&h->place, g.id, NULL) : NULL;
        auto_free char *socket = place_socket(&h->place, g.id);

        if (folder)
            remove_folder(folder, false);
        if (socket && g.listener >= 0)
            unlink(socket);
        guest_close(&g);
        return rc;
    }
    *ret_guest = g;
    return 0;
}

int guest_restart(struct host *h, const struct record *record, struct guest *ret_guest,
                  struct err *err)
{
    auto_free char *lock = place_guest(&h->place, record->id, "lock");
    struct guest g = GUEST_INIT;
    struct record x = *record;

    if (!lock)
        return no_memory(err);
    snprintf(g.id, sizeof(g.id), "%s", record->id);
    snprintf(g.name, sizeof(g.name), "%s", record->name);
    g.lock = lock_take(lock, err);
    if (g.lock == -EBUSY)
        return err_set(err, EBUSY, "%s runs already", record->name);
    int rc = MIN(g.lock, 0);
    if (!rc)
        rc = listen_at(h, &g, err);
    x.state = RECORD_RUNNING;
    x.pid = (int)getpid();
    x.status = RECORD_NO_STATUS;
    x.reason = NULL;
    x.started_s = time(NULL);
    x.ended_s = 0;
    if (!rc)
        rc = records_update(h->records, &x, err);
    if (rc) {
        guest_close(&g);
        return rc;
    }
    *ret_guest = g;
    return 0;
}

int guest_away(struct guest *g, const char *place, struct err *err)
{
    return lock_write_away(g->lock, place, err);
}

void guest_end(struct guest *g, int status, const char *reason)
{
    struct lock_end end = {.known = true, .status = status, .when_s = time(NULL)};

    snprintf(end.reason, sizeof(end.reason), "%s", reason ? reason : "");
    lock_write_end(g->lock, &end);
}

void guest_close(struct guest *g)
{
    if (g->listener >= 0)
        close(g->listener);
    if (g->lock >= 0)
        close(g->lock);
    *g = GUEST_INIT;
}

bool guest_lives(const struct host *h, const char *id)
{
    auto_free char *lock = place_guest(&h->place, id, "lock");

    return !lock || lock_is_held(lock);
}

/* Why it ended, as the record keeps it; NULL: no reason was given. */
static int reason_of(const struct lock_end *end, char **ret_reason, struct err *err)
{
    char *reason = NULL;

    /* Whatever ended the process: `start` must know that it is not the guest's end. */
    if (end->away && strcmp(end->reason, GUEST_MOVED)) {
        if (asprintf(&reason, GUEST_HANDED "%s%s", *end->place ? ", " : "", end->place) < 0)
            return no_memory(err);
    } else if (*end->reason && !(reason = strdup(end->reason))) {
        return no_memory(err);
    }
    *ret_reason = reason;
    return 0;
}

/* Its end goes into *x; transient ones leave nothing behind but what somebody else has put into the folder. */
static int write_end(struct host *h, struct record *x, bool *ret_gone, struct err *err)
{
    auto_free char *lock = place_guest(&h->place, x->id, "lock");
    auto_free char *folder = place_guest(&h->place, x->id, NULL);
    auto_free char *socket = place_socket(&h->place, x->id);
    struct lock_end end;
    char *reason = NULL;

    if (!lock || !folder || !socket)
        return no_memory(err);
    lock_read_end(lock, &end);
    int rc = reason_of(&end, &reason, err);
    if (rc)
        return rc;
    x->state = RECORD_ENDED;
    x->pid = 0;
    x->status = end.known ? end.status : RECORD_NO_STATUS;
    x->ended_s = end.known ? end.when_s : time(NULL);
    free(x->reason);
    x->reason = reason;
    unlink(socket);
    *ret_gone = x->transient && remove_folder(folder, false) == 0;
    x->transient = false;
    if (!end.known)
        log_warn("guest %s (%s) has died without a word, perhaps killed or out of memory; %s",
                 x->name, x->id,
                 end.away    ? "it had been handed over to another host"
                 : *ret_gone ? "its record is removed"
                             : "it is noted as ended");
    return *ret_gone ? records_remove(h->records, x->id, err) : records_update(h->records, x, err);
}

int guest_settle(struct host *h, struct record *record, bool *ret_gone, struct err *err)
{
    struct record x = {0};

    *ret_gone = false;
    if (record->state != RECORD_RUNNING || guest_lives(h, record->id))
        return 0;
    /* Again, with others kept away: somebody may have settled or restarted it by now. */
    int rc = records_begin(h->records, err);
    if (rc)
        return rc;
    rc = records_get(h->records, record->id, &x, err);
    if (rc == -ENOENT) {
        *ret_gone = true;
        rc = 0;
    } else if (!rc && x.state == RECORD_RUNNING && !guest_lives(h, x.id)) {
        rc = write_end(h, &x, ret_gone, err);
    }
    if (rc)
        records_rollback(h->records);
    else
        rc = records_commit(h->records, err);
    if (!rc && *x.id) {
        record_fini(record);
        *record = x;
    } else {
        record_fini(&x);
    }
    return rc;
}

int guest_wait(const struct host *h, const char *id, int timeout_ms)
{
    auto_free char *lock = place_guest(&h->place, id, "lock");
    int pid;
    auto_close int fd = lock ? lock_holder(lock, &pid) : -1;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n = 1;

    if (fd >= 0)
        do
            n = poll(&p, 1, timeout_ms);
        while (n < 0 && errno == EINTR);
    return n > 0 ? 0 : -ETIMEDOUT;
}

int guest_kill(const struct host *h, const char *id, int status, struct err *err)
{
    auto_free char *lock = place_guest(&h->place, id, "lock");
    int pid;
    auto_close int fd = lock ? lock_holder(lock, &pid) : -1;
    struct lock_end end = {
        .known = true, .status = status, .when_s = time(NULL), .reason = "killed"};

    if (fd < 0)
        return 0;
    if (syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) && errno != ESRCH)
        return err_sys(err, errno, "cannot kill process %d", pid);
    if (guest_wait(h, id, KILL_MS))
        return err_set(err, EIO, "process %d does not end even after SIGKILL", pid);
    auto_close int held = lock_hold(lock, NULL);
    lock_write_end(held, &end);
    return 0;
}

int guest_remove(struct host *h, const struct record *record, struct err *err)
{
    char removed_id[sizeof(REMOVED) + RECORD_ID_LEN];

    snprintf(removed_id, sizeof(removed_id), REMOVED "%s", record->id);
    auto_free char *folder = place_guest(&h->place, record->id, NULL);
    auto_free char *removed = place_guest(&h->place, removed_id, NULL);
    auto_free char *lock = place_guest(&h->place, record->id, "lock");
    auto_free char *socket = place_socket(&h->place, record->id);
    if (!folder || !removed || !lock || !socket)
        return no_memory(err);
    auto_close int held = access(folder, F_OK) ? -1 : lock_hold(lock, err);
    if (held == -EBUSY)
        return err_set(err, EBUSY, "it is running: stop it first, or use rm -f");
    if (held >= 0 && rename(folder, removed))
        return err_sys(err, errno, "cannot remove '%s'", folder);
    if (guest_moved_away(record))
        layers_lend(h, record, true);
    int rc = records_remove(h->records, record->id, err);
    unlink(socket);
    if (!rc && held >= 0 && (rc = remove_folder(removed, true)))
        rc = err_sys(err, -rc, "cannot remove '%s'", removed);
    return rc;
}

static bool is_id(const char *text)
{
    return strlen(text) == RECORD_ID_LEN && strspn(text, "0123456789abcdef") == RECORD_ID_LEN;
}

/* One entry of guests/. */
static void sweep_folder(struct host *h, const char *name)
{
    bool fresh = !strncmp(name, NEW, strlen(NEW)),
         removed = !strncmp(name, REMOVED, strlen(REMOVED));
    auto_free char *folder = place_guest(&h->place, name, NULL);
    auto_free char *lock = place_guest(&h->place, name, "lock");
    struct record x = {0};
    struct stat st;

    if ((!is_id(name) && !fresh && !removed) || !folder || !lock || stat(folder, &st))
        return;
    /* Somebody may be between two steps: the folder made, the lock's file made, the lock taken. */
    if (lock_is_held(lock) || ((fresh || access(lock, F_OK)) && time(NULL) - st.st_mtime < YOUNG_S))
        return;
    if (is_id(name)) {
        int rc = records_get(h->records, name, &x, NULL);

        record_fini(&x);
        if (rc != -ENOENT)
            return;
    }
    remove_folder(folder, removed);
}

void guest_sweep_folders(struct host *h)
{
    auto_free char *path = NULL;

    if (asprintf(&path, "%s/guests", h->place.root) < 0)
        return;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            sweep_folder(h, e->d_name);
    if (d)
        closedir(d);
}
