/*
 * A character stream between a device (serial port, console) and the host: a terminal, a file, a socket.
 *
 * The device is the front, the host side is the back. The back implements write() and accept_input() and calls the
 * functions that the front has set with chardev_connect(). Bytes are never dropped while both sides live: a back
 * that is full takes fewer bytes and calls writable() later; a front that is full takes fewer and calls
 * accept_input() later.
 *
 * Threads: write() may be called from any vCPU thread and must not block; receive() and writable() are called in
 * the main loop's thread. The back must not call the front from within write().
 */
#ifndef DEVICE_CHARDEV_H
#define DEVICE_CHARDEV_H

#include "base/types.h"

struct chardev_front {
    size_t (*receive)(void *opaque, const u8 *buf, size_t len); /* returns how many bytes it took */
    void (*writable)(void *opaque);                             /* the back has room again */
    void *opaque;
};

struct chardev {
    /* Takes up to len bytes; returns how many. Fewer than len: full, writable() follows when there is room. */
    size_t (*write)(struct chardev *c, const u8 *buf, size_t len);
    /* The front has room again after receive() took fewer bytes than offered. Any thread; may be NULL. */
    void (*accept_input)(struct chardev *c);
    struct chardev_front front; /* all zero: nobody is connected, input waits */
};

static inline void chardev_connect(struct chardev *c, const struct chardev_front *front)
{
    c->front = *front;
}

#endif
