/* `trapeze wait`: until guests have ended; prints their exit statuses, one a line. */
#include "cmd/guests.h"

#include <errno.h>

static int wait_for(void *opaque, struct host *h, struct record *record, struct err *err)
{
    int *status = opaque;
    bool gone;

    while (record->state == RECORD_RUNNING) {
        guest_wait(h, record->id, -1);
        int rc = guest_settle(h, record, &gone, err);

        if (rc)
            return rc;
        if (gone)
            break;
    }
    int own = record->status == RECORD_NO_STATUS ? STATUS_HOST : record->status;
    printf("%d\n", own);
    fflush(stdout);
    if (!*status)
        *status = own;
    return 0;
}

static int run(const struct verb *self, char **argv)
{
    int ended = STATUS_OK;
    struct guest_args a = {.min = 1, .max = SIZE_MAX, .opaque = &ended};
    int status = guest_verb(self, argv, &a, wait_for);

    return status ? status : ended;
}

const struct verb verb_wait = {
    .name = "wait",
    .operands = "GUEST...",
    .summary = "Wait until guests have ended, and print their exit statuses",
    .options = guest_only_options,
    .notes = "Exit status: that of the first guest whose own is not 0, else 0. A guest that died\n"
             "without a word counts as 4.\n",
    .run = run,
};
