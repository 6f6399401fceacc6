/* System calls, signals, page faults: what it costs to enter the kernel and come back. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define PAGE 4096
#define TOUCH_PAGES 1024

static void getppid_run(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        syscall(SYS_getppid);
}

static int zero_fd = -1;

static bool zero_setup(void)
{
    zero_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    return zero_fd >= 0;
}

static void read_run(uint64_t n)
{
    char byte;

    for (uint64_t i = 0; i < n; i++)
        if (read(zero_fd, &byte, 1) != 1)
            return;
}

static void clock_run(uint64_t n)
{
    struct timespec t;

    for (uint64_t i = 0; i < n; i++)
        clock_gettime(CLOCK_MONOTONIC, &t);
}

static void rdtsc_run(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        use(__builtin_ia32_rdtsc());
}

static void cpuid_run(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        uint32_t leaf = 0, b, c = 0, d;

        asm volatile("cpuid" : "+a"(leaf), "=b"(b), "+c"(c), "=d"(d));
    }
}

static void on_signal(int signal)
{
}

static void signal_run(uint64_t n)
{
    struct sigaction action = {.sa_handler = on_signal};
    pid_t self = getpid();

    sigaction(SIGUSR1, &action, NULL);
    for (uint64_t i = 0; i < n; i++)
        kill(self, SIGUSR1);
}

static char *guarded;

static void on_fault(int signal)
{
    mprotect(guarded, PAGE, PROT_READ | PROT_WRITE);
}

static void segv_run(uint64_t n)
{
    struct sigaction action = {.sa_handler = on_fault};

    if (!guarded)
        guarded = bench_alloc(PAGE);
    sigaction(SIGSEGV, &action, NULL);
    for (uint64_t i = 0; i < n; i++) {
        mprotect(guarded, PAGE, PROT_NONE);
        *(volatile char *)guarded = 1;
    }
    signal(SIGSEGV, SIG_DFL);
}

/* One operation is one page, with its share of mmap and munmap. */
static void touch_run(uint64_t n)
{
    for (uint64_t done = 0; done < n; done += TOUCH_PAGES) {
        char *p = mmap(NULL, TOUCH_PAGES * PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
            return;
        madvise(p, TOUCH_PAGES * PAGE, MADV_NOHUGEPAGE);
        for (size_t i = 0; i < TOUCH_PAGES; i++)
            ((volatile char *)p)[i * PAGE] = 1;
        munmap(p, TOUCH_PAGES * PAGE);
    }
}

static void mprotect_run(uint64_t n)
{
    char *p = bench_alloc(PAGE);

    for (uint64_t i = 0; i < n; i++) {
        mprotect(p, PAGE, PROT_READ);
        mprotect(p, PAGE, PROT_READ | PROT_WRITE);
        *(volatile char *)p = 1;
    }
    munmap(p, PAGE);
}

static void file_run(uint64_t n)
{
    char path[64];

    snprintf(path, sizeof(path), "%s/bench-file", bench_tmp());
    for (uint64_t i = 0; i < n; i++) {
        int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

        if (fd < 0 || write(fd, path, 16) != 16)
            return;
        close(fd);
        unlink(path);
    }
}

const struct row system_rows[] = {
    {"getppid", "system", getppid_run, NULL, 0},
    {"read_zero", "system", read_run, zero_setup, 0},
    {"clock_gettime", "other", clock_run, NULL, 0},
    {"rdtsc", "other", rdtsc_run, NULL, 0},
    {"cpuid", "other", cpuid_run, NULL, 0},
    {"signal", "system", signal_run, NULL, 0},
    {"sigsegv", "system", segv_run, NULL, 0},
    {"page_touch", "system", touch_run, NULL, TOUCH_PAGES},
    {"mprotect", "system", mprotect_run, NULL, 0},
    {"file", "system", file_run, NULL, 0},
    {NULL, NULL, NULL, NULL, 0},
};
