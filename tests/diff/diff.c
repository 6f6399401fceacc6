/*
 * The differential test: random instructions, sequences and loops on the host's processor and in a guest of the translator. A process of its own runs the cases, so that a case that kills it costs only itself.
 *
 *   TRAPEZE_DIFF_CASES=N   how many of each kind (default 6000)
 *   TRAPEZE_DIFF_SEED=S    another seed
 *   TRAPEZE_DIFF_KIND=K    only the K-th kind, from 1
 *   TRAPEZE_DIFF_CASE=N    only this case, always shown
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "generate.h"
#include "x86/cpuid.h"

#define CLASSES                                                                             \
    (1u << INSN_COPY | 1u << INSN_LEA | 1u << INSN_NOP | 1u << INSN_PUSH | 1u << INSN_POP | \
     1u << INSN_LEAVE | 1u << INSN_STRING | 1u << INSN_MOFFS | 1u << INSN_SPECIAL)
#define SHOWN 20
#define DEATHS 20
#define EXIT_NO_GUEST 3

struct kind {
    const char *name;
    unsigned mode, max_insns;
    bool loops, avx512;
};

/* Shared with the process that runs the cases. */
struct progress {
    u64 now; /* the case that is running */
    unsigned failed;
};

static u64 number_from(const char *name, u64 otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : otherwise;
}

/* Instructions with several accesses, which each processor makes in its own order and reports in its own way. */
static bool several_accesses(const struct insn *in)
{
    return in->form->cls == INSN_SPECIAL || in->form->cls == INSN_STRING || in->form->masked;
}

/*
 * Differences that no program depends on:
 * - Of two faults of one instruction, processors report a misaligned address or a pending x87 exception first.
 * - Which of several accesses faults, when more than one would.
 * - How many elements a gather had loaded when it faulted.
 */
static bool harmless(const struct diff_case *c, const struct diff_result *want,
                     const struct diff_result *got)
{
    u64 at = want->regs.rip - DIFF_CODE;
    struct diff_result same = *got;
    struct diff_case but = *c;
    struct insn in;

    if (want->regs.rip != got->regs.rip || at >= c->len ||
        insn_decode(c->code + at, INSN_MAX, c->mode, &in) != INSN_OK)
        return false;
    if (got->end.vector == VEC_PF || got->end.vector == VEC_SS || got->end.vector == VEC_GP)
        if (want->end.vector == VEC_MF || (want->end.vector == VEC_GP && in.form->align))
            return true;
    if (!several_accesses(&in))
        return false;
    but.undefined_vector = in.vsib;
    same.end.address = want->end.address;
    if (want->end.vector == VEC_PF && got->end.vector == VEC_PF)
        same.end.error = want->end.error; /* one reads, the other writes */
    return !diff_compare(&but, want, &same);
}

/* True when guest and host agree. */
static bool run_case(const struct diff_case *c, bool show)
{
    static struct diff_result want, got;
    const char *wrong;

    if (diff_run_native(c, &want) || diff_run_guest(c, &got))
        exit(EXIT_NO_GUEST);
    wrong = diff_compare(c, &want, &got);
    if (wrong && harmless(c, &want, &got))
        wrong = NULL;
    if (!wrong && getenv("TRAPEZE_DIFF_CASE"))
        wrong = "no difference";
    if (wrong && show) {
        diff_print(c, &want, &got);
        printf("#   %s\n", wrong);
    }
    return !wrong;
}

/* Runs cases from `first` on. In the child. */
static void run_cases(const struct kind *kind, u64 first, u64 end, struct progress *shared)
{
    const char *model = kind->avx512 ? "host" : "x86-64-v3";
    struct plan plan = {.mode = kind->mode,
                        .max_insns = kind->max_insns,
                        .loops = kind->loops,
                        .avx512 = kind->avx512};
    struct err err = ERR_INIT;
    struct diff_case c = {.mode = 64, .regs = {.rip = DIFF_CODE, .rflags = 2, .fx = {0x7f, 3}}};
    struct catalogue forms;
    struct cpu_model m;

    if (cpu_model_init(&m, model, 1, &err)) {
        printf("# %s\n", err.msg);
        exit(EXIT_NO_GUEST);
    }
    if (kind->avx512 && !(m.xcr0_mask >> 5 & 1)) {
        printf("# the host has no AVX-512\n");
        exit(EXIT_NO_GUEST);
    }
    diff_use_model(model);
    run_case(&c, false); /* the translator sets the decoder up */
    insn_init(&m);
    catalogue_init(&forms, kind->mode, CLASSES, kind->avx512);
    plan.from = &forms;
    plan.seed = number_from("TRAPEZE_DIFF_SEED", 0x7472617065) + kind->max_insns;
    for (u64 i = first; i < end; i++) {
        shared->now = i;
        diff_generate(&plan, i, &c);
        shared->failed += !run_case(&c, shared->failed < SHOWN);
    }
    catalogue_fini(&forms);
    exit(0);
}

/* The status that wait() gives. */
static int run_child(const struct kind *kind, u64 first, u64 end, struct progress *shared)
{
    pid_t pid;
    int status;

    fflush(stdout);
    pid = fork();
    if (pid == 0)
        run_cases(kind, first, end, shared);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return -1;
    return status;
}

static void run_kind(unsigned number, const struct kind *kind, struct progress *shared)
{
    u64 first = number_from("TRAPEZE_DIFF_CASE", 0);
    u64 end = first + (getenv("TRAPEZE_DIFF_CASE") ? 1 : number_from("TRAPEZE_DIFF_CASES", 6000));
    unsigned deaths = 0;
    int status;

    shared->failed = 0;
    for (u64 at = first; at < end && deaths < DEATHS; at = shared->now + 1) {
        shared->now = at;
        status = run_child(kind, at, end, shared);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            break;
        if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NO_GUEST) {
            printf("ok %u - %s # SKIP nothing to compare here\n", number, kind->name);
            return;
        }
        printf("# case %lu ended the process: status %#x\n", (unsigned long)shared->now, status);
        shared->failed++;
        deaths++;
    }
    printf("# %s: %u of %lu cases differ\n", kind->name, shared->failed,
           (unsigned long)(end - first));
    printf("%s %u - %s\n", shared->failed ? "not ok" : "ok", number, kind->name);
}

int main(void)
{
    static const struct kind kinds[] = {
        {"single instructions, 64-bit", 64, 1, false, false},
        {"sequences, 64-bit", 64, 6, false, false},
        {"loops, 64-bit", 64, 10, true, false},
        {"single instructions, 32-bit", 32, 1, false, false},
        {"sequences, 32-bit", 32, 6, false, false},
        {"loops, 32-bit", 32, 10, true, false},
        {"single instructions, with AVX-512", 64, 1, false, true},
        {"loops, with AVX-512", 64, 10, true, true},
    };
    struct progress *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (shared == MAP_FAILED)
        return 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    u64 only = number_from("TRAPEZE_DIFF_KIND", 0);
    printf("1..%zu\n", only ? 1 : ARRAY_LEN(kinds));
    for (unsigned i = 0; i < ARRAY_LEN(kinds); i++)
        if (!only || only == i + 1)
            run_kind(i + 1, &kinds[i], shared);
    return 0;
}
