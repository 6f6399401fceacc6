/* Records and locks of guests, with several processes at once, and processes that are killed. */
#include "unit.h"

#include "host/client.h"
#include "host/guest.h"
#include "host/lock.h"
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char root[64];

static int setup(void **state)
{
    snprintf(root, sizeof(root), "%s/unit-host-XXXXXX", getenv("TMPDIR") ?: "/tmp");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static int teardown(void **state)
{
    return nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void open_host(struct host *h)
{
    struct err err = ERR_INIT;

    if (host_open(h, root, &err))
        fail_msg("%s", err.msg);
}

static size_t count_records(struct host *h)
{
    struct record *list = NULL;
    size_t count = 0;

    assert_int_equal(records_list(h->records, &list, &count, NULL), 0);
    records_free_list(list, count);
    return count;
}

static void test_life(void **state)
{
    struct guest g = GUEST_INIT;
    struct record x = {0};
    struct host h;
    bool gone;

    open_host(&h);
    assert_int_equal(guest_create(&h, NULL, "memory=16M\n", false, &g, NULL), 0);
    assert_string_equal(g.name, "vm1");
    assert_true(guest_lives(&h, g.id));
    assert_int_equal(host_find(&h, "vm", &x, NULL), 0);
    assert_string_equal(x.id, g.id);
    assert_string_equal(x.config, "memory=16M\n");
    assert_int_equal(x.state, RECORD_RUNNING);
    assert_int_equal(guest_remove(&h, &x, NULL), -EBUSY);
    assert_int_equal(guest_restart(&h, &x, &g, NULL), -EBUSY);
    guest_end(&g, 43, "one\nline");
    assert_true(guest_lives(&h, g.id));
    guest_close(&g);
    assert_false(guest_lives(&h, x.id));
    assert_int_equal(guest_settle(&h, &x, &gone, NULL), 0);
    assert_false(gone);
    assert_int_equal(x.state, RECORD_ENDED);
    assert_int_equal(x.status, 43);
    assert_string_equal(x.reason, "one line");

    assert_int_equal(guest_restart(&h, &x, &g, NULL), 0);
    guest_end(&g, 0, NULL);
    guest_close(&g);
    assert_int_equal(host_settle(&h, NULL), 0);
    record_fini(&x);
    assert_int_equal(host_find(&h, "vm1", &x, NULL), 0);
    assert_int_equal(x.status, 0);
    assert_null(x.reason);
    assert_int_equal(guest_remove(&h, &x, NULL), 0);
    record_fini(&x);
    assert_int_equal(host_find(&h, "vm1", &x, NULL), -ENOENT);
    host_close(&h);
}

static void test_names(void **state)
{
    struct guest a = GUEST_INIT, b = GUEST_INIT, c = GUEST_INIT;
    struct record x = {0};
    struct err err = ERR_INIT;
    struct host h;

    open_host(&h);
    assert_int_equal(guest_create(&h, "web", "", true, &a, NULL), 0);
    assert_int_equal(guest_create(&h, "web", "", true, &b, &err), -EEXIST);
    assert_non_null(strstr(err.msg, "running guest"));
    assert_int_equal(guest_create(&h, "web-2", "", true, &b, NULL), 0);
    assert_int_equal(host_find(&h, "web", &x, NULL), 0); /* all of a name beats a beginning */
    record_fini(&x);
    assert_int_equal(host_find(&h, "we", &x, &err), -ENOTUNIQ);
    assert_non_null(strstr(err.msg, "web-2"));
    assert_int_equal(host_find(&h, "", &x, NULL), -ENOENT);
    /* A transient one that is gone gives its name free, also without a word. */
    guest_close(&a);
    assert_int_equal(guest_create(&h, "web", "", true, &c, NULL), 0);
    guest_close(&b);
    guest_end(&c, 0, NULL);
    guest_close(&c);
    assert_int_equal(host_settle(&h, NULL), 0);
    assert_int_equal(count_records(&h), 0);
    host_close(&h);
}

/* What somebody else put into the folder of a transient guest is not thrown away. */
static void test_transient_with_overlay(void **state)
{
    struct guest g = GUEST_INIT;
    struct host h;

    open_host(&h);
    assert_int_equal(guest_create(&h, "web", "", true, &g, NULL), 0);
    auto_free char *overlay = place_guest(&h.place, g.id, "disk0.1.qcow2");
    close(open(overlay, O_CREAT | O_WRONLY, 0600));
    guest_end(&g, 0, NULL);
    guest_close(&g);
    assert_int_equal(host_settle(&h, NULL), 0);
    assert_int_equal(count_records(&h), 1);
    assert_int_equal(access(overlay, F_OK), 0);
    host_close(&h);
}

static void test_orphans(void **state)
{
    static const char *const names[] = {"0123456789ab", ".new-0123456789ab", ".rm-0123456789ab",
                                        "not-ours"};
    struct timespec old[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    struct host h;

    open_host(&h);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        auto_free char *folder = place_guest(&h.place, names[i], NULL);
        auto_free char *lock = place_guest(&h.place, names[i], "lock");

        mkdir(folder, 0700);
        close(open(lock, O_CREAT | O_WRONLY, 0600));
        utimensat(AT_FDCWD, folder, old, 0);
    }
    auto_free char *young = place_guest(&h.place, ".new-fedcba987654", NULL);
    auto_free char *full = place_guest(&h.place, "aaaaaaaaaaaa", NULL);
    auto_free char *overlay = place_guest(&h.place, "aaaaaaaaaaaa", "disk0.1.qcow2");
    auto_free char *young_lock = place_guest(&h.place, ".new-fedcba987654", "lock");
    mkdir(young, 0700);
    close(open(young_lock, O_CREAT | O_WRONLY,
               0600)); /* not held yet: its owner is between two steps */
    mkdir(full, 0700);
    close(open(overlay, O_CREAT | O_WRONLY, 0600));
    utimensat(AT_FDCWD, full, old, 0);
    guest_sweep_folders(&h);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        auto_free char *folder = place_guest(&h.place, names[i], NULL);

        assert_int_equal(access(folder, F_OK) == 0, i == 3);
    }
    assert_int_equal(access(young_lock, F_OK), 0);
    assert_int_equal(access(overlay, F_OK), 0);
    host_close(&h);
}

/* Creates guests until it is killed; each says its id to the pipe when it is whole. */
static void __attribute__((noreturn)) create_for_ever(int out)
{
    struct host h;

    open_host(&h);
    for (;;) {
        struct guest g = GUEST_INIT;

        if (guest_create(&h, NULL, "", false, &g, NULL) ||
            write(out, g.id, RECORD_ID_LEN) != RECORD_ID_LEN)
            _exit(1);
        guest_end(&g, 0, NULL);
        guest_close(&g);
    }
}

/* A neighbour that is short of descriptors does not take who lives for dead. */
static void test_no_descriptors(void **state)
{
    struct rlimit old, none = {0, 0};
    struct guest g = GUEST_INIT;
    struct host h;

    open_host(&h);
    assert_int_equal(guest_create(&h, "web", "", false, &g, NULL), 0);
    getrlimit(RLIMIT_NOFILE, &old);
    none.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_NOFILE, &none);
    bool lives = guest_lives(&h, g.id);
    host_settle(&h, NULL);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_true(lives);
    struct record x = {0};
    assert_int_equal(host_find(&h, "web", &x, NULL), 0);
    assert_int_equal(x.state, RECORD_RUNNING);
    record_fini(&x);
    guest_close(&g);
    host_close(&h);
}

/* kill -9 between any two steps: all that was reported is there, nothing is half there, records can be used. */
static void test_killed(void **state)
{
    int ends[2];
    char id[RECORD_ID_LEN + 1] = "";
    unsigned reported = 0;

    if (getenv("TRAPEZE_UNIT_FAULTS"))
        UNIT_SKIP("it waits for processes of its own, which would fail");
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    for (int i = 0; i < 12; i++) {
        pid_t child = fork();

        if (!child) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            /* In the child only: warnings about what the last one left. */
            close(STDERR_FILENO);
            fcntl(ends[1], F_SETFL, 0);
            create_for_ever(ends[1]);
        }
        usleep(2000 + (useconds_t)i * 1700);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    int quiet = dup(STDERR_FILENO);
    dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
    struct host h;
    open_host(&h);
    dup2(quiet, STDERR_FILENO);
    while (read(ends[0], id, RECORD_ID_LEN) == RECORD_ID_LEN) {
        struct record x = {0};

        assert_int_equal(records_get(h.records, id, &x, NULL), 0);
        assert_int_equal(x.state, RECORD_ENDED);
        record_fini(&x);
        reported++;
    }
    assert_in_range(count_records(&h), reported, reported + 12);
    host_close(&h);
    close(quiet);
    close(ends[0]);
    close(ends[1]);
}

static void test_end_of_a_holder(void **state)
{
    int ends[2], pid = 0;
    char byte;
    struct lock_end end;

    if (getenv("TRAPEZE_UNIT_FAULTS"))
        UNIT_SKIP("it waits for processes of its own, which would fail");
    auto_free char *path = NULL;
    assert_true(asprintf(&path, "%s/lock", root) > 0);
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (lock_take(path, NULL) < 0 || write(ends[1], "x", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    assert_int_equal(read(ends[0], &byte, 1), 1);
    assert_true(lock_is_held(path));
    int fd = lock_holder(path, &pid);
    assert_true(fd >= 0);
    assert_int_equal(pid, child);
    close(fd);
    assert_int_equal(lock_hold(path, NULL), -EBUSY);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_false(lock_is_held(path));
    assert_int_equal(lock_holder(path, &pid), -ESRCH);
    lock_read_end(path, &end);
    assert_false(end.known);
    close(ends[0]);
    close(ends[1]);
}

/* The lock file is read by others: whatever is in it. */
static void test_odd_lock_files(void **state)
{
    static const char *const texts[] = {"",
                                        "pid",
                                        "pid x\n",
                                        "end 1 2 x",
                                        "pid 1\nend",
                                        "pid 1\nend \n",
                                        "pid 1\nend 99999999999999999999 x\n",
                                        "\nend 1\n"};
    auto_free char *path = NULL;

    assert_true(asprintf(&path, "%s/lock", root) > 0);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct lock_end end;
        int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

        assert_int_equal(write(fd, texts[i], strlen(texts[i])), strlen(texts[i]));
        close(fd);
        lock_read_end(path, &end);
        assert_false(end.known);
    }
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test_setup_teardown(test_life, setup, teardown),
    cmocka_unit_test_setup_teardown(test_names, setup, teardown),
    cmocka_unit_test_setup_teardown(test_transient_with_overlay, setup, teardown),
    cmocka_unit_test_setup_teardown(test_orphans, setup, teardown),
    cmocka_unit_test_setup_teardown(test_no_descriptors, setup, teardown),
    cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
    cmocka_unit_test_setup_teardown(test_end_of_a_holder, setup, teardown),
    cmocka_unit_test_setup_teardown(test_odd_lock_files, setup, teardown),
};

UNIT_MAIN(tests)
