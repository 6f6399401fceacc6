/*
 * Command-line arguments against a table: --name VALUE, --name=VALUE, -nVALUE, -n VALUE, flags
 * joined as -ab, "--" ends the options. Names are never abbreviated; a wrong one is answered with
 * the nearest.
 */
#ifndef CMD_ARGS_H
#define CMD_ARGS_H

#include "base/err.h"
#include <stdio.h>

struct args_spec {
    const char *name;
    char letter;      /* short form, 0: none */
    const char *arg;  /* what its value is called, NULL: takes none */
    const char *help; /* one line, NULL: not shown; its verb tells why there is no such option */
};

struct args {
    const struct args_spec *specs; /* name NULL at the end */
    char **argv;                   /* what is left to read, NULL at the end */
    const char *letters;           /* rest of a group of short flags */
    const char *value;             /* of the option just returned */
    bool no_more_options;          /* "--" was seen */
};

enum {
    ARGS_END = -1,
    ARGS_OPERAND = -2 /* not an option: args.value is it */,
    ARGS_BAD = -3 /* *err says why */
};

/* argv: without the program's and the verb's names. Both tables stay the caller's. */
void args_init(struct args *a, const struct args_spec *specs, char **argv);
/* The next argument: an index into specs, or one of ARGS_*. */
int args_next(struct args *a, struct err *err);
/* The specs as lines of help. */
void args_print(const struct args_spec *specs, FILE *out);

#endif
