/* `trapeze snapshot show` and `diff`: every value of a snapshot by its name. Main thread. */
#include "cmd/snapshot.h"

#include "host/snapshot_manifest.h"
#include "vm/option.h"
#include "vm/state_text.h"
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT = SNAP_OWN };

/* --- values: an object of sections, each an object of fields --- */

static void add_value(void *opaque, const char *section, const char *field, const char *value)
{
    json_t *all = opaque, *part = json_object_get(all, section);

    if (!part) {
        part = json_object();
        json_object_set_new(all, section, part);
    }
    json_object_set_new(part, field, json_string_nocheck(value));
}

/* Options may be there several times: disk, disk 1, ... */
static void add_option(json_t *all, char *line)
{
    char *value = strchr(line, '=');
    json_t *part = json_object_get(all, "config");
    char name[64];

    if (value)
        *value++ = 0;
    snprintf(name, sizeof(name), "%s", line);
    for (unsigned i = 1; part && json_object_get(part, name); i++)
        snprintf(name, sizeof(name), "%.40s %u", line, i);
    add_value(all, "config", name, value ? value : "yes");
}

static int add_config(json_t *all, const struct vm_config *c, struct err *err)
{
    auto_free char *text = NULL;
    size_t len = 0;
    char *save = NULL;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        return err_set(err, ENOMEM, "no memory");
    vm_options_print(c, out);
    fclose(out);
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        add_option(all, line);
    return 0;
}

/* All that a snapshot says. NULL: *err. */
static json_t *read_values(struct host *h, const struct snapshot *s, struct err *err)
{
    struct state_buf state = {0};
    struct state_source from = state_buf_source(&state);
    auto_free struct vm_identity *id = calloc(1, sizeof(*id));
    json_t *all = json_object();
    struct vm_config c;
    int rc =
        id && all ? snap_open_state(h, s, &state, &c, id, err) : err_set(err, ENOMEM, "no memory");

    if (!rc) {
        json_object_set_new(all, "snapshot", manifest_write(s));
        rc = add_config(all, &c, err);
        rc = rc ? rc : state_text_object(&vm_identity_table, id, "identity", add_value, all, err);
        if (!rc && (rc = state_text_walk(&from, add_value, all, err)))
            err_wrap(err, "snapshot '%s': state, before offset %zu", s->name, state.at);
        vm_config_fini(&c);
    }
    state_buf_fini(&state);
    if (!rc)
        return all;
    json_decref(all);
    return NULL;
}

static void print_text(json_t *all)
{
    const char *section, *field;
    json_t *part, *value;

    json_object_foreach(all, section, part)
    {
        printf("%s\n", section);
        json_object_foreach(part, field, value)
        {
            auto_free char *plain =
                json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY);

            printf("  %s: %s\n", field, plain ? plain : json_string_value(value));
        }
    }
}

static int print_json(const json_t *o, struct err *err)
{
    if (json_dumpf(o, stdout, JSON_INDENT(2)) || putchar('\n') == EOF)
        return err_set(err, EIO, "output");
    return STATUS_OK;
}

static int read_format(const char *format, bool *ret_json, struct err *err)
{
    if (format && strcmp(format, "json") && strcmp(format, "text"))
        return sub_usage(err, "--format '%s' is not known; there are text and json", format);
    *ret_json = format && !strcmp(format, "json");
    return 0;
}

static int run_show(const struct sub_args *a, struct host *h, struct err *err)
{
    struct snapshot s = {0};
    bool json = false;
    int rc = read_format(a->value[FORMAT], &json, err);

    rc = rc ? rc : snapshot_find(h, a->operand[0], &s, err);
    json_t *all = rc ? NULL : read_values(h, &s, err);
    if (!rc && !all)
        rc = -err->code;
    if (!rc && json)
        rc = print_json(all, err);
    else if (!rc)
        print_text(all);
    json_decref(all);
    snapshot_fini(&s);
    return rc;
}

/* --- diff --- */

/* Adds "section: field" -> [old, new] for what differs; a value that is not there is null. */
static void compare_parts(json_t *out, const char *section, json_t *old, json_t *new, bool back)
{
    const char *field;
    json_t *value;

    json_object_foreach(old, field, value)
    {
        json_t *other = json_object_get(new, field);
        auto_free char *name = NULL;

        if ((back && other) || (other && json_equal(value, other)))
            continue;
        if (asprintf(&name, "%s: %s", section, field) < 0)
            return;
        json_t *here = json_incref(value), *there = other ? json_incref(other) : json_null();
        json_object_set_new(
            out, name, back ? json_pack("[o,o]", there, here) : json_pack("[o,o]", here, there));
    }
}

static json_t *compare(json_t *old, json_t *new)
{
    json_t *out = json_object(), *part, *none = json_object();
    const char *section;

    json_object_foreach(old, section, part)
    {
        json_t *other = json_object_get(new, section);

        compare_parts(out, section, part, other ? other : none, false);
        compare_parts(out, section, other ? other : none, part, true);
    }
    json_object_foreach(new, section, part) if (!json_object_get(old, section))
        compare_parts(out, section, part, none, true);
    json_decref(none);
    return out;
}

/* Of 64 pages; one of zeros can have the sum of another that is none, so who has them counts, too. -errno */
static s64 add_changes(const struct snapchain *a, const struct snapchain *b, u64 word, s64 n)
{
    u32 x[64], y[64];
    int rc = snapchain_sums(a, word, x);

    rc = rc ? rc : snapchain_sums(b, word, y);
    for (u64 i = 0; i < 64 && !rc; i++) {
        u64 page = word * 64 + i;
        n += !snapchain_who(a, page) != !snapchain_who(b, page) || x[i] != y[i];
    }
    return rc ? rc : n;
}

/* How many pages of memory differ, by their checksums. -errno */
static s64 compare_memory(struct host *h, const struct snapshot *s, const struct snapshot *t,
                          struct err *err)
{
    struct snapchain *a = snap_open_memory(h, s, err);
    struct snapchain *b = a ? snap_open_memory(h, t, err) : NULL;
    s64 n = -EIO;

    if (a && b) {
        u64 words = MIN(a->layer[0].map.pages, b->layer[0].map.pages) / 64;

        n = 0;
        for (u64 word = 0; word < words && n >= 0; word++)
            n = add_changes(a, b, word, n);
        if (n < 0)
            err_sys(err, (int)-n, "the checksums of memory");
    }
    snapchain_free(a);
    snapchain_free(b);
    return n;
}

static void print_changes(json_t *changes, s64 pages)
{
    const char *name;
    json_t *pair;
    char size[32];

    printf("memory: %lld pages (%s)\n", (long long)pages,
           snap_size((u64)pages * SNAPMAP_PAGE, size));
    json_object_foreach(changes, name, pair)
    {
        auto_free char *old = json_dumps(json_array_get(pair, 0), JSON_ENCODE_ANY);
        auto_free char *new = json_dumps(json_array_get(pair, 1), JSON_ENCODE_ANY);

        printf("%s: %s -> %s\n", name, old ? old : "", new ? new : "");
    }
}

static int diff(struct host *h, const struct snapshot *s, const struct snapshot *t, bool json,
                struct err *err)
{
    json_t *old = read_values(h, s, err), *new = old ? read_values(h, t, err) : NULL;
    s64 pages = new ? compare_memory(h, s, t, err) : -1;
    int rc = STATUS_OK;

    if (pages < 0) {
        json_decref(old);
        json_decref(new);
        return err->code ? -err->code : -EIO;
    }
    json_t *changes = compare(old, new);
    if (json) {
        json_t *out = json_pack("{s:I,s:O}", "pages", (json_int_t)pages, "changes", changes);
        rc = print_json(out, err);
        json_decref(out);
    } else {
        print_changes(changes, pages);
    }
    json_decref(changes);
    json_decref(old);
    json_decref(new);
    return rc;
}

static int run_diff(const struct sub_args *a, struct host *h, struct err *err)
{
    struct snapshot s = {0}, t = {0};
    bool json = false;
    int rc = read_format(a->value[FORMAT], &json, err);

    rc = rc ? rc : snapshot_find(h, a->operand[0], &s, err);
    rc = rc ? rc : snapshot_find(h, a->operand[1], &t, err);
    rc = rc ? rc : diff(h, &s, &t, json, err);
    snapshot_fini(&s);
    snapshot_fini(&t);
    return rc;
}

static const struct args_spec options[] = {
    SNAP_OPTIONS,
    {"format", 0, "FORMAT", "text, or json for programs (text)"},
    {NULL, 0, NULL, NULL},
};

const struct subverb snap_show_verb = {
    .name = "show",
    .usage = "[--format json] SNAPSHOT",
    .summary = "Show what a snapshot holds: how the machine is built, and its state",
    .options = options,
    .operands_min = 1,
    .operands_max = 1,
    .run_on_host = run_show,
};

const struct subverb snap_diff_verb = {
    .name = "diff",
    .usage = "[--format json] SNAPSHOT SNAPSHOT",
    .summary = "Show what is different between two snapshots",
    .options = options,
    .operands_min = 2,
    .operands_max = 2,
    .run_on_host = run_diff,
};
