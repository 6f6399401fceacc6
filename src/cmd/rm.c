/* `trapeze rm`: forgets guests that have ended, with their logs and overlays. */
#include "cmd/guests.h"

#include <errno.h>

enum { RM_FORCE = GUEST_OWN };

static int remove_one(void *opaque, struct host *h, struct record *record, struct err *err)
{
    const bool *force = opaque;
    if (record->state == RECORD_RUNNING && *force) {
        int rc = guest_end_now(h, record, true, err);

        if (rc || record->state != RECORD_ENDED) /* a transient one leaves nothing */
            return rc;
    }
    return guest_remove(h, record, err);
}

static int run(const struct verb *self, char **argv)
{
    bool force = false;
    struct guest_args a = {.min = 1, .max = SIZE_MAX, .own = guest_flag, .opaque = &force};

    return guest_verb(self, argv, &a, remove_one);
}

static const struct args_spec *options(void)
{
    static const struct args_spec all[] = {
        GUEST_OPTIONS,
        [RM_FORCE] = {"force", 'f', NULL, "switch a running guest off first"},
        {NULL, 0, NULL, NULL},
    };

    return all;
}

const struct verb verb_rm = {
    .name = "rm",
    .operands = "GUEST...",
    .summary = "Remove guests that have ended, with their logs",
    .options = options,
    .run = run,
};
