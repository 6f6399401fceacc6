/*
 * Small ports: pvpanic, debug console, debug exit, and ports that guests touch and nothing answers
 * to (0x80: delays and progress codes; 0xed: delays).
 *
 * Threads: vCPU threads; nothing here has state, so nothing is locked.
 */
#ifndef DEVICE_PORTS_H
#define DEVICE_PORTS_H

#include "device/event.h"
#include "mem/aspace.h"

#define PORTS_NONE 0 /* as a port number: this one is not wanted */
#define PORTS_IGNORED 2

struct ports_config {
    u16 pvpanic;       /* 0x505 by convention */
    u16 debug_console; /* every byte written goes to console_write() */
    u16 debug_exit;    /* a byte written ends the machine with status (byte << 1 | 1) & 0xff */
    void (*console_write)(void *opaque, u8 byte); /* any vCPU thread */
    void *console_opaque;
    struct event_sink sink;
};

struct ports {
    struct ports_config config;
    struct io_region pvpanic, console, exit, ignored[PORTS_IGNORED];
};

void ports_init(struct ports *p, const struct ports_config *config);
int ports_map(struct ports *p, struct aspace *pio, struct err *err);

#endif
