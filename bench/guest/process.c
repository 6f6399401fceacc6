/* Processes and threads: making them, ending them, switching between them. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "pingpong.h"

void bench_pingpong(uint64_t n, int cpu_a, int cpu_b)
{
    int there[2], back[2];
    char byte = 0;
    pid_t child;

    if (pipe(there) || pipe(back))
        return;
    child = fork();
    if (child == 0) {
        bench_pin(cpu_b);
        close(there[1]);
        while (read(there[0], &byte, 1) == 1)
            if (write(back[1], &byte, 1) != 1)
                break;
        _exit(0);
    }
    bench_pin(cpu_a);
    for (uint64_t i = 0; i < n; i++)
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
            break;
    close(there[1]);
    close(there[0]);
    close(back[0]);
    close(back[1]);
    waitpid(child, NULL, 0);
    bench_pin(-1);
}

static void pipe_run(uint64_t n)
{
    bench_pingpong(n, 0, 0);
}

static void fork_run(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        pid_t child = fork();

        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
    }
}

/* A function of its own: what is live across vfork() must not be in registers that the child changes. */
static __attribute__((noinline)) pid_t spawn(void)
{
    static char *const argv[] = {"/proc/self/exe", "exit", NULL};
    static char *const envp[] = {NULL};
    pid_t child = vfork();

    if (child == 0) {
        execve(argv[0], argv, envp);
        _exit(1);
    }
    return child;
}

static void exec_run(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        waitpid(spawn(), NULL, 0);
}

static void *thread_main(void *arg)
{
    return arg;
}

static void pthread_run(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        pthread_t t;

        if (pthread_create(&t, NULL, thread_main, NULL))
            return;
        pthread_join(t, NULL);
    }
}

const struct row process_rows[] = {
    {"pipe_1cpu", "system", pipe_run, NULL, 0},
    {"fork", "system", fork_run, NULL, 0},
    {"exec", "system", exec_run, NULL, 0},
    {"pthread", "system", pthread_run, NULL, 0},
    {NULL, NULL, NULL, NULL, 0},
};
