/* `trapeze inspect`: all that is known of guests, as JSON: the record, where its files are, and what it says itself. */
#include "cmd/guests.h"

#include <string.h>

/* Options as an object; what can be given several times is an array of strings. */
static json_t *options_of(const char *config)
{
    json_t *options = json_object();
    auto_free char *text = strdup(config ? config : "");
    char *rest = text;

    for (char *line; text && (line = strsep(&rest, "\n"));) {
        char *value = strchr(line, '=');
        bool several = !strncmp(line, "disk=", 5) || !strncmp(line, "net=", 4);

        if (!*line)
            continue;
        if (value)
            *value++ = 0;
        if (several && !json_object_get(options, line))
            json_object_set_new(options, line, json_array());
        if (several)
            json_array_append_new(json_object_get(options, line), json_string(value));
        else
            json_object_set_new(options, line, value ? json_string(value) : json_true());
    }
    return options;
}

static void add_path(json_t *o, const char *name, char *path)
{
    json_object_set_new(o, name, json_string(path ? path : ""));
    free(path);
}

static json_t *describe(const struct host *h, const struct record *x)
{
    bool runs = x->state == RECORD_RUNNING;
    json_t *machine = NULL;
    json_t *o = json_pack("{s:s,s:s,s:s,s:b,s:I,s:I}", "id", x->id, "name", x->name, "state",
                          runs ? "running" : "ended", "transient", x->transient, "created",
                          (json_int_t)x->created_s, "started", (json_int_t)x->started_s);

    if (runs) {
        struct err err = ERR_INIT;

        json_object_set_new(o, "pid", json_integer(x->pid));
        add_path(o, "socket", place_socket(&h->place, x->id));
        if (!guest_ask(h, x, "inspect", NULL, &machine, &err)) {
            json_object_set(o, "state", json_object_get(machine, "state"));
            json_object_del(machine, "id");
            json_object_del(machine, "ok");
            json_object_set_new(o, "machine", machine);
        } else {
            json_object_set_new(o, "state", json_string("not answering"));
            json_object_set_new(o, "error", json_string(err.msg));
        }
    } else {
        json_object_set_new(o, "ended", json_integer(x->ended_s));
        json_object_set_new(o, "status",
                            x->status == RECORD_NO_STATUS ? json_null() : json_integer(x->status));
        json_object_set_new(o, "reason", x->reason ? json_string(x->reason) : json_null());
    }
    json_t *options = options_of(x->config);
    if (json_object_get(options, "name")) /* it may have been renamed since they were given */
        json_object_set_new(options, "name", json_string(x->name));
    json_object_set_new(o, "options", options);
    add_path(o, "folder", place_guest(&h->place, x->id, NULL));
    return o;
}

static int inspect(void *opaque, struct host *h, struct record *record, struct err *err)
{
    json_array_append_new(opaque, describe(h, record));
    return 0;
}

static int run(const struct verb *self, char **argv)
{
    struct guest_args a = {.min = 1, .max = SIZE_MAX};
    int status = guest_args_read(&a, self, argv);
    struct host h;

    if (status >= 0)
        return status;
    status = guest_host_open(&h, &a, self);
    if (status)
        return status;
    json_t *list = json_array();
    status = guest_each(&h, &a, self, inspect, list);
    json_dumpf(list, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(list);
    host_close(&h);
    return status;
}

const struct verb verb_inspect = {
    .name = "inspect",
    .operands = "GUEST...",
    .summary = "Show all that is known of guests, as JSON",
    .options = guest_only_options,
    .run = run,
};
