/* What a locked-in thread may and may not do. Each probe runs in a process of its own. */
#include "unit.h"

#include "vm/sandbox.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ALLOWED = 0, REFUSED = 1, FORBIDDEN = 4, NO_SANDBOX = 77 };

typedef int probe_fn(void);

/* Runs probe() locked in; FORBIDDEN when the sandbox ended it. */
static int run_locked(enum sandbox_kind kind, struct sandbox_needs needs, probe_fn *probe)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        struct sandbox *s = NULL;
        struct err err = ERR_INIT;

        close(STDERR_FILENO); /* the message about a forbidden call */
        if (sandbox_new(&needs, &s, &err) || sandbox_enter(s, kind, &err))
            _exit(NO_SANDBOX);
        _exit(probe());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_not_equal(WEXITSTATUS(status), NO_SANDBOX);
    return WEXITSTATUS(status);
}

static int probe_open(void)
{
    return open("/etc/passwd", O_RDONLY) >= 0 ? ALLOWED : REFUSED;
}

static int probe_open_resolv(void)
{
    return open("/etc/resolv.conf", O_RDONLY) >= 0 ? ALLOWED : REFUSED;
}

static int probe_create(void)
{
    return open("/tmp", O_RDWR | O_TMPFILE, 0600) >= 0 ? ALLOWED : REFUSED;
}

static int probe_exec(void)
{
    char *argv[] = {"true", NULL};

    execv("/bin/true", argv);
    return REFUSED;
}

static int probe_fork(void)
{
    return syscall(SYS_fork) >= 0 ? ALLOWED : REFUSED;
}

static int probe_clone_process(void)
{
    return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) >= 0 ? ALLOWED : REFUSED;
}

static int probe_inet(void)
{
    return socket(AF_INET, SOCK_STREAM, 0) >= 0 ? ALLOWED : REFUSED;
}

static int probe_unix(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0) >= 0 ? ALLOWED : REFUSED;
}

static int probe_kill(void)
{
    return kill(getppid(), 0) == 0 ? ALLOWED : REFUSED;
}

static int probe_tgkill_parent(void)
{
    return syscall(SYS_tgkill, 1, 1, 0) == 0 ? ALLOWED : REFUSED;
}

static int probe_tgkill_self(void)
{
    return syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), 0) == 0 ? ALLOWED : REFUSED;
}

static int probe_map_write_exec(void)
{
    void *p =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? REFUSED : ALLOWED;
}

static int probe_protect_write_exec(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return mprotect(p, 4096, PROT_READ | PROT_EXEC) ||
                   mprotect(p, 4096, PROT_READ | PROT_WRITE | PROT_EXEC)
               ? REFUSED
               : ALLOWED;
}

static int probe_tiocsti(void)
{
    return syscall(SYS_ioctl, 0, 0x5412, "x") == 0 ? ALLOWED
                                                   : REFUSED; /* types into the terminal */
}

/* Any thread may find that the line over which it asks for a page is broken. */
static int probe_cut_line(void)
{
    return shutdown(-1, SHUT_RDWR) && errno == EBADF ? ALLOWED : REFUSED;
}

/* What vCPU threads live on. */
static int probe_daily_work(void)
{
    struct timespec now;
    void *p = malloc(1 << 20);

    free(p);
    p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p, 4096, PROT_READ | PROT_EXEC) ||
        madvise(p, 8192, MADV_DONTNEED) || munmap(p, 8192))
        return REFUSED;
    sched_yield();
    /* malloc() asks for it when more threads than usual want memory at once */
    if (syscall(SYS_sched_getaffinity, 0, sizeof(now), &now) < 0 && errno != EINVAL)
        return REFUSED;
    return clock_gettime(CLOCK_MONOTONIC, &now) ? REFUSED : ALLOWED;
}

/* {with sockets, without}, for each kind of thread. */
static const struct {
    const char *name;
    probe_fn *probe;
    int expected[SANDBOX_KINDS][2];
} probes[] = {
    {"open", probe_open, {{1, 4}, {1, 4}, {4, 4}}},
    {"open resolv.conf", probe_open_resolv, {{0, 4}, {0, 4}, {4, 4}}},
    {"create", probe_create, {{4, 4}, {4, 4}, {4, 4}}},
    {"exec", probe_exec, {{4, 4}, {4, 4}, {4, 4}}},
    {"fork", probe_fork, {{4, 4}, {4, 4}, {4, 4}}},
    {"clone", probe_clone_process, {{4, 4}, {4, 4}, {4, 4}}},
    {"socket inet", probe_inet, {{0, 4}, {0, 4}, {4, 4}}},
    {"socket unix", probe_unix, {{4, 4}, {4, 4}, {4, 4}}},
    {"kill", probe_kill, {{4, 4}, {4, 4}, {4, 4}}},
    {"tgkill of another", probe_tgkill_parent, {{4, 4}, {4, 4}, {4, 4}}},
    {"tgkill", probe_tgkill_self, {{0, 0}, {0, 0}, {0, 0}}},
    {"mmap", probe_map_write_exec, {{4, 4}, {4, 4}, {4, 4}}},
    {"mprotect", probe_protect_write_exec, {{4, 4}, {4, 4}, {4, 4}}},
    {"TIOCSTI", probe_tiocsti, {{4, 4}, {4, 4}, {4, 4}}},
    {"shutdown", probe_cut_line, {{0, 0}, {0, 0}, {0, 0}}},
    {"daily work", probe_daily_work, {{0, 0}, {0, 0}, {0, 0}}},
};

static void test_calls(void **state)
{
    bool has_resolv = access("/etc/resolv.conf", R_OK) == 0;

    for (size_t i = 0; i < ARRAY_LEN(probes); i++)
        for (int kind = 0; kind < SANDBOX_KINDS; kind++)
            for (int without = 0; without < 2; without++) {
                int expected = probes[i].expected[kind][without];
                int got = run_locked((enum sandbox_kind)kind,
                                     (struct sandbox_needs){.sockets = !without}, probes[i].probe);

                if (probes[i].probe == probe_open_resolv && !has_resolv && expected == ALLOWED)
                    expected = REFUSED;
                if (got != expected)
                    fail_msg("%s, kind %d, sockets %d: %d instead of %d", probes[i].name, kind,
                             !without, got, expected);
            }
}

static int run_without_filter(void *opaque, struct err *err)
{
    *(bool *)opaque = true;
    return -ENXIO;
}

static void test_run_returns_what_the_function_did(void **state)
{
    int status;
    pid_t pid = fork();

    if (!pid) {
        struct sandbox_needs needs = {0};
        struct sandbox *s = NULL;
        bool ran = false;

        int rc = sandbox_new(&needs, &s, NULL);
        if (!rc)
            rc = sandbox_run(s, SANDBOX_IO, run_without_filter, &ran, NULL);
        /* The caller itself is not locked in. */
        _exit(rc == -ENXIO && ran && open("/", O_RDONLY) >= 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

#define MANY 24
#define PIECES 200
#define PIECE_BYTES 10000

static struct sandbox *sandbox_of_many;
static pthread_barrier_t all_hold_memory;

static void *want_memory(void *opaque)
{
    void *volatile piece[PIECES];
    struct err err = ERR_INIT;

    if (sandbox_enter(sandbox_of_many, SANDBOX_IO, &err))
        _exit(NO_SANDBOX);
    void *volatile p = malloc(64);
    pthread_barrier_wait(&all_hold_memory);
    free(p);
    /* More than malloc() would keep at the end of a thread's heap. */
    for (unsigned i = 0; i < PIECES; i++)
        piece[i] = malloc(PIECE_BYTES);
    for (unsigned i = PIECES; i--;)
        free(piece[i]);
    return opaque;
}

/* malloc() counts the host's processors, in files, once it has an arena for each of some threads; and it looks into a file
 * before it gives back the end of a thread's heap. */
static void test_many_threads_have_memory(void **state)
{
    int status;
    pid_t pid = fork();

    if (!pid) {
        struct sandbox_needs needs = {0};
        pthread_t thread[MANY];

        if (sandbox_new(&needs, &sandbox_of_many, NULL))
            _exit(NO_SANDBOX);
        pthread_barrier_init(&all_hold_memory, NULL, MANY);
        for (unsigned i = 0; i < MANY; i++)
            pthread_create(&thread[i], NULL, want_memory, NULL);
        for (unsigned i = 0; i < MANY; i++)
            pthread_join(thread[i], NULL);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_empty_root_where_landlock_is_missing(void **state)
{
    struct sandbox_needs needs = {.sockets = true, .no_landlock = true};

    if (geteuid() != 0)
        skip();
    assert_int_equal(run_locked(SANDBOX_LOOP, needs, probe_open), REFUSED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_run_returns_what_the_function_did),
        cmocka_unit_test(test_many_threads_have_memory),
        cmocka_unit_test(test_empty_root_where_landlock_is_missing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
