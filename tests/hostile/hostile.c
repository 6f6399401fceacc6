/*
 * Guests that want to break out: random code in every mode, with registers that hold addresses of this process. Each mode runs
 * in a child, behind the guards of guard.c, once with a cache of normal size and once with a tiny one. The child must
 * come to its end; which case it was in is in shared memory.
 *
 * TRAPEZE_HOSTILE_CASES: cases per mode. TRAPEZE_HOSTILE_SEED: other ones. TRAPEZE_HOSTILE_FIRST: start with this one.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "code.h"
#include "guard.h"
#include "machine.h"

#define CASES 600
#define LOOK_EVERY 50

enum { CHILD_OK, CHILD_PATTERN, CHILD_MAPPING, CHILD_BROKEN };

static u64 number_from(const char *name, u64 otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : otherwise;
}

static void run_case(const struct mode *mode, u64 seed, u64 n)
{
    struct random r;
    u8 code[CODE_BYTES];
    u64 gpr[X86_GPRS];

    random_init(&r, seed, n);
    code_make(&r, mode->bits, code);
    for (unsigned i = 0; i < X86_GPRS; i++)
        gpr[i] = code_register(&r, machine_data(mode));
    if (n % 2) /* one that leads somewhere */
        gpr[RBX] = machine_data(mode) + 1024;
    machine_prepare(mode, code, sizeof(code), gpr);
    machine_run();
}

/* In the child. */
static int run_mode(const struct mode *mode, u64 seed, u64 cases, volatile u64 *at)
{
    struct err err = ERR_INIT;

    guard_surround();
    if (machine_make(&err)) {
        printf("# %s\n", err.msg);
        return CHILD_BROKEN;
    }
    guard_surround();
    if (guard_calls())
        return CHILD_BROKEN;
    for (*at = number_from("TRAPEZE_HOSTILE_FIRST", 0); *at < cases; ++*at) {
        run_case(mode, seed, *at);
        if (*at % LOOK_EVERY == 0 && !guard_intact())
            return CHILD_PATTERN;
    }
    return !guard_intact() ? CHILD_PATTERN : !guard_maps_ok() ? CHILD_MAPPING : CHILD_OK;
}

static bool judge(int status, u64 at)
{
    static const char *const why[] = {"", "memory of the host has changed",
                                      "a mapping is writable and executable",
                                      "the machine cannot be made"};

    if (WIFEXITED(status) && WEXITSTATUS(status) == CHILD_OK)
        return true;
    if (WIFEXITED(status) && WEXITSTATUS(status) < (int)ARRAY_LEN(why))
        printf("# %s, seen after case %llu\n", why[WEXITSTATUS(status)], (unsigned long long)at);
    else
        printf("# case %llu: %s\n", (unsigned long long)at,
               WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "it left");
    return false;
}

static bool in_child(const struct mode *mode, u64 cases, const char *kib, volatile u64 *at)
{
    u64 seed = number_from("TRAPEZE_HOSTILE_SEED", 1) * 1000 + (u64)(mode - modes);
    int status = 0;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        if (kib)
            setenv("TRAPEZE_BT_CACHE_KIB", kib, 1);
        int r = run_mode(mode, seed, cases, at);
        fflush(stdout);
        _exit(r);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && judge(status, *at);
}

int main(void)
{
    volatile u64 *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    u64 cases = number_from("TRAPEZE_HOSTILE_CASES", CASES);
    unsigned n = 0, failures = 0;
    struct err err = ERR_INIT;

    if (at == MAP_FAILED || accel_bt.probe(&err)) {
        printf("1..0 # SKIP the translator does not work here: %s\n", err.msg);
        return 0;
    }
    printf("1..%u\n", 2 * nmodes);
    for (unsigned small = 0; small < 2; small++)
        for (unsigned i = 0; i < nmodes; i++) {
            bool ok = in_child(&modes[i], small ? cases / 4 : cases, small ? "128" : NULL, at);
            failures += !ok;
            printf("%sok %u - %s%s\n", ok ? "" : "not ", ++n, modes[i].name,
                   small ? ", small cache" : "");
        }
    return failures != 0;
}
