/* Condition variables that wait by CLOCK_MONOTONIC: nobody waits longer because somebody set the host's clock back. */
#ifndef BASE_COND_H
#define BASE_COND_H

#include "base/types.h"

#include <pthread.h>

void cond_init(pthread_cond_t *c);
/* For pthread_cond_timedwait(): when `ns` will have passed. */
struct timespec cond_after(s64 ns);

#endif
