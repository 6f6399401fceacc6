/*
 * Moves a payload's machine while it runs: its memory is taken away, page by page comes back when it is touched, and after a
 * few of these the processor is stopped, its state read and written, and all memory taken away again. With `across`, each
 * move is to another accelerator.
 */
#ifndef PAYLOAD_RUN_SHAKE_H
#define PAYLOAD_RUN_SHAKE_H

#include "mem/lazy.h"
#include "ports.h"

struct shaker {
    struct machine *m;
    u8 *bytes;      /* memory as it should be */
    unsigned moves; /* still to come */
    unsigned done;
    unsigned until; /* fetches before the next one */
    u32 random;
    const struct accel_ops *across; /* the accelerator that it is not on, or NULL */
};

/* Nothing moves with moves == 0. */
int shake_start(struct shaker *s, struct machine *m, unsigned moves, const struct accel_ops *across,
                struct err *err);
/* The processor has stopped. true: because of us; it can run on. */
bool shake(struct shaker *s, struct err *err);
void shake_end(struct shaker *s);

#endif
