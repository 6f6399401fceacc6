/* `trapeze pause` and `trapeze resume`: machines stand still, with all they have in memory, and go on. */
#include "cmd/guests.h"

static int pause_guest(void *opaque, struct host *h, struct record *record, struct err *err)
{
    return guest_ask(h, record, "pause", NULL, NULL, err);
}

static int resume_guest(void *opaque, struct host *h, struct record *record, struct err *err)
{
    return guest_ask(h, record, "resume", NULL, NULL, err);
}

static int run_pause(const struct verb *self, char **argv)
{
    struct guest_args a = {.min = 1, .max = SIZE_MAX};

    return guest_verb(self, argv, &a, pause_guest);
}

static int run_resume(const struct verb *self, char **argv)
{
    struct guest_args a = {.min = 1, .max = SIZE_MAX};

    return guest_verb(self, argv, &a, resume_guest);
}

const struct verb verb_pause = {
    .name = "pause",
    .operands = "GUEST...",
    .summary = "Let guests stand still",
    .options = guest_only_options,
    .notes =
        "A paused guest uses no processor and keeps its memory; 'trapeze resume' lets it go on.\n",
    .run = run_pause,
};

const struct verb verb_resume = {
    .name = "resume",
    .operands = "GUEST...",
    .summary = "Let paused guests go on",
    .options = guest_only_options,
    .run = run_resume,
};
