/*
 * Work that gives way to the guest: what copies its memory while it runs. On a host with fewer processors than threads,
 * copying would otherwise take as much of its time as the guest gets.
 *
 * A thread of its own, because an unprivileged one cannot get its priority back; and what goes over while the guest stands
 * still must not wait for anybody. Any thread of a migration.
 *
 * Not for ever: on a host that is busy with something else, a low priority gives that the time, not the guest. So a gentle
 * thread watches whether it runs while it does not sleep (between two looks without a voluntary switch of threads), and ends
 * when it mostly did not.
 */
#include "vm/migrate/gently.h"

#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

/* A tenth of a guest's weight (sched(7)). With 5, a third, a guest beside nobody else lost twice as much of its work; with 19 a
 * migration took half as long again beside another process that calculates all the time, until its patience was over. */
#define NICE 10
/* With 50 ms, a guest beside nobody else lost a tenth of its work by it. */
#define PATIENCE_NS 150000000

struct call {
    void (*fn)(void *opaque);
    void *opaque;
};

static void *gentle_thread(void *opaque)
{
    const struct call *call = opaque;

    prctl(PR_SET_NAME, "migrate-bulk");
    setpriority(PRIO_PROCESS, 0, NICE); /* 0: this thread. May fail where we are nicer already */
    call->fn(call->opaque);
    return NULL;
}

void migrate_gently(void (*fn)(void *opaque), void *opaque)
{
    struct call call = {fn, opaque};
    pthread_t thread;

    if (pthread_create(&thread, NULL, gentle_thread, &call))
        fn(opaque);
    else
        pthread_join(thread, NULL);
}

void migrate_patience_note(struct migrate_patience *p, s64 ran_ns, s64 wait_ns)
{
    p->late_ns = MAX(p->late_ns + wait_ns - ran_ns, (s64)0);
    p->over |= p->late_ns > PATIENCE_NS;
}

static s64 clock_ns(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

bool migrate_patience_over(struct migrate_patience *p)
{
    struct migrate_patience last = *p;
    struct rusage usage = {0};

    getrusage(RUSAGE_THREAD, &usage);
    p->seen_ns = clock_ns(CLOCK_MONOTONIC);
    p->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    p->sleeps = usage.ru_nvcsw;
    s64 ran_ns = p->cpu_ns - last.cpu_ns;
    if (last.seen_ns && p->sleeps == last.sleeps)
        migrate_patience_note(p, ran_ns, MAX(p->seen_ns - last.seen_ns - ran_ns, (s64)0));
    return p->over;
}
