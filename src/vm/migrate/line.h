/*
 * One connection of a migration: messages over a descriptor that the caller made. Sending is for any
 * thread, one message at a time; receiving for one thread.
 */
#ifndef VM_MIGRATE_LINE_H
#define VM_MIGRATE_LINE_H

#include "vm/migrate/wire.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

struct migrate_line {
    int fd;                     /* closed by migrate_line_fini(); may be non-blocking */
    enum migrate_side receives; /* which way what we read goes */
    u32 in_sequence;
    u8 *body;             /* of the message received last */
    atomic_llong heard_s; /* CLOCK_MONOTONIC, when the last byte came; 0: none yet */
    pthread_mutex_t lock; /* of sending: out_sequence, the order of bytes */
    u32 out_sequence;
    atomic_bool cut; /* migrate_line_cut() was called */
    /* Tests: called before a message is sent; false: the line breaks here instead. */
    bool (*before_send)(void *opaque, enum migrate_type type);
    void *opaque;
};

int migrate_line_init(struct migrate_line *l, int fd, enum migrate_side receives, struct err *err);
void migrate_line_fini(struct migrate_line *l); /* zeroed is fine, if fd is -1 */
/* Any thread: whoever reads or writes now or later fails with -EPIPE. */
void migrate_line_cut(struct migrate_line *l);

/* Waits until all is written. The vectors are changed. */
int migrate_line_send(struct migrate_line *l, enum migrate_type type, u8 flags, struct iovec *iov,
                      unsigned niov, struct err *err);
/* One piece, or none (len 0). */
int migrate_line_say(struct migrate_line *l, enum migrate_type type, u8 flags, const void *bytes,
                     u32 len, struct err *err);
/* Waits for the next message; its bytes are in l->body until the next call. -EPIPE: the line has
 * ended or was cut; -EPROTO: it sent what must not be. */
int migrate_line_receive(struct migrate_line *l, struct migrate_head *ret_head, struct err *err);

/* A bitmap of `words` words, in pieces, the last one marked. */
int migrate_line_send_bits(struct migrate_line *l, enum migrate_type type, const u64 *bits,
                           u64 words, struct err *err);
/* Takes one piece into bits. */
int migrate_take_bits(const struct migrate_head *head, const u8 *body, u64 *bits, u64 words,
                      struct err *err);

#endif
