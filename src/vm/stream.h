/*
 * The host's side of a serial port or console: standard input and output, a file, the guest's log, a Unix socket, or
 * nothing; and those who have attached to it.
 *
 * Output waits in a ring of STREAM_RING bytes that the main loop writes out, so a vCPU never waits for a terminal.
 * A Unix socket takes one connection at a time. While nobody is there to read it, output is dropped.
 */
#ifndef VM_STREAM_H
#define VM_STREAM_H

#include "device/chardev.h"
#include "loop/loop.h"
#include "vm/config.h"

#define STREAM_RING (64 * KiB)

struct stream;

/* Keys typed after Ctrl-A on a terminal, in lower case; called in the main loop's thread. */
struct stream_keys {
    void (*key)(void *opaque, char key);
    void *opaque;
};

/* Opens what the configuration says. keys: NULL, or who hears of Ctrl-A (only used when standard input is a terminal). */
int stream_open(const struct vm_serial_config *config, struct loop *loop,
                const struct stream_keys *keys, struct stream **ret_stream, struct err *err);
/* Writes out what is waiting, for a short while if the other side is slow. In the main loop's thread; NULL is fine. */
void stream_close(struct stream *s);
struct chardev *stream_chardev(struct stream *s);
/* Shows the output to one more, who may type too unless `readonly`; takes the socket over, on failure too. -EBUSY: there are
 * enough. In the main loop's thread. */
int stream_attach(struct stream *s, int fd, bool readonly);
enum vm_serial_kind stream_kind(const struct stream *s);

#endif
