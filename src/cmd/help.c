/* `trapeze help [VERB]`: all verbs, or one of them. */
#include "cmd/status.h"
#include "cmd/verb.h"
#include <errno.h>

static const struct args_spec *options(void)
{
    return verb_help_only;
}

static int run(const struct verb *self, char **argv)
{
    struct err err = ERR_INIT;
    struct args args;
    const struct verb *v = NULL;

    args_init(&args, verb_help_only, argv);
    for (int i; (i = args_next(&args, &err)) != ARGS_END;) {
        if (i == ARGS_BAD)
            return verb_usage_error(self, &err);
        if (i == ARGS_OPERAND && v) {
            err_set(&err, EINVAL, "one verb at a time, '%s' is too many", args.value);
            return verb_usage_error(self, &err);
        }
        v = i == ARGS_OPERAND ? verb_find(args.value) : self;
        if (!v)
            return verb_unknown(args.value);
    }
    if (v)
        verb_print_help(v, stdout);
    else
        verb_print_all(stdout);
    return STATUS_OK;
}

const struct verb verb_help = {
    .name = "help",
    .operands = "[VERB]",
    .summary = "Show the verbs there are, or the options of one",
    .options = options,
    .run = run,
};
