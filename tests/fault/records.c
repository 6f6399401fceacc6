/*
 * The host's records when a call of SQLite's own fails (ENOSPC, EIO), or the process is killed in it: at every call in
 * turn. Whatever happens, others can use the records afterwards, what was reported as done is there, and what was begun is
 * there as a whole or not at all.
 *
 * SQLite makes its calls by a table, which its Unix file layer lets us change; fdatasync() is not in it, so this program
 * defines its own, which the library then finds.
 */
#include "unit.h"

#include "host/guest.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CALLS_MAX 2000 /* a life that makes more is not what this test is about */

static char root[64];
static int calls, harmed_call;
static int harm; /* an errno, or 0: the process dies */

/* Shared with the process that is harmed: how far it came. */
static struct progress {
    _Atomic unsigned done; /* steps that were reported as done */
    _Atomic unsigned begun;
    _Atomic bool harmed;
} * progress;

/* Is this the call? */
static bool is_harmed(void)
{
    if (++calls != harmed_call)
        return false;
    atomic_store(&progress->harmed, true);
    if (!harm)
        raise(SIGKILL);
    errno = harm;
    return true;
}

int fdatasync(int fd)
{
    return is_harmed() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

static int bad_open(const char *path, int flags, int mode)
{
    return is_harmed() ? -1 : open(path, flags, mode);
}

static ssize_t bad_read(int fd, void *buf, size_t len)
{
    return is_harmed() ? -1 : read(fd, buf, len);
}

static ssize_t bad_write(int fd, const void *buf, size_t len)
{
    return is_harmed() ? -1 : write(fd, buf, len);
}

static ssize_t bad_pread(int fd, void *buf, size_t len, off_t at)
{
    return is_harmed() ? -1 : pread(fd, buf, len, at);
}

static ssize_t bad_pwrite(int fd, const void *buf, size_t len, off_t at)
{
    return is_harmed() ? -1 : pwrite(fd, buf, len, at);
}

static int bad_ftruncate(int fd, off_t len)
{
    return is_harmed() ? -1 : ftruncate(fd, len);
}

static void *bad_mmap(void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
    return is_harmed() ? MAP_FAILED : mmap(at, len, prot, flags, fd, offset);
}

static void harm_sqlite(void)
{
    static const struct {
        const char *name;
        sqlite3_syscall_ptr call;
    } table[] = {{"open", (sqlite3_syscall_ptr)bad_open},
                 {"read", (sqlite3_syscall_ptr)bad_read},
                 {"pread", (sqlite3_syscall_ptr)bad_pread},
                 {"pread64", (sqlite3_syscall_ptr)bad_pread},
                 {"write", (sqlite3_syscall_ptr)bad_write},
                 {"pwrite", (sqlite3_syscall_ptr)bad_pwrite},
                 {"pwrite64", (sqlite3_syscall_ptr)bad_pwrite},
                 {"ftruncate", (sqlite3_syscall_ptr)bad_ftruncate},
                 {"mmap", (sqlite3_syscall_ptr)bad_mmap}};
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);

    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (vfs->xSetSystemCall(vfs, table[i].name, table[i].call))
            _exit(2);
}

/* --- a guest's life, step by step --- */

static const char big_config[] =
    "kernel=/somewhere\n"; /* its length does not matter, that it is whole does */

static void step(void)
{
    atomic_fetch_add(&progress->begun, 1);
}

static void done(void)
{
    atomic_store(&progress->done, atomic_load(&progress->begun));
}

/* A change by hand, as a snapshot makes it. */
static int change(struct host *h, const char *name, const char *reason)
{
    struct record x = {0};
    int rc = records_begin(h->records, NULL);

    if (rc)
        return rc;
    rc = host_find(h, name, &x, NULL);
    if (!rc) {
        free(x.reason);
        x.reason = strdup(reason);
        rc = records_update(h->records, &x, NULL);
    }
    rc = rc ? rc : records_commit(h->records, NULL);
    if (rc)
        records_rollback(h->records);
    record_fini(&x);
    return rc;
}

/* The harmed process: 1 open, 2 create "a", 3 change it, 4 it ends, 5 create "b", 6 remove "a". */
static void live(void)
{
    struct guest a = GUEST_INIT, b = GUEST_INIT;
    struct record x = {0};
    struct host h = {0};
    int rc;

    harm_sqlite();
    step();
    if ((rc = host_open(&h, root, NULL)))
        _exit(0);
    done();
    step();
    if ((rc = guest_create(&h, "a", big_config, false, &a, NULL)))
        _exit(0);
    done();
    step();
    if (change(&h, "a", "changed"))
        _exit(0);
    done();
    step();
    guest_end(&a, 7, "over");
    guest_close(&a);
    if (host_settle(&h, NULL))
        _exit(0);
    done();
    step();
    if (guest_create(&h, "b", big_config, false, &b, NULL))
        _exit(0);
    done();
    step();
    if (!host_find(&h, "a", &x, NULL) && !guest_remove(&h, &x, NULL))
        done();
    record_fini(&x);
    host_close(&h);
    _exit(0);
}

/* --- what others find --- */

static const struct record *find(const struct record *list, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(list[i].name, name))
            return &list[i];
    return NULL;
}

static void check(void)
{
    unsigned sure = atomic_load(&progress->done), begun = atomic_load(&progress->begun);
    struct err err = ERR_INIT;
    struct record *list = NULL;
    struct host h = {0};
    size_t count = 0;

    if (host_open(&h, root, &err) || records_list(h.records, &list, &count, &err))
        fail_msg("after %u of %u steps: %s", sure, begun, err.msg);
    const struct record *a = find(list, count, "a"), *b = find(list, count, "b");
    assert_int_equal(count, (a != NULL) + (b != NULL));
    if (begun < 2)
        assert_null(a);
    if (sure >= 2 && begun < 6)
        assert_non_null(a);
    if (sure >= 6)
        assert_null(a);
    if (begun < 5)
        assert_null(b);
    if (sure >= 5)
        assert_non_null(b);
    for (size_t i = 0; i < count; i++) {
        assert_string_equal(list[i].config, big_config);
        assert_int_equal(list[i].state, RECORD_ENDED); /* its process is gone */
    }
    if (a && sure >= 4)
        assert_int_equal(a->status, 7);
    /* And they can be used. */
    struct guest g = GUEST_INIT;
    assert_int_equal(guest_create(&h, "next", big_config, true, &g, NULL), 0);
    guest_close(&g);
    assert_int_equal(host_settle(&h, NULL), 0);
    records_free_list(list, count);
    host_close(&h);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

/* One life, harmed in its n-th call. false: it did not make so many. */
static bool harm_one(int n)
{
    int status;

    snprintf(root, sizeof(root), "%s/fault-records-XXXXXX", getenv("TMPDIR") ?: "/tmp");
    assert_non_null(mkdtemp(root));
    memset(progress, 0, sizeof(*progress));
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        calls = 0;
        harmed_call = n;
        live();
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    bool harmed = atomic_load(&progress->harmed);
    if (harmed && !harm)
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    else
        assert_true(WIFEXITED(status) && !WEXITSTATUS(status));
    check();
    nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    return harmed;
}

static void harm_all(int how)
{
    int n = 1;

    harm = how;
    while (harm_one(n) && n < CALLS_MAX)
        n++;
    assert_in_range(n, 20,
                    CALLS_MAX - 1); /* it does make calls, and came to its end without harm */
    assert_int_equal(atomic_load(&progress->done), 6);
}

static void test_killed(void **state)
{
    harm_all(0);
}

static void test_full(void **state)
{
    harm_all(ENOSPC);
}

static void test_broken(void **state)
{
    harm_all(EIO);
}

static int share_progress(void **state)
{
    progress =
        mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return progress == MAP_FAILED ? -1 : 0;
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_killed),
    cmocka_unit_test(test_full),
    cmocka_unit_test(test_broken),
};

int main(void)
{
    return cmocka_run_group_tests(tests, share_progress, NULL);
}
