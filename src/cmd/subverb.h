/*
 * Verbs under a verb, as in `trapeze disk info`: a struct verb that has a table of them runs them by subverb_run(), and its
 * help and the completion of command lines list them.
 */
#ifndef CMD_SUBVERB_H
#define CMD_SUBVERB_H

#include "cmd/args.h"
#include "cmd/verb.h"

struct host;

enum { SUB_OPTIONS_MAX = 40, SUB_OPERANDS_MAX = 256 };

struct sub_args {
    /* By index of the option; "" for flags that are there, NULL: not there. */
    const char *value[SUB_OPTIONS_MAX];
    const char *operand[SUB_OPERANDS_MAX];
    unsigned operands;
};

struct subverb {
    const char *name;
    const char *usage; /* what follows the name */
    const char *summary;
    const struct args_spec *options; /* with --help */
    unsigned operands_min, operands_max;
    /* One of the two; the second for verbs with an option --root, whose host is open then. Returns a status >= 0, or
     * -errno; what sub_usage() returned when the command line is wrong. */
    int (*run)(const struct sub_args *a, struct err *err);
    int (*run_on_host)(const struct sub_args *a, struct host *h, struct err *err);
};

/* The command line is wrong: fills *err; its return value is the verb's. */
int sub_usage(struct err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The run() of a verb with subverbs. */
int subverb_run(const struct verb *self, char **argv);

#endif
