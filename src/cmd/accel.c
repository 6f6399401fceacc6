/* `trapeze accel`: what could execute guests, what works on this host and why not, and what `auto` takes. */
#include "accel/accel.h"
#include "cmd/status.h"
#include "cmd/verb.h"
#include <stdio.h>

static const struct args_spec *options(void)
{
    return verb_help_only;
}

static int run(const struct verb *self, char **argv)
{
    int status = verb_no_arguments(self, argv);
    const struct accel_ops *chosen = NULL;
    struct err err = ERR_INIT;
    char why[256] = "";

    if (status >= 0)
        return status;
    for (unsigned i = 0; accel_list[i]; i++) {
        const struct accel_ops *ops = accel_list[i];
        struct err reason = ERR_INIT;

        if (ops->probe(&reason))
            printf("%-4s no   %s\n          %s\n", ops->name, ops->summary, reason.msg);
        else
            printf("%-4s yes  %s\n", ops->name, ops->summary);
    }
    if (accel_choose("auto", &chosen, why, sizeof(why), &err)) {
        fprintf(stderr, "trapeze accel: %s\n", err.msg);
        return STATUS_HOST;
    }
    printf("auto takes %s\n", why);
    return STATUS_OK;
}

const struct verb verb_accel = {
    .name = "accel",
    .operands = "",
    .summary = "List the accelerators and which of them work here",
    .options = options,
    .notes = "Exit status: 0 when at least one works, 4 when none does.\n",
    .run = run,
};
