/*
 * Runs a unit test program again and again, letting the n-th call that could fail for lack of something (memory, a
 * descriptor, a mapping) fail, until n is past the last one. Each run is a child. Its cases may fail, that is what
 * the failure is for; but it must not crash, run into an assertion of ours, or hang.
 *
 * The linker puts __wrap_x() in the place of x() (ld --wrap); tests/fault/meson.build names the same functions, as the
 * objects call them: with _FILE_OFFSET_BITS=64 that is pwrite64(). The test's own main is called unit_main here. Two rounds:
 * only the n-th call fails; the n-th and all after it fail. For a debugger: `fault_x N` and `fault_x N all` run one of them
 * in this process.
 */
#include "base/types.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_LIMIT_S 20
#define RUNS_MAX 4000 /* a program that needs more is too large for this tier */

int unit_main(void);

static atomic_int calls; /* made so far */
static int fail_at;      /* 0: none fails */
static bool fail_all_after;
static atomic_int *injected; /* shared with the parent: did any call fail? */

static bool fails(void)
{
    int n = atomic_fetch_add(&calls, 1) + 1;

    if (!fail_at || n < fail_at || (n > fail_at && !fail_all_after))
        return false;
    atomic_store(injected, 1);
    return true;
}

#define WRAP(type, name, failed, code, params, args) \
    type __real_##name params;                       \
    type __wrap_##name params;                       \
    type __wrap_##name params                        \
    {                                                \
        if (!fails())                                \
            return __real_##name args;               \
        errno = code;                                \
        return failed;                               \
    }

WRAP(void *, malloc, NULL, ENOMEM, (size_t size), (size))
WRAP(void *, calloc, NULL, ENOMEM, (size_t n, size_t size), (n, size))
WRAP(void *, realloc, NULL, ENOMEM, (void *p, size_t size), (p, size))
WRAP(void *, reallocarray, NULL, ENOMEM, (void *p, size_t n, size_t size), (p, n, size))
WRAP(void *, aligned_alloc, NULL, ENOMEM, (size_t align, size_t size), (align, size))
WRAP(int, posix_memalign, ENOMEM, ENOMEM, (void **p, size_t align, size_t size), (p, align, size))
WRAP(char *, strdup, NULL, ENOMEM, (const char *s), (s))
WRAP(char *, strndup, NULL, ENOMEM, (const char *s, size_t n), (s, n))
WRAP(FILE *, open_memstream, NULL, ENOMEM, (char **text, size_t *size), (text, size))
WRAP(void *, mmap64, MAP_FAILED, ENOMEM,
     (void *addr, size_t len, int prot, int flags, int fd, off_t offset),
     (addr, len, prot, flags, fd, offset))
WRAP(int, pthread_create, EAGAIN, EAGAIN,
     (pthread_t * t, const pthread_attr_t *attr, void *(*run)(void *), void *opaque),
     (t, attr, run, opaque))

WRAP(int, memfd_create, -1, EMFILE, (const char *name, unsigned flags), (name, flags))
WRAP(int, epoll_create1, -1, EMFILE, (int flags), (flags))
WRAP(int, eventfd, -1, EMFILE, (unsigned count, int flags), (count, flags))
WRAP(int, open64, -1, EMFILE, (const char *path, int flags, mode_t mode), (path, flags, mode))
WRAP(int, openat64, -1, EMFILE, (int dir, const char *path, int flags, mode_t mode),
     (dir, path, flags, mode))
WRAP(FILE *, fopen64, NULL, EMFILE, (const char *path, const char *mode), (path, mode))
WRAP(DIR *, opendir, NULL, EMFILE, (const char *path), (path))
WRAP(int, socket, -1, EMFILE, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(int, accept4, -1, EMFILE, (int fd, struct sockaddr *a, socklen_t *len, int flags),
     (fd, a, len, flags))

WRAP(int, ftruncate64, -1, ENOSPC, (int fd, off_t len), (fd, len))
WRAP(int, fallocate64, -1, ENOSPC, (int fd, int mode, off_t at, off_t len), (fd, mode, at, len))
WRAP(ssize_t, pwrite64, -1, ENOSPC, (int fd, const void *buf, size_t len, off_t at),
     (fd, buf, len, at))
WRAP(ssize_t, pwritev64, -1, ENOSPC, (int fd, const struct iovec *iov, int n, off_t at),
     (fd, iov, n, at))
WRAP(ssize_t, pread64, -1, EIO, (int fd, void *buf, size_t len, off_t at), (fd, buf, len, at))
WRAP(ssize_t, preadv64, -1, EIO, (int fd, const struct iovec *iov, int n, off_t at),
     (fd, iov, n, at))
WRAP(int, mkdir, -1, ENOSPC, (const char *path, mode_t mode), (path, mode))
WRAP(int, rename, -1, EIO, (const char *from, const char *to), (from, to))
WRAP(ssize_t, sendmsg, -1, ENOBUFS, (int fd, const struct msghdr *msg, int flags), (fd, msg, flags))
WRAP(ssize_t, recvmsg, -1, ENOMEM, (int fd, struct msghdr *msg, int flags), (fd, msg, flags))

int __real_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev);
int __wrap_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev);
int __wrap_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev)
{
    if (op == EPOLL_CTL_DEL || !fails()) /* removing needs nothing that could be short */
        return __real_epoll_ctl(ep, op, fd, ev);
    errno = ENOSPC;
    return -1;
}

/* Runs the tests with output into `log`; never returns. */
static void child(int nth, bool all_after, int log)
{
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    fail_at = nth;
    fail_all_after = all_after;
    alarm(CHILD_LIMIT_S);
    setenv("TRAPEZE_UNIT_FAULTS", "1",
           1); /* cases that are long, or need each call to succeed, skip themselves */
    unit_main();
    fflush(NULL);
    _exit(0);
}

/* What the child did wrong, or NULL. cmocka catches signals and only prints that it did. */
static const char *fault_of(int status, const char *text)
{
    static char signal_text[64];

    if (WIFSIGNALED(status)) {
        snprintf(signal_text, sizeof(signal_text), "%s",
                 WTERMSIG(status) == SIGALRM ? "hangs" : strsignal(WTERMSIG(status)));
        return signal_text;
    }
    if (strstr(text, "failed with exception"))
        return "crashes";
    return WEXITSTATUS(status) ? "ends by itself" : NULL;
}

static void print_log(const char *text)
{
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n')
        printf("# %.*s\n", (int)strcspn(line, "\n"), line);
}

/* One run. Sets *ret_last when no call failed any more: the program is through. */
static bool run(int nth, bool all_after, bool *ret_last)
{
    static char text[256 * 1024];
    int log = __real_memfd_create("log", MFD_CLOEXEC), status = 0;
    const char *fault;
    ssize_t n;
    pid_t pid;

    atomic_store(injected, 0);
    fflush(NULL);
    pid = log < 0 ? -1 : fork();
    if (pid == 0)
        child(nth, all_after, log);
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        printf("# the host failed us: %s\n", strerror(errno));
        return false;
    }
    n = __real_pread64(log, text, sizeof(text) - 1, 0);
    close(log);
    text[MAX(n, 0)] = '\0';
    *ret_last = !atomic_load(injected);
    fault = fault_of(status, text);
    if (!fault)
        return true;
    print_log(text);
    printf("# %s when call %d%s fails\n", fault, nth, all_after ? " and all after it" : "");
    return false;
}

static bool round_of(bool all_after)
{
    bool good = true, last = false;
    int nth = 1;

    while (good && !last && nth <= RUNS_MAX)
        good = run(nth++, all_after, &last);
    if (good && !last)
        printf("# more than %d calls can fail\n", RUNS_MAX);
    printf("%s - %s (%d runs)\n", good && last ? "ok" : "not ok",
           all_after ? "the n-th and all after it fail" : "the n-th fails", nth - 1);
    return good && last;
}

int main(int argc, char **argv)
{
    bool good;

    injected = __real_mmap64(NULL, sizeof(*injected), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (injected == MAP_FAILED)
        return 2;
    if (argc > 1)
        child(atoi(argv[1]), argc > 2, STDERR_FILENO);
    good = round_of(false);
    good = round_of(true) && good;
    printf("1..2\n");
    return good ? 0 : 1;
}
