/*
 * `trapeze snapshot VERB`: finds the verb, reads its arguments, opens the host's records. Main thread.
 */
#include "cmd/snapshot.h"

#include "cmd/verb.h"
#include "vm/value.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct snap_verb *const snap_verbs[] = {
    &snap_clone_verb,  &snap_create_verb, &snap_diff_verb,    &snap_export_verb, &snap_flatten_verb,
    &snap_import_verb, &snap_ls_verb,     &snap_restore_verb, &snap_rm_verb,     &snap_show_verb,
};

int snap_usage(struct err *err, const char *fmt, ...)
{
    char text[sizeof(err->msg)];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    err_set(err, EINVAL, "%s", text);
    return -SNAP_USAGE;
}

static const struct snap_verb *find(const char *name)
{
    for (unsigned i = 0; i < ARRAY_LEN(snap_verbs); i++)
        if (!strcmp(snap_verbs[i]->name, name))
            return snap_verbs[i];
    return NULL;
}

static int unknown_verb(const char *name)
{
    const char *names[ARRAY_LEN(snap_verbs) + 1] = {0};
    const char *near;

    for (unsigned i = 0; i < ARRAY_LEN(snap_verbs); i++)
        names[i] = snap_verbs[i]->name;
    near = value_nearest(name, names);
    fprintf(stderr, "trapeze snapshot: there is no verb '%s'", name);
    if (near)
        fprintf(stderr, ", did you mean '%s'?", near);
    fputs("\nSee 'trapeze help snapshot'.\n", stderr);
    return STATUS_USAGE;
}

/* Returns 0, -errno, or 1 when --help was there. */
static int read_args(const struct snap_verb *v, char **argv, struct snap_args *ret_args,
                     struct err *err)
{
    struct args args;

    args_init(&args, v->options, argv);
    for (int i; (i = args_next(&args, err)) != ARGS_END;) {
        if (i == ARGS_BAD)
            return -SNAP_USAGE;
        if (i == ARGS_OPERAND) {
            if (ret_args->operands == v->operands_max)
                return snap_usage(err, "'%s' is one operand too many", args.value);
            ret_args->operand[ret_args->operands++] = args.value;
            continue;
        }
        if (i == SNAP_HELP)
            return 1;
        ret_args->value[i] = args.value ? args.value : "";
    }
    if (ret_args->operands < v->operands_min)
        return snap_usage(err, "too few operands: trapeze snapshot %s %s", v->name, v->usage);
    return 0;
}

static int run_verb(const struct snap_verb *v, char **argv)
{
    struct snap_args a = {0};
    struct err err = ERR_INIT;
    struct host h = {0};
    int rc = read_args(v, argv, &a, &err);

    if (rc == 1) {
        printf("usage: trapeze snapshot %s %s\n%s.\n\n", v->name, v->usage, v->summary);
        args_print(v->options, stdout);
        puts("\nMore in the manual: man trapeze-snapshot");
        return STATUS_OK;
    }
    rc = rc ? rc : host_open(&h, a.value[SNAP_ROOT], &err);
    if (!rc)
        rc = v->run(&a, &h, &err);
    host_close(&h);
    if (rc >= 0)
        return rc;
    fflush(stdout);
    fprintf(stderr, "trapeze snapshot %s: %s\n", v->name, err.msg);
    if (rc != -SNAP_USAGE)
        return STATUS_HOST;
    fprintf(stderr, "See 'trapeze snapshot %s --help'.\n", v->name);
    return STATUS_USAGE;
}

static const struct args_spec *options(void)
{
    return verb_help_only;
}

static int run(const struct verb *self, char **argv)
{
    const struct snap_verb *v;

    if (!argv[0]) {
        verb_print_help(self, stderr);
        return STATUS_USAGE;
    }
    if (!strcmp(argv[0], "--help") || !strcmp(argv[0], "-h")) {
        verb_print_help(self, stdout);
        return STATUS_OK;
    }
    v = find(argv[0]);
    return v ? run_verb(v, argv + 1) : unknown_verb(argv[0]);
}

const struct verb verb_snapshot = {
    .name = "snapshot",
    .operands = "VERB [...]",
    .summary = "Take snapshots of guests, and make guests from them",
    .options = options,
    .notes = "Verbs:\n"
             "  clone      run several new guests from a snapshot\n"
             "  create     take a snapshot of a guest that runs\n"
             "  diff       show what is different between two snapshots\n"
             "  export     write a snapshot with all it stands on into one file\n"
             "  flatten    make an incremental snapshot stand alone\n"
             "  import     make a snapshot of such a file\n"
             "  ls         list snapshots\n"
             "  restore    run a guest from a snapshot\n"
             "  rm         remove snapshots\n"
             "  show       show what a snapshot holds\n"
             "\n'trapeze snapshot VERB --help' tells more of each.\n",
    .run = run,
};
