/*
 * Those who wait for pages of a machine that runs already, or loads its state: threads of vCPUs and of devices, in a
 * lazy source (mem/lazy.h). They ask for their page and sleep; it is a connection's thread that supplies it.
 *
 * Invariant: whoever sleeps here is on the list of waiters, so his page is asked for again when a line breaks and a new
 * one comes.
 */
#include "vm/migrate/destination_parts.h"

#include <errno.h>

/* Is one of `count` pages asked for? Under the lock. */
static bool are_asked(const struct migrate_destination *d, u64 page, u64 count)
{
    const struct waiter *w = d->waiters;

    while (w && w->page - page >= count)
        w = w->next;
    return w != NULL;
}

int migrate_waiters_supply(void *opaque, u64 page, u64 count, const u8 *bytes)
{
    struct migrate_destination *d = opaque;
    u64 fresh = d->guest->supply(d->guest->opaque, page, count, bytes);

    if (!fresh)
        return 0; /* they were there already: these bytes are older */
    u64 left = atomic_fetch_sub(&d->missing, fresh) - fresh;
    if (left && !atomic_load(&d->waiting))
        return 0;
    pthread_mutex_lock(&d->lock);
    /* Waking a processor for somebody else's page costs it more than the page. */
    if (are_asked(d, page, count))
        pthread_cond_broadcast(&d->page_came);
    if (!left)
        pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    return 0;
}

/* Under the lock, which it lets go. When the line is broken, the next one asks for all that is waited for. */
static void ask(struct migrate_destination *d, u64 page)
{
    u8 body[8];

    if (!d->up)
        return;
    d->asking++;
    pthread_mutex_unlock(&d->lock);
    migrate_put(body, page, 8);
    migrate_line_say(&d->arrival[0].line, MIGRATE_NEED, 0, body, 8, NULL);
    pthread_mutex_lock(&d->lock);
    if (!--d->asking)
        pthread_cond_broadcast(&d->changed);
}

/* Under the lock: no page will come, nor is one needed. Until GO that is so as soon as a line is lost: who waits loads the
 * state of a machine that will not run here. */
static bool is_over(const struct migrate_destination *d)
{
    return d->refused || (!d->go && d->failure.code);
}

/* The page comes through supply; this only asks for it and waits. */
int migrate_waiters_fetch(void *opaque, u64 page, void *dst4096)
{
    struct migrate_destination *d = opaque;
    struct waiter me = {.page = page};
    s64 since_s = 0;

    pthread_mutex_lock(&d->lock);
    unsigned interrupts = d->interrupts;
    bool asked = are_asked(d, page, 1);
    me.next = d->waiters;
    d->waiters = &me;
    atomic_fetch_add(&d->waiting, 1);
    if (!asked)
        ask(d, page);
    while (d->guest->is_absent(d->guest->opaque, page) && d->interrupts == interrupts &&
           !is_over(d))
        migrate_destination_wait(d, &d->page_came, &since_s);
    struct waiter **link = &d->waiters;
    while (*link != &me)
        link = &(*link)->next;
    *link = me.next;
    atomic_fetch_sub(&d->waiting, 1);
    bool over = is_over(d);
    pthread_mutex_unlock(&d->lock);
    if (!d->guest->is_absent(d->guest->opaque, page))
        return 1;
    return over ? -EIO : -EINTR;
}

void migrate_destination_interrupt(struct migrate_destination *d)
{
    pthread_mutex_lock(&d->lock);
    d->interrupts++;
    pthread_cond_broadcast(&d->page_came);
    pthread_mutex_unlock(&d->lock);
}

void migrate_waiters_ask_again(struct migrate_destination *d)
{
    u64 wanted[MIGRATE_BATCH];
    unsigned n = 0;

    pthread_mutex_lock(&d->lock);
    for (struct waiter *w = d->waiters; w && n < MIGRATE_BATCH; w = w->next)
        wanted[n++] = w->page;
    d->up = true;
    for (unsigned i = 0; i < n; i++)
        ask(d, wanted[i]);
    pthread_mutex_unlock(&d->lock);
}

void migrate_destination_abandon(struct migrate_destination *d)
{
    pthread_mutex_lock(&d->lock);
    d->refused = true;
    pthread_cond_broadcast(&d->page_came);
    pthread_mutex_unlock(&d->lock);
}
