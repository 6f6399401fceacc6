/*
 * The lists of system calls, and their compilation by libseccomp.
 *
 * Each entry says which kinds of threads may make the call, and under which condition. What is not listed raises
 * SIGSYS, which ends the process with a message (sandbox.c). Memory can never be writable and executable at once, and
 * signals go to our own process only.
 */
#include "vm/seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

enum {
    LOOP = 1 << SANDBOX_LOOP,
    CPU = 1 << SANDBOX_CPU,
    IO = 1 << SANDBOX_IO,
    ALL = LOOP | CPU | IO,
    NET = 1 << 8, /* only with needs.sockets */
};

/* Argument `arg`, masked, equals `value`. */
struct condition {
    u8 arg;
    u64 mask, value;
};

struct rule {
    int call;
    unsigned who;
    const struct condition
        *any_of; /* NULL: always; else one of these must hold, ends with mask 0 */
};

#define END     \
    {           \
        0, 0, 0 \
    }
#define WHOLE 0xffffffffu /* the kernel looks at 32 bits of these arguments */

/* Readable with writable or with executable, not with both. */
static const struct condition not_write_exec[] = {
    {2, PROT_WRITE | PROT_EXEC, 0},
    {2, PROT_WRITE | PROT_EXEC, PROT_WRITE},
    {2, PROT_WRITE | PROT_EXEC, PROT_EXEC},
    END,
};

/* KVM's and userfaultfd's (the type bytes 0xae and 0xaa), and what a terminal needs. */
static const struct condition kvm_ioctl[] = {{1, 0xff00, 0xae00}, {1, 0xff00, 0xaa00}, END};
static const struct condition loop_ioctl[] = {
    {1, 0xff00, 0xae00},    {1, 0xff00, 0xaa00},  {1, WHOLE, TCGETS},   {1, WHOLE, TCSETS},  {1, WHOLE, TCSETSW},
    {1, WHOLE, TIOCGWINSZ}, {1, WHOLE, FIONREAD}, {1, WHOLE, FIONBIO}, END,
};
/* What a tap device takes from us, when the guest's driver has said what it can take. */
static const struct condition tap_ioctl[] = {{1, WHOLE, TUNSETOFFLOAD}, END};
static const struct condition some_fcntl[] = {
    {1, WHOLE, F_GETFL}, {1, WHOLE, F_SETFL}, {1, WHOLE, F_DUPFD_CLOEXEC},
    {1, WHOLE, F_GETFD}, {1, WHOLE, F_SETFD}, END,
};
static const struct condition flag_fcntl[] = {{1, WHOLE, F_SETFL}, END};
static const struct condition peer_credentials[] = {{2, WHOLE, SO_PEERCRED}, END};
/* Locks of disk images: an image that got an overlay is shared from then on. */
static const struct condition lock_fcntl[] = {{1, WHOLE, F_OFD_SETLK}, END};
static const struct condition open_file[] = {{3, AT_EMPTY_PATH, AT_EMPTY_PATH}, END};
static const struct condition inet[] = {{0, WHOLE, AF_INET}, {0, WHOLE, AF_INET6}, END};
static const struct condition read_only[] = {{2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY}, END};
static const struct condition of_descriptor[] = {{3, WHOLE, AT_EMPTY_PATH}, END};
static const struct condition new_thread[] = {
    {0, CLONE_VM | CLONE_THREAD | CLONE_NEWUSER, CLONE_VM | CLONE_THREAD}, END};
static const struct condition set_name[] = {{0, WHOLE, PR_SET_NAME}, END};
static const struct condition get_name[] = {{0, WHOLE, PR_GET_NAME}, END};

/* clang-format off */
static const struct rule rules[] = {
    /* memory, locks, time, the end */
    {SCMP_SYS(brk), ALL, NULL}, {SCMP_SYS(madvise), ALL, NULL}, {SCMP_SYS(munmap), ALL, NULL},
    {SCMP_SYS(mremap), ALL, NULL}, {SCMP_SYS(mmap), ALL, not_write_exec}, {SCMP_SYS(mprotect), ALL, not_write_exec},
    {SCMP_SYS(futex), ALL, NULL}, {SCMP_SYS(sched_yield), ALL, NULL}, {SCMP_SYS(membarrier), ALL, NULL},
    {SCMP_SYS(rseq), ALL, NULL}, {SCMP_SYS(set_robust_list), ALL, NULL}, {SCMP_SYS(getcpu), ALL, NULL},
    {SCMP_SYS(clock_gettime), ALL, NULL}, {SCMP_SYS(clock_getres), ALL, NULL}, {SCMP_SYS(gettimeofday), ALL, NULL},
    {SCMP_SYS(time), ALL, NULL}, {SCMP_SYS(clock_nanosleep), ALL, NULL}, {SCMP_SYS(nanosleep), ALL, NULL},
    {SCMP_SYS(getrandom), ALL, NULL}, {SCMP_SYS(exit), ALL, NULL}, {SCMP_SYS(exit_group), ALL, NULL},
    {SCMP_SYS(sched_getaffinity), ALL, NULL}, /* malloc() of many threads counts processors */
    {SCMP_SYS(restart_syscall), ALL, NULL}, {SCMP_SYS(gettid), ALL, NULL}, {SCMP_SYS(getpid), ALL, NULL},
    /* signals, to ourselves only (tgkill: see add_tgkill) */
    {SCMP_SYS(rt_sigreturn), ALL, NULL}, {SCMP_SYS(rt_sigprocmask), ALL, NULL}, {SCMP_SYS(rt_sigaction), ALL, NULL},
    {SCMP_SYS(prctl), ALL, get_name}, {SCMP_SYS(sigaltstack), ALL, NULL}, {SCMP_SYS(rt_sigtimedwait), ALL, NULL},
    /* open descriptors */
    {SCMP_SYS(read), ALL, NULL}, {SCMP_SYS(write), ALL, NULL}, {SCMP_SYS(readv), ALL, NULL},
    {SCMP_SYS(writev), ALL, NULL}, {SCMP_SYS(close), ALL, NULL}, {SCMP_SYS(lseek), ALL, NULL},
    {SCMP_SYS(poll), ALL, NULL}, {SCMP_SYS(ppoll), ALL, NULL}, {SCMP_SYS(fstat), ALL, NULL},
    {SCMP_SYS(pread64), ALL, NULL}, {SCMP_SYS(pwrite64), ALL, NULL}, {SCMP_SYS(preadv), ALL, NULL},
    {SCMP_SYS(pwritev), ALL, NULL}, {SCMP_SYS(preadv2), ALL, NULL}, {SCMP_SYS(pwritev2), ALL, NULL},
    {SCMP_SYS(fsync), ALL, NULL}, {SCMP_SYS(fdatasync), ALL, NULL}, {SCMP_SYS(fallocate), ALL, NULL},
    {SCMP_SYS(io_uring_enter), ALL, NULL}, {SCMP_SYS(getrusage), ALL, NULL}, {SCMP_SYS(ioctl), CPU | IO, kvm_ioctl},
    {SCMP_SYS(fcntl), ALL, lock_fcntl}, {SCMP_SYS(sync_file_range), IO, NULL},
    /* a snapshot's memory goes past the page cache */
    {SCMP_SYS(fcntl), IO, flag_fcntl},
    /* timers that fire as signals in a vCPU's thread */
    {SCMP_SYS(timer_settime), CPU, NULL}, {SCMP_SYS(timer_gettime), CPU, NULL}, {SCMP_SYS(timer_delete), ALL, NULL},
    {SCMP_SYS(timerfd_settime), ALL, NULL},
    /* the main loop */
    {SCMP_SYS(ioctl), LOOP, loop_ioctl}, {SCMP_SYS(fcntl), LOOP, some_fcntl},
    {SCMP_SYS(epoll_wait), LOOP, NULL}, {SCMP_SYS(epoll_pwait), LOOP, NULL}, {SCMP_SYS(epoll_pwait2), LOOP, NULL},
    {SCMP_SYS(epoll_ctl), LOOP, NULL}, {SCMP_SYS(accept4), LOOP | IO, NULL},
    /* any thread may find that a migration's line is broken: vCPUs ask for pages over it */
    {SCMP_SYS(shutdown), ALL, NULL},
    /* the control socket; IO: while the loop waits for memory (migrate/doorman.c) */
    {SCMP_SYS(sendmsg), LOOP | IO, NULL}, {SCMP_SYS(recvmsg), LOOP | IO, NULL},
    {SCMP_SYS(getsockopt), LOOP | IO, peer_credentials},
    /* how much memory the guest has touched: fstat() */
    {SCMP_SYS(newfstatat), LOOP, open_file},
    /* a console's log that has become too long */
    {SCMP_SYS(ftruncate), LOOP, NULL},
    /* fstat() of the C library: disks that another host had are looked at anew */
    {SCMP_SYS(newfstatat), LOOP | IO, of_descriptor},
    /* the user-mode network: in the loop, or in the vCPU that sends */
    {SCMP_SYS(sendto), LOOP | CPU | NET, NULL}, {SCMP_SYS(sendmsg), CPU | NET, NULL},
    {SCMP_SYS(recvfrom), LOOP | CPU | NET, NULL}, {SCMP_SYS(recvmsg), CPU | NET, NULL},
    {SCMP_SYS(socket), LOOP | CPU | NET, inet}, {SCMP_SYS(bind), LOOP | CPU | NET, NULL},
    {SCMP_SYS(connect), LOOP | CPU | NET, NULL}, {SCMP_SYS(listen), LOOP | CPU | NET, NULL},
    {SCMP_SYS(accept), LOOP | CPU | NET, NULL}, {SCMP_SYS(getsockname), LOOP | CPU | NET, NULL},
    {SCMP_SYS(getpeername), LOOP | CPU | NET, NULL}, {SCMP_SYS(setsockopt), LOOP | CPU | NET, NULL},
    {SCMP_SYS(getsockopt), LOOP | CPU | NET, NULL}, {SCMP_SYS(openat), LOOP | CPU | NET, read_only},
    {SCMP_SYS(newfstatat), LOOP | CPU | NET, NULL}, {SCMP_SYS(stat), LOOP | CPU | NET, NULL},
    {SCMP_SYS(ioctl), LOOP | CPU, tap_ioctl}, {SCMP_SYS(fcntl), CPU | NET, some_fcntl}, {SCMP_SYS(ioctl), CPU | NET, loop_ioctl},
    {SCMP_SYS(epoll_ctl), CPU | NET, NULL},
    /* disk engines, which start their threads locked in */
    {SCMP_SYS(clone), IO, new_thread}, {SCMP_SYS(prctl), IO, set_name}, {SCMP_SYS(io_uring_setup), IO, NULL},
    {SCMP_SYS(io_uring_register), IO, NULL}, {SCMP_SYS(sched_getaffinity), IO, NULL}, {SCMP_SYS(eventfd2), IO, NULL},
};
/* clang-format on */

static int add_rule(scmp_filter_ctx filter, const struct rule *r)
{
    if (!r->any_of)
        return seccomp_rule_add(filter, SCMP_ACT_ALLOW, r->call, 0);
    for (const struct condition *c = r->any_of; c->mask; c++) {
        int rc = seccomp_rule_add(filter, SCMP_ACT_ALLOW, r->call, 1,
                                  SCMP_CMP64(c->arg, SCMP_CMP_MASKED_EQ, c->mask, c->value));

        if (rc)
            return rc;
    }
    return 0;
}

/* Signals to our own process: vCPUs are kicked with them. The process id is only known now. */
static int add_tgkill(scmp_filter_ctx filter)
{
    return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                            SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, WHOLE, (u64)getpid()));
}

/* Threads that copy much give way to the guest: their own priority, which takes two conditions. */
static int add_own_priority(scmp_filter_ctx filter)
{
    return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(setpriority), 2,
                            SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, WHOLE, PRIO_PROCESS),
                            SCMP_CMP64(1, SCMP_CMP_MASKED_EQ, WHOLE, 0));
}

static int add_all(scmp_filter_ctx filter, enum sandbox_kind kind,
                   const struct sandbox_needs *needs)
{
    int rc = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree instead of a list */

    for (size_t i = 0; i < ARRAY_LEN(rules) && !rc; i++)
        if ((rules[i].who & (1u << kind)) && (!(rules[i].who & NET) || needs->sockets))
            rc = add_rule(filter, &rules[i]);
    if (!rc)
        rc = add_tgkill(filter);
    if (!rc && (IO & (1u << kind)))
        rc = add_own_priority(filter);
    /* Its flags lie in memory, where a filter cannot see them; the C library then takes clone. */
    if (!rc)
        rc = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    return rc;
}

/* libseccomp only writes its program to a descriptor. */
static int export(scmp_filter_ctx filter, struct sock_fprog *ret_program, struct err *err)
{
    auto_close int fd = memfd_create("seccomp", MFD_CLOEXEC);
    int rc = fd < 0 ? -errno : seccomp_export_bpf(filter, fd);
    off_t len = rc ? 0 : lseek(fd, 0, SEEK_END);

    if (rc || len <= 0)
        return err_sys(err, rc ? -rc : EIO, "system call filter");
    size_t count = (size_t)len / sizeof(struct sock_filter);
    struct sock_filter *program = calloc(count, sizeof(*program));
    if (!program || pread(fd, program, (size_t)len, 0) != len) {
        free(program);
        return err_set(err, ENOMEM, "system call filter: cannot be read back");
    }
    *ret_program = (struct sock_fprog){.len = (unsigned short)count, .filter = program};
    return 0;
}

int seccomp_build(enum sandbox_kind kind, const struct sandbox_needs *needs,
                  struct sock_fprog *ret_program, struct err *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);

    if (!filter)
        return err_set(err, ENOMEM, "system call filter: no memory");
    int rc = add_all(filter, kind, needs);
    if (rc)
        err_sys(err, -rc, "system call filter");
    else
        rc = export(filter, ret_program, err);
    seccomp_release(filter);
    return rc;
}
