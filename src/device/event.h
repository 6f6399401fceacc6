/* What a guest can do to its machine as a whole; devices tell, the board passes it on to the VM. */
#ifndef DEVICE_EVENT_H
#define DEVICE_EVENT_H

#include "base/types.h"

enum machine_event {
    MACHINE_POWEROFF, /* value: 0 */
    MACHINE_RESET,    /* value: 0 */
    MACHINE_PANIC, /* the guest's kernel panicked; value: 0, it goes on by itself (reboot, halt) */
    MACHINE_CRASH_KERNEL, /* it panicked and now runs its crash kernel; value: 0 */
    MACHINE_DEBUG_EXIT,   /* value: the exit status, (byte << 1 | 1) & 0xff */
};

/* Called in a vCPU's thread, with device locks held: only note it and wake someone up. */
struct event_sink {
    void (*event)(void *opaque, enum machine_event event, int value);
    void *opaque;
};

static inline void event_send(const struct event_sink *sink, enum machine_event event, int value)
{
    if (sink->event)
        sink->event(sink->opaque, event, value);
}

#endif
