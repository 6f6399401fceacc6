/*
 * The rows' timing, and what an /init has to do. Output goes to the debug port (0xe9) in a guest, to standard output
 * otherwise; in a guest the first thing said is "first-user", which the harness's clock waits for.
 *
 * usage: bench [all|single|smp|NAME...]     single: all but the rows that need two processors
 */
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define DEBUG_PORT 0xe9
#define EXIT_PORT 0xf4
#define CHUNK_NS 10000000ull /* a row is measured in this many such chunks, and the best counts */
#define CHUNKS 15
#define ROW_NS 300000000ull /* but no longer than this, when one operation takes more than a chunk */

static const struct row *const groups[] = {cpu_rows,     memory_rows, float_rows, system_rows,
                                           process_rows, code_rows,   smp_rows};
static bool in_guest;

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void say(const char *fmt, ...)
{
    char line[256];
    va_list args;

    va_start(args, fmt);
    vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    if (!in_guest) {
        fputs(line, stdout);
        fflush(stdout);
        return;
    }
    for (const char *p = line; *p; p++)
        outb((unsigned char)*p, DEBUG_PORT);
}

void *bench_alloc(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
                   -1, 0);

    if (p == MAP_FAILED) {
        say("error no memory for %zu bytes\n", bytes);
        _exit(1);
    }
    return p;
}

const char *bench_tmp(void)
{
    return in_guest ? "/tmp" : "/dev/shm";
}

void bench_pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    for (int i = 0; i < 64; i++)
        if (cpu < 0 || i == cpu)
            CPU_SET(i, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

static uint64_t time_of(const struct row *r, uint64_t n)
{
    uint64_t start = now_ns();

    r->run(n);
    return now_ns() - start;
}

/* Of two runs the shorter: one that lost its processor for a while must not pass for a slow operation. */
static uint64_t time_twice(const struct row *r, uint64_t n)
{
    uint64_t first = time_of(r, n), second = time_of(r, n);

    return first < second ? first : second;
}

/* How many operations take about CHUNK_NS, as a multiple of the row's batch. Once is not enough: on a busy host the
 * first try may have waited for a processor for longer than it worked. */
static uint64_t calibrate(const struct row *r)
{
    uint64_t n = r->batch ? r->batch : 1, batch = n;

    for (int tries = 0; tries < 60; tries++) {
        uint64_t took = time_twice(r, n) + 1, more = CHUNK_NS / took;

        if (took >= CHUNK_NS / 2)
            break;
        n *= more > 8 ? 8 : more < 2 ? 2 : more;
    }
    return n / batch * batch;
}

static void measure(const struct row *r)
{
    uint64_t n, best = UINT64_MAX, start = now_ns();

    if (r->setup && !r->setup()) {
        say("skip %s %s\n", r->name, r->class);
        return;
    }
    n = calibrate(r);
    for (int i = 0; i < CHUNKS && (i < 3 || now_ns() - start < ROW_NS); i++) {
        uint64_t took = time_of(r, n);

        best = took < best ? took : best;
    }
    say("row %s %s %.3f\n", r->name, r->class, (double)best / (double)n);
}

/* Each row has a process of its own: memory that one has mapped must not make another's fork dearer. */
static void measure_alone(const struct row *r)
{
    pid_t child = fork();

    if (child == 0) {
        measure(r);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static bool wanted(const struct row *r, int argc, char **argv)
{
    bool smp = !strcmp(r->class, "smp") || !strncmp(r->name, "smp_", 4);

    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], r->name) || !strcmp(argv[i], "all") ||
            !strcmp(argv[i], smp ? "smp" : "single"))
            return true;
    return argc <= 1;
}

static void guest_init(void)
{
    if (ioperm(DEBUG_PORT, 1, 1) || ioperm(EXIT_PORT, 4, 1))
        _exit(1);
    in_guest = true;
    say("first-user\n");
    mkdir("/proc", 0755);
    mkdir("/dev", 0755);
    mkdir("/tmp", 0755);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    mount("tmp", "/tmp", "tmpfs", 0, NULL);
}

static void guest_exit(void)
{
    struct timespec moment = {.tv_nsec = 300000000};

    say("done\n");
    nanosleep(&moment, NULL); /* the harness looks at the host's memory now */
    outl(0, EXIT_PORT);
    reboot(RB_POWER_OFF);
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "exit")) /* what the exec row runs */
        return 0;
    if (getpid() == 1)
        guest_init();
    bench_pin(-1);
    for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++)
        for (const struct row *r = groups[g]; r->name; r++)
            if (wanted(r, argc, argv))
                measure_alone(r);
    if (in_guest)
        guest_exit();
    return 0;
}
