/*
 * `trapeze stop` and `trapeze kill`: the power button, and a time-out behind it; or at once.
 *
 * stop presses all buttons first and waits then, so that several guests shut down side by side.
 */
#include "cmd/guests.h"

#include "vm/value.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STOP_S 60
#define STOP_MAX_S 86400

enum { STOP_FORCE = GUEST_OWN, STOP_TIME };
enum { KILL_FORCE = GUEST_OWN };

struct stopping {
    u64 seconds;
    s64 deadline_ms; /* of them all */
    bool force;      /* a guest that is between two hosts is ended, too */
};

static s64 now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int kill_guest(void *opaque, struct host *h, struct record *record, struct err *err)
{
    const bool *force = opaque;

    if (record->state != RECORD_RUNNING)
        return err_set(err, ESRCH, "it is not running");
    return guest_end_now(h, record, *force, err);
}

/* What has no processor here that could hear a button, and why. */
static int check_state(const char *state, struct err *err)
{
    static const struct {
        const char *state, *why;
    } deaf[] = {
        {"paused", "it is paused and cannot shut down: resume it first, or use 'trapeze kill'"},
        {"arriving", "it is on its way from another host, where it still runs: stop it there"},
        {"migrating",
         "it is on its way to another host: 'trapeze migrate --cancel' it first, or stop "
         "it there when it has come"},
        {"serving pages", "it runs on another host: stop it there. This process has memory that it "
                          "needs until then"},
        {"undecided",
         "it may run on the host that it was moved to: look there, then 'trapeze migrate "
         "--claim' lets it go on here, and 'trapeze kill --force' gives it up here"},
    };

    for (size_t i = 0; state && i < ARRAY_LEN(deaf); i++)
        if (!strcmp(state, deaf[i].state))
            return err_set(err, EBUSY, "%s", deaf[i].why);
    return 0;
}

static int press(struct host *h, struct record *record, bool force, struct err *err)
{
    json_t *status = NULL;

    if (record->state != RECORD_RUNNING)
        return 0; /* as it was to be */
    int rc = guest_ask(h, record, "status", NULL, &status, err);
    if (!rc)
        rc = check_state(json_string_value(json_object_get(status, "state")), err);
    json_decref(status);
    if (rc == -EBUSY && force)
        return guest_end_now(h, record, true, err);
    return rc ? rc : guest_ask(h, record, "powerdown", NULL, NULL, err);
}

static int wait_or_kill(struct host *h, struct record *record, const struct stopping *s,
                        struct err *err)
{
    bool gone;

    if (record->state != RECORD_RUNNING)
        return 0;
    if (!guest_wait(h, record->id, (int)MAX(s->deadline_ms - now_ms(), 0)))
        return guest_settle(h, record, &gone, err);
    return guest_end_now(h, record, s->force, err);
}

static int read_own(void *opaque, int index, const char *value, struct err *err)
{
    struct stopping *s = opaque;

    if (index == STOP_FORCE) {
        s->force = true;
        return 0;
    }
    return value_number(value, 0, STOP_MAX_S, &s->seconds, err) ? err_wrap(err, "--time") : 0;
}

/* All buttons, then all ends. A guest that could not be found or asked has no id. */
static int stop_all(const struct verb *self, struct host *h, const struct guest_args *a,
                    struct stopping *s)
{
    struct record *guests = calloc(a->count, sizeof(*guests));
    int status = guests ? STATUS_OK : STATUS_HOST;

    for (int waits = 0; waits < 2; waits++)
        for (size_t i = 0; i < a->count && guests; i++) {
            struct err err = ERR_INIT;
            int rc = 0;

            if (!waits && !(rc = host_find(h, a->guests[i], &guests[i], &err)))
                rc =
                    press(h, &guests[i], s->force, &err) ? err_wrap(&err, "%s", guests[i].name) : 0;
            else if (waits && *guests[i].id)
                rc =
                    wait_or_kill(h, &guests[i], s, &err) ? err_wrap(&err, "%s", guests[i].name) : 0;
            if (!rc)
                continue;
            guest_complain(self, &err);
            record_fini(&guests[i]);
            status = STATUS_HOST;
        }
    records_free_list(guests, guests ? a->count : 0);
    return status;
}

static int run_stop(const struct verb *self, char **argv)
{
    struct stopping s = {.seconds = STOP_S};
    struct guest_args a = {.min = 1, .max = SIZE_MAX, .own = read_own, .opaque = &s};
    int status = guest_args_read(&a, self, argv);
    struct host h;

    if (status >= 0)
        return status;
    status = guest_host_open(&h, &a, self);
    if (status)
        return status;
    s.deadline_ms = now_ms() + (s64)s.seconds * 1000;
    status = stop_all(self, &h, &a, &s);
    host_close(&h);
    return status;
}

static int run_kill(const struct verb *self, char **argv)
{
    bool force = false;
    struct guest_args a = {.min = 1, .max = SIZE_MAX, .own = guest_flag, .opaque = &force};

    return guest_verb(self, argv, &a, kill_guest);
}

#define FORCE_OPTION                                                                  \
    {                                                                                 \
        "force", 'f', NULL, "even if it is lost on the host that it moved to or from" \
    }

static const struct args_spec *stop_options(void)
{
    static const struct args_spec options[] = {
        GUEST_OPTIONS,
        [STOP_FORCE] = FORCE_OPTION,
        [STOP_TIME] = {"time", 't', "SECONDS", "how long to wait before the power goes off (60)"},
        {NULL, 0, NULL, NULL},
    };

    return options;
}

static const struct args_spec *kill_options(void)
{
    static const struct args_spec options[] = {
        GUEST_OPTIONS,
        [KILL_FORCE] = FORCE_OPTION,
        {NULL, 0, NULL, NULL},
    };

    return options;
}

const struct verb verb_stop = {
    .name = "stop",
    .operands = "GUEST...",
    .summary = "Shut guests down: power button, then power off",
    .options = stop_options,
    .notes = "A guest that has not shut down when the time is over is switched off, as by 'trapeze "
             "kill'.\n",
    .run = run_stop,
};

const struct verb verb_kill = {
    .name = "kill",
    .operands = "GUEST...",
    .summary = "Switch guests off at once",
    .options = kill_options,
    .notes = "The guest is not asked: what it has not written to its disks is lost.\n",
    .run = run_kill,
};
