/*
 * `trapeze ps`: the guests of this host. What runs is asked what it does; all are asked first and heard then, and who does
 * not answer in time is shown so.
 */
#include "cmd/guests.h"

#include "vm/value.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ANSWER_MS 2000

enum { PS_ALL = GUEST_OWN, PS_FORMAT, PS_QUIET };

struct listing {
    bool all, json, quiet;
};

/* What is known of one guest. */
struct row {
    struct record *record;
    struct client client;
    bool asked;
    char state[32]; /* running, paused, ..., ended; or what keeps it from answering */
    json_t *status; /* its own answer; NULL: none */
};

static void ask(const struct host *h, struct row *row)
{
    snprintf(row->state, sizeof(row->state), "%s",
             row->record->state == RECORD_RUNNING ? "running" : "ended");
    row->client.wire.fd = -1;
    if (row->record->state != RECORD_RUNNING)
        return;
    row->asked = !guest_connect(h, row->record, &row->client, NULL) &&
                 !client_send(&row->client, "status", NULL, NULL, 0, NULL);
    /* It is about to end, and may have moved: so it is not said to run. */
    if (!row->asked)
        snprintf(row->state, sizeof(row->state), "not answering");
}

static s64 now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void hear(struct row *row, s64 deadline_ms)
{
    if (row->asked) {
        row->client.timeout_ms = (int)MAX(deadline_ms - now_ms(), 0);
        if (client_wait(&row->client, NULL, &row->status, NULL))
            snprintf(row->state, sizeof(row->state), "not answering");
    }
    const char *state = json_string_value(json_object_get(row->status, "state"));
    if (state)
        snprintf(row->state, sizeof(row->state), "%s", state);
    client_close(&row->client);
}

static json_t *to_json(const struct row *row)
{
    const struct record *x = row->record;
    json_t *o =
        json_pack("{s:s,s:s,s:s,s:I,s:I}", "id", x->id, "name", x->name, "state", row->state,
                  "created", (json_int_t)x->created_s, "started", (json_int_t)x->started_s);

    if (x->state == RECORD_RUNNING) {
        json_object_set_new(o, "pid", json_integer(x->pid));
    } else {
        json_object_set_new(o, "ended", json_integer(x->ended_s));
        json_object_set_new(o, "status",
                            x->status == RECORD_NO_STATUS ? json_null() : json_integer(x->status));
        json_object_set_new(o, "reason", x->reason ? json_string(x->reason) : json_null());
    }
    if (row->status) {
        json_object_set(o, "cpus", json_object_get(row->status, "cpus"));
        json_object_set(o, "memory", json_object_get(row->status, "memory"));
        json_object_set(o, "accel", json_object_get(row->status, "accel"));
    }
    return o;
}

static void print_json(const struct row *rows, size_t count)
{
    json_t *list = json_array();

    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, to_json(&rows[i]));
    json_dumpf(list, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(list);
}

static void describe(const struct row *row, char *buf, size_t size)
{
    const struct record *x = row->record;
    char age[32];
    s64 now = time(NULL);

    if (x->state == RECORD_RUNNING && strcmp(row->state, "running"))
        snprintf(buf, size, "%s, up %s", row->state, guest_age(now - x->started_s, age));
    else if (x->state == RECORD_RUNNING)
        snprintf(buf, size, "up %s", guest_age(now - x->started_s, age));
    else if (guest_moved_away(x))
        snprintf(buf, size, "moved away %s ago", guest_age(now - x->ended_s, age));
    else if (x->status == RECORD_NO_STATUS)
        snprintf(buf, size, "died %s ago", guest_age(now - x->ended_s, age));
    else
        snprintf(buf, size, "ended (%d) %s ago", x->status, guest_age(now - x->ended_s, age));
}

static void print_table(const struct row *rows, size_t count)
{
    int width = 4;

    for (size_t i = 0; i < count; i++)
        width = MAX(width, (int)strlen(rows[i].record->name));
    printf("%-12s  %-*s  %-27s  %4s  %6s  %s\n", "ID", width, "NAME", "STATE", "CPUS", "MEMORY",
           "PID");
    for (size_t i = 0; i < count; i++) {
        const struct row *r = &rows[i];
        char state[64], cpus[16] = "-", memory[32] = "-", pid[16] = "-";

        describe(r, state, sizeof(state));
        if (r->status) {
            snprintf(cpus, sizeof(cpus), "%lld",
                     (long long)json_integer_value(json_object_get(r->status, "cpus")));
            value_size_print((u64)json_integer_value(json_object_get(r->status, "memory")), memory,
                             sizeof(memory));
        }
        if (r->record->state == RECORD_RUNNING)
            snprintf(pid, sizeof(pid), "%d", r->record->pid);
        printf("%-12s  %-*s  %-27s  %4s  %6s  %s\n", r->record->id, width, r->record->name, state,
               cpus, memory, pid);
    }
}

static void print(const struct listing *l, const struct row *rows, size_t count)
{
    if (l->json)
        print_json(rows, count);
    else if (!l->quiet)
        print_table(rows, count);
    for (size_t i = 0; i < count && l->quiet && !l->json; i++)
        puts(rows[i].record->id);
}

static int list(const struct listing *l, struct host *h, struct err *err)
{
    struct record *records = NULL;
    size_t all = 0, count = 0;
    int rc = records_list(h->records, &records, &all, err);

    if (rc)
        return rc;
    struct row *rows = calloc(all + 1, sizeof(*rows));
    if (!rows) {
        records_free_list(records, all);
        return err_set(err, ENOMEM, "no memory");
    }
    for (size_t i = 0; i < all; i++)
        if (l->all || records[i].state == RECORD_RUNNING)
            rows[count++].record = &records[i];
    for (size_t i = 0; i < count; i++)
        ask(h, &rows[i]);
    s64 deadline_ms = now_ms() + ANSWER_MS;
    for (size_t i = 0; i < count; i++)
        hear(&rows[i], deadline_ms);
    print(l, rows, count);
    for (size_t i = 0; i < count; i++)
        json_decref(rows[i].status);
    free(rows);
    records_free_list(records, all);
    return 0;
}

static int read_own(void *opaque, int index, const char *value, struct err *err)
{
    static const char *const formats[] = {"json", "table", NULL};
    struct listing *l = opaque;
    unsigned format;

    l->all |= index == PS_ALL;
    l->quiet |= index == PS_QUIET;
    if (index != PS_FORMAT)
        return 0;
    if (value_choice(value, formats, &format, err))
        return err_wrap(err, "--format");
    l->json = format == 0;
    return 0;
}

static int run(const struct verb *self, char **argv)
{
    struct listing l = {0};
    struct guest_args a = {.own = read_own, .opaque = &l};
    int status = guest_args_read(&a, self, argv);
    struct err err = ERR_INIT;
    struct host h;

    if (status >= 0)
        return status;
    status = guest_host_open(&h, &a, self);
    if (status)
        return status;
    if (list(&l, &h, &err)) {
        guest_complain(self, &err);
        status = STATUS_HOST;
    }
    host_close(&h);
    return status;
}

static const struct args_spec *options(void)
{
    static const struct args_spec all[] = {
        GUEST_OPTIONS,
        [PS_ALL] = {"all", 'a', NULL, "those that have ended, too"},
        [PS_FORMAT] = {"format", 0, "FORMAT", "table, or json for programs (table)"},
        [PS_QUIET] = {"quiet", 'q', NULL, "nothing but ids, one a line"},
        {NULL, 0, NULL, NULL},
    };

    return all;
}

const struct verb verb_ps = {
    .name = "ps",
    .operands = "",
    .summary = "List this host's guests",
    .options = options,
    .notes = "Guests in the foreground are listed while they run.\n",
    .run = run,
};
