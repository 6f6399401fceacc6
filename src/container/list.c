/* `state`, `list` and `ps`: looking without touching. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "container/runtime.h"

#define PRETTY (JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE)

int verb_state(struct runtime *rt, int argc, char **argv, struct err *err)
{
    int at = verb_parse(rt, NULL, 0, 1, 1, argc, argv, err), rc;
    struct state st;

    if (at < 0)
        return at;
    rc = state_open(&st, &rt->pool, rt->root, argv[at], false, err);
    if (rc == 0) {
        json_t *o = state_to_json(&st, state_status(&st));

        printf("%s\n", json_object_to_json_string_ext(o, PRETTY));
        json_object_put(o);
    }
    state_close(&st);
    return rc;
}

static void print_row(const struct state *st, enum status status)
{
    printf("%-11s %-11d %-11s %-11s %-32s %s\n", st->id, status == STATUS_STOPPED ? 0 : st->pid,
           status_name(status), st->bundle ? st->bundle : "", st->created ? st->created : "",
           st->owner && st->owner[0] ? st->owner : "root");
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names in the state directory, sorted. Entries that are none of ours are found out when opened. */
static void read_ids(struct runtime *rt, struct strv *ids)
{
    DIR *dir = opendir(rt->root);
    struct dirent *e;

    while (dir && (e = readdir(dir)))
        if (e->d_name[0] != '.' && (e->d_type == DT_DIR || e->d_type == DT_UNKNOWN))
            pool_strv_add(&rt->pool, ids, pool_str(&rt->pool, e->d_name));
    if (dir)
        closedir(dir);
    if (ids->n)
        qsort(ids->v, ids->n, sizeof(char *), compare);
}

static json_t *row_json(const struct state *st, enum status status)
{
    json_t *o = state_to_json(st, status);

    if (!st->owner || !st->owner[0])
        json_object_object_add(o, "owner", json_object_new_string("root"));
    return o;
}

int verb_list(struct runtime *rt, int argc, char **argv, struct err *err)
{
    const char *format = "table";
    bool quiet = false;
    const struct option opts[] = {
        {"format", 'f', OPTION_VALUE, &format, NULL,
         "select one of: table or json (default: \"table\")"},
        {"quiet", 'q', OPTION_FLAG, &quiet, NULL, "display only container IDs"},
    };
    int at = verb_parse(rt, opts, ARRAY_LEN(opts), 0, 0, argc, argv, err);
    struct strv ids = {0};
    bool json = strcmp(format, "json") == 0;
    json_t *arr = NULL;

    if (at < 0)
        return at;
    if (!json && strcmp(format, "table") != 0)
        return err_set(err, EINVAL, "invalid format option");
    read_ids(rt, &ids);
    if (!json && !quiet)
        printf("%-11s %-11s %-11s %-11s %-32s %s\n", "ID", "PID", "STATUS", "BUNDLE", "CREATED",
               "OWNER");
    for (size_t i = 0; i < ids.n; i++) {
        struct err ignored = ERR_INIT;
        struct state st;

        if (state_open(&st, &rt->pool, rt->root, ids.v[i], false, &ignored) == 0) {
            if (quiet)
                printf("%s\n", st.id);
            else if (!json)
                print_row(&st, state_status(&st));
            else
                json_object_array_add(arr ? arr : (arr = json_object_new_array()),
                                      row_json(&st, state_status(&st)));
        }
        state_close(&st);
    }
    if (json && !quiet)
        printf("%s\n", arr ? json_object_to_json_string_ext(arr, JSON_C_TO_STRING_PLAIN |
                                                                     JSON_C_TO_STRING_NOSLASHESCAPE)
                           : "null");
    json_object_put(arr);
    return 0;
}

static bool holds(const int *pids, size_t n, int pid)
{
    for (size_t i = 0; i < n; i++)
        if (pids[i] == pid)
            return true;
    return false;
}

/* The words of a line up to the n-th column; -1 when it has fewer. */
static int column_value(const char *line, int column)
{
    for (int i = 0; i < column; i++) {
        line += strspn(line, " ");
        line += strcspn(line, " ");
    }
    line += strspn(line, " ");
    return *line ? (int)strtol(line, NULL, 10) : -1;
}

/* Host ps(1) with the caller's options, its lines filtered by the PID column (as runc and docker top do). */
static int print_ps_table(char **args, const int *pids, size_t n, struct err *err)
{
    int pipefd[2], child, column = 0, status;
    char line[4096];
    FILE *in;

    if (pipe2(pipefd, O_CLOEXEC) < 0)
        return err_sys(err, errno, "pipe");
    child = fork();
    if (child == 0) {
        dup2(pipefd[1], STDOUT_FILENO);
        execvp("ps", args);
        _exit(127);
    }
    close(pipefd[1]);
    in = fdopen(pipefd[0], "r");
    for (bool head = true; in && fgets(line, sizeof(line), in); head = false) {
        if (head) {
            const char *at = line + strspn(line, " ");

            for (; *at && strncmp(at, "PID ", 4) != 0 && strcmp(at, "PID\n") != 0; column++) {
                at += strcspn(at, " ");
                at += strspn(at, " ");
            }
            if (!*at)
                err_set(err, EINVAL, "couldn't find PID field in ps output");
        }
        if (!err->code && (head || holds(pids, n, column_value(line, column))))
            fputs(line, stdout);
    }
    if (in)
        fclose(in);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (!err->code && (!WIFEXITED(status) || WEXITSTATUS(status)))
        return err_set(err, EIO,
                       WEXITSTATUS(status) == 127
                           ? "exec: \"ps\": executable file not found in $PATH"
                           : "ps failed");
    return -err->code;
}

static void print_ps_json(const int *pids, size_t n)
{
    if (!n) {
        printf("null\n");
        return;
    }
    for (size_t i = 0; i < n; i++)
        printf("%c%d", i ? ',' : '[', pids[i]);
    printf("]\n");
}

int verb_ps(struct runtime *rt, int argc, char **argv, struct err *err)
{
    const char *format = "table";
    const struct option opts[] = {
        {"format", 'f', OPTION_VALUE, &format, NULL,
         "select one of: table or json (default: \"table\")"},
    };
    int at = verb_parse(rt, opts, ARRAY_LEN(opts), 1, -1, argc, argv, err), rc;
    char *defaults[] = {"ps", "-ef", NULL};
    auto_free int *pids = NULL;
    struct state st;
    size_t n = 0;

    if (at < 0)
        return at;
    if (strcmp(format, "table") != 0 && strcmp(format, "json") != 0)
        return err_set(err, EINVAL, "invalid format option");
    rc = state_open(&st, &rt->pool, rt->root, argv[at], false, err);
    if (rc == 0)
        rc = cgroup_pids(&st.cgroup, &pids, &n, err);
    if (rc == 0 && strcmp(format, "json") == 0)
        print_ps_json(pids, n);
    else if (rc == 0 && at + 1 < argc) {
        argv[at] = "ps";
        rc = print_ps_table(&argv[at], pids, n, err);
    } else if (rc == 0) {
        rc = print_ps_table(defaults, pids, n, err);
    }
    state_close(&st);
    return rc;
}
