/*
 * Verbs under a verb: finds the one that is asked for, reads its arguments, opens the host's records for those that
 * need them. Main thread.
 */
#include "cmd/subverb.h"

#include "cmd/status.h"
#include "host/host.h"
#include "vm/value.h"
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#define USAGE_CODE EBADRQC /* marks errors of the command line; nothing below uses it */

#define SHOWN 1 /* the help, and that is all */

int sub_usage(struct err *err, const char *fmt, ...)
{
    char text[sizeof(err->msg)];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(err, USAGE_CODE, "%s", text);
}

static const struct subverb *find(const struct verb *self, const char *name)
{
    for (unsigned i = 0; self->subverbs[i]; i++)
        if (!strcmp(self->subverbs[i]->name, name))
            return self->subverbs[i];
    return NULL;
}

static int unknown(const struct verb *self, const char *name)
{
    const char *names[32] = {0};
    const char *near;

    for (unsigned i = 0; self->subverbs[i] && i + 1 < ARRAY_LEN(names); i++)
        names[i] = self->subverbs[i]->name;
    near = value_nearest(name, names);
    fprintf(stderr, "trapeze %s: there is no verb '%s'", self->name, name);
    if (near)
        fprintf(stderr, ", did you mean '%s'?", near);
    fprintf(stderr, "\nSee 'trapeze help %s'.\n", self->name);
    return STATUS_USAGE;
}

static void print_help(const struct verb *self, const struct subverb *v)
{
    printf("usage: trapeze %s %s %s\n%s.\n\n", self->name, v->name, v->usage, v->summary);
    args_print(v->options, stdout);
    printf("\nMore in the manual: man trapeze-%s\n", self->name);
}

/* Returns 0, -errno or SHOWN. */
static int read_args(const struct verb *self, const struct subverb *v, char **argv,
                     struct sub_args *ret_args, struct err *err)
{
    struct args args;

    args_init(&args, v->options, argv);
    for (int i; (i = args_next(&args, err)) != ARGS_END;) {
        if (i == ARGS_BAD)
            return sub_usage(err, "%s", ((struct err) * err).msg);
        if (i == ARGS_OPERAND) {
            if (ret_args->operands == v->operands_max)
                return sub_usage(err, "'%s' is one operand too many", args.value);
            ret_args->operand[ret_args->operands++] = args.value;
            continue;
        }
        if (!strcmp(v->options[i].name, "help")) {
            print_help(self, v);
            return SHOWN;
        }
        ret_args->value[i] = args.value ? args.value : "";
    }
    if (ret_args->operands < v->operands_min)
        return sub_usage(err, "too few operands: trapeze %s %s %s", self->name, v->name, v->usage);
    return 0;
}

static int run_on_host(const struct subverb *v, const struct sub_args *a, struct err *err)
{
    const char *root = NULL;
    struct host h = {0};
    int rc;

    for (unsigned i = 0; v->options[i].name; i++)
        if (!strcmp(v->options[i].name, "root"))
            root = a->value[i];
    rc = host_open(&h, root, err);
    if (!rc)
        rc = v->run_on_host(a, &h, err);
    host_close(&h);
    return rc;
}

static int run(const struct verb *self, const struct subverb *v, char **argv)
{
    struct sub_args a = {0};
    struct err err = ERR_INIT;
    int rc = read_args(self, v, argv, &a, &err);

    if (rc == SHOWN)
        return STATUS_OK;
    if (!rc)
        rc = v->run ? v->run(&a, &err) : run_on_host(v, &a, &err);
    if (rc >= 0)
        return rc;
    fflush(stdout);
    fprintf(stderr, "trapeze %s %s: %s\n", self->name, v->name, err.msg);
    if (rc != -USAGE_CODE)
        return STATUS_HOST;
    fprintf(stderr, "See 'trapeze %s %s --help'.\n", self->name, v->name);
    return STATUS_USAGE;
}

int subverb_run(const struct verb *self, char **argv)
{
    const struct subverb *v;

    if (!argv[0]) {
        verb_print_help(self, stderr);
        return STATUS_USAGE;
    }
    if (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h")) {
        verb_print_help(self, stdout);
        return STATUS_OK;
    }
    v = find(self, argv[0]);
    return v ? run(self, v, argv + 1) : unknown(self, argv[0]);
}
