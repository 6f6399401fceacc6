/*
 * `trapeze start`: guests that have ended run again, in the background, as they were configured. What one from a snapshot
 * boots is in its folder.
 */
#include "cmd/guests.h"

#include "cmd/launch.h"
#include "vm/option.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { START_FORCE = GUEST_OWN };

/* The kernel of a guest that came from elsewhere, which its record does not name. */
static int find_kernel(struct vm_config *c, const char *saved, struct err *err)
{
    if (c->kernel)
        return 0;
    if (access(saved, R_OK))
        return err_set(
            err, ENOENT,
            "it came from elsewhere without its kernel: 'trapeze run' starts a guest with "
            "the disks and options that 'trapeze inspect' shows of this one");
    c->kernel = strdup(saved);
    return c->kernel ? 0 : err_set(err, ENOMEM, "no memory");
}

static int start(const struct guest_args *a, struct record *record, const char *kernel, bool force,
                 struct err *err)
{
    struct vm_config c;
    struct launch l = {
        .verb = "start", .config = &c, .named = true, .background = true, .again = record};

    if (record->state == RECORD_RUNNING)
        return err_set(err, EBUSY, "it runs already");
    if (guest_moved_away(record) && !force)
        return err_set(
            err, EBUSY,
            "%s: two of it must not run with the same disks and addresses. If it is gone over "
            "there: --force",
            strcmp(record->reason, GUEST_MOVED) ? record->reason : "it moved to another host");
    vm_config_init(&c);
    int rc = vm_options_read(&c, record->config, err) ? err_wrap(err, "its record") : 0;
    snprintf(c.name, sizeof(c.name), "%s", record->name);
    c.root = a->root ? strdup(a->root) : NULL;
    if (c.serial.kind == VM_SERIAL_STDIO) /* it ran in the foreground */
        c.serial.kind = c.console.kind == VM_SERIAL_LOG ? VM_SERIAL_NULL : VM_SERIAL_LOG;
    if (!rc)
        rc = find_kernel(&c, kernel, err);
    if (!rc && (rc = vm_config_check(&c, err)))
        err_wrap(err, "its record");
    int status = rc ? 0 : launch(&l);
    vm_config_fini(&c);
    if (rc)
        return rc;
    return status ? -ECANCELED : 0; /* launch() has said why */
}

static int run(const struct verb *self, char **argv)
{
    bool force = false;
    struct guest_args a = {.min = 1, .max = SIZE_MAX, .own = guest_flag, .opaque = &force};
    int status = guest_args_read(&a, self, argv);
    struct host h;

    if (status >= 0)
        return status;
    for (size_t i = 0; i < a.count; i++) {
        struct record record = {0};
        struct err err = ERR_INIT;

        /* Closed before the machine is made: it must not inherit the records. */
        if ((status = guest_host_open(&h, &a, self)))
            break;
        int rc = host_find(&h, a.guests[i], &record, &err);
        auto_free char *kernel = rc ? NULL : place_guest(&h.place, record.id, "kernel");
        host_close(&h);
        if (!rc && !kernel)
            rc = err_set(&err, ENOMEM, "no memory");
        if (!rc && (rc = start(&a, &record, kernel, force, &err)) && err.code)
            err_wrap(&err, "%s", record.name);
        if (rc && err.code)
            guest_complain(self, &err);
        if (rc)
            status = STATUS_HOST;
        record_fini(&record);
    }
    return status;
}

static const struct args_spec *options(void)
{
    static const struct args_spec all[] = {
        GUEST_OPTIONS,
        [START_FORCE] = {"force", 'f', NULL, "even if it moved to another host"},
        {NULL, 0, NULL, NULL},
    };

    return all;
}

const struct verb verb_start = {
    .name = "start",
    .operands = "GUEST...",
    .summary = "Start guests again that have ended",
    .options = options,
    .notes = "Each runs in the background, with the options it was started with first.\n",
    .run = run,
};
