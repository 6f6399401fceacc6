/* `trapeze version`: one line. */
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

    if (status >= 0)
        return status;
    puts("trapeze " TRAPEZE_VERSION);
    return STATUS_OK;
}

const struct verb verb_version = {
    .name = "version",
    .operands = "",
    .summary = "Show the version of trapeze",
    .options = options,
    .run = run,
};
