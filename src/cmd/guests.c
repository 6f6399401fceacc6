/* What the verbs about guests share. Main thread. */
#include "cmd/guests.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define QUIT_MS 5000 /* for a machine to end when told to */

const struct args_spec *guest_only_options(void)
{
    static const struct args_spec options[] = {GUEST_OPTIONS, {NULL, 0, NULL, NULL}};

    return options;
}

static int check_count(const struct guest_args *a, struct err *err)
{
    if (a->count < a->min && a->min > 1)
        return err_set(err, EINVAL, "it takes %zu operands, and there are %zu", a->min, a->count);
    if (a->count < a->min)
        return err_set(err, EINVAL, "which guest? 'trapeze ps -a' lists them");
    if (a->count > a->max)
        return err_set(err, EINVAL, "'%s' is too many", a->guests[a->max]);
    return 0;
}

int guest_args_read(struct guest_args *a, const struct verb *self, char **argv)
{
    struct err err = ERR_INIT;
    struct args args;

    a->guests = argv; /* operands are kept where arguments have been read already */
    args_init(&args, self->options(), argv);
    for (int i; (i = args_next(&args, &err)) != ARGS_END;) {
        int rc = 0;

        if (i == ARGS_BAD)
            return verb_usage_error(self, &err);
        if (i == GUEST_HELP) {
            verb_print_help(self, stdout);
            return STATUS_OK;
        }
        if (i == ARGS_OPERAND)
            a->guests[a->count++] = (char *)args.value;
        else if (i == GUEST_ROOT)
            a->root = args.value;
        else
            rc = a->own(a->opaque, i, args.value, &err);
        if (rc)
            return verb_usage_error(self, &err);
    }
    a->guests[a->count] = NULL;
    if (check_count(a, &err))
        return verb_usage_error(self, &err);
    return -1;
}

void guest_complain(const struct verb *self, const struct err *err)
{
    fflush(stdout);
    fprintf(stderr, "trapeze %s: %s\n", self->name, err->msg);
}

int guest_host_open(struct host *h, const struct guest_args *a, const struct verb *self)
{
    struct err err = ERR_INIT;

    if (!host_open(h, a->root, &err))
        return STATUS_OK;
    guest_complain(self, &err);
    return STATUS_HOST;
}

int guest_each(struct host *h, const struct guest_args *a, const struct verb *self,
               int (*fn)(void *opaque, struct host *h, struct record *record, struct err *err),
               void *opaque)
{
    int status = STATUS_OK;

    for (size_t i = 0; i < a->count; i++) {
        struct record record = {0};
        struct err err = ERR_INIT;
        int rc = host_find(h, a->guests[i], &record, &err);

        if (!rc && (rc = fn(opaque, h, &record, &err)))
            err_wrap(&err, "%s", record.name);
        if (rc) {
            guest_complain(self, &err);
            status = STATUS_HOST;
        }
        record_fini(&record);
    }
    return status;
}

int guest_verb(const struct verb *self, char **argv, struct guest_args *a,
               int (*fn)(void *opaque, struct host *h, struct record *record, struct err *err))
{
    int status = guest_args_read(a, self, argv);
    struct host h;

    if (status >= 0)
        return status;
    status = guest_host_open(&h, a, self);
    if (status == STATUS_OK) {
        status = guest_each(&h, a, self, fn, a->opaque);
        host_close(&h);
    }
    return status;
}

int guest_flag(void *opaque, int index, const char *value, struct err *err)
{
    *(bool *)opaque = true;
    return 0;
}

int guest_connect(const struct host *h, const struct record *record, struct client *ret_client,
                  struct err *err)
{
    auto_free char *path = place_socket(&h->place, record->id);

    *ret_client = (struct client){.wire.fd = -1};
    if (!path)
        return err_set(err, ENOMEM, "no memory");
    if (record->state != RECORD_RUNNING)
        return err_set(err, ESRCH, "it is not running");
    int rc = client_open(path, ret_client, err);
    if (rc == -ECONNREFUSED || rc == -ENOENT)
        return err_set(err, ESRCH, "it has just ended");
    ret_client->timeout_ms = GUEST_ANSWER_MS;
    return rc;
}

int guest_ask(const struct host *h, const struct record *record, const char *verb, json_t *fields,
              json_t **ret_answer, struct err *err)
{
    struct client c;
    int rc = guest_connect(h, record, &c, err);

    if (rc)
        json_decref(fields);
    else
        rc = client_call(&c, verb, fields, ret_answer, err);
    client_close(&c);
    return rc;
}

int guest_end_now(struct host *h, struct record *record, bool force, struct err *err)
{
    struct client c;
    bool gone;
    int rc = guest_connect(h, record, &c, err);

    c.timeout_ms = QUIT_MS;
    if (!rc)
        rc = client_call(&c, "quit", json_pack("{s:b}", "force", force), NULL, err);
    client_close(&c);
    if (rc == -EBUSY && !force)
        return rc;
    if (rc || guest_wait(h, record->id, QUIT_MS)) {
        *err = ERR_INIT;
        if ((rc = guest_kill(h, record->id, STATUS_STOPPED, err)))
            return rc;
    }
    return guest_settle(h, record, &gone, err);
}

const char *guest_age(s64 seconds, char buf[32])
{
    static const struct {
        s64 unit;
        const char *name;
    } units[] = {{86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}};

    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        long long n = seconds / units[i].unit;

        if (n > 0 || i + 1 == ARRAY_LEN(units)) {
            snprintf(buf, 32, "%lld %s%s", MAX(n, 0ll), units[i].name, n == 1 ? "" : "s");
            break;
        }
    }
    return buf;
}
