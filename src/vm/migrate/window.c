/*
 * The window of a post-copy. The time that marks take beyond the shortest one is what pages stand in queues: while that is
 * little, the window doubles, and it shrinks by what is too much. It is judged once for each time that it has gone over, by
 * a mark that was sent after it was chosen. The first mark goes while nothing is under way, so it takes what the line takes.
 *
 * Invariant: whenever the window is full, a mark is due or under way.
 */
#include "vm/migrate/window.h"

#include <string.h>

#define QUEUE_NS 2000000 /* what a page that is asked for may wait for others */
#define MARKS_IN_WINDOW 8

void migrate_window_init(struct migrate_window *w)
{
    *w = (struct migrate_window){.bytes = MIGRATE_WINDOW_FIRST};
}

void migrate_window_sent(struct migrate_window *w, u64 bytes)
{
    w->sent += bytes;
}

bool migrate_window_full(const struct migrate_window *w)
{
    return w->sent - w->arrived >= w->bytes;
}

bool migrate_window_due(const struct migrate_window *w)
{
    u64 marked = w->marks ? w->mark[w->marks - 1].sent : w->arrived;

    if (w->marks == MIGRATE_MARKS)
        return false;
    return w->sent - marked >= w->bytes / MARKS_IN_WINDOW || (!w->base_ns && !w->marks);
}

void migrate_window_mark(struct migrate_window *w, u32 number, s64 now_ns)
{
    w->mark[w->marks++] = (struct migrate_mark){number, w->sent, now_ns};
}

static void judge(struct migrate_window *w, s64 took_ns)
{
    /* When a mark comes back, what goes then goes at once, and stands in its own way. */
    s64 burst_ns = w->base_ns / MARKS_IN_WINDOW;
    s64 good_ns = w->base_ns + 2 * burst_ns + QUEUE_NS;

    if (took_ns > good_ns)
        w->bytes =
            MAX((u64)((double)w->bytes * (double)good_ns / (double)took_ns), MIGRATE_WINDOW_MIN);
    else if (took_ns < w->base_ns + burst_ns + QUEUE_NS / 2)
        w->bytes = MIN(2 * w->bytes, MIGRATE_WINDOW_MAX);
    w->judged = w->sent;
}

void migrate_window_arrived(struct migrate_window *w, u32 number, s64 now_ns)
{
    unsigned n = 0;

    while (n < w->marks && w->mark[n].number != number)
        n++;
    if (n == w->marks)
        return;
    struct migrate_mark mark = w->mark[n];
    s64 took_ns = MAX(now_ns - mark.at_ns, (s64)1);

    w->arrived = mark.sent;
    w->marks -= n + 1;
    memmove(w->mark, w->mark + n + 1, w->marks * sizeof(w->mark[0]));
    if (!w->base_ns || took_ns < w->base_ns)
        w->base_ns = took_ns;
    if (mark.sent > w->judged)
        judge(w, took_ns);
}
