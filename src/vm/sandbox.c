/*
 * Locking threads in. Order within a thread: files (Landlock or an empty root, which needs a capability), groups,
 * capabilities, and the seccomp filter last, since it forbids what the others are done with.
 *
 * Invariant: no-new-privileges is set before the first thread of the machine starts, so every one has it.
 */
#include "vm/sandbox.h"

#include "vm/seccomp.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIGSYS_STATUS 4 /* cmd/status.h: the host failed us */
#define CAPS_MAX 64
/* Of malloc(). Without a limit it looks in /sys how many processors there are, as soon as threads have eight. */
#define ARENAS_MAX 4

/* Of newer kernels than the headers that Debian 12 has; landlock(7). */
#define LANDLOCK_FS_ABI(abi) \
    ((abi) >= 5 ? BIT(16) - 1 : (abi) >= 3 ? BIT(15) - 1 : (abi) == 2 ? BIT(14) - 1 : BIT(13) - 1)
#define LANDLOCK_NET_TCP 3ull /* bind and connect, from ABI 4 */
struct ruleset_attr {
    u64 fs, net;
};

struct sandbox {
    int ruleset; /* Landlock's, -1: this kernel has none */
    struct sock_fprog program[SANDBOX_KINDS];
};

/* Adds "reading this one file" to the rules; not being able to is no failure, the file may not exist. */
static void allow_file(int ruleset, const char *path)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE};
    auto_close int fd = open(path, O_PATH | O_CLOEXEC);

    rule.parent_fd = fd;
    if (fd >= 0)
        syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

static int landlock_new(const struct sandbox_needs *needs)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    struct ruleset_attr attr = {.fs = LANDLOCK_FS_ABI(abi)};
    size_t size = sizeof(attr.fs);

    if (abi < 1 || needs->no_landlock)
        return -1;
    if (abi >= 4 && !needs->sockets) {
        attr.net = LANDLOCK_NET_TCP;
        size = sizeof(attr);
    }
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    if (ruleset >= 0 && needs->sockets)
        allow_file(ruleset, "/etc/resolv.conf");
    return ruleset;
}

/* Async-signal-safe: says which call it was, and ends the process. */
static void forbidden(int sig, siginfo_t *info, void *context)
{
    char name[16] = "", text[160];
    int n;

    prctl(PR_GET_NAME,
          name); /* may be forbidden itself: then SIGSYS is blocked and the process is killed */
    n = snprintf(text, sizeof(text),
                 "trapeze: thread '%s' made system call %d, which the sandbox forbids\n", name,
                 info->si_syscall);
    if (write(STDERR_FILENO, text, (size_t)n) < 0) {
        /* Nowhere to say it. */
    }
    _exit(SIGSYS_STATUS);
}

int sandbox_new(const struct sandbox_needs *needs, struct sandbox **ret_sandbox, struct err *err)
{
    struct sigaction action = {.sa_sigaction = forbidden, .sa_flags = SA_SIGINFO};
    struct sandbox *s = calloc(1, sizeof(*s));
    int rc = 0;

    if (!s)
        return err_set(err, ENOMEM, "sandbox: no memory");
    mallopt(M_ARENA_MAX, ARENAS_MAX);
    /* glibc opens /proc/sys/vm/overcommit_memory before it gives the end of a thread's heap back; so it may not. */
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    s->ruleset = landlock_new(needs);
    for (int kind = 0; kind < SANDBOX_KINDS && !rc; kind++)
        rc = seccomp_build((enum sandbox_kind)kind, needs, &s->program[kind], err);
    if (!rc && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        rc = err_sys(err, errno, "sandbox: no-new-privileges");
    if (rc) {
        sandbox_free(s);
        return rc;
    }
    sigaction(SIGSYS, &action, NULL);
    *ret_sandbox = s;
    return 0;
}

void sandbox_free(struct sandbox *s)
{
    if (!s)
        return;
    if (s->ruleset >= 0)
        close(s->ruleset);
    for (int kind = 0; kind < SANDBOX_KINDS; kind++)
        free(s->program[kind].filter);
    free(s);
}

/* Without Landlock: a mount namespace in which the root is an empty, read-only file system. */
static int enter_empty_root(struct err *err)
{
    unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

    if (unshare(CLONE_NEWNS))
        return errno == EPERM
                   ? 0
                   : err_sys(err, errno, "sandbox: mount namespace"); /* the filter must do */
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", "/proc", "tmpfs", flags, "size=4k") || chroot("/proc") || chdir("/"))
        return err_sys(err, errno, "sandbox: empty root");
    return 0;
}

/* Empties every set of capabilities of this thread. */
static int drop_capabilities(struct err *err)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};

    /* The bounding set first: it takes CAP_SETPCAP. Without it we could not gain any either. */
    for (unsigned long cap = 0; cap < CAPS_MAX && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
        ;
    /* The system call itself: the C library's setgroups() would do it to all threads, through a signal. */
    if (syscall(SYS_setgroups, 0, NULL) && errno != EPERM)
        return err_sys(err, errno, "sandbox: groups");
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capset, &header, none))
        return err_sys(err, errno, "sandbox: capabilities");
    return 0;
}

int sandbox_enter(const struct sandbox *s, enum sandbox_kind kind, struct err *err)
{
    int rc = 0;

    if (s->ruleset < 0)
        rc = enter_empty_root(err);
    else if (syscall(SYS_landlock_restrict_self, s->ruleset, 0))
        rc = err_sys(err, errno, "sandbox: Landlock");
    if (!rc)
        rc = drop_capabilities(err);
    /* SPEC_ALLOW: kernels before 5.16 would slow the whole thread down otherwise. */
    if (!rc && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                       &s->program[kind]))
        rc = err_sys(err, errno, "sandbox: system call filter");
    return rc;
}

struct locked_call {
    const struct sandbox *sandbox;
    enum sandbox_kind kind;
    int (*fn)(void *opaque, struct err *err);
    void *opaque;
    struct err *err;
    int result;
};

static void *locked_thread(void *opaque)
{
    struct locked_call *c = opaque;

    c->result = sandbox_enter(c->sandbox, c->kind, c->err);
    if (!c->result)
        c->result = c->fn(c->opaque, c->err);
    return NULL;
}

int sandbox_run(const struct sandbox *s, enum sandbox_kind kind,
                int (*fn)(void *opaque, struct err *err), void *opaque, struct err *err)
{
    struct locked_call c = {.sandbox = s, .kind = kind, .fn = fn, .opaque = opaque, .err = err};
    pthread_t thread;
    int rc = pthread_create(&thread, NULL, locked_thread, &c);

    if (rc)
        return err_sys(err, rc, "sandbox: thread");
    pthread_join(thread, NULL);
    return c.result;
}
