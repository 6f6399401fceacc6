/*
 * The judge of rounds. A round helps when it leaves at least a tenth less than the best one so far.
 * After STUCK rounds that did not, in this order: more of the allowed downtime is used, the guest is
 * slowed down if that is allowed, post-copy if that is. Waiting for a fourth bad round only wastes
 * the line.
 */
#include "vm/migrate/estimate.h"

#define FIRST_ALLOWED_NS 8000000 /* what we aim at first, whatever is allowed */
#define FIXED_NS 2000000         /* until measured: stopping, state, starting */
#define LEAST_NS 500000
#define STUCK 2
#define MANY 1024       /* pages: a shorter round is mostly its round trip */
#define STEADY_NS 200e6 /* what a guest writes in less than that is chance */
#define THROTTLE_FIRST 20
#define THROTTLE_STEP 20

void migrate_estimate_init(struct migrate_estimate *e, const struct migrate_wish *wish, s64 now_ns)
{
    *e = (struct migrate_estimate){.wish = *wish,
                                   .start_ns = now_ns,
                                   .best_left = UINT64_MAX,
                                   .bytes_per_page = 4096 + 8,
                                   .fixed_ns = FIXED_NS};
    e->allowed_ns = MIN(wish->downtime_ns, (s64)FIRST_ALLOWED_NS);
}

s64 migrate_estimate_downtime(const struct migrate_estimate *e)
{
    if (e->bytes_per_s <= 0)
        return INT64_MAX;
    return e->fixed_ns +
           (s64)((double)e->left * MAX(e->bytes_per_page / e->bytes_per_s * 1e9, e->ns_per_page));
}

s64 migrate_estimate_remaining(const struct migrate_estimate *e)
{
    double gain = e->bytes_per_s - e->pages_written_per_s * e->bytes_per_page;

    if (gain <= 0)
        return -1;
    return (s64)((double)e->left * e->bytes_per_page / gain * 1e9);
}

static void measure(struct migrate_estimate *e, const struct migrate_round *r)
{
    /* A short round says little: too few bytes against the cost of a round trip. */
    if (r->took_ns > 0 && (r->bytes > 256 * KiB || !e->rounds)) {
        double rate = (double)r->bytes / (double)r->took_ns * 1e9;

        e->bytes_per_s = e->bytes_per_s > 0 ? (e->bytes_per_s + 3 * rate) / 4 : rate;
    }
    if (r->took_ns > 0) {
        double rate = (double)r->written / (double)r->took_ns * 1e9;
        double weight = e->rounds ? MIN((double)r->took_ns / STEADY_NS, 1.0) : 1;

        e->pages_written_per_s += (rate - e->pages_written_per_s) * weight;
    }
    if (r->again && r->pages >= 64)
        e->bytes_per_page = (double)r->bytes / (double)r->pages;
    if (r->again && r->pages >= MANY)
        e->ns_per_page = (double)r->took_ns / (double)r->pages;
    e->left = r->left;
}

static enum migrate_verdict unstick(struct migrate_estimate *e)
{
    e->stuck = 0;
    if (e->allowed_ns < e->wish.downtime_ns) {
        e->allowed_ns = MIN(e->allowed_ns * 4, e->wish.downtime_ns);
        if (migrate_estimate_downtime(e) <= e->allowed_ns)
            return MIGRATE_STOP;
    }
    if (e->wish.postcopy)
        return MIGRATE_SWITCH;
    if (e->throttle >= e->wish.throttle_percent)
        return MIGRATE_ROUND;
    e->throttle = MIN(e->throttle ? e->throttle + THROTTLE_STEP : (unsigned)THROTTLE_FIRST,
                      e->wish.throttle_percent);
    return MIGRATE_THROTTLE;
}

static enum migrate_verdict time_over(struct migrate_estimate *e)
{
    switch (e->wish.timeout) {
    case MIGRATE_TIMEOUT_CANCEL:
        return MIGRATE_GIVE_UP;
    case MIGRATE_TIMEOUT_POSTCOPY:
        return MIGRATE_SWITCH;
    case MIGRATE_TIMEOUT_CONTINUE:
        e->wish.limit_ns = 0;
        return MIGRATE_ROUND;
    case MIGRATE_TIMEOUT_STOP:
        return MIGRATE_STOP;
    }
    return MIGRATE_GIVE_UP;
}

enum migrate_verdict migrate_estimate_round(struct migrate_estimate *e,
                                            const struct migrate_round *r)
{
    measure(e, r);
    e->rounds++;
    if (r->cut)
        return MIGRATE_ROUND;
    bool helped = e->best_left == UINT64_MAX || r->left < e->best_left - e->best_left / 10;
    if (r->left < e->best_left)
        e->best_left = r->left;
    /* Less than that a further round cannot win, whatever was asked for. */
    s64 pages_ns = migrate_estimate_downtime(e) - e->fixed_ns;
    if (pages_ns + e->fixed_ns <= e->allowed_ns || pages_ns < LEAST_NS)
        return MIGRATE_STOP;
    if (e->wish.limit_ns && r->now_ns - e->start_ns >= e->wish.limit_ns)
        return time_over(e);
    /* After the first round everything has been sent once. Faster than the line: no round can help. */
    if (e->wish.postcopy && e->pages_written_per_s * e->bytes_per_page > 0.6 * e->bytes_per_s)
        return MIGRATE_SWITCH;
    e->stuck = helped ? 0 : e->stuck + 1;
    return e->stuck < STUCK ? MIGRATE_ROUND : unstick(e);
}
