/*
 * One end of a control connection: a Unix stream socket that carries one JSON object per line, at most WIRE_LINE bytes,
 * and file descriptors with them. Both ends use it, and neither trusts the other: lines, descriptors and waiting output
 * are bounded.
 *
 * Descriptors travel with the first byte of their line, which says in "fds" how many are its own.
 */
#ifndef VM_WIRE_H
#define VM_WIRE_H

#include "base/err.h"
#include <jansson.h>

#define WIRE_LINE (64 * KiB) /* with its newline */
#define WIRE_FDS 32          /* that have arrived and no line has taken yet */
#define WIRE_WAITING (1 * MiB)

struct wire {
    int fd; /* non-blocking; closed by wire_fini() */
    char *in;
    size_t in_len;
    bool ended; /* the other side sends no more */
    int fds[WIRE_FDS];
    unsigned nfds;
    char *out; /* what could not be sent yet */
    size_t out_len, out_size;
};

void wire_init(struct wire *w, int fd);
void wire_fini(struct wire *w); /* zeroed is fine, if fd is -1 */

/* Reads what has arrived, as far as there is room. 0, or -errno: -EPROTO too many descriptors, -ENOMEM. At the end of the
 * stream sets w->ended. */
int wire_read(struct wire *w);
/* Takes the next line: 1 and the object (the caller's), 0 when there is no whole line, -EPROTO when it is too long or not
 * an object; the text then stands in *err. */
int wire_line(struct wire *w, json_t **ret_object, struct err *err);
/* Moves the n oldest descriptors to `fds`; -EPROTO when fewer have arrived. They are the caller's then. */
int wire_take_fds(struct wire *w, json_int_t n, int *fds);
/* Takes raw bytes from the input, up to len; for a connection that has become something else. */
size_t wire_take_bytes(struct wire *w, void *buf, size_t len);

/* Queues one object as a line (borrowed) and sends what can be sent. -EPROTO: the line would be too long, -ENOBUFS: the
 * other side does not read; nothing was queued. */
int wire_write(struct wire *w, const json_t *object);
/* Sends what waits. 0: all is out, 1: some still waits, -errno. */
int wire_flush(struct wire *w);
/* As wire_write() with nothing waiting, and with descriptors, which stay the caller's. */
int wire_write_fds(struct wire *w, const json_t *object, const int *fds, unsigned nfds);

/* Names of errno values, as they stand in an answer's "code". */
const char *wire_code_name(int code); /* never NULL */
int wire_code(const char *name);      /* EIO for an unknown one */

#endif
