/* What every verb gets: the global options. One function per verb, listed in main.c. */
#ifndef CONTAINER_RUNTIME_H
#define CONTAINER_RUNTIME_H

#include "container/option.h"
#include "container/state.h"

struct runtime {
    struct pool pool;
    const char *root, *criu, *log, *log_format, *rootless_word;
    bool debug, systemd_cgroup, version, help;
    bool usage;    /* the command line was wrong, and help has been printed */
    bool rootless; /* not running with root's rights over cgroups */
    char **argv;   /* the whole command line, for the guard */
};

/*
 * A verb: argv[0] is its name. Returns the exit status, or -errno with the reason in *err. When its options
 * or arguments are wrong it prints its help itself.
 */
typedef int verb_fn(struct runtime *rt, int argc, char **argv, struct err *err);

struct verb {
    const char *name, *args, *help;
    verb_fn *run;
    bool guarded; /* enters a container: our executable must not be reachable for writing */
    int exit_failure;
};

/* Parses a verb's options and checks the number of arguments (max < 0: no limit). First argument's index. */
int verb_parse(struct runtime *rt, const struct option *opts, size_t n, int min, int max, int argc,
               char **argv, struct err *err);

verb_fn verb_checkpoint, verb_create, verb_delete, verb_events, verb_exec, verb_features, verb_kill,
    verb_list, verb_pause, verb_ps, verb_restore, verb_resume, verb_run, verb_spec, verb_start,
    verb_state, verb_update;

#endif
