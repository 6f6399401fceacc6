/*
 * The table of verbs and what all verbs share: help texts and answers to a wrong command line. Main
 * thread.
 */
#include "cmd/status.h"
#include "cmd/subverb.h"
#include "vm/value.h"
#include <errno.h>
#include <string.h>

/* clang-format off */
const struct verb *const verbs[] = {
    &verb_accel,
    &verb_attach,
    &verb_completion,
    &verb_disk,
    &verb_help,
    &verb_inspect,
    &verb_kill,
    &verb_logs,
    &verb_migrate,
    &verb_pause,
    &verb_ps,
    &verb_receive,
    &verb_rename,
    &verb_resume,
    &verb_rm,
    &verb_run,
    &verb_snapshot,
    &verb_start,
    &verb_stats,
    &verb_stop,
    &verb_version,
    &verb_wait,
    NULL,
};
/* clang-format on */

const struct args_spec verb_help_only[] = {
    {"help", 'h', NULL, "show this help"},
    {NULL, 0, NULL, NULL},
};

const struct verb *verb_find(const char *name)
{
    for (unsigned i = 0; verbs[i]; i++)
        if (!strcmp(verbs[i]->name, name))
            return verbs[i];
    return NULL;
}

int verb_unknown(const char *name)
{
    const char *names[ARRAY_LEN(verbs)] = {0};
    const char *near;

    for (unsigned i = 0; verbs[i]; i++)
        names[i] = verbs[i]->name;
    near = value_nearest(name, names);
    if (*name == '-')
        fprintf(stderr,
                "trapeze: '%s': options stand behind the verb, as in 'trapeze ps --root DIR'\n",
                name);
    else if (near)
        fprintf(stderr, "trapeze: there is no verb '%s', did you mean '%s'?\n", name, near);
    else
        fprintf(stderr, "trapeze: there is no verb '%s'\n", name);
    fputs("See 'trapeze help' for the verbs there are.\n", stderr);
    return STATUS_USAGE;
}

static void print_subverbs(const struct verb *v, FILE *out)
{
    fputs("\nVerbs:\n", out);
    for (unsigned i = 0; v->subverbs[i]; i++)
        fprintf(out, "  %-10s %s\n", v->subverbs[i]->name, v->subverbs[i]->summary);
    fprintf(out, "\n'trapeze %s VERB --help' tells more of each.\n", v->name);
}

void verb_print_help(const struct verb *v, FILE *out)
{
    fprintf(out, "usage: trapeze %s [options]%s%s\n%s.\n\n", v->name, *v->operands ? " " : "",
            v->operands, v->summary);
    args_print(v->options(), out);
    if (v->subverbs)
        print_subverbs(v, out);
    if (v->notes)
        fprintf(out, "\n%s", v->notes);
    fprintf(out, "\nMore in the manual: man trapeze-%s\n", v->name);
}

void verb_print_all(FILE *out)
{
    fputs("usage: trapeze VERB [options]\n\n", out);
    for (unsigned i = 0; verbs[i]; i++)
        fprintf(out, "  %-10s %s\n", verbs[i]->name, verbs[i]->summary);
    fputs("\n'trapeze help VERB' tells more of each.\n", out);
}

int verb_usage_error(const struct verb *v, const struct err *err)
{
    fprintf(stderr, "trapeze %s: %s\nSee 'trapeze help %s'.\n", v->name, err->msg, v->name);
    return STATUS_USAGE;
}

int verb_no_arguments(const struct verb *self, char **argv)
{
    struct err err = ERR_INIT;
    struct args args;

    args_init(&args, verb_help_only, argv);
    switch (args_next(&args, &err)) {
    case ARGS_END:
        return -1;
    case 0:
        verb_print_help(self, stdout);
        return STATUS_OK;
    case ARGS_OPERAND:
        err_set(&err, EINVAL, "takes no '%s'", args.value);
        return verb_usage_error(self, &err);
    default:
        return verb_usage_error(self, &err);
    }
}
