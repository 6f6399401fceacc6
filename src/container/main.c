/*
 * trapeze-oci: the OCI runtime's command line. Options before the verb are global; every verb has a file of
 * its own or shares one with its kin. The table below is sorted as `--help` prints it.
 *
 * Exit statuses: 0, 1 for an error, 255 when `exec` fails to start, 3 for an unknown verb; `run` and `exec`
 * otherwise give the program's own.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json_c_version.h>
#include <seccomp.h>

#include "container/guard.h"
#include "container/report.h"
#include "container/runtime.h"

#define NAME "trapeze-oci"
#define VERSION "0.1.0"

static const struct verb verbs[] = {
    {"checkpoint", "<container-id>", "checkpoint a running container", verb_checkpoint, false, 1},
    {"create", "<container-id>", "create a container", verb_create, true, 1},
    {"delete", "<container-id>",
     "delete any resources held by the container often used with detached container", verb_delete,
     false, 1},
    {"events", "<container-id>",
     "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
     verb_events, false, 1},
    {"exec", "<container-id> <command> [command options]",
     "execute new process inside the container", verb_exec, true, 255},
    {"features", "", "show the enabled features", verb_features, false, 1},
    {"kill", "<container-id> [signal]",
     "kill sends the specified signal (default: SIGTERM) to the container's init process",
     verb_kill, false, 1},
    {"list", "", "lists containers started by " NAME " with the given root", verb_list, false, 1},
    {"pause", "<container-id>", "pause suspends all processes inside the container", verb_pause,
     false, 1},
    {"ps", "<container-id> [ps options]", "ps displays the processes running inside a container",
     verb_ps, false, 1},
    {"restore", "<container-id>", "restore a container from a previous checkpoint", verb_restore,
     true, 1},
    {"resume", "<container-id>", "resumes all processes that have been previously paused",
     verb_resume, false, 1},
    {"run", "<container-id>", "create and run a container", verb_run, true, 1},
    {"spec", "", "create a new specification file", verb_spec, false, 1},
    {"start", "<container-id>", "executes the user defined process in a created container",
     verb_start, false, 1},
    {"state", "<container-id>", "output the state of a container", verb_state, false, 1},
    {"update", "<container-id>", "update container resource constraints", verb_update, false, 1},
};

static const struct verb *find_verb(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    return NULL;
}

static void print_version(void)
{
    const struct scmp_version *v = seccomp_version();

    printf(NAME " version " VERSION "\nspec: " SPEC_VERSION "\njson-c: %s\nlibseccomp: %u.%u.%u\n",
           json_c_version(), v->major, v->minor, v->micro);
}

static void print_verbs(void)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        printf("   %-11s %s\n", verbs[i].name, verbs[i].help);
}

static void print_help(const struct option *opts, size_t n)
{
    printf("NAME:\n   " NAME " - Open Container Initiative runtime\n\nUSAGE:\n   " NAME
           " [global options] command [command options] [arguments...]\n\nCOMMANDS:\n");
    print_verbs();
    printf("   %-11s %s\n\nGLOBAL OPTIONS:\n", "help, h",
           "shows a list of commands or help for one command");
    option_print(opts, n);
}

static void print_verb_help(const char *name, const struct option *opts, size_t n)
{
    const struct verb *v = find_verb(name);

    printf("NAME:\n   " NAME " %s - %s\n\nUSAGE:\n   " NAME " %s %s%s\n", name, v->help, name,
           n ? "[command options] " : "", v->args);
    if (n)
        printf("\nOPTIONS:\n");
    option_print(opts, n);
}

int verb_parse(struct runtime *rt, const struct option *opts, size_t n, int min, int max, int argc,
               char **argv, struct err *err)
{
    int at = 1;

    for (int i = 1; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0 ||
            strcmp(argv[i], "-help") == 0) {
            print_verb_help(argv[0], opts, n);
            rt->help = true;
            return -ECANCELED;
        }
    }
    if (option_parse(&rt->pool, opts, n, argc, argv, &at, err) < 0) {
        printf("Incorrect Usage: %s\n\n", err->msg);
        print_verb_help(argv[0], opts, n);
        rt->usage = true;
        return -err->code;
    }
    if (argc - at >= min && (max < 0 || argc - at <= max))
        return at;
    printf("Incorrect Usage.\n\n");
    print_verb_help(argv[0], opts, n);
    rt->usage = true;
    return err_set(err, EINVAL, NAME ": \"%s\" requires %s %d argument(s)", argv[0],
                   max == min        ? "exactly"
                   : argc - at < min ? "a minimum of"
                                     : "a maximum of",
                   argc - at < min ? min : max);
}

static int run_verb(struct runtime *rt, int argc, char **argv)
{
    const struct verb *v = find_verb(argv[0]);
    struct err err = ERR_INIT;
    int rc;

    if (!v) {
        report(REPORT_ERROR, "No help topic for '%s'", argv[0]);
        return 3;
    }
    rc = v->guarded ? guard_self(rt->argv, &err) : 0;
    if (rc == 0)
        rc = v->run(rt, argc, argv, &err);
    if (rt->help)
        return 0;
    if (rc >= 0)
        return rc;
    if (v->guarded && !rt->usage)
        report(REPORT_ERROR, "%s%s failed: %s", v->exit_failure == 255 ? "" : NAME " ", v->name,
               err.msg);
    else
        report(REPORT_ERROR, "%s", err.msg);
    return v->exit_failure;
}

static const char *default_root(struct runtime *rt)
{
    const char *dir = getenv("XDG_RUNTIME_DIR");

    return rt->rootless && dir && dir[0] == '/' ? pool_fmt(&rt->pool, "%s/" NAME, dir)
                                                : "/run/" NAME;
}

static int set_rootless(struct runtime *rt, struct err *err)
{
    if (!rt->rootless_word || strcmp(rt->rootless_word, "auto") == 0)
        rt->rootless = geteuid() != 0;
    else if (strcmp(rt->rootless_word, "true") == 0 || strcmp(rt->rootless_word, "false") == 0)
        rt->rootless = rt->rootless_word[0] == 't';
    else
        return err_set(err, EINVAL, "invalid value \"%s\" for --rootless", rt->rootless_word);
    return 0;
}

static void set_root(struct runtime *rt)
{
    if (!rt->root)
        rt->root = default_root(rt);
    pool_absolute(&rt->pool, &rt->root);
}

static int run_main(struct runtime *rt, int argc, char **argv)
{
    const struct option opts[] = {
        {"debug", 0, OPTION_FLAG, &rt->debug, NULL, "enable debug logging"},
        {"log", 0, OPTION_VALUE, &rt->log, NULL,
         "set the log file to write logs to (default is '/dev/stderr')"},
        {"log-format", 0, OPTION_VALUE, &rt->log_format, NULL,
         "set the log format ('text' (default), or 'json')"},
        {"root", 0, OPTION_VALUE, &rt->root, NULL,
         "root directory for storage of container state (default: \"/run/" NAME "\")"},
        {"criu", 0, OPTION_VALUE, &rt->criu, NULL,
         "path to the criu binary used for checkpoint and restore"},
        {"systemd-cgroup", 0, OPTION_FLAG, &rt->systemd_cgroup, NULL,
         "enable systemd cgroup support, expects cgroupsPath to be of form \"slice:prefix:name\""},
        {"rootless", 0, OPTION_VALUE, &rt->rootless_word, NULL,
         "ignore cgroup permission errors ('true', 'false', or 'auto')"},
        {"help", 'h', OPTION_FLAG, &rt->help, NULL, "show help"},
        {"version", 'v', OPTION_FLAG, &rt->version, NULL, "print the version"},
    };
    struct err err = ERR_INIT;
    int at = 1;

    if (option_parse(&rt->pool, opts, ARRAY_LEN(opts), argc, argv, &at, &err) < 0) {
        printf("Incorrect Usage. %s\n\n", err.msg);
        print_help(opts, ARRAY_LEN(opts));
        report(REPORT_ERROR, "%s", err.msg);
        return 1;
    }
    if (rt->version) {
        print_version();
        return 0;
    }
    if (rt->help || at >= argc || strcmp(argv[at], "help") == 0 || strcmp(argv[at], "h") == 0) {
        print_help(opts, ARRAY_LEN(opts));
        return 0;
    }
    if (rt->log_format && strcmp(rt->log_format, "text") != 0 &&
        strcmp(rt->log_format, "json") != 0)
        err_set(&err, EINVAL, "invalid log-format: %s", rt->log_format);
    if (err.code || set_rootless(rt, &err) < 0 ||
        report_open(rt->log, rt->log_format && strcmp(rt->log_format, "json") == 0, rt->debug,
                    &err) < 0) {
        report(REPORT_ERROR, "%s", err.msg);
        return 1;
    }
    set_root(rt);
    return run_verb(rt, argc - at, argv + at);
}

int main(int argc, char **argv)
{
    struct runtime rt = {.argv = argv};
    int status = run_main(&rt, argc, argv);

    if (fflush(stdout) == EOF && status == 0)
        status = 1;
    pool_fini(&rt.pool);
    return status;
}
