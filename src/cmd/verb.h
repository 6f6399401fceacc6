/* The verbs of the command line: one file each, one sorted table of them (cmd/verbs.c). */
#ifndef CMD_VERB_H
#define CMD_VERB_H

#include "cmd/args.h"
#include <stdio.h>

struct subverb;

struct verb {
    const char *name;
    const char *operands; /* for the usage line: "", "[VERB]" */
    const char *summary;  /* one line */
    /* Its options, name NULL at the end; built on demand because the machine's come from another
     * table. */
    const struct args_spec *(*options)(void);
    const char *notes; /* more for `help VERB`, or NULL */
    const struct subverb *const
        *subverbs; /* sorted by name, NULL at the end; or none (cmd/subverb.h) */
    /* argv: what follows the verb, NULL at the end. Returns an exit status (cmd/status.h). */
    int (*run)(const struct verb *self, char **argv);
};

/* clang-format off */
extern const struct verb
    verb_accel,
    verb_attach,
    verb_completion,
    verb_disk,
    verb_help,
    verb_inspect,
    verb_kill,
    verb_logs,
    verb_migrate,
    verb_pause,
    verb_ps,
    verb_receive,
    verb_rename,
    verb_resume,
    verb_rm,
    verb_run,
    verb_snapshot,
    verb_start,
    verb_stats,
    verb_stop,
    verb_version,
    verb_wait;
/* clang-format on */
extern const struct verb *const verbs[]; /* sorted by name, NULL at the end */

const struct verb *verb_find(const char *name); /* or NULL */
/* Says that there is no such verb and which may have been meant; returns STATUS_USAGE. */
int verb_unknown(const char *name);
void verb_print_help(const struct verb *v, FILE *out);
void verb_print_all(FILE *out);
/* Prints "trapeze VERB: message" and where to find help; returns STATUS_USAGE. */
int verb_usage_error(const struct verb *v, const struct err *err);
/* For verbs with no options but --help, and no operands. Returns -1 to go on, else the exit status.
 */
int verb_no_arguments(const struct verb *self, char **argv);
extern const struct args_spec verb_help_only[]; /* the options of such verbs */

#endif
