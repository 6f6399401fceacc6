#include "base/cond.h"

#include <time.h>

void cond_init(pthread_cond_t *c)
{
    pthread_condattr_t monotonic;

    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(c, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

struct timespec cond_after(s64 ns)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    s64 then_ns = now.tv_sec * NS_PER_S + now.tv_nsec + ns;
    return (struct timespec){then_ns / NS_PER_S, then_ns % NS_PER_S};
}
