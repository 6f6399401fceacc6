/* `trapeze snapshot ls` and `rm`. Main thread. */
#include "cmd/snapshot.h"

#include "cmd/guests.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { FORMAT = SNAP_OWN };

static const char *parent_name(const struct snapshot *list, size_t count, const struct snapshot *s)
{
    for (size_t i = 0; i < count; i++)
        if (*s->parent && !strcmp(list[i].id, s->parent))
            return list[i].name;
    return *s->parent ? s->parent : "-";
}

static void print_table(const struct host *h, const struct snapshot *list, size_t count)
{
    s64 now = time(NULL);

    printf("%-*s  %-20s  %-16s  %-14s  %8s  %8s  %s\n", RECORD_ID_LEN, "ID", "NAME", "GUEST", "AGE",
           "MEMORY", "SIZE", "PARENT");
    for (size_t i = 0; i < count; i++) {
        const struct snapshot *s = &list[i];
        char age[32], memory[32], size[32];

        printf("%s  %-20s  %-16s  %-14s  %8s  %8s  %s\n", s->id, s->name, s->guest,
               guest_age(now - s->created_ns / NS_PER_S, age), snap_size(s->memory_bytes, memory),
               snap_size(snap_disk_bytes(h, s), size), parent_name(list, count, s));
    }
}

static int print_json(const struct host *h, const struct snapshot *list, size_t count)
{
    json_t *all = json_array();

    for (size_t i = 0; i < count; i++) {
        const struct snapshot *s = &list[i];

        json_array_append_new(
            all,
            json_pack("{s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:b}", "id", s->id, "name", s->name, "guest",
                      s->guest, "parent", s->parent, "created",
                      (json_int_t)(s->created_ns / NS_PER_S), "memory", (json_int_t)s->memory_bytes,
                      "size", (json_int_t)snap_disk_bytes(h, s), "compressed", (int)s->compressed));
    }
    int rc = json_dumpf(all, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(all);
    return rc ? -EIO : 0;
}

static int run_ls(const struct sub_args *a, struct host *h, struct err *err)
{
    const char *format = a->value[FORMAT];
    struct snapshot *list;
    size_t count;

    if (format && strcmp(format, "json") && strcmp(format, "table"))
        return sub_usage(err, "--format '%s' is not known; there are table and json", format);
    int rc = snapshots_list(h, &list, &count, NULL, err);
    if (rc)
        return rc;
    if (format && !strcmp(format, "json"))
        rc = print_json(h, list, count);
    else
        print_table(h, list, count);
    snapshots_free_list(list, count);
    return rc ? err_sys(err, -rc, "output") : STATUS_OK;
}

static int run_rm(const struct sub_args *a, struct host *h, struct err *err)
{
    auto_close int lock = -1;
    int rc = snapshots_lock(h, &lock, err);

    for (unsigned i = 0; i < a->operands && !rc; i++) {
        struct snapshot s = {0};

        rc = snapshot_find(h, a->operand[i], &s, err);
        if (!rc && (rc = snapshot_remove(h, &s, err)))
            err_wrap(err, "%s", s.name);
        snapshot_fini(&s);
    }
    return rc;
}

static const struct args_spec ls_options[] = {
    SNAP_OPTIONS,
    {"format", 0, "FORMAT", "table, or json for programs (table)"},
    {NULL, 0, NULL, NULL},
};
static const struct args_spec rm_options[] = {SNAP_OPTIONS, {NULL, 0, NULL, NULL}};

const struct subverb snap_ls_verb = {
    .name = "ls",
    .usage = "[--format json]",
    .summary = "List snapshots, oldest first",
    .options = ls_options,
    .run_on_host = run_ls,
};

const struct subverb snap_rm_verb = {
    .name = "rm",
    .usage = "SNAPSHOT...",
    .summary = "Remove snapshots; guests that run from them go on",
    .options = rm_options,
    .operands_min = 1,
    .operands_max = SUB_OPERANDS_MAX,
    .run_on_host = run_rm,
};
