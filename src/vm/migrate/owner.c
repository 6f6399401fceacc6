/*
 * The ownership tables.
 *
 *   OURS --stop--> HELD --go--> GIVEN --running--> SERVING --complete--> GONE
 *     ^             |            |  |  \--ran----------^
 *     \---resume----/            |  \--lost--> UNDECIDED --claim--> HELD
 *     (from HELD)                |              |  |  \--abandon--> GONE
 *                 HELD <--never--/              |  \--ran, running--> SERVING
 *                                               \--never--> HELD
 *
 * Invariant: there is no way from GIVEN, SERVING or UNDECIDED to a state that runs except through
 * `never` (the destination's word is REFUSED for good) and `claim` (a person vouches for it).
 */
#include "vm/migrate/owner.h"

struct step {
    enum migrate_owner from;
    enum migrate_event event;
    enum migrate_owner to;
};

static const struct step steps[] = {
    {MIGRATE_OURS, MIGRATE_EV_STOP, MIGRATE_HELD},
    {MIGRATE_OURS, MIGRATE_EV_RESUME, MIGRATE_OURS},
    {MIGRATE_OURS, MIGRATE_EV_LOST, MIGRATE_OURS},
    {MIGRATE_OURS, MIGRATE_EV_NEVER, MIGRATE_OURS},
    {MIGRATE_HELD, MIGRATE_EV_RESUME, MIGRATE_OURS},
    {MIGRATE_HELD, MIGRATE_EV_LOST, MIGRATE_HELD},
    {MIGRATE_HELD, MIGRATE_EV_NEVER, MIGRATE_HELD},
    {MIGRATE_HELD, MIGRATE_EV_GO, MIGRATE_GIVEN},
    {MIGRATE_GIVEN, MIGRATE_EV_RUNNING, MIGRATE_SERVING},
    {MIGRATE_GIVEN, MIGRATE_EV_RAN, MIGRATE_SERVING},
    {MIGRATE_GIVEN, MIGRATE_EV_NEVER, MIGRATE_HELD},
    {MIGRATE_GIVEN, MIGRATE_EV_LOST, MIGRATE_UNDECIDED},
    {MIGRATE_SERVING, MIGRATE_EV_RUNNING, MIGRATE_SERVING},
    {MIGRATE_SERVING, MIGRATE_EV_RAN, MIGRATE_SERVING},
    {MIGRATE_SERVING, MIGRATE_EV_LOST, MIGRATE_SERVING},
    {MIGRATE_SERVING, MIGRATE_EV_COMPLETE, MIGRATE_GONE},
    {MIGRATE_SERVING, MIGRATE_EV_ABANDON, MIGRATE_GONE},
    {MIGRATE_UNDECIDED, MIGRATE_EV_CLAIM, MIGRATE_HELD},
    {MIGRATE_UNDECIDED, MIGRATE_EV_NEVER, MIGRATE_HELD},
    {MIGRATE_UNDECIDED, MIGRATE_EV_RAN, MIGRATE_SERVING},
    {MIGRATE_UNDECIDED, MIGRATE_EV_RUNNING, MIGRATE_SERVING},
    {MIGRATE_UNDECIDED, MIGRATE_EV_LOST, MIGRATE_UNDECIDED},
    {MIGRATE_UNDECIDED, MIGRATE_EV_ABANDON, MIGRATE_GONE},
    {MIGRATE_GONE, MIGRATE_EV_LOST, MIGRATE_GONE},
    {MIGRATE_GONE, MIGRATE_EV_COMPLETE, MIGRATE_GONE},
};

enum migrate_owner migrate_owner_next(enum migrate_owner state, enum migrate_event event)
{
    for (unsigned i = 0; i < ARRAY_LEN(steps); i++)
        if (steps[i].from == state && steps[i].event == event)
            return steps[i].to;
    return MIGRATE_OWNERS;
}

bool migrate_owner_runs(enum migrate_owner state)
{
    return state == MIGRATE_OURS;
}

const char *migrate_owner_name(enum migrate_owner state)
{
    static const char *const names[MIGRATE_OWNERS] = {
        [MIGRATE_OURS] = "here",       [MIGRATE_HELD] = "held",
        [MIGRATE_GIVEN] = "given",     [MIGRATE_SERVING] = "serving pages",
        [MIGRATE_GONE] = "moved away", [MIGRATE_UNDECIDED] = "undecided",
    };

    return state < MIGRATE_OWNERS ? names[state] : "?";
}

enum migrate_claim migrate_word_take(struct migrate_word *w, enum migrate_claim want)
{
    u32 found = MIGRATE_OPEN;

    if (__atomic_compare_exchange_n(&w->claim, &found, (u32)want, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST))
        return want;
    /* The file behind it may have been damaged: what is not OPEN is never opened again. */
    return found == MIGRATE_RAN ? MIGRATE_RAN : MIGRATE_REFUSED;
}
