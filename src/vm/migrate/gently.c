/*
 * Work that gives way to the guest: what copies its memory while it runs. On a host with fewer processors than threads,
 * copying would otherwise take as much of its time as the guest gets.
 *
 * A thread of its own, because an unprivileged one cannot get its priority back; and what goes over while the guest stands
 * still must not wait for anybody. Any thread of a migration.
 */
#include "vm/migrate/gently.h"

#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/* A third of a guest's weight (sched(7)). With 10, a tenth, a guest beside nobody else kept 2 to 5 % more of its work, but
 * beside another process that calculates all the time, copying took four times as long. */
#define NICE 5

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
