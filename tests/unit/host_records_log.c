/* The log of the records, which each process reads that opens them while nobody else has. Not a case of host_records.c: that
 * runs again for each call that can fail, and this takes some hundred processes. */
#include "unit.h"

#include "host/records.h"
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHANGES 200
#define FRAME 4120 /* a page in the log */
#define FRAMES_MAX 120

/* A process that makes a change. */
static void change_once(const char *path, bool add)
{
    struct record x = {.id = "0123456789ab", .name = "one", .state = RECORD_ENDED};
    int status;
    pid_t child = fork();

    if (!child) {
        struct records *r = NULL;
        int rc = records_open(path, &r, NULL);

        if (!rc)
            rc = add ? records_add(r, &x, NULL) : records_remove(r, x.id, NULL);
        records_close(r);
        _exit(rc != 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void stays_short_when_processes_follow_each_other(void **state)
{
    char folder[64], path[80], log[96], shared[96];
    struct stat st;

    snprintf(folder, sizeof(folder), "%s/unit-log-XXXXXX", getenv("TMPDIR") ?: "/tmp");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/db", folder);
    snprintf(log, sizeof(log), "%s-wal", path);
    snprintf(shared, sizeof(shared), "%s-shm", path);
    for (int i = 0; i < CHANGES; i++) {
        change_once(path, i % 2 == 0);
        assert_int_equal(stat(log, &st), 0);
        assert_true(st.st_size < FRAMES_MAX * FRAME);
    }
    unlink(shared);
    unlink(log);
    unlink(path);
    assert_int_equal(rmdir(folder), 0);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(stays_short_when_processes_follow_each_other),
};

UNIT_MAIN(tests)
