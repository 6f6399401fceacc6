/* `trapeze rename`: another name in the records, then the machine hears of it, if it runs. */
#include "cmd/guests.h"

#include "base/log.h"
#include "vm/option.h"
#include <errno.h>
#include <string.h>

/* What a name may be is decided where --name is read. */
static int check_name(const char *name, struct err *err)
{
    struct vm_config c;

    vm_config_init(&c);
    auto_free char *line = NULL;
    int rc = strchr(name, '\n') || asprintf(&line, "name=%s", name) < 0
                 ? -EINVAL
                 : vm_options_read(&c, line, err);
    vm_config_fini(&c);
    return rc == -EINVAL && !err->code ? err_set(err, EINVAL, "the new name cannot be") : rc;
}

/* The record is what counts, so a machine that cannot be told is only mentioned. */
static void tell_machine(struct host *h, const struct record *x)
{
    struct err err = ERR_INIT;

    if (x->state != RECORD_RUNNING)
        return;
    json_t *args = json_pack("{s:s}", "name", x->name), *answer = NULL;
    if (guest_ask(h, x, "rename", args, &answer, &err))
        log_warn("%s: its machine goes by the old name until it starts again: %s", x->name,
                 err.msg);
    json_decref(answer);
}

static int rename_guest(void *opaque, struct host *h, struct record *record, struct err *err)
{
    const char *name = opaque;

    int rc = check_name(name, err);
    if (rc)
        return rc;
    /* Again within the change: somebody may have settled it meanwhile. */
    struct record x = {0};
    if ((rc = records_begin(h->records, err)))
        return rc;
    rc = records_get(h->records, record->id, &x, err);
    if (!rc) {
        snprintf(x.name, sizeof(x.name), "%s", name);
        rc = records_update(h->records, &x, err);
    }
    if (rc)
        records_rollback(h->records);
    else
        rc = records_commit(h->records, err);
    if (!rc)
        tell_machine(h, &x);
    record_fini(&x);
    return rc == -EEXIST ? err_set(err, EEXIST, "another guest is called '%s'", name) : rc;
}

static int run(const struct verb *self, char **argv)
{
    struct guest_args a = {.min = 2, .max = 2};
    int status = guest_args_read(&a, self, argv);
    struct host h;

    if (status >= 0)
        return status;
    status = guest_host_open(&h, &a, self);
    if (status == STATUS_OK) {
        a.count = 1;
        status = guest_each(&h, &a, self, rename_guest, a.guests[1]);
        host_close(&h);
    }
    return status;
}

const struct verb verb_rename = {
    .name = "rename",
    .operands = "GUEST NAME",
    .summary = "Give a guest another name",
    .options = guest_only_options,
    .run = run,
};
