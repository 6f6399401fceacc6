/*
 * The differential test: random single instructions, then short sequences, on the host's processor and in a guest.
 *
 *   TRAPEZE_DIFF_CASES=N   how many of each kind (default 20000)
 *   TRAPEZE_DIFF_SEED=S    another seed
 *   TRAPEZE_DIFF_CASE=N    only this case, always shown
 *
 * While there is no guest to run, the cases are still run on the host, twice, which must agree with itself.
 */
#include <stdio.h>
#include <stdlib.h>

#include "generate.h"
#include "model.h"

#define CLASSES                                                                             \
    (1u << INSN_COPY | 1u << INSN_LEA | 1u << INSN_NOP | 1u << INSN_PUSH | 1u << INSN_POP | \
     1u << INSN_LEAVE | 1u << INSN_STRING | 1u << INSN_MOFFS)
#define SHOWN 10

static u64 number_from(const char *name, u64 otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : otherwise;
}

/* True when guest and host agree. */
static bool run_case(const struct diff_case *c, bool guest, bool show)
{
    static struct diff_result want, got;
    const char *wrong;

    diff_run_native(c, &want);
    if (!guest)
        diff_run_native(c, &got);
    else if (diff_run_guest(c, &got))
        return false;
    wrong = diff_compare(c, &want, &got);
    if (!wrong && getenv("TRAPEZE_DIFF_CASE"))
        wrong = "no difference";
    if (wrong && show) {
        diff_print(c, &want, &got);
        printf("#   %s\n", wrong);
    }
    return !wrong;
}

static void run_kind(unsigned number, const char *name, const struct catalogue *forms,
                     unsigned max_insns, bool guest)
{
    u64 n = number_from("TRAPEZE_DIFF_CASES", 20000);
    u64 seed = number_from("TRAPEZE_DIFF_SEED", 0x7472617065) + max_insns;
    u64 first = number_from("TRAPEZE_DIFF_CASE", 0);
    unsigned failed = 0;
    struct diff_case c;

    if (getenv("TRAPEZE_DIFF_CASE"))
        n = 1;
    for (u64 i = first; i < first + n; i++) {
        diff_generate(forms, seed, i, max_insns, &c);
        failed += !run_case(&c, guest, failed < SHOWN);
    }
    printf("# %s: %u of %lu cases differ\n", name, failed, (unsigned long)n);
    printf("%s %u - %s\n", failed ? "not ok" : "ok", number, name);
}

int main(void)
{
    static struct diff_result probe;
    struct cpu_model m;
    struct catalogue forms;
    struct diff_case nothing = {.regs = {.rip = DIFF_CODE, .rflags = 2, .fx = {0x7f, 3}}};
    bool guest;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (diff_run_native(&nothing, &probe)) {
        printf("1..0 # SKIP this host has no AVX2, or no room at fixed addresses\n");
        return 0;
    }
    guest = !diff_run_guest(&nothing, &probe);
    model_init(&m, false);
    insn_init(&m);
    catalogue_init(&forms, CLASSES, false);
    printf("# %zu forms, %s\n", forms.n, guest ? "in a guest" : "no guest: host against itself");
    printf("1..2\n");
    run_kind(1, "single instructions", &forms, 1, guest);
    run_kind(2, "short sequences", &forms, 5, guest);
    catalogue_fini(&forms);
    return 0;
}
